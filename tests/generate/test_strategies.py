"""Greedy decoding against `generate`: batches, padding on the left, stops, encoder-decoders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from idiolect.errors import InputError
from idiolect.generate.strategies import greedy
from parity.reference import batch, make

CASES = [
    ("gpt2", "GPT2LMHeadModel"),
    ("llama", "LlamaForCausalLM"),
    ("t5", "T5ForConditionalGeneration"),
    ("bart", "BartForConditionalGeneration"),
    ("mbart", "MBartForConditionalGeneration"),
]


@pytest.mark.parametrize(("model_type", "architecture"), CASES, ids=[c[0] for c in CASES])
def test_greedy_matches_generate(tmp_path: Path, model_type: str, architecture: str) -> None:
    extra = {"forced_eos_token_id": None} if "bart" in model_type else {}
    if model_type == "mbart":
        extra["decoder_start_token_id"] = 7
    reference = make(tmp_path, model_type, architecture, **extra)
    ids, mask = batch()
    if reference.network.encoder is None:
        ids, mask = ids.flip(1), mask.flip(1)
    theirs = reference.model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=12,
        min_new_tokens=12,
        do_sample=False,
        num_beams=1,
        pad_token_id=1,
    )
    new = theirs[:, -12:]
    ours = greedy(reference.network, ids, mask, max_new_tokens=12)
    # `generate` may not choose the end while the minimum is not reached; compare up to there.
    for row in range(len(ids)):
        end = (ours[row] == 2).nonzero()
        until = int(end[0]) if len(end) else 12
        assert until > 3
        assert ours[row, :until].tolist() == new[row, :until].tolist()


def test_stops_end_a_text(tmp_path: Path) -> None:
    reference = make(tmp_path, "gpt2", "GPT2LMHeadModel")
    ids = torch.randint(3, 90, (2, 5))
    free = greedy(reference.network, ids, max_new_tokens=10)
    stop = int(free[0, 3])
    first = free[0].tolist().index(stop)
    stopped = greedy(reference.network, ids, max_new_tokens=10, eos_token_id=[stop])
    assert stopped[0, : first + 1].tolist() == free[0, : first + 1].tolist()
    assert set(stopped[0, first:].tolist()) == {stop}


def test_bad_input(tmp_path: Path) -> None:
    network = make(tmp_path / "gpt2", "gpt2", "GPT2LMHeadModel").network
    ids = torch.randint(3, 90, (1, 4))
    with pytest.raises(InputError, match="padded on the right"):
        greedy(network, ids, torch.tensor([[1, 1, 1, 0]]), max_new_tokens=2)
    bert = make(tmp_path / "bert", "bert", "BertForMaskedLM").network
    body = make(tmp_path / "body", "gpt2", "GPT2Model").network
    for other in (bert, body):
        with pytest.raises(InputError, match="does not predict the next token"):
            greedy(other, ids, max_new_tokens=2)
    with pytest.raises(InputError, match="the text is empty"):
        greedy(network, ids[:, :0], max_new_tokens=2)
    assert greedy(network, ids, max_new_tokens=0).shape == (1, 0)
