"""Identify a tokenizer engine by its algorithm and a hash of everything that determines ids."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING, Any, Literal

from idiolect.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

__all__ = ["Kind", "find_kind", "hash_engine"]

Kind = Literal["byte-bpe", "sentencepiece-bpe", "bpe", "unigram", "wordpiece", "wordlevel"]
"""The algorithm of a tokenizer; `bpe` is BPE over characters without the SentencePiece space."""


def find_kind(engine: Engine) -> Kind:
    """Find the algorithm of an engine from its components.

    Raises:
        ConfigError: the algorithm is unknown.
    """
    model = type(engine.model).__name__
    simple: dict[str, Kind] = {
        "Unigram": "unigram",
        "WordPiece": "wordpiece",
        "WordLevel": "wordlevel",
    }
    if model in simple:
        return simple[model]
    if model != "BPE":
        raise ConfigError(
            f"unknown tokenizer algorithm {model}", hint=f"known: BPE, {', '.join(simple)}"
        )
    parts = [_state(engine.normalizer), _state(engine.pre_tokenizer)]
    if any('"ByteLevel"' in part for part in parts):
        return "byte-bpe"
    return "sentencepiece-bpe" if any("▁" in part for part in parts) else "bpe"


def hash_engine(engine: Engine) -> str:
    """Hash everything that determines ids: 32 hexadecimal digits, unchanged by saving."""
    pipeline = json.loads(engine.to_str())
    for irrelevant in ("version", "truncation", "padding"):
        del pipeline[irrelevant]
    if find_kind(engine) == "unigram":  # JSON does not preserve the last bit of a score
        scored = pipeline["model"]["vocab"]
        pipeline["model"]["vocab"] = [(piece, _single(score)) for piece, score in scored]
    text = json.dumps(pipeline, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _single(score: float) -> float:
    """Round to single precision, the precision of SentencePiece's scores."""
    return float(struct.unpack("f", struct.pack("f", score))[0])


def _state(part: Any) -> str:
    """Return the JSON of a component of the engine; empty if it is missing."""
    return "" if part is None else part.__getstate__().decode()
