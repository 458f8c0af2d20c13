"""Beam search beside `transformers`: length penalties, three ways to end, batches and padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from idiolect.generate.beam import beam_search
from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions
from parity.reference import Reference, batch, make


def _ours(reference: Reference, ids: Any, mask: Any, **options: Any) -> list[list[int]]:
    chosen = GenerationOptions(**options)
    rows = [row[keep > 0].tolist() for row, keep in zip(ids, mask, strict=True)]
    found = beam_search(
        Decoding(reference.network, ids, mask),
        rows,
        [chosen.max_new_tokens] * len(rows),
        chosen,
        eos_token_id=[2],
    )
    return [beams[0].ids for beams in found]


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
        ours = _ours(reference, ids, mask, **options)
        assert [[token for token in row if token != 1] for row in ours] == expected
        alone = [
            _ours(reference, ids[i : i + 1, mask[i] > 0], mask[i : i + 1, mask[i] > 0], **options)
            for i in range(len(ids))
        ]
        assert [rows[0] for rows in alone] == ours


def test_groups_avoid_the_tokens_of_earlier_groups(tmp_path: Path) -> None:
    reference = make(tmp_path, "llama", "LlamaForCausalLM")
    ids = torch.tensor([[5, 6, 7]])
    found = beam_search(
        Decoding(reference.network, ids),
        [[5, 6, 7]],
        [4],
        GenerationOptions(num_beams=4, num_beam_groups=4, diversity_penalty=1e6, max_new_tokens=4),
        eos_token_id=[],
    )[0]
    for place in range(4):
        assert len({beam.ids[place] for beam in found}) == 4
