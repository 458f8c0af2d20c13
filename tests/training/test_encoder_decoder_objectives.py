"""Span corruption and denoising: exact lengths, restored texts, distributions."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from idiolect.errors import ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.transformer import Transformer
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.added_tokens import add_tokens, new_model
from idiolect.training.data.batch import IGNORE_INDEX
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.objectives.denoising import (
    Denoising,
    infilling_lengths,
    mask_spans,
    permute_sentences,
)
from idiolect.training.objectives.prefix import Prefix
from idiolect.training.objectives.span_corruption import (
    UL2,
    SpanCorruption,
    SpanDenoiser,
    raw_length,
    spans_of,
)
from training import models

SHAPES: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2},
    "bart": {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "max_position_embeddings": 64,
    },
}
SHAPES["mbart"] = SHAPES["bart"]


def model(model_type: str = "t5", sentinels: int = 40) -> LanguageModel:
    shape = {"model_type": model_type, "dropout_rate": 0.0, "dropout": 0.0, **SHAPES[model_type]}
    made = new_model(shape, models.tokenizer(grown=False))
    if model_type == "t5":
        names = [f"<extra_id_{i}>" for i in reversed(range(sentinels))]
        made = add_tokens(made, names, frozen=False)
    return made


def rows(*lengths: int, width: int = 0, first: int = 0) -> PackedRows:
    """One row of texts of these lengths, of ids from 4 on, padded."""
    width = max(width, sum(lengths))
    ids, documents = torch.zeros(1, width, dtype=torch.long), torch.zeros(1, width).long()
    start = 0
    for number, length in enumerate(lengths, 1):
        ids[0, start : start + length] = torch.arange(length) % 30 + 5
        documents[0, start : start + length] = number
        start += length
    return PackedRows(ids, documents, first, tuple(range(len(lengths))))


def texts_of(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    return [ids[mask == number].tolist() for number in range(1, int(mask.max()) + 1)]


@pytest.mark.parametrize(
    ("tokens", "source", "target"),
    [(568, 512, 114), (284, 256, 58), (141, 128, 29), (70, 64, 14)],
)
def test_lengths_of_t5(tokens: int, source: int, target: int) -> None:
    """The published lengths, and that T5's search for the raw length finds these."""
    assert raw_length([SpanDenoiser()], source) == tokens
    batch = SpanCorruption(model().network, model().tokenizer).prepare(rows(tokens))
    assert batch.decoder_input_ids is not None
    assert (batch.input_ids.shape[1], batch.decoder_input_ids.shape[1]) == (source, target)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    density=st.floats(0.05, 0.9),
    span=st.floats(1, 8),
    at_end=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_targets_restore_the_texts(
    lengths: list[int], density: float, span: float, at_end: bool, seed: int
) -> None:
    """Each sentinel of an input is replaced by what follows it in the target."""
    made = _SHARED
    objective = SpanCorruption(
        made.network,
        made.tokenizer,
        noise_density=density,
        mean_noise_span_length=span,
        at_end=at_end,
        seed=seed,
    )
    given_rows = rows(*lengths, width=sum(lengths) + 2)
    batch = objective.prepare(given_rows)
    assert batch.labels is not None
    assert batch.decoder_attention_mask is not None
    originals = texts_of(given_rows.input_ids, given_rows.document_ids)
    sources = texts_of(batch.input_ids, batch.attention_mask)
    targets = texts_of(batch.labels, batch.decoder_attention_mask)
    sentinels = set(objective.sentinels.tolist())
    for original, source, target in zip(originals, sources, targets, strict=True):
        assert (source.pop(), target.pop()) == (2, 2)
        spans: dict[int, list[int]] = {}
        for id_ in target:
            if id_ in sentinels:
                spans[now := id_] = []
            else:
                spans[now].append(id_)
        restored = [one for id_ in source for one in spans.get(id_, [id_])]
        assert restored == original
        noise, count = objective.denoisers[0].lengths(len(original))
        assert (len(target) - len(spans), len(spans)) == (noise, count)
        assert all(spans.values())


_SHARED = model()


def test_sentinels_descend_and_decoder_input_is_shifted_for_each_text() -> None:
    made = _SHARED
    objective = SpanCorruption(made.network, made.tokenizer, mean_noise_span_length=1)
    batch = objective.prepare(rows(20, 20))
    assert batch.labels is not None
    assert batch.decoder_input_ids is not None
    assert batch.decoder_attention_mask is not None
    for source, target, read in zip(
        texts_of(batch.input_ids, batch.attention_mask),
        texts_of(batch.labels, batch.decoder_attention_mask),
        texts_of(batch.decoder_input_ids, batch.decoder_attention_mask),
        strict=True,
    ):
        assert [id_ for id_ in source if id_ >= 40] == [79 + 1 - i for i in range(3)]
        assert read == [made.network.config.decoder_start_token_id, *target[:-1]]


def test_spans_are_where_t5_puts_them() -> None:
    """Every division of noise and rest is equally probable; with `at_end`, a text ends in noise."""
    random = np.random.default_rng(0)
    counts: Counter[tuple[int, ...]] = Counter()
    for _ in range(3000):
        counts[tuple(spans_of(random, 7, 4, 2, at_end=True).ravel().tolist())] += 1
    assert all(places[-1] == 7 for places in counts)
    assert len(counts) == 3 * 2  # 4 in two parts, times 3 in two parts
    assert stats.chisquare(list(counts.values())).pvalue > 0.001
    counts.clear()
    for _ in range(3000):
        counts[tuple(spans_of(random, 7, 4, 2).ravel().tolist())] += 1
    assert len(counts) == 3 * 6  # rest: a gap of at least one between, the outer two may be empty
    assert stats.chisquare(list(counts.values())).pvalue > 0.001
    starts = Counter(int(spans_of(random, 10, 3, 1)[0, 0]) for _ in range(3000))
    assert stats.chisquare([starts[i] for i in range(8)]).pvalue > 0.001


def test_mixture_of_denoisers() -> None:
    made = add_tokens(model(), ["[R]", "[S]", "[X]"], frozen=False)
    objective = SpanCorruption(made.network, made.tokenizer, denoisers="ul2")
    modes = {made.tokenizer.engine.token_to_id(name): name for name in ("[R]", "[S]", "[X]")}
    seen: Counter[str] = Counter()
    for number in range(300):
        batch = objective.prepare(rows(40, first=number))
        mode = modes[int(batch.input_ids[0, 0])]
        seen[mode] += 1
        if mode == "[S]":
            assert batch.labels is not None
            assert batch.labels[0].tolist() == [80, *[i % 30 + 5 for i in range(30, 40)], 2]
    expected = [300 * n / 7 for n in (2, 1, 4)]
    assert stats.chisquare([seen[m] for m in ("[R]", "[S]", "[X]")], expected).pvalue > 0.001
    missing = SpanCorruption.missing_tokens(model().tokenizer, max_length=64, denoisers="ul2")
    assert missing == ["[R]", "[S]", "[X]"]
    assert all(one.input_length(raw_length(UL2, 64)) <= 64 for one in UL2)


def test_lengths_of_infilling_follow_the_truncated_poisson() -> None:
    """A span that is not the last one has length k with the Poisson's probability."""
    random = np.random.default_rng(0)
    drawn: Counter[int] = Counter()
    for _ in range(400):
        lengths = infilling_lengths(random, 60, 3.0)
        assert lengths.sum() == 60
        # The first ones: those near the budget's end are short more often, for lack of room.
        drawn.update(lengths[:8].tolist())
    total = sum(drawn.values())
    expected = [total * stats.poisson.pmf(k, 3.0) for k in range(8)]
    observed = [drawn[k] for k in range(8)]
    expected.append(total - sum(expected))
    observed.append(total - sum(observed))
    assert stats.chisquare(observed, expected).pvalue > 0.001


@given(
    words=st.integers(1, 60), ratio=st.floats(0, 1), mean=st.floats(0.5, 5), seed=st.integers(0, 99)
)
@settings(max_examples=80, deadline=None)
def test_masks_replace_exactly_the_budget(words: int, ratio: float, mean: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    starts = np.repeat([[True, False]], words, axis=0).ravel()
    first, last = mask_spans(random, starts, mask_ratio=ratio, mean=mean)
    assert int((last - first).sum()) == 2 * math.ceil(ratio * words), "words of two tokens each"
    assert (first % 2 == 0).all(), "spans start with a word"
    assert (first[1:] >= last[:-1]).all(), "spans do not overlap"


def test_denoising_does_not_grow_a_text_beyond_its_room() -> None:
    made = model("bart")
    objective = Denoising(
        made.network, made.tokenizer, poisson_lambda=1.0, permute_sentences=0.0, seed=1
    )
    text = np.full(62, made.tokenizer.encode("w1")[-1])
    free = [len(objective.corrupt(text, np.random.default_rng(i))) for i in range(50)]
    cut = [len(objective.corrupt(text, np.random.default_rng(i), room=62)) for i in range(50)]
    assert max(free) > 62
    assert cut == [min(length, 62) for length in free]


def test_denoising_keeps_rows_as_long_as_the_positions() -> None:
    made = model("bart")
    longest = made.network.config.max_position_embeddings
    rows = PackedRows(
        torch.full((32, longest), made.tokenizer.encode("w1")[-1]),
        torch.ones((32, longest), dtype=torch.long),
        first=0,
        sources=[0],
    )
    batch = Denoising(made.network, made.tokenizer, poisson_lambda=1.0).prepare(rows)
    assert batch.input_ids.shape[1] == longest


def test_denoising_restores_every_text() -> None:
    """The target is the text; masks stand for what is missing between their neighbours."""
    made = model("bart")
    objective = Denoising(made.network, made.tokenizer, permute_sentences=0.0)
    given_rows = rows(30, 12)
    batch = objective.prepare(given_rows)
    assert batch.labels is not None
    assert batch.decoder_attention_mask is not None
    originals = texts_of(given_rows.input_ids, given_rows.document_ids)
    assert texts_of(batch.labels, batch.decoder_attention_mask) == originals
    for original, source in zip(
        originals, texts_of(batch.input_ids, batch.attention_mask), strict=True
    ):
        kept = [id_ for id_ in source if id_ != objective.mask_id]
        inner = len(original) - 1  # the template's last token is no word
        assert len(kept) == len(original) - math.ceil(0.3 * inner)
        assert kept == [id_ for id_ in original if id_ in kept]


def test_permutation_moves_whole_sentences() -> None:
    random = np.random.default_rng(1)
    ends = np.array([0, 1, 0, 0, 1, 1, 0, 0], bool)
    sentences = {(0, 1), (2, 3, 4), (5,), (6, 7)}
    orders = set()
    for _ in range(600):
        order = permute_sentences(random, ends, 1.0).tolist()
        assert sorted(order) == list(range(8))
        for sentence in sentences:
            at = order.index(sentence[0])
            assert tuple(order[at : at + len(sentence)]) == sentence
        orders.add(tuple(order))
    assert len(orders) == 24
    assert permute_sentences(random, ends, 0.0).tolist() == list(range(8))


def test_deletion_and_rotation() -> None:
    made = model("bart")
    text = np.arange(5, 35)
    random = np.random.default_rng(0)
    only = {"mask_ratio": 0.0, "permute_sentences": 0.0}
    shorter = Denoising(made.network, made.tokenizer, delete_ratio=0.2, **only)
    left = shorter.corrupt(text, random)
    assert len(left) == 24
    assert (np.diff(left) > 0).all()
    turned = Denoising(made.network, made.tokenizer, rotate=1.0, **only).corrupt(text, random)
    assert turned[0] != 5
    assert np.roll(turned, -turned.tolist().index(5)).tolist() == text.tolist()


def test_mbart_ends_with_the_language_and_starts_with_it() -> None:
    made = add_tokens(model("mbart"), ["de_DE", "en_XX"], frozen=False)
    ids = {"de": 40, "en": 41}
    objective = Denoising(
        made.network, made.tokenizer, language_ids=ids, mask_ratio=0.35, permute_sentences=0.0
    )
    template = objective.template(made.tokenizer, "de")
    assert (template.before, template.after) == ((), (2, 40))
    one = rows(12)
    one.input_ids[0, -2:] = torch.tensor([2, 40])
    batch = objective.prepare(
        PackedRows(one.input_ids, one.document_ids, 0, (0,), languages=["de"])
    )
    assert batch.input_ids[0, -2:].tolist() == [2, 40]
    assert batch.decoder_input_ids is not None
    assert batch.decoder_input_ids[0].tolist() == [40, *one.input_ids[0, :-1].tolist()]


def test_prefix_of_an_encoder_decoder_and_of_a_decoder() -> None:
    made = _SHARED
    objective = Prefix(made.network, made.tokenizer)
    batch = objective.prepare(rows(20, 9))
    assert batch.labels is not None
    assert batch.decoder_attention_mask is not None
    for source, target, original in zip(
        texts_of(batch.input_ids, batch.attention_mask),
        texts_of(batch.labels, batch.decoder_attention_mask),
        texts_of(rows(20, 9).input_ids, rows(20, 9).document_ids),
        strict=True,
    ):
        assert source[:-1] + target == original
        assert target
    decoder = models.model("llama")
    network = decoder.network
    assert isinstance(network, Transformer)
    both = Prefix(network, decoder.tokenizer).prepare(rows(12, 7))
    assert both.prefix_mask is not None
    for number in (1, 2):
        own = both.attention_mask[0] == number
        cut, size = int(both.prefix_mask[0, own].sum()), int(own.sum())
        labels = both.labels[0, own].tolist()  # type: ignore[index]
        assert labels[: cut - 1] == [IGNORE_INDEX] * (cut - 1)
        assert labels[cut - 1 : -1] == both.input_ids[0, own][cut:].tolist()
        assert 1 <= cut < size
    # The same in a grid: the first text alone, with all scores and an explicit mask.
    own = both.attention_mask[0] == 1
    alone = network(both.input_ids[:, own], prefix_mask=both.prefix_mask[:, own]).hidden_states
    packed = network(**both.inputs, return_logits=False).hidden_states[:, own]
    torch.testing.assert_close(alone, packed)
    cut = int(both.prefix_mask[0, own].sum())
    changed = both.input_ids[:, own].clone()
    changed[0, cut - 1] += 1
    assert cut > 1
    moved = network(changed, prefix_mask=both.prefix_mask[:, own]).hidden_states
    assert not torch.allclose(moved[0, 0], alone[0, 0]), "the beginning is read both ways"
    changed = both.input_ids[:, own].clone()
    changed[0, -1] += 1
    moved = network(changed, prefix_mask=both.prefix_mask[:, own]).hidden_states
    torch.testing.assert_close(moved[0, :-1], alone[0, :-1])


def test_the_longest_prefix_leaves_a_token_to_predict() -> None:
    decoder = models.model("llama")
    longest = Prefix(decoder.network, decoder.tokenizer, min_prefix=1.0).prepare(rows(12, 7, 2))
    assert longest.count == 3
    made = _SHARED
    longest = Prefix(made.network, made.tokenizer, min_prefix=0.95).prepare(rows(5, 9))
    assert longest.decoder_attention_mask is not None
    assert longest.labels is not None
    assert texts_of(longest.labels, longest.decoder_attention_mask) == [[9], [13]]
    assert [one[:-1] for one in texts_of(longest.input_ids, longest.attention_mask)] == [
        [5, 6, 7, 8],
        [5, 6, 7, 8, 9, 10, 11, 12],
    ]


def test_a_prefix_without_an_end_token_does_not_show_the_last_token() -> None:
    endless = models.tokenizer(grown=False)
    endless = Tokenizer.from_engine(endless.engine, {"unk_token": "<unk>"})
    objective = Prefix(_SHARED.network, endless, max_prefix=0.5)
    batch = objective.prepare(rows(20))
    assert batch.labels is not None
    assert [*batch.input_ids[0], *batch.labels[0]] == rows(20).input_ids[0].tolist()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"noise_density": 1.5}, "noise_density is 1.5"),
        ({"noise_density": 0}, "noise_density is 0"),
        ({"at_end": "False"}, "at_end is 'False'"),
        ({"mean_noise_span_length": 0.5}, "mean_noise_span_length is 0.5"),
        ({"denoisers": "ul3"}, "denoisers is 'ul3'"),
        ({"denoisers": [{"noise": 0.1}]}, "a denoiser is"),
        ({"denoisers": [{"weight": 0}]}, "weight 0"),
        ({"denoisers": [{"mode_token": 5}]}, "mode_token is 5"),
    ],
)
def test_wrong_settings_of_span_corruption(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpanCorruption(_SHARED.network, _SHARED.tokenizer, **settings_)


@pytest.mark.parametrize(
    "settings_",
    [
        {"mask_ratio": 1.1},
        {"poisson_lambda": 1e-9},
        {"poisson_lambda": 1e30},
        {"permute_sentences": -1},
        {"delete_ratio": 1},
        {"rotate": "x"},
    ],
)
def test_wrong_settings_of_denoising(settings_: dict[str, Any]) -> None:
    made = model("bart")
    with pytest.raises(ConfigError, match=next(iter(settings_))):
        Denoising(made.network, made.tokenizer, **settings_)


def test_sentinels_are_added_in_the_tokenizers_own_writing() -> None:
    shape = {"model_type": "t5", **SHAPES["t5"]}
    names = ["▁<extra_id_1>", "▁<extra_id_0>"]  # as in mT5's vocabulary
    made = add_tokens(new_model(shape, models.tokenizer(grown=False)), names, frozen=False)
    missing = SpanCorruption.missing_tokens(made.tokenizer, max_length=64)
    made = add_tokens(made, missing, frozen=False)
    objective = SpanCorruption(made.network, made.tokenizer)
    objective.prepare(rows(objective.row_length(64)))
    assert not SpanCorruption.missing_tokens(made.tokenizer, max_length=64)


def test_targets_fit_into_the_positions_of_the_decoder() -> None:
    shape = {"model_type": "bart", **SHAPES["bart"]}
    names = [f"<extra_id_{i}>" for i in reversed(range(40))]
    made = add_tokens(new_model(shape, models.tokenizer(grown=False)), names, frozen=False)
    for settings_ in ({"noise_density": 0.9}, {"noise_density": 0.5}):
        objective = SpanCorruption(made.network, made.tokenizer, **settings_)
        batch = objective.prepare(rows(objective.row_length(64)))
        assert batch.labels is not None
        assert batch.labels.shape[1] <= 64
        assert torch.isfinite(objective.loss(made.network, batch))


def test_a_text_is_at_most_64_times_its_input() -> None:
    assert raw_length([SpanDenoiser(noise_density=0.99999, mean_noise_span_length=1e9)], 9) == 576


def test_too_few_sentinels_and_too_short_rows() -> None:
    made = model(sentinels=2)
    objective = SpanCorruption(made.network, made.tokenizer)
    with pytest.raises(InputError, match="3 spans, and the tokenizer 2 sentinels"):
        objective.prepare(rows(60))
    with pytest.raises(ConfigError, match="too short for one span"):
        objective.row_length(2)
    assert SpanCorruption.missing_tokens(made.tokenizer, max_length=64) == ["<extra_id_2>"]
