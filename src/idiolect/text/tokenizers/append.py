"""Pieces appended to a vocabulary, all that was there before kept at its id.

This is where growing a tokenizer usually goes wrong. The engine's JSON states the ids of added
tokens, but on loading they are counted on from the size of the model's vocabulary, which has grown;
so every added token is first given its place in the vocabulary itself. It is found in raw text
before the model sees any, so there it has no effect.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import tokenizers

from idiolect.errors import ConfigError, InputError
from idiolect.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.text.tokenizers.tokenizer import Kind

__all__ = ["append_pieces", "room"]


def room(tokenizer: Tokenizer, size: int, *kinds: Kind) -> int:
    """Number of ids that a tokenizer lacks to reach a size.

    Raises:
        InputError: the tokenizer is of none of these kinds, or has that many ids already.
    """
    if tokenizer.kind not in kinds:
        raise InputError(
            f"a {tokenizer.kind} tokenizer cannot be continued in this way",
            hint=f"this is for {' and '.join(kinds)}",
        )
    if size <= len(tokenizer):
        raise InputError(
            f"the tokenizer has {len(tokenizer)} ids already, {size} are wanted",
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
        tokenizer: stays as it is.
        pieces: in the model's own alphabet, none of them in the vocabulary; they take the ids
            from `len(tokenizer)` up.
        merges: for BPE, merges that come after all present ones.
        scores: for Unigram, the score of each piece.

    Returns:
        The larger tokenizer, with the same settings.

    Raises:
        ConfigError: the vocabulary has unused ids and is of a kind whose ids are positions.
    """
    pipeline = json.loads(tokenizer.engine.to_str())
    model = pipeline["model"]
    added = {token["id"]: token["content"] for token in pipeline["added_tokens"]}
    if model["type"] == "Unigram":
        vocab = model["vocab"]
        # The lowest score, not a lower one: the unknown token's score hangs on it.
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
