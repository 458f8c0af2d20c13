"""Every family against `transformers`: hidden states, heads, caches, weights there and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from idiolect.errors import CheckpointError
from idiolect.models.language_model import LanguageModel
from idiolect.models.network_files import read_network
from idiolect.models.registry import FAMILIES
from idiolect.nn.cache import Cache
from models.tiny import tiny_tokenizer
from parity.cases import BODIES, BOTH, DECODERS, ENCODERS
from parity.reference import (
    VOCABULARY,
    Reference,
    assert_close,
    assert_round_trip,
    batch,
    make,
)


def _ids(cases: list[tuple[Any, ...]]) -> list[str]:
    return [
        f"{case[1]}{'-' + '-'.join(case[2]) if len(case) > 2 and case[2] else ''}" for case in cases
    ]


def _same_again(reference: Reference, tmp_path: Path, **inputs: Any) -> None:
    """What `LanguageModel.save` writes loads in `transformers` and gives the same outputs."""
    assert_round_trip(reference)
    again = tmp_path / "again"
    LanguageModel(reference.network, tiny_tokenizer(), reference.settings).save(again)
    loaded, info = type(reference.model).from_pretrained(again, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, tensor in reference.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    with torch.no_grad():
        before, after = reference.model(**inputs), loaded(**inputs)
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, after[name]), name


@pytest.mark.parametrize(("model_type", "architecture", "fields"), ENCODERS, ids=_ids(ENCODERS))
def test_encoders(
    tmp_path: Path, model_type: str, architecture: str, fields: dict[str, Any]
) -> None:
    reference = make(tmp_path / "theirs", model_type, architecture, **fields)
    ids, mask = batch()
    extra: dict[str, Any] = {}
    theirs_extra: dict[str, Any] = {}
    if reference.network.types is not None:
        extra["token_type_ids"] = (torch.arange(ids.shape[1]) > 3).long().expand_as(ids)
        theirs_extra["token_type_ids"] = extra["token_type_ids"]
    if reference.network.languages is not None:
        extra["language_ids"] = torch.full_like(ids, 1)
        theirs_extra["langs"] = extra["language_ids"]
    with torch.no_grad():
        ours = reference.network(ids, mask, **extra)
        theirs = reference.model(
            ids, attention_mask=mask, output_hidden_states=True, **theirs_extra
        )
        dense = reference.network(ids[:1], **{k: v[:1] for k, v in extra.items()})
    scores = theirs.get("logits", theirs.get("prediction_logits"))
    assert_close(ours.hidden_states, theirs.hidden_states[-1], mask)
    assert_close(ours.logits, scores, mask)
    assert_close(dense.logits, scores[:1])
    if "seq_relationship_logits" in theirs:
        assert_close(ours.next_sentence, theirs.seq_relationship_logits)
    _same_again(reference, tmp_path, input_ids=ids, attention_mask=mask, **theirs_extra)


@pytest.mark.parametrize(("model_type", "architecture", "fields"), DECODERS, ids=_ids(DECODERS))
def test_decoders(
    tmp_path: Path, model_type: str, architecture: str, fields: dict[str, Any]
) -> None:
    reference = make(tmp_path / "theirs", model_type, architecture, **fields)
    ids, mask = batch()
    with torch.no_grad():
        ours = reference.network(ids, mask)
        theirs = reference.model(ids, attention_mask=mask, output_hidden_states=True)
    assert_close(ours.hidden_states, theirs.hidden_states[-1], mask)
    assert_close(ours.logits, theirs.logits, mask)
    _check_cache(reference, ids)
    _same_again(reference, tmp_path, input_ids=ids, attention_mask=mask)


def _check_cache(reference: Reference, ids: torch.Tensor) -> None:
    """Reading in pieces gives what reading at once gives, with padding on the left too."""
    network = reference.network
    with torch.no_grad():
        whole = network(ids).logits
        theirs = reference.model(ids).logits
        cache = Cache()
        pieces = [network(ids[:, a:b], cache=cache).logits for a, b in ((0, 4), (4, 5), (5, 9))]
    assert_close(whole, theirs)
    assert_close(torch.cat(pieces, dim=1), theirs)
    assert cache.length == ids.shape[1]

    padded = torch.cat([torch.full_like(ids[:, :3], reference.pad), ids], dim=1)
    mask = torch.ones_like(padded)
    mask[:, :3] = 0
    with torch.no_grad():
        cache = Cache()
        left = [
            network(padded[:, a:b], mask[:, :b], cache=cache).logits
            for a, b in ((0, 8), (8, 9), (9, 12))
        ]
    assert_close(torch.cat(left, dim=1)[:, 3:], theirs)


@pytest.mark.parametrize(("model_type", "architecture", "fields"), BOTH, ids=_ids(BOTH))
def test_encoder_decoders(
    tmp_path: Path, model_type: str, architecture: str, fields: dict[str, Any]
) -> None:
    reference = make(tmp_path / "theirs", model_type, architecture, **fields)
    ids, mask = batch()
    target_ids, target_mask = batch(seed=1)
    with torch.no_grad():
        ours = reference.network(
            ids, mask, decoder_input_ids=target_ids, decoder_attention_mask=target_mask
        )
        theirs = reference.model(
            ids,
            attention_mask=mask,
            decoder_input_ids=target_ids,
            decoder_attention_mask=target_mask,
            output_hidden_states=True,
        )
    assert_close(ours.encoder_hidden_states, theirs.encoder_last_hidden_state, mask)
    assert_close(ours.hidden_states, theirs.decoder_hidden_states[-1], target_mask)
    assert_close(ours.logits, theirs.logits, target_mask)

    cache = Cache()
    with torch.no_grad():
        whole = reference.network(ids, mask, decoder_input_ids=target_ids).logits
        pieces = [
            reference.network(ids, mask, decoder_input_ids=target_ids[:, a:b], cache=cache).logits
            for a, b in ((0, 4), (4, 5), (5, 9))
        ]
    assert_close(torch.cat(pieces, dim=1), whole)
    inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": target_ids}
    _same_again(reference, tmp_path, **inputs)


@pytest.mark.parametrize(("model_type", "architecture"), BODIES, ids=_ids(BODIES))
def test_bodies(tmp_path: Path, model_type: str, architecture: str) -> None:
    reference = make(tmp_path / "theirs", model_type, architecture)
    ids, mask = batch()
    both = reference.network.encoder is not None and reference.network.decoder is not None
    extra = {"decoder_input_ids": ids, "decoder_attention_mask": mask} if both else {}
    theirs_extra = {"decoder_input_ids": ids, "decoder_attention_mask": mask} if both else {}
    with torch.no_grad():
        ours = reference.network(ids, mask, **extra)
        theirs = reference.model(ids, attention_mask=mask, **theirs_extra)
    assert ours.logits is None
    assert_close(ours.hidden_states, theirs.last_hidden_state, mask)
    if "pooler_output" in theirs:
        assert_close(ours.pooled, theirs.pooler_output)
    _same_again(reference, tmp_path, input_ids=ids, attention_mask=mask, **theirs_extra)


def _head_cases() -> list[tuple[str, str]]:
    return [
        (family.model_type, name)
        for family in FAMILIES.values()
        for name, architecture in family.architectures.items()
        if architecture.tasks
        and architecture.tasks[0] != "language"
        and hasattr(transformers, name)
    ]


@pytest.mark.parametrize(("model_type", "architecture"), _head_cases(), ids=_ids(_head_cases()))
def test_heads(tmp_path: Path, model_type: str, architecture: str) -> None:
    # A span head of `transformers` has as many outputs as there are labels; two are meant.
    labels = 2 if "QuestionAnswering" in architecture else 3
    reference = make(tmp_path / "theirs", model_type, architecture, num_labels=labels)
    ids, mask = batch(end=2)
    with torch.no_grad():
        ours = reference.network(ids, mask)
        theirs = reference.model(ids, attention_mask=mask)
    task = reference.network.config.tasks[0]
    if task == "span":
        assert_close(
            ours.logits, torch.stack([theirs.start_logits, theirs.end_logits], dim=-1), mask
        )
    elif task == "token":
        assert_close(ours.logits, theirs.logits, mask)
    else:
        assert_close(ours.logits, theirs.logits)
    _same_again(reference, tmp_path, input_ids=ids, attention_mask=mask)


def test_the_mean_of_a_text_is_classified(tmp_path: Path) -> None:
    reference = make(
        tmp_path, "modernbert", "ModernBertForSequenceClassification", classifier_pooling="mean"
    )
    ids, mask = batch()
    with torch.no_grad():
        theirs = reference.model(ids, attention_mask=mask).logits
        assert_close(reference.network(ids, mask).logits, theirs)
        assert_close(reference.network(ids[:1]).logits, reference.model(ids[:1]).logits)


def test_every_architecture_is_compared() -> None:
    compared = {case[1] for case in (*ENCODERS, *DECODERS, *BOTH, *BODIES, *_head_cases())}
    listed = {name for family in FAMILIES.values() for name in family.architectures}
    # GPT-3 has no class there; it is compared with GPT-2 in tests/models. Static embeddings are
    # compared with sentence-transformers in tests/encoding, recurrent cells with torch in tests/nn,
    # recurrent translators with loops there, the first Transformer with Marian in
    # benchmarks/translation.py.
    assert {name for name in listed if hasattr(transformers, name)} <= compared | {"MT5Model"}
    assert {name for name in listed if not hasattr(transformers, name)} == {
        "GPT3LMHeadModel",
        "RecurrentForCausalLM",
        "Seq2SeqForTranslation",
        "StaticModel",
        "TransformerForTranslation",
    }


def test_padded_rows_are_kept(tmp_path: Path) -> None:
    """More rows than the tokenizer has ids is normal, and they come back."""
    reference = make(tmp_path / "theirs", "llama", "LlamaForCausalLM", vocab_size=128)
    assert reference.network.tokens.weight.shape[0] == 128 > VOCABULARY
    _same_again(reference, tmp_path, input_ids=batch()[0])


def test_a_grown_vocabulary_loads_there(tmp_path: Path) -> None:
    """XLM's files call the size of the vocabulary `n_words`; the old one must not survive."""
    reference = make(tmp_path / "theirs", "xlm", "XLMWithLMHeadModel")
    settings = reference.settings | {"n_words": reference.settings["vocab_size"]}
    network = reference.network
    added = {
        name: torch.randn(3, *rows.shape[1:]) for name, rows in network.vocabulary_rows().items()
    }
    network.add_rows(VOCABULARY, added)
    LanguageModel(network, tiny_tokenizer(), settings).save(tmp_path / "grown")
    loaded = transformers.XLMWithLMHeadModel.from_pretrained(tmp_path / "grown")
    ids = torch.tensor([[3, VOCABULARY, 5, VOCABULARY + 2]])
    with torch.no_grad():
        assert_close(network(ids).logits, loaded(ids).logits)


def test_published_names_without_a_prefix(tmp_path: Path) -> None:
    """The published `gpt2` names the class with a head, stores names without its prefix, and
    buffers that nothing reads; older BERT files call the weights of norms gamma and beta."""
    reference = make(tmp_path / "theirs", "gpt2", "GPT2LMHeadModel")
    stored = load_file(reference.directory / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    save_file(old, reference.directory / "model.safetensors")
    again = read_network(reference.directory, reference.settings)
    assert torch.equal(again.tokens.weight, reference.network.tokens.weight)

    reference = make(tmp_path / "bert", "bert", "BertForMaskedLM")
    stored = load_file(reference.directory / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in stored.items()
    }
    assert set(old) != set(stored)
    save_file(old, reference.directory / "model.safetensors")
    again = read_network(reference.directory, reference.settings)
    ids, mask = batch()
    with torch.no_grad():
        assert torch.equal(again(ids, mask).logits, reference.network(ids, mask).logits)


@pytest.mark.parametrize(
    ("model_type", "body", "named"),
    [
        ("mpnet", "MPNetModel", "MPNetForMaskedLM"),
        ("roberta", "RobertaModel", "RobertaForMaskedLM"),
        ("qwen3", "Qwen3Model", "Qwen3ForCausalLM"),
        ("bert", "BertModel", "BertForSequenceClassification"),
    ],
)
def test_a_class_without_its_head(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    model_type: str,
    body: str,
    named: str,
) -> None:
    """Published encoders often name the class with the head that they were pre-trained with."""
    reference = make(tmp_path / "theirs", model_type, body)
    LanguageModel(reference.network, tiny_tokenizer(), reference.settings).save(tmp_path / "ours")
    config = tmp_path / "ours" / "config.json"
    assert not caplog.messages
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": [named]}))
    model = LanguageModel.load(tmp_path / "ours")
    assert f"loaded as {body}" in caplog.text
    ids, mask = batch()
    with torch.no_grad():
        ours, theirs = model.network(ids, mask), reference.network(ids, mask)
    assert torch.equal(ours.hidden_states, theirs.hidden_states)
    model.save(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["architectures"] == [body]


def test_half_a_head_is_refused(tmp_path: Path) -> None:
    reference = make(tmp_path / "theirs", "roberta", "RobertaForMaskedLM")
    LanguageModel(reference.network, tiny_tokenizer(), reference.settings).save(tmp_path / "ours")
    stored = load_file(tmp_path / "ours" / "model.safetensors")
    del stored["lm_head.dense.weight"]
    save_file(stored, tmp_path / "ours" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.dense\.weight"):
        LanguageModel.load(tmp_path / "ours")


def test_fused_tensors_of_a_wrong_shape(tmp_path: Path) -> None:
    reference = make(tmp_path / "theirs", "gpt2", "GPT2LMHeadModel")
    stored = load_file(reference.directory / "model.safetensors")
    stored["transformer.h.0.attn.c_attn.weight"] = torch.zeros(32, 98)
    stored["transformer.h.1.attn.c_attn.bias"] = torch.tensor(0.0)
    save_file(stored, reference.directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"is 32×98, not 32×96.*is a number, not 96"):
        read_network(reference.directory, reference.settings)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [
        ("llama", "LlamaForCausalLM"),
        ("gemma2", "Gemma2ForCausalLM"),
        ("gemma3_text", "Gemma3ForCausalLM"),
        ("modernbert", "ModernBertForMaskedLM"),
        ("gpt_neox", "GPTNeoXForCausalLM"),
        ("olmo2", "Olmo2ForCausalLM"),
    ],
)
def test_half_precision(
    tmp_path: Path, dtype: torch.dtype, model_type: str, architecture: str
) -> None:
    reference = make(tmp_path / "theirs", model_type, architecture)
    ours = read_network(reference.directory, reference.settings, dtype=dtype)
    ids, mask = batch()
    with torch.no_grad():
        exact = reference.model(ids, attention_mask=mask).logits
        theirs = reference.model.to(dtype)(ids, attention_mask=mask).logits.float()
        one = ours(ids, mask).logits.float()
    error, rounding = ((x - exact)[mask > 0].abs().max() for x in (one, theirs))
    assert error < 2 * rounding
    if architecture == "LlamaForCausalLM":
        assert ((one - theirs)[mask > 0].abs().max() / theirs.abs().max()) < (
            4 * torch.finfo(dtype).eps
        )
    moved = reference.network.to(dtype)
    for side in ("encoder", "decoder"):
        if (stack := getattr(moved, side)) is not None:
            rotary = stack.rotary.frequencies
            assert rotary.dtype == torch.float32
            assert torch.equal(rotary, getattr(ours, side).rotary.frequencies)
