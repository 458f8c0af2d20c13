"""Beam search beside `transformers` and all sequences: penalties, ends, groups and batches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.generate.beam import Beam, BeamStep, beam_search
from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.guided_decoding import GuidedDecoding
from idiolect.generate.logits_processors import BadWords, WrittenRow
from idiolect.generate.strategies import greedy
from idiolect.models.registry import find_family
from idiolect.models.translators import TRANSLATORS
from idiolect.nn.network import Network
from idiolect.nn.seq2seq.decoder_state import DecoderState
from parity.reference import Reference, batch, make

END = 2


def _search(
    network: Network, ids: Tensor, mask: Tensor | None = None, **options: Any
) -> list[list[Beam]]:
    extra = {
        name: options.pop(name) for name in ("processors", "stops", "watch") if name in options
    }
    ends, chosen = options.pop("eos_token_id", [END]), GenerationOptions(**options)
    present = torch.ones_like(ids) if mask is None else mask
    rows = [row[keep > 0].tolist() for row, keep in zip(ids, present, strict=True)]
    prompts: list[list[int]] = rows if network.kind == "causal" else [[] for _ in rows]
    limits = [chosen.max_new_tokens] * len(rows)
    return beam_search(
        Decoding(network, ids, mask), prompts, limits, chosen, eos_token_id=ends, **extra
    )


def _network(vocab_size: int = 13, seed: int = 0, **settings: Any) -> Network:
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 8,
        "pad_token_id": 0,
        "decoder_start_token_id": 1,
        "eos_token_id": END,
    }
    settings = settings | shape
    family = find_family(settings)
    made = family.network(family.config(settings))
    made.init_weights(seed)
    with torch.no_grad():  # so that the choices differ
        made.tokens.weight.mul_(6)
    return made.eval()


def _sources() -> tuple[Tensor, Tensor]:
    ids = torch.tensor([[3, 4, 5, 6, 2], [7, 8, 2, 0, 0], [9, 10, 11, 2, 0]])
    return ids, (ids > 0).long()


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> list[Reference]:
    cases = [("llama", "LlamaForCausalLM"), ("t5", "T5ForConditionalGeneration")]
    return [make(tmp_path_factory.mktemp(kind), kind, name) for kind, name in cases]


@pytest.mark.parametrize(
    ("length_penalty", "early_stopping"), [(0.6, True), (1.0, False), (2.0, False), (2.0, "never")]
)
def test_beams_equal_those_of_transformers(
    references: list[Reference], length_penalty: float, early_stopping: Any
) -> None:
    for reference in references:
        ids, mask = batch()
        if reference.network.kind == "causal":
            ids, mask = ids.flip(1), mask.flip(1)
        options = {
            "num_beams": 4,
            "max_new_tokens": 12,
            "length_penalty": length_penalty,
            "early_stopping": early_stopping,
        }
        theirs = reference.model.generate(
            ids, attention_mask=mask, do_sample=False, pad_token_id=1, **options
        )
        start = ids.shape[1] if reference.network.kind == "causal" else 1
        expected = [[token for token in row if token != 1] for row in theirs[:, start:].tolist()]
        ours = [beams[0].ids for beams in _search(reference.network, ids, mask, **options)]
        assert [[token for token in row if token != 1] for row in ours] == expected
        for row, keep in enumerate(mask > 0):
            alone = _search(reference.network, ids[row : row + 1, keep], **options)
            assert alone[0][0].ids == ours[row]


@pytest.mark.parametrize("penalty", [0.6, 1.0, 2.0])
def test_targets_of_bart_equal_those_of_transformers(penalty: float) -> None:
    settings: dict[str, Any] = {
        "vocab_size": 40,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "max_position_embeddings": 40,
        "init_std": 0.6,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(3)
    theirs = transformers.BartForConditionalGeneration(transformers.BartConfig(**settings)).eval()
    family = find_family({"model_type": "bart"})
    ours = family.network(family.config({"model_type": "bart", **settings}))
    table = family.names({"model_type": "bart", **settings})
    weights = theirs.state_dict()
    ours.load_state_dict(
        {
            name: table.source(name).extract(weights[table.source(name).full_name])
            for name in ours.state_dict()
        }
    )
    ids = torch.tensor([[5, 6, 7, 8, 9, 2], [10, 11, 12, 2, 1, 1], [13, 14, 2, 1, 1, 1]])
    mask = (ids != 1).long()
    options: dict[str, Any] = {"num_beams": 4, "max_new_tokens": 12, "length_penalty": penalty}
    wanted = theirs.generate(
        ids, attention_mask=mask, early_stopping=False, do_sample=False, **options
    )[:, 1:]
    found = [beams[0].ids for beams in _search(ours.eval(), ids, mask, **options)]
    for one, other in zip(found, wanted.tolist(), strict=True):
        strip = [[t for t in row if t not in (1, 2)] for row in (one, other)]
        assert strip[0] == strip[1]


@pytest.mark.parametrize("name", TRANSLATORS)
def test_one_beam_is_greedy_and_batched_is_single(name: str) -> None:
    made = _network(**TRANSLATORS[name])
    ids, mask = _sources()
    one = _search(made, ids, mask, num_beams=1, max_new_tokens=7)
    expected = greedy(made, ids, mask, max_new_tokens=7, eos_token_id={END}).tolist()
    for beams, row in zip(one, expected, strict=True):
        assert beams[0].ids == row[: len(beams[0].ids)]
        assert set(row[len(beams[0].ids) :]) <= {END}
    together = _search(made, ids, mask, num_beams=3, max_new_tokens=7)
    for row, present in enumerate(mask.bool()):
        alone = _search(made, ids[row : row + 1, present], num_beams=3, max_new_tokens=7)[0]
        assert [beam.ids for beam in together[row]] == [beam.ids for beam in alone]
        for beam, other in zip(together[row], alone, strict=True):
            assert beam.score == pytest.approx(other.score, abs=1e-5)
            assert beam.logprobs == pytest.approx(other.logprobs, abs=1e-5)
            assert beam.score == pytest.approx(sum(beam.logprobs) / len(beam.ids), abs=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_many_beams_find_the_best_of_all(penalty: float) -> None:
    made = _network(vocab_size=5, model_type="seq2seq", attention="dot")
    source = torch.tensor([[3, 4, 2]])
    every = []
    for length in (1, 2, 3):
        for tokens in itertools.product(range(5), repeat=length):
            if END in tokens[:-1] or (length < 3 and tokens[-1] != END):
                continue
            target = torch.tensor([tokens])
            with torch.no_grad():
                logits = made(source, decoder_input_ids=made.shift_right(target)).logits
            total = logits.log_softmax(-1).gather(-1, target[..., None]).sum().item()
            every.append((total / length**penalty, list(tokens)))
    best, tokens = max(every)
    options: dict[str, Any] = {"num_beams": 125, "max_new_tokens": 3, "length_penalty": penalty}
    found = _search(made, source, **options)[0][0]
    assert found.ids == tokens
    assert found.score == pytest.approx(best, abs=1e-5)


def test_groups_avoid_the_tokens_of_earlier_groups(references: list[Reference]) -> None:
    for reference in references:
        ids, steps = torch.tensor([[5, 6, 7], [8, 9, 10]]), list[BeamStep]()
        options: dict[str, Any] = {"num_beams": 4, "max_new_tokens": 4, "eos_token_id": []}
        groups: dict[str, Any] = {"num_beam_groups": 4, "diversity_penalty": 1e6}
        found = _search(reference.network, ids, **options, **groups, watch=steps.append)
        for beams in found:
            for place in range(4):
                assert len({beam.ids[place] for beam in beams}) == 4
        # The first group is not penalized: it is a search of its own.
        alone = greedy(reference.network, ids, max_new_tokens=4).tolist()
        assert all(
            row in [beam.ids for beam in beams] for row, beams in zip(alone, found, strict=True)
        )
        assert [step.text for step in steps] == [0, 0, 0, 0, 1, 1, 1, 1] * 4
        assert [row[:1] for row in alone] == [step.kept[0] for step in (steps[0], steps[4])]


def test_processors_and_stops_of_a_batch(references: list[Reference]) -> None:
    for reference in references:
        ids, mask = batch()
        if reference.network.kind == "causal":
            ids, mask = ids.flip(1), mask.flip(1)
        options: dict[str, Any] = {"num_beams": 3, "max_new_tokens": 8, "eos_token_id": []}
        banned = _search(reference.network, ids, mask, **options)[0][0].ids[1]

        def forbid(scores: Tensor, rows: Sequence[WrittenRow], token: int = banned) -> Tensor:
            assert all(token not in row.ids for row in rows)
            return BadWords(((token,),))(scores, rows)

        options |= {"processors": [forbid], "length_penalty": 0.0}  # ended texts win
        stop = _search(reference.network, ids, mask, **options)[-1][0].ids[2]
        options["stops"] = lambda ids, stop=stop: ids[-1] == stop
        found = _search(reference.network, ids, mask, **options)
        for row, (beams, keep) in enumerate(zip(found, mask > 0, strict=True)):
            for beam in beams:
                assert banned not in beam.ids
                assert stop not in beam.ids[:-1]
                assert beam.ended == (beam.ids[-1] == stop)
            alone = _search(reference.network, ids[row : row + 1, keep], **options)[0]
            assert [beam.ids for beam in alone] == [beam.ids for beam in beams]
        assert any(beam.ended for beams in found for beam in beams)


def test_each_text_has_its_own_limit_and_guidance(references: list[Reference]) -> None:
    for reference in references:
        network, ids = reference.network, torch.tensor([[5, 6, 7], [8, 9, 10], [11, 12, 13]])
        prompts = ids.tolist() if network.kind == "causal" else [[], [], []]
        options, limits = GenerationOptions(num_beams=3), [1, 9, 3]
        plain = beam_search(Decoding(network, ids), prompts, limits, options, eos_token_id=[])
        assert [{len(beam.ids) for beam in beams} for beams in plain] == [{1}, {9}, {3}]
        other = Decoding(network, ids.flip(0))
        same = GuidedDecoding(Decoding(network, ids), other, scale=1.0)
        guided = beam_search(same, prompts, limits, options, eos_token_id=[])
        assert [beams[0].ids for beams in guided] == [beams[0].ids for beams in plain]


def test_texts_that_leave_take_their_sources_along() -> None:
    state = DecoderState()
    state.memory = torch.arange(4.0)[:, None, None]
    state.recurrent = torch.arange(4.0)[None, :, None]
    # Two of four texts go on with two beams: as many rows as before.
    state.select_beams(torch.tensor([1, 1, 3, 3]), torch.tensor([1, 3]))
    assert state.memory.flatten().tolist() == [1, 1, 3, 3]
    assert state.recurrent.flatten().tolist() == [1, 1, 3, 3]


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    made = _network(model_type="seq2seq")
    ids, mask = _sources()
    with pytest.raises(ConfigError, match="num_beams is 0"):
        _search(made, ids, mask, num_beams=0, max_new_tokens=3)
    with pytest.raises(InputError, match="no token is permitted"):
        _search(made, ids, mask, num_beams=2, processors=[lambda scores, _: scores - torch.inf])
    bert = make(tmp_path, "bert", "BertForMaskedLM").network
    with pytest.raises(InputError, match="does not predict the next token"):
        _search(bert, ids, mask, num_beams=2)
