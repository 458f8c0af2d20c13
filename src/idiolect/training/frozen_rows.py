"""What a run must not change, and what it needs: checks around the loop that every verb shares."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from idiolect.errors import VerificationError
from idiolect.nn.transformer import Transformer
from idiolect.training.optim import original_rows

__all__ = [
    "bytes_written",
    "check_rows",
    "fingerprint",
    "narrow",
    "row_fingerprints",
    "widen",
]


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Hash names and bytes of tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest.update(data.data)
    return digest.hexdigest()


def row_fingerprints(network: Transformer) -> dict[str, str]:
    """Hash the published rows of embedding and head, each by its name."""
    return {name: fingerprint({name: rows}) for name, rows in original_rows(network).items()}


def check_rows(network: Transformer, before: Mapping[str, str]) -> None:
    """Check that published rows are what `row_fingerprints` found before a run.

    Raises:
        VerificationError: Some have moved.
    """
    after = row_fingerprints(network)
    for name, digest in before.items():
        if after[name] != digest:
            raise VerificationError(f"{name} moved although it was frozen")


def bytes_written(network: Transformer, trained: Mapping[str, Tensor]) -> int:
    """Estimate what a run writes: three checkpoints of weights and two moments, and the model."""
    moments = sum(p.numel() * 12 for p in trained.values())
    whole = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    return int(3 * moments + whole)


def widen(trained: Mapping[str, nn.Parameter]) -> dict[str, torch.dtype]:
    """Bring what trains into float32: small updates would be lost in a format of 8 bits' precision.

    Returns:
        The format each had, for `narrow`.
    """
    formats = {name: parameter.dtype for name, parameter in trained.items()}
    for parameter in trained.values():
        parameter.data = parameter.data.float()
    return formats


def narrow(network: Transformer, formats: Mapping[str, torch.dtype]) -> None:
    """Bring what has trained back into the format it had."""
    for name, parameter in network.named_parameters():
        if name in formats:
            parameter.data = parameter.data.to(formats[name])
