"""Configurations: every field of the reference is read, refused when it matters, or harmless."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
import transformers

from idiolect.errors import ConfigError
from idiolect.models.family import Family, Fields
from idiolect.models.network_files import read_network
from idiolect.models.registry import FAMILIES, find_family
from idiolect.models.weight_files import write_weights
from idiolect.nn.config import TransformerConfig
from idiolect.nn.recurrent import RecurrentConfig
from idiolect.nn.seq2seq.seq2seq_config import Seq2SeqConfig

# Fields that change no score of a network in evaluation mode: how it was initialized or trained,
# how its files are handled, what generation defaults to, what only other classes read.
HARMLESS = {
    "_name_or_path",
    "_sliding_window_pattern",
    "architectures",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cls_token_id",
    "decoder_layerdrop",
    "decoder_start_token_id",  # where a family does not read it: XGLM decodes nothing encoded
    "deterministic_flash_attn",
    "dtype",
    "embd_pdrop",
    "embed_init_std",
    "embedding_dropout",
    "encoder_layerdrop",
    "end_n_top",
    "eos_token_id",
    "forced_eos_token_id",
    "id2label",
    "init_std",
    "initializer_cutoff_factor",
    "initializer_factor",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "lang_id",
    "layerdrop",
    "mask_index",
    "mask_token_id",
    "model_type",
    "output_attentions",
    "output_hidden_states",
    "pretraining_tp",
    "problem_type",
    "qa_dropout",
    "reorder_and_upcast_attn",
    "return_dict",
    "sep_token_id",
    "seq_classif_dropout",
    "sinusoidal_embeddings",
    "sinusoidal_pos_embds",
    "sparse_pred_ignore_index",
    "sparse_prediction",
    "start_n_top",
    "summary_first_dropout",
    "transformers_version",
    "unk_index",
    "use_cache",
    # derived from feed_forward_proj
    "dense_act_fn",
    "is_gated_act",
}
PUBLISHED = [
    family
    for family in FAMILIES.values()
    if family.model_type not in ("gpt3", "model2vec", "transformer", "seq2seq")
    and not family.network.carries_state
]


def _read(family: Family, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The fields that a family looks up when it builds a configuration."""
    asked: set[str] = set()
    original, integer = Fields.get, Fields.get_int

    def get(self: Fields, name: str, default: object) -> object:
        asked.add(name)
        return original(self, name, default)

    def get_int(self: Fields, name: str) -> int | None:
        asked.add(name)
        return integer(self, name)

    monkeypatch.setattr(Fields, "get", get)
    monkeypatch.setattr(Fields, "get_int", get_int)
    for values in (
        {"n_langs": 2},
        {},
        {"use_sliding_window": True},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
    ):
        refuses = contextlib.suppress(ConfigError) if values else contextlib.nullcontext()
        with refuses:
            family.config({"vocab_size": 100, **values})
    return asked


@pytest.mark.parametrize("family", PUBLISHED, ids=lambda f: f.model_type)
def test_no_field_is_overlooked(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = set(transformers.AutoConfig.for_model(family.model_type).to_dict())
    heads = {key for a in family.architectures.values() for key in a.fixed}
    # GPT's and GPT-2's summary belongs to a class with two heads, which is not among ours.
    two_heads = {f for f in fields if f.startswith("summary_")} if not heads else set()
    known = HARMLESS | _read(family, monkeypatch) | set(family.fixed) | heads | two_heads
    assert not fields - known, "decide what these fields do"


@pytest.mark.parametrize(
    ("model_type", "settings", "named"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("bert", {"is_decoder": True, "add_cross_attention": True}, "add_cross_attention"),
        ("bert", {"hidden_act": "mish"}, "mish"),
        ("xlm", {"asm": True}, "asm"),
        ("xlm", {"causal": True}, "causal"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"n_embd": "768"}, "n_embd is '768'"),
        ("gpt2", {"layer_norm_epsilon": float("nan")}, "norm_eps is nan"),
        ("bert", {"hidden_dropout_prob": 1.5}, "dropout is 1.5"),
        ("bert", {"num_hidden_layers": -1}, "num_encoder_layers is -1"),
        ("llama", {"rope_scaling": "linear"}, "rope_scaling is 'linear'"),
        ("llama", {"rope_scaling": {"type": "llama3", "factor": 8.0}}, "low_freq_factor"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "without factor"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("phi3", {"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, "longrope"),
        ("phi3", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn' is not supported"),
        ("opt", {"word_embed_proj_dim": 512}, "word_embed_proj_dim = 512"),
        ("opt", {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine"),
        ("gpt_neox", {"rotary_pct": 1.5}, "partial_rotary_factor is 1.5"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma2", {"layer_types": ["full_attention"]}, "layer_types names 1 of 26 layers"),
        (
            "modernbert",
            {"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}},
            "'yarn' of windowed layers",
        ),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling is 'max'"),
        ("qwen2", {"layer_types": ["chunked_attention"] * 32}, "chunked_attention"),
        ("bart", {"encoder_ffn_dim": 8, "decoder_ffn_dim": 16}, "decoder_ffn_dim is 16"),
        ("bert", {"architectures": ["BertForMultipleChoice"]}, "one of BertForMaskedLM"),
    ],
)
def test_fields_that_matter_are_refused(
    model_type: str, settings: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        FAMILIES[model_type].config({"vocab_size": 100, **settings})


def test_all_refused_fields_are_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        FAMILIES["xlm"].config({"vocab_size": 9, "asm": True, "causal": True})
    assert "asm" in str(caught.value)
    assert "causal" in str(caught.value)


def test_other_names_of_fields_are_read() -> None:
    """`transformers` reads them, so a file may use them."""
    config = FAMILIES["gpt2"].config({"vocab_size": 9, "num_attention_heads": 4, "n_head": 2})
    assert config.num_attention_heads == 2, "a field's own name comes first"
    assert (
        FAMILIES["gpt2"].config({"vocab_size": 9, "num_attention_heads": 4}).num_attention_heads
        == 4
    )
    assert FAMILIES["xlm"].config({"n_words": 77, "emb_dim": 32, "n_heads": 4}).vocab_size == 77
    for family in PUBLISHED:
        known = transformers.AutoConfig.for_model(family.model_type).attribute_map
        ids = {"bos_index", "eos_index"}  # of no consequence for a network
        assert family.synonyms == {k: v for k, v in known.items() if k not in ids}


def test_null_is_not_always_the_default() -> None:
    mistral = {"vocab_size": 9, "hidden_size": 32, "num_attention_heads": 4}
    assert FAMILIES["mistral"].config(mistral | {"num_key_value_heads": None}).key_value_heads == 4
    windows = {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}
    assert FAMILIES["qwen2"].config({"vocab_size": 9, **windows}).windows == ()


ODD = ["12", [1], {}, -1, 0, 1.5, float("nan"), True, [], {"a": []}]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.model_type)
def test_odd_values_are_errors_of_ours(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in a config.json, nothing but a configuration or a ConfigError comes out."""
    names = _read(family, monkeypatch) | {"architectures", "id2label", "model_type"}
    for name in sorted(names):
        for value in ODD:
            with contextlib.suppress(ConfigError):
                made = find_family({"model_type": family.model_type, name: value}).config(
                    {"vocab_size": 100, name: value}
                )
                assert isinstance(made, TransformerConfig | RecurrentConfig | Seq2SeqConfig)


def test_unknown_model_types_list_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'mamba' \(known: awd-lstm, bart, bert, .*xlm-roberta"):
        find_family({"model_type": "mamba"})
    with pytest.raises(ConfigError, match="no model_type"):
        find_family({})


def test_missing_vocabulary_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size is 0"):
        FAMILIES["gpt2"].config({})


def test_gpt3_without_bands_is_gpt2(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0)).eval()
    weights = {k: v.clone() for k, v in theirs.state_dict().items() if k != "lm_head.weight"}
    write_weights(tmp_path, weights)
    settings = {"model_type": "gpt3", **shape, "attention_windows": [None]}
    ids = torch.randint(0, 60, (2, 12))
    with torch.no_grad():
        expected = theirs(ids).logits
        dense = read_network(tmp_path, settings)(ids).logits
        banded = read_network(tmp_path, settings | {"attention_windows": [None, 4]})(ids).logits
    torch.testing.assert_close(dense, expected, rtol=1e-5, atol=1e-5)
    # The first four tokens see all there is either way; later ones do not.
    torch.testing.assert_close(banded[:, :4], expected[:, :4], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(banded[:, 6:], expected[:, 6:], atol=1e-4)


@pytest.mark.parametrize(
    ("model_type", "field", "meant"),
    [
        ("lstm", "hiden_size", "hidden_size"),
        ("seq2seq", "atention", "attention"),
        ("transformer", "num_encoder_layer", "num_encoder_layers"),
    ],
)
def test_a_misspelt_field_of_our_own_layouts_is_refused(
    model_type: str, field: str, meant: str
) -> None:
    with pytest.raises(ConfigError, match=rf"no field '{field}' \(did you mean {meant}\?\)"):
        FAMILIES[model_type].config({"vocab_size": 50, field: 8})


def test_fields_that_change_nothing_are_read_over() -> None:
    settings = {"vocab_size": 50, "architectures": ["RecurrentForCausalLM"], "bos_token_id": 1}
    assert FAMILIES["lstm"].config(settings) == FAMILIES["lstm"].config({"vocab_size": 50})
    # Published layouts have fields that no network here needs.
    FAMILIES["gpt2"].config({"vocab_size": 50, "summary_type": "cls_index"})
