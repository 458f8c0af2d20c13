"""Write an encoder to the user's cache, in the format of `QueryEncoder`."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.query_encoder.numpy_networks import ACTIVATIONS, POST_NORM_NAMES
from idiolect.encoding.query_encoder.query_encoder import (
    SETTINGS,
    VERSION,
    WEIGHTS,
    QueryEncoder,
    folder_of,
)
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import IdiolectError
from idiolect.models.model_directory import replacing
from idiolect.nn.config import TransformerConfig
from idiolect.text.files import write_atomic

__all__ = ["keep_query_encoder"]

_KEPT = 4
"""Maximum encoders in the cache; the least recently used one is deleted."""
_LARGEST = 1 << 29
"""Maximum bytes of weights; larger encoders are not cached."""
_TOLERANCE = 2e-5
"""Allowed difference of vector elements: NumPy and torch add float32 in different orders."""
_PROBES = (
    "a",
    "How long is the warranty of the second-hand espresso machine?",
    "ISO 4017 M8×40 — stainless (A2)\n" * 40,
    "größere Äpfel, 赤いランプ",
)
_LAYER = (
    *("attention.query", "attention.key", "attention.value", "attention.output"),
    *("attention_norm", "feed_forward.up", "feed_forward.down", "feed_forward_norm"),
)
_VARYING = ("num_encoder_layers", "num_attention_heads", "norm_eps", "activation")
_LOG = logging.getLogger(__name__)


def keep_query_encoder(encoder: Encoder) -> bool:
    """Keep an encoder in the user's cache, if NumPy can compute its vectors and there is room.

    Returns:
        Whether the cache has it. Objects of other libraries are not kept.
    """
    if not isinstance(encoder, Encoder):
        return False
    fingerprint = encoder.fingerprint
    folder = folder_of(fingerprint)
    if (folder / SETTINGS).exists():
        return True
    network = _network(encoder)
    if network is None:
        return False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as fresh:
            _write(encoder, fingerprint, network, fresh)
            if not _agrees(encoder, QueryEncoder(fresh)):
                raise _DifferentVectorsError
        _make_room(folder.parent)
    except (_DifferentVectorsError, IdiolectError, OSError) as error:
        # Only speed is lost: a full disk or a read-only home folder must not end a search.
        _LOG.info("queries of this encoder need torch: %s", error or "other vectors")
        return False
    return True


class _DifferentVectorsError(Exception):
    """NumPy and torch compute different vectors."""


def _network(encoder: Encoder) -> dict[str, Any] | None:
    """Describe a network that NumPy can compute, apart from its weights."""
    network = encoder.model.network
    tensors = network.state_dict()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    plain = all(tensor.dtype == torch.float32 for tensor in tensors.values())
    if not plain or size > _LARGEST or encoder.precision != "fp32":
        return None
    if network.context_free:
        return {"kind": "static"}
    config = network.config
    if not isinstance(config, TransformerConfig) or encoder.pooling not in ("mean", "first"):
        return None
    layers = {
        f"encoder.layers.{number}.{part}.{kind}"
        for number in range(config.num_encoder_layers)
        for part in _LAYER
        for kind in ("weight", "bias")
    }
    names = {name for name in tensors if not name.startswith(("heads.", "pooler."))}
    if names | {"types.weight"} != layers | POST_NORM_NAMES:
        return None
    if config.norm_placement != "after_sum" or config.activation not in ACTIVATIONS:
        return None
    shared = {name: getattr(config, name) for name in _VARYING}
    return {"kind": "post_norm", **shared, "position_offset": config.position_offset}


def _write(encoder: Encoder, fingerprint: str, network: dict[str, Any], folder: Path) -> None:
    projection = {} if encoder.projection is None else encoder.projection.tensors
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in (encoder.model.network.state_dict() | projection).items()
        if not name.startswith(("heads.", "pooler."))
    }
    encoder.model.tokenizer.save(folder)
    (folder / WEIGHTS).write_bytes(save(tensors))
    settings = {
        "version": VERSION,
        "fingerprint": fingerprint,
        "dimensions": encoder.dimensions,
        "normalize": encoder.normalize,
        "pooling": encoder.pooling,
        "network": network,
        "reader": {
            "max_length": encoder.max_length,
            "repeat": 1,
            "prompts": encoder.prompts,
            "default_prompt_name": encoder.default_prompt_name,
            "add_special_tokens": not encoder.model.network.context_free,
        },
    }
    write_atomic(folder / SETTINGS, json.dumps(settings, ensure_ascii=False).encode())


def _agrees(encoder: Encoder, other: QueryEncoder) -> bool:
    """Return whether both compute the same vectors of some texts."""
    exact = encoder.encode(list(_PROBES), counts=EncodingCounts())
    found = other.encode(list(_PROBES), counts=EncodingCounts())
    return bool(np.allclose(exact, found, rtol=0, atol=_TOLERANCE * max(1.0, np.abs(exact).max())))


def _make_room(cache: Path) -> None:
    """Delete the least recently used encoders."""
    folders = [path for path in cache.iterdir() if (path / SETTINGS).exists()]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in folders[_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)
