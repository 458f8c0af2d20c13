"""The record of an extended vocabulary: which rows were added, and hashes of the original ones.

Checkpoints contain joined matrices, as other programs expect. The record is used to separate the
rows again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from idiolect.errors import CheckpointError
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.network import Network

__all__ = ["describe_rows", "split_rows"]


def describe_rows(network: Network, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Describe an extended vocabulary for `split_rows`; return `{}` if there are no added rows.

    Args:
        network: The network.
        dtype: The dtype in which the weights will be saved.

    Raises:
        VerificationError: The original rows are frozen and have changed.
    """
    extended = {k: r for k, r in network.vocabulary_rows().items() if isinstance(r, ExtendedRows)}
    if not extended:
        return {}
    for rows in extended.values():
        rows.verify()
    tokens = extended["tokens.weight"]
    return {
        "first_id": tokens.first_id,
        "added": len(tokens.added),
        "original": {name: rows.hash_original(dtype) for name, rows in extended.items()},
    }


def split_rows(network: Network, record: Mapping[str, Any]) -> None:
    """Separate original and added rows of a loaded network, in place.

    Args:
        network: A network with joined matrices, as loaded.
        record: The result of `describe_rows`, plus `dtype`, the dtype of the file.

    Raises:
        CheckpointError: The record does not match the network, or the original rows have changed.
    """
    try:
        first, end = int(record["first_id"]), int(record["first_id"]) + int(record["added"])
        hashes = dict(record["original"])
        stored = getattr(torch, record["dtype"])
        fits = isinstance(stored, torch.dtype)
    except (AttributeError, KeyError, TypeError, ValueError):
        fits = False
    whole = network.vocabulary_rows()
    if not fits or set(hashes) != set(whole) or not 0 < first < end <= network.config.vocab_size:
        raise CheckpointError(
            "the record of the added rows does not fit the network",
            hint="use files of one model",
        )
    added = {}
    for name, rows in whole.items():
        assert isinstance(rows, nn.Parameter)
        added[name] = rows.detach()[first:end].clone()
        if end == len(rows):
            rows.data = rows.data[:first]
    network.add_rows(first, added)
    for name, rows in network.vocabulary_rows().items():
        assert isinstance(rows, ExtendedRows)
        exact = torch.promote_types(stored, rows.original.dtype) == rows.original.dtype
        if exact and rows.fingerprint != hashes[name]:
            raise CheckpointError(
                f"the original rows of {name} have changed since the vocabulary was extended",
                hint="extend the original model again",
            )
