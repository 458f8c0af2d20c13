"""Growing a model: exact original rows, ordinary checkpoints, rows by id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from idiolect.errors import CheckpointError, InputError, VerificationError
from idiolect.models.language_model import LanguageModel
from idiolect.models.registry import find_family
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.transformer import Transformer
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.rows.grow import grow
from parity.reference import assert_close
from vocabulary.conftest import DOMAIN, make

TERMS = ["HbA1c", "metformin", "XR-2000B", "type 2 diabetes"]
TEXTS = DOMAIN[:6]

# A tokenizer layout and a small model that uses it.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("gpt2", "GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    "neox": ("gpt2", "GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    "llama2": (
        "llama",
        "LlamaForCausalLM",
        {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": False,
        },
    ),
    "bert": (
        "bert",
        "BertForMaskedLM",
        {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
    ),
    "t5": (
        "bart",
        "BartForConditionalGeneration",
        {
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
        },
    ),
}
LAYOUTS = pytest.mark.parametrize("layout", list(MODELS))


def build(layout: str, *, padding: int = 0) -> LanguageModel:
    """A small random model with biases that are not zero."""
    tokenizer = make(layout)
    model_type, architecture, shape = MODELS[layout]
    config = transformers.AutoConfig.for_model(model_type, **shape)
    settings = {
        **config.to_dict(),
        "architectures": [architecture],
        "vocab_size": len(tokenizer) + padding,
        "dtype": "float32",
    }
    torch.manual_seed(0)
    network = Transformer(find_family(settings).config(settings)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return LanguageModel(network, tokenizer, settings)


def ids_of(model: LanguageModel, texts: list[str]) -> list[torch.Tensor]:
    return [torch.tensor([ids]) for ids in model.tokenizer.encode_batch(texts)]


def originals(model: LanguageModel) -> dict[str, torch.Tensor]:
    return {
        name: rows.original.detach() if isinstance(rows, ExtendedRows) else rows.detach()
        for name, rows in model.network.vocabulary_rows().items()
    }


@LAYOUTS
@pytest.mark.parametrize("padding", [0, 3, 40])
def test_text_without_terms_has_unchanged_logits(layout: str, padding: int) -> None:
    base = build(layout, padding=padding)
    grown = extend(base, TERMS)
    size = len(base.tokenizer)
    assert grown.extension is not None
    assert len(grown.tokenizer) > size
    for name, rows in originals(grown).items():
        assert torch.equal(rows, originals(base)[name]), name
    texts = ["a plain sentence, with nothing new in it", "while x:\n    pass"]
    with torch.no_grad():
        for old, new in zip(ids_of(base, texts), ids_of(grown, texts), strict=True):
            assert torch.equal(old, new)
            logits = grown.network(new).logits[..., :size]
            assert torch.equal(logits, base.network(old).logits[..., :size])


@LAYOUTS
@pytest.mark.parametrize("padding", [0, 3, 40])
def test_saved_model_is_an_ordinary_checkpoint(layout: str, padding: int, tmp_path: Path) -> None:
    base = build(layout, padding=padding)
    base.save(tmp_path / "base")
    grown = extend(base, TERMS)
    for rows in grown.network.vocabulary_rows().values():
        torch.nn.init.normal_(rows.added, std=0.1)  # type: ignore[union-attr]
    grown.save(tmp_path / "grown")
    theirs = getattr(transformers, MODELS[layout][1]).from_pretrained(tmp_path / "grown")
    theirs.eval()
    again = LanguageModel.load(tmp_path / "grown")
    assert again.extension == grown.extension
    text = TEXTS[0]
    ids = ids_of(grown, [text])[0]
    assert int(ids.max()) >= len(base.tokenizer)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "grown")(text).input_ids == (
        ids[0].tolist()
    )
    with torch.no_grad():
        logits = grown.network(ids).logits
        assert_close(again.network(ids).logits, logits)
        assert_close(theirs(input_ids=ids).logits, logits)
    # In the files themselves, each matrix begins with the very bytes of the base's.
    old, new = (load_file(tmp_path / side / "model.safetensors") for side in ("base", "grown"))
    longer = [name for name in old if old[name].shape != new[name].shape]
    if padding != 40:
        assert len(longer) == len(base.network.vocabulary_rows())
    size, rows = len(base.tokenizer), base.network.config.vocab_size
    for name in old:
        kept = tuple(slice(size if length == rows else length) for length in old[name].shape)
        assert torch.equal(new[name][kept], old[name][kept]), name


@LAYOUTS
def test_rows_can_be_trained_after_loading(layout: str, tmp_path: Path) -> None:
    base = build(layout, padding=3)
    grown = extend(base, TERMS)
    grown.save(tmp_path / "grown")
    again = LanguageModel.load(tmp_path / "grown")
    first = len(base.tokenizer)
    for name, rows in again.network.vocabulary_rows().items():
        assert isinstance(rows, ExtendedRows)
        assert rows.first_id == first
        assert torch.equal(rows.original[:first], originals(base)[name][:first])
        before = grown.network.vocabulary_rows()[name]
        assert torch.equal(rows.added, before.added)  # type: ignore[union-attr]
        assert rows.added.requires_grad
        assert not rows.original.requires_grad
    optimizer = torch.optim.AdamW(
        [p for p in again.network.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1
    )
    again.network(ids_of(again, TEXTS)[0]).logits.logsumexp(-1).sum().backward()
    optimizer.step()
    again.save(tmp_path / "trained")
    last = LanguageModel.load(tmp_path / "trained")
    assert again.network.vocabulary_rows().keys() == last.network.vocabulary_rows().keys()
    for name, rows in last.network.vocabulary_rows().items():
        assert torch.equal(rows.original[:first], originals(base)[name][:first])  # type: ignore[union-attr]


def test_changed_original_rows_are_not_saved(tmp_path: Path) -> None:
    grown = extend(build("gpt2"), TERMS)
    with torch.no_grad():
        grown.network.tokens.original[5] += 1e-6  # type: ignore[union-attr, operator]
    with pytest.raises(VerificationError):
        grown.save(tmp_path / "grown")
    assert not (tmp_path / "grown").exists()
    grown.network.tokens.original.requires_grad_(True)  # type: ignore[union-attr, operator]
    grown.save(tmp_path / "grown")
    LanguageModel.load(tmp_path / "grown")


def test_changed_weights_are_noticed_on_loading(tmp_path: Path) -> None:
    extend(build("gpt2"), TERMS).save(tmp_path / "grown")
    path = tmp_path / "grown" / "model.safetensors"
    weights = load_file(path)
    weights["transformer.wte.weight"][5, 0] += 1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"original rows of tokens\.weight"):
        LanguageModel.load(tmp_path / "grown")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_number_formats(dtype: torch.dtype, tmp_path: Path) -> None:
    extend(build("gpt2"), TERMS).save(tmp_path / "narrow", dtype=dtype)
    wide = LanguageModel.load(tmp_path / "narrow")
    assert wide.network.tokens.original.dtype == torch.float32  # type: ignore[union-attr]
    wide.save(tmp_path / "wide")
    narrow = LanguageModel.load(tmp_path / "wide", dtype=dtype)
    assert narrow.network.tokens.original.dtype == dtype  # type: ignore[union-attr]


def test_float32_rows_over_a_bfloat16_model() -> None:
    base = build("gpt2")
    base.network.bfloat16()
    grown = extend(base, TERMS)
    assert grown.network.tokens.added.dtype == torch.float32  # type: ignore[union-attr]
    ids = ids_of(grown, TEXTS)[0]
    grown.network(ids).logits.float().logsumexp(-1).sum().backward()
    assert grown.network.tokens.added.grad is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("padding", "multiple"), [(0, 1), (8, 8), (48, 16), (200, 8)], ids=lambda n: str(n)
)
def test_padded_matrices_stay_at_a_round_number(padding: int, multiple: int) -> None:
    base = build("gpt2", padding=padding)
    rows = base.network.config.vocab_size
    assert rows == 800 + padding
    assert rows % multiple == 0
    grown = extend(base, TERMS)
    total = grown.network.config.vocab_size
    assert total >= len(grown.tokenizer)
    assert total % multiple == 0
    if padding == 200:
        assert total == rows


def test_added_rows_belong_to_their_ids() -> None:
    """Each new row is the mean of the pieces in the record of its id."""
    base = build("neox", padding=2)
    grown = extend(base, TERMS)
    assert grown.extension is not None
    table = base.network.tokens.weight
    for token in grown.extension.added:
        row = grown.network.tokens(torch.tensor(token.id))
        torch.testing.assert_close(row, table[list(token.pieces)].mean(0))


def test_growing_again_keeps_earlier_rows() -> None:
    base = build("gpt2")
    once = extend(base, TERMS[:2])
    torch.nn.init.normal_(once.network.tokens.added)  # type: ignore[union-attr, arg-type]
    twice = extend(once, TERMS)
    count = len(once.tokenizer) - len(base.tokenizer)
    assert len(twice.tokenizer) > len(once.tokenizer)
    assert torch.equal(twice.network.tokens.added[:count], once.network.tokens.added)  # type: ignore[union-attr, index]
    assert torch.equal(twice.network.tokens.original, base.network.tokens.weight)  # type: ignore[union-attr, arg-type]
    assert extend(twice, TERMS) is twice


def test_intermediate_pieces_get_rows() -> None:
    base = build("gpt2")
    grown = extend(base, TERMS[:2], "merges")
    assert grown.extension is not None
    assert any(token.kind == "part" for token in grown.extension.added)
    assert len(grown.network.tokens.added) == len(grown.tokenizer) - len(base.tokenizer)  # type: ignore[union-attr, arg-type]


def test_base_model_is_not_modified() -> None:
    base = build("gpt2")
    before = {name: p.clone() for name, p in base.network.state_dict().items()}
    grown = extend(base, TERMS)
    with torch.no_grad():
        for parameter in grown.network.parameters():
            parameter.add_(1)
    for name, parameter in base.network.state_dict().items():
        assert torch.equal(parameter, before[name]), name


def test_every_init_and_its_seed() -> None:
    base = build("llama2")
    larger = extend(base.tokenizer, TERMS)
    for init in ("subword", "weighted", "mean", "normal", "multivariate", "neighbours"):
        one, same = (grow(base, larger, init=init, corpus=DOMAIN, seed=3) for _ in range(2))  # type: ignore[arg-type]
        for name, rows in one.network.vocabulary_rows().items():
            other = same.network.vocabulary_rows()[name]
            assert torch.equal(rows.added, other.added), (init, name)  # type: ignore[union-attr]
            assert rows.added.isfinite().all()  # type: ignore[union-attr]


def test_given_vectors_choose_the_neighbours() -> None:
    base = build("llama2")
    larger = extend(base.tokenizer, TERMS)
    first, total = len(base.tokenizer), len(larger)
    vectors = torch.zeros(total, 3)
    vectors[7], vectors[first] = torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 2, 0])
    grown = grow(base, larger, init="neighbours", vectors=vectors)
    assert torch.equal(grown.network.tokens.added[0], base.network.tokens.weight[7])  # type: ignore[union-attr, index]


def test_inconsistent_arguments_are_refused() -> None:
    base = build("gpt2")
    with pytest.raises(InputError, match="no new tokens"):
        grow(base, base.tokenizer)
    with pytest.raises(CheckpointError, match="a different one"):
        grow(base, extend(make("bert"), TERMS))
    larger = extend(base.tokenizer, TERMS)
    with pytest.raises(InputError, match="unknown init"):
        grow(base, larger, init="focus")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="corpus"):
        grow(base, larger, init="neighbours")
    with pytest.raises(InputError, match="vectors"):
        grow(base, larger, init="neighbours", vectors=torch.zeros(3, 2))


def test_record_of_rows_that_does_not_fit(tmp_path: Path) -> None:
    extend(build("gpt2"), TERMS).save(tmp_path / "grown")
    path = tmp_path / "grown" / "idiolect.json"
    record = json.loads(path.read_text())
    record["rows"]["added"] = 10_000
    path.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="does not fit"):
        LanguageModel.load(tmp_path / "grown")
