"""`grow`: add rows for the new ids of an extended tokenizer, next to the frozen original rows.

Every matrix with one row per id grows: the embedding, an untied head and the bias of a head. Each
initializes its new rows from its own values. Padding rows, which belong to no id, and all-zero
rows are treated as untrained. A matrix that was padded to a round number of rows stays padded.

>>> grown = grow(model, extend(model.tokenizer, terms))  # doctest: +SKIP
>>> grown.network.tokens                                 # doctest: +SKIP
ExtendedEmbedding((weight): ExtendedRows(50257 original, 2000 added from id 50257))
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import get_args

import torch
from torch import Tensor

from idiolect.errors import CheckpointError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import joined_rows
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.rows.initial_rows import Init, RowMixture, initial_rows
from idiolect.vocabulary.rows.neighbours import (
    WordLookup,
    context_vectors,
    neighbour_mixture,
    word_rows,
)

__all__ = ["grow"]

_MAX_PADDING_MULTIPLE = 128
"""Largest power of two that a matrix is assumed to have been padded to a multiple of."""


def grow(
    model: LanguageModel,
    tokenizer: Tokenizer,
    *,
    init: Init = "subword",
    vectors: Tensor | WordLookup | None = None,
    corpus: Iterable[str] | None = None,
    seed: int = 0,
) -> LanguageModel:
    """Add rows for the new ids of an extended tokenizer to every vocabulary matrix.

    Args:
        model: The model with the original tokenizer.
        tokenizer: The model's tokenizer, extended by `extend`.
        init: Initialization of the new rows; see `initial_rows`.
        vectors: For `neighbours`, a vector for each id of the extended tokenizer, zero if
            unknown. (ids, any width). By default they are learned from the corpus. For `vectors`,
            word vectors; tokens that are no words in them are initialized as with `subword`.
        corpus: For `neighbours` without vectors, documents of the domain.
        seed: Random seed.

    Returns:
        A new model, which shares no memory with `model`.

    Raises:
        InputError: The tokenizer is not extended, `init` is unknown, `neighbours` has neither
            vectors of the right shape nor a corpus, no new or no original token is a word in the
            word vectors, or `init` does not use the given vectors.
        CheckpointError: The tokenizer was extended from a different one than the model's.
    """
    if init not in get_args(Init):
        raise InputError(f"unknown init {init!r}", hint="one of " + ", ".join(get_args(Init)))
    first_id = len(model.tokenizer)
    pieces = _new_pieces(model.tokenizer, tokenizer)
    neighbours = None
    if init == "vectors":
        given = _rows_of_words(tokenizer, first_id, vectors)
        neighbours = _neighbours(tokenizer, first_id, given, corpus)
    elif vectors is not None and not (init == "neighbours" and isinstance(vectors, Tensor)):
        raise InputError(f"vectors are not used by init {init!r}", hint="use init='vectors'")
    elif init == "neighbours":
        neighbours = _neighbours(tokenizer, first_id, vectors, corpus)
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(model.network)
    tied = network.has_language_head and network.config.tie_word_embeddings
    added = {}
    for name, rows in network.vocabulary_rows().items():
        matrix = joined_rows(rows)
        new = initial_rows(
            matrix.cpu(),
            _trained_rows(matrix, first_id, network.config.pad_token_id),
            pieces,
            init,
            is_input=name == "tokens.weight",
            is_output=name != "tokens.weight" or tied,
            neighbours=neighbours,
            generator=generator,
        ).to(matrix.device)
        dtype = torch.promote_types(matrix.dtype, new.dtype)
        padding = _padding(matrix, first_id, len(tokenizer))
        added[name] = torch.cat([new.to(dtype), padding.to(dtype)])
    network.add_rows(first_id, added)
    return model.with_changes(network=network, tokenizer=tokenizer)


def _new_pieces(old: Tokenizer, new: Tokenizer) -> list[list[int]]:
    """Return the original ids that each new id replaces, in the order of the new ids."""
    if new.extension is None or len(new) == len(old):
        raise InputError("this tokenizer has no new tokens", hint="run `extend` on it first")
    earlier = old.extension
    base, known = (earlier.base, earlier.added) if earlier else (old.fingerprint, ())
    if new.extension.base != base or new.extension.added[: len(known)] != known:
        raise CheckpointError(
            "the tokenizer was extended from a different one than the model's",
            hint="extend the tokenizer of this model",
        )
    added = sorted(new.extension.added[len(known) :], key=lambda token: token.id)
    return [[id_ for id_ in token.pieces if id_ != new.unk_token_id] for token in added]


def _trained_rows(matrix: Tensor, ids: int, pad_id: int | None) -> Tensor:
    """Return a mask of the trained rows. Shape: (V,), bool."""
    trained = torch.arange(len(matrix)) < ids
    if pad_id is not None:
        trained[pad_id] = False
    if matrix.dim() > 1:
        trained &= matrix.any(1).cpu()
    return trained


def _padding(matrix: Tensor, first_id: int, end_id: int) -> Tensor:
    """Return copies of padding rows that keep a padded matrix at a round number of rows."""
    padding_rows = len(matrix) - first_id
    missing = 0
    if padding_rows and end_id > len(matrix):
        missing = -end_id % math.gcd(len(matrix), _MAX_PADDING_MULTIPLE)
    return matrix[[first_id + i % padding_rows for i in range(missing)]]


def _rows_of_words(tokenizer: Tokenizer, first_id: int, vectors: object) -> Tensor:
    if not isinstance(vectors, WordLookup):
        raise InputError(
            "initialisation by 'vectors' needs word vectors",
            hint="pass vectors=WordVectors.load(FILE)",
        )
    rows = word_rows(tokenizer, vectors)
    for kind, some in (("new", rows[first_id:]), ("original", rows[:first_id])):
        if not some.any():
            raise InputError(
                f"none of the {kind} tokens has a word vector",
                hint="train the vectors on text with the terms, or use init='subword'",
            )
    return rows


def _neighbours(
    tokenizer: Tokenizer,
    first_id: int,
    vectors: Tensor | None,
    corpus: Iterable[str] | None,
) -> RowMixture:
    if vectors is None:
        if corpus is None:
            raise InputError(
                "initialisation by 'neighbours' needs a corpus", hint="pass a corpus, or vectors"
            )
        vectors = context_vectors(tokenizer, corpus)
    if vectors.dim() != 2 or len(vectors) != len(tokenizer):
        raise InputError(
            f"vectors have shape {tuple(vectors.shape)}, but there are {len(tokenizer)} ids",
            hint="pass one vector for each id of the extended tokenizer",
        )
    ids = torch.arange(len(tokenizer))
    return neighbour_mixture(vectors, ids[first_id:], ids[:first_id])
