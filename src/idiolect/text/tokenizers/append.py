"""Append pieces to a vocabulary; all existing ids stay unchanged.

The engine's JSON states the ids of added tokens. On loading, however, the engine numbers added
tokens from the size of the model's vocabulary, which has grown. So every added token first gets an
entry in the vocabulary itself. The entry has no other effect: added tokens are found in raw text
before the model encodes the rest.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import tokenizers

from idiolect.errors import ConfigError, InputError
from idiolect.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.text.tokenizers.engine_identity import Kind

__all__ = ["append_pieces", "missing_ids"]


def missing_ids(tokenizer: Tokenizer, size: int, *kinds: Kind) -> int:
    """Return the number of ids that a tokenizer lacks to reach a size.

    Raises:
        InputError: the tokenizer is of another kind, or already has that many ids.
    """
    if tokenizer.kind not in kinds:
        raise InputError(
            f"a {tokenizer.kind} tokenizer cannot be trained further in this way",
            hint=f"this is for {' and '.join(kinds)}",
        )
    if size <= len(tokenizer):
        raise InputError(
            f"the tokenizer already has {len(tokenizer)} ids, and the size is {size}",
            hint="choose a larger size",
        )
    return size - len(tokenizer)


def append_pieces(
    tokenizer: Tokenizer,
    pieces: Sequence[str],
    *,
    merges: Sequence[tuple[str, str]] = (),
    scores: Sequence[float] = (),
) -> Tokenizer:
    """Append pieces to a tokenizer's vocabulary.

    Args:
        tokenizer: stays unchanged.
        pieces: in the model's own alphabet and not yet in the vocabulary; their ids begin at
            `len(tokenizer)`.
        merges: for BPE, merges that rank after all present ones.
        scores: for Unigram, the score of each piece.

    Returns:
        The larger tokenizer, with the same settings.

    Raises:
        ConfigError: a Unigram vocabulary has unused ids, which its format cannot express.
    """
    pipeline = json.loads(tokenizer.engine.to_str())
    model = pipeline["model"]
    added = {token["id"]: token["content"] for token in pipeline["added_tokens"]}
    if model["type"] == "Unigram":
        vocab = model["vocab"]
        # Not below the lowest score, because the unknown token's score depends on that.
        lowest = min(score for _, score in vocab)
        while len(vocab) < len(tokenizer):
            if len(vocab) not in added:
                raise ConfigError(f"the vocabulary has no piece with id {len(vocab)}")
            vocab.append([added[len(vocab)], lowest])
        vocab += [[piece, score] for piece, score in zip(pieces, scores, strict=True)]
    else:
        model["vocab"].update({content: id_ for id_, content in added.items()})
        first = len(tokenizer)
        model["vocab"].update({piece: first + i for i, piece in enumerate(pieces)})
        if merges:
            model["merges"] += [list(merge) for merge in merges]
    return Tokenizer.from_engine(
        tokenizers.Tokenizer.from_str(json.dumps(pipeline)), tokenizer.settings
    )
