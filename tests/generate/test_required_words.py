"""Required words and coverage in beams, beside all sequences of a tiny vocabulary."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from generate.test_beam import END, _network
from idiolect.errors import ConfigError
from idiolect.generate.beam import Beam, beam_search
from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.required_words import Continuation, RequiredWords
from idiolect.nn.network import Network

LENGTH = 3
NETWORKS = [
    {"model_type": "seq2seq", "attention": "dot"},
    {
        "model_type": "bart",
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8,
        "max_position_embeddings": 20,
    },
]


def _every(network: Network, source: torch.Tensor) -> list[tuple[list[int], float, torch.Tensor]]:
    """Return all finished texts with their sum and what of the source they cover."""
    found = []
    for length in range(1, LENGTH + 1):
        texts = [
            tokens
            for tokens in itertools.product(range(5), repeat=length)
            if END not in tokens[:-1] and (length == LENGTH or tokens[-1] == END)
        ]
        target = torch.tensor(texts)
        weights: list[torch.Tensor] = []
        cross = network.blocks[-1].cross if network.blocks else None
        if cross is not None:
            cross.observer = weights.append
        with torch.no_grad():
            output = network(
                source.expand(len(texts), -1), decoder_input_ids=network.shift_right(target)
            )
        if cross is not None:
            cross.observer = None
        seen = weights[0].mean(1) if weights else output.attentions
        sums = output.logits.log_softmax(-1).gather(-1, target[..., None]).sum((1, 2))
        found += zip(map(list, texts), sums.tolist(), seen.sum(1), strict=True)
    return found


def _search(network: Network, rows: list[list[int]], **options: Any) -> list[list[Beam]]:
    longest, required = max(map(len, rows)), options.pop("required", None)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    chosen = GenerationOptions(num_beams=options.pop("num_beams", 125), **options)
    return beam_search(
        Decoding(network, ids, (ids > 0).long()),
        [[] for _ in rows],
        [LENGTH] * len(rows),
        chosen,
        eos_token_id=[END],
        required=required,
    )


@pytest.mark.parametrize("settings", NETWORKS, ids=["recurrent", "transformer"])
def test_many_beams_find_the_best_text_with_the_words_and_coverage(settings: Any) -> None:
    network = _network(vocab_size=5, seed=3, **settings)
    sources = [[3, 4, 4, 3], [4, 3]]
    required = RequiredWords([[(3, 0), (4,)], [(1, 1)]])
    for penalty, words in ((0.0, required), (0.7, None), (3.0, required)):
        together = _search(network, sources, coverage_penalty=penalty, required=words)
        for source, beams in zip(sources, together, strict=True):
            best = max(
                (total / len(ids) + penalty * float(seen.clamp(max=1).log().sum()), ids)
                for ids, total, seen in _every(network, torch.tensor([source]))
                if words is None or words.progress(ids).is_complete
            )
            assert beams[0].ids == best[1]
            assert beams[0].score == pytest.approx(best[0], abs=1e-4)
            # Words and coverage decided: without them another text is the best.
            if penalty == 0.7:
                plain = _search(network, [source])[0][0]
                assert plain.score > sum(beams[0].logprobs) / len(beams[0].ids) - 1e-5
    assert all(required.progress(b.ids).is_complete for beams in together for b in beams)


def test_texts_that_end_with_the_words_are_kept() -> None:
    network = _network(vocab_size=5, seed=3, **NETWORKS[0])
    required, source = RequiredWords([[(4,)]]), [3, 4, 4, 3]
    (beams,) = _search(network, [source], required=required)
    every = [ids for ids, _, _ in _every(network, torch.tensor([source]))]
    assert [4, END] in every
    complete = sorted(ids for ids in every if required.progress(ids).is_complete)
    assert sorted(beam.ids for beam in beams) == complete


def test_few_beams_reach_unlikely_words_alone_and_in_a_batch() -> None:
    network = _network(vocab_size=13, seed=1, model_type="seq2seq", attention="dot")
    rows = [[3, 4, 5, 2], [7, 2], [9, 8, 2]]
    required = RequiredWords([[(11, 12)], [(10,), (9, 9)]])
    options = {"num_beams": 3, "required": required, "num_beam_groups": 3, "diversity_penalty": 0.5}
    for extra in ({"num_beams": 3, "required": required}, options):
        together = _search(network, rows, **extra)
        for row, beams in zip(rows, together, strict=True):
            assert all(required.progress(beam.ids).is_complete for beam in beams)
            alone = _search(network, [row], **extra)[0]
            assert [beam.ids for beam in alone] == [beam.ids for beam in beams]
    plain = _search(network, rows, num_beams=3)
    assert not any(required.progress(beam.ids).is_complete for beams in plain for beam in beams)


def test_banks_take_turns() -> None:
    words = RequiredWords([[(5, 6)], [(7,)]])
    assert words.progress([5, 6, 7]).is_complete
    assert words.progress([5, 5]).tokens == (6,)
    assert words.progress([6]).tokens == (5, 7)
    assert words.progress([7, 5]).bank > words.progress([7]).bank > words.progress([5]).bank
    found = [Continuation(-1.0, 0, 1, False), Continuation(-2.0, 0, 2, True)]
    found += [Continuation(-3.0, 1, 3, False)]
    sums = torch.full((2, 8), -9.0)
    sums[1, 2] = -8.0  # the complete text would rather end
    going, ended = words.choose([[5], [5, 6, 7]], found, sums, lambda ids: ids[-1] == 2, 2)
    # The complete text is in the highest bank; next is the one that a required token advances.
    assert [(one.parent, one.token) for one in going] == [(1, 3), (0, 6)]
    assert ended == [Continuation(-8.0, 1, 2, True)]
    # Without turns, both places would go to the two that have a word.
    found = [Continuation(-1.0, 0, 1, False), Continuation(-2.0, 1, 2, False)]
    sums = torch.full((3, 8), float("-inf"))
    sums[2, 3] = -9.0
    going, _ = words.choose([[7], [7], [1]], found, sums, lambda ids: False, 2)
    assert [(one.parent, one.token) for one in going] == [(0, 1), (2, 3)]


def test_impossible_words_are_refused() -> None:
    for options, match in (
        ({"force_words": ["a"]}, "force_words needs beam search"),
        ({"coverage_penalty": 0.2}, "coverage_penalty needs beam search"),
        ({"num_beams": 2, "force_words": [""]}, "an empty text"),
        ({"num_beams": 2, "force_words": ["a"], "bad_words": ["a"]}, "in force_words, and in"),
        ({"num_beams": 2, "coverage_penalty": -1.0}, "coverage_penalty is -1"),
    ):
        with pytest.raises(ConfigError, match=match):
            GenerationOptions.of(options)
    decoder = _network(model_type="llama", num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=8)  # fmt: skip
    with pytest.raises(ConfigError, match="this model has none"):
        Decoding(decoder, torch.tensor([[3]])).keep_attention()
