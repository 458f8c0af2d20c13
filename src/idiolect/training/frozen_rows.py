"""Hash weights, and check that original vocabulary rows have not changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from idiolect.errors import VerificationError
from idiolect.nn.network import Network
from idiolect.nn.quantized_matrix import QuantizedMatrix
from idiolect.training.optim import original_rows

__all__ = ["check_rows", "fingerprint", "row_fingerprints"]


def fingerprint(tensors: Mapping[str, Tensor | QuantizedMatrix]) -> str:
    """Hash the names and bytes of tensors; of a quantised matrix, the values of its blocks."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        for part in _parts(tensor):
            data = part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            digest.update(data.data)
    return digest.hexdigest()


def _parts(tensor: Tensor | QuantizedMatrix) -> Iterator[Tensor]:
    if isinstance(tensor, QuantizedMatrix):
        yield from (tensor[rows] for rows in tensor.slices())
    else:
        yield tensor


def row_fingerprints(network: Network) -> dict[str, str]:
    """Hash the original rows of embedding and head, each under its name."""
    return {name: fingerprint({name: rows}) for name, rows in original_rows(network).items()}


def check_rows(network: Network, before: Mapping[str, str]) -> None:
    """Compare original rows with their fingerprints before a run.

    Raises:
        VerificationError: Some have changed.
    """
    after = row_fingerprints(network)
    for name, digest in before.items():
        if after[name] != digest:
            raise VerificationError(f"{name} moved although it was frozen")
