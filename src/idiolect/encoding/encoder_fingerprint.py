"""The fingerprint of an encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["hash_weights"]


def hash_weights(settings: str, tensors: Mapping[str, Tensor]) -> str:
    """Hash settings and the tensors that determine vectors: 32 hexadecimal digits."""
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        if not name.startswith(("heads.", "pooler.")):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            content = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
            digest.update(content.numpy().data)
    return digest.hexdigest()
