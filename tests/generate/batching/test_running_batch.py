"""Texts in pages beside each text alone, read whole: joining, leaving, sharing, and freeing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from idiolect.generate.batching.running_batch import PagedBatch
from idiolect.generate.generation import TextRow
from idiolect.generate.generator import Generator
from idiolect.generate.strategies import greedy
from idiolect.models.language_model import LanguageModel
from idiolect.nn.config import TransformerConfig
from idiolect.nn.transformer import Transformer
from training import models

KINDS: dict[str, dict[str, Any]] = {
    "learned": {"max_position_embeddings": 96},
    "rotary-grouped": {
        "position": "rotary",
        "norm": "rms",
        "gated": True,
        "activation": "silu",
        "num_key_value_heads": 2,
    },
    "alibi": {"position": "alibi", "embedding_norm": True},
    "window": {"position": "rotary", "windows": (5, None), "rotary_layers": (True, False)},
    "windows-local": {"position": "rotary", "windows": (7,), "local_rope_theta": 100.0},
    "softcap": {"position": "rotary", "score_softcap": 3.0, "num_key_value_heads": 1},
    "buckets": {"position": "buckets", "relative_buckets": 8, "score_scale": 1.0},
    "untied": {"position": "untied", "max_position_embeddings": 96},
    "parallel": {"position": "rotary", "parallel_residual": True, "partial_rotary_factor": 0.5},
    "sinusoidal": {"position": "sinusoidal", "qk_norm": "per_head"},
}
PAGE = 4


def _network(kind: str) -> Transformer:
    config = TransformerConfig(
        vocab_size=40,
        hidden_size=16,
        num_attention_heads=4,
        intermediate_size=24,
        num_decoder_layers=2,
        **KINDS[kind],
    )
    network = Transformer(config).eval()
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return network


def _batch(network: Transformer) -> PagedBatch:
    cache = network.new_paged_cache(PAGE)
    assert cache is not None
    return PagedBatch(network, cache, lambda rows: [row.source for row in rows])


def _row(ids: Sequence[int]) -> TextRow:
    return TextRow(prompt=list(ids), source=list(ids))


def _alone(network: Transformer, ids: Sequence[int]) -> Tensor:
    """Score the next token of a text that is read whole. Shape: (vocabulary,)."""
    with torch.inference_mode():
        return network(torch.tensor([list(ids)])).logits[0, -1]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_join_and_leave_have_the_scores_of_texts_alone(kind: str) -> None:
    network, random = _network(kind), np.random.default_rng(3)
    batch, texts = _batch(network), list[list[int]]()
    common = random.integers(3, 40, 9).tolist()  # two full pages, and one token more
    for step in range(14):
        fresh = list[list[int]]()
        if step in (0, 2, 3, 7):
            own = random.integers(3, 40, int(random.integers(1, 12))).tolist()
            fresh = [common + own[:3], own, list(common), common + own, own[:1]]
        tokens = [text[-1] for text in texts]
        scores = batch.step(tokens, [_row(ids) for ids in fresh])
        texts += fresh
        for row, text in zip(scores, texts, strict=True):
            assert torch.allclose(row, _alone(network, text), atol=2e-4), (kind, step)
        for text, token in zip(texts, scores.argmax(-1).tolist(), strict=True):
            text.append(token)
        kept = [place for place in range(len(texts)) if random.random() > 0.15]
        batch.keep(kept)
        texts = [texts[place] for place in kept]
    assert batch.pool.reused > 10
    batch.keep([])
    assert batch.pool.owned == 0


def test_a_common_beginning_is_read_once() -> None:
    network = _network("rotary-grouped")
    common, ends = list(range(3, 23)), [[30], [31, 32], [33, 34, 35]]
    batch = _batch(network)
    first = batch.step([], [_row(common + end) for end in ends])
    # Five full pages of the first text are those of the others, too.
    assert batch.tokens_read == 20 + 1 + 2 + 3
    assert (batch.pool.reused, batch.pool.owned) == (2 * 5, 5 + 3)
    batch.keep([])
    assert batch.pool.owned == 0
    again = batch.step([], [_row(common + ends[1])])
    assert batch.tokens_read == 26 + 2
    assert torch.allclose(again[0], first[1], atol=1e-5)
    assert torch.allclose(again[0], _alone(network, common + ends[1]), atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_pages_are_freed_and_the_pool_stays_as_large_as_the_texts(seed: int) -> None:
    network, random = _network("learned"), np.random.default_rng(seed)
    batch, lengths, peak = _batch(network), list[int](), 0
    for _ in range(40):
        # Some prompts are full pages of others, with the same tokens.
        fresh = [
            [5 + seed] * int(random.integers(1, 30)) for _ in range(int(random.integers(0, 3)))
        ]
        if not lengths and not fresh:
            continue
        batch.step([6] * len(lengths), [_row(ids) for ids in fresh])
        lengths = [length + 1 for length in lengths] + [len(ids) for ids in fresh]
        need = sum(-(-length // PAGE) for length in lengths)
        peak = max(peak, need)
        assert batch.pool.owned <= need
        assert batch.pool.size <= peak
        kept = [n for n, length in enumerate(lengths) if length < 60 and random.random() > 0.2]
        batch.keep(kept)
        lengths = [lengths[place] for place in kept]
    batch.keep([])
    assert batch.pool.owned == 0
    size = batch.pool.size
    batch.step([], [_row([9] * PAGE)] * size)  # of each, the one page's last token must be read
    assert batch.pool.owned == batch.pool.size == size


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_batch_of_texts_equals_each_alone_and_a_padded_grid(model_type: str) -> None:
    model = models.model(model_type, grown=False)
    generator = Generator(model)
    random = np.random.default_rng(5)
    prompts = [random.integers(4, 40, int(random.integers(1, 20))).tolist() for _ in range(9)]
    options: dict[str, Any] = {"max_new_tokens": 12}
    found = generator.generate(prompts, batch_size=4, **options)
    alone = [generator.generate([prompt], **options)[0] for prompt in prompts]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    padded = greedy(
        model.network, ids, mask, max_new_tokens=12, eos_token_id=generator.eos_token_id
    )
    for one, other, row in zip(found, alone, padded.tolist(), strict=True):
        assert one.ids == other.ids == row[: len(one.ids)]
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_several_samples_of_a_prompt_share_its_pages() -> None:
    generator = Generator(models.model("llama", grown=False))
    prompt = [4 + n % 30 for n in range(40)]
    options: dict[str, Any] = {"do_sample": True, "max_new_tokens": 8, "seed": 2}
    several = generator.generate([prompt], num_return_sequences=3, **options)
    few = generator.generate([prompt], num_return_sequences=3, batch_size=1, **options)
    assert [one.ids for one in several] == [one.ids for one in few]
    assert len({tuple(one.ids) for one in several}) == 3


def test_networks_without_pages_begin_their_texts_together() -> None:
    network = Transformer(
        TransformerConfig(
            vocab_size=40,
            hidden_size=16,
            num_attention_heads=4,
            intermediate_size=24,
            num_decoder_layers=1,
            position="shaw",
            relative_buckets=9,
        )
    ).eval()
    assert network.new_paged_cache(PAGE) is None
    generator = Generator(
        LanguageModel(network, models.tokenizer(grown=False), {"model_type": "llama"})
    )
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12], [13, 14]]
    few = generator.generate(prompts, max_new_tokens=5, batch_size=3)
    for prompt, one in zip(prompts, few, strict=True):
        assert one.ids == generator.generate([prompt], max_new_tokens=5)[0].ids
