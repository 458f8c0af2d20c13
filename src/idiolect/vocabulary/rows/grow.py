"""`grow`: rows for the new ids of an extended tokenizer, beside the frozen rows of the old ones.

What is notable: every matrix that has a row for each id grows, each from its own values: the
embedding, an untied head, a head's bias. Rows that no tokenizer id points at, and rows of zeros,
are not taken for trained ones. A published matrix that was padded to a round number stays so.

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
from idiolect.nn.embedding import ExtendedRows
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.rows.initial_rows import Init, Mixture, initial_rows
from idiolect.vocabulary.rows.neighbours import context_vectors, neighbour_mixture

__all__ = ["grow"]

_ROUND = 128
"""The largest power of two a matrix is taken to have been padded to."""


def grow(
    model: LanguageModel,
    tokenizer: Tokenizer,
    *,
    init: Init = "subword",
    vectors: Tensor | None = None,
    corpus: Iterable[str] | None = None,
    seed: int = 0,
) -> LanguageModel:
    """Give the new ids of an extended tokenizer rows in every matrix of the vocabulary.

    The model that comes back shares nothing with the one given, which can go on as its teacher.

    Args:
        model: The model the tokenizer was extended from.
        tokenizer: What `extend` made of the model's tokenizer.
        init: How the new rows begin; see `rows`.
        vectors: For `neighbours`, a vector for each id of the extended tokenizer, zero where
            nothing is known. (ids, any width). By default they are learnt from the corpus.
        corpus: For `neighbours` without vectors, documents of the domain.
        seed: Where chance begins.

    Raises:
        InputError: The tokenizer was not extended, `init` is unknown, or `neighbours` has neither
            fitting vectors nor a corpus.
        CheckpointError: The tokenizer was extended from another one than the model's.
    """
    if init not in get_args(Init):
        raise InputError(f"unknown init {init!r}", hint="one of " + ", ".join(get_args(Init)))
    first_id = len(model.tokenizer)
    pieces = _new_pieces(model.tokenizer, tokenizer)
    neighbours = None
    if init == "neighbours":
        neighbours = _neighbours(tokenizer, first_id, vectors, corpus)
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(model.network)
    tied = "language" in network.heads and network.config.tied
    added = {}
    for name, rows in network.vocabulary_rows().items():
        matrix = rows.joined() if isinstance(rows, ExtendedRows) else rows.detach()
        new = initial_rows(
            matrix.cpu(),
            _trained(matrix, first_id, network.config.pad_id),
            pieces,
            init,
            reads=name == "tokens.weight",
            predicts=name != "tokens.weight" or tied,
            neighbours=neighbours,
            generator=generator,
        ).to(matrix.device)
        finer = torch.promote_types(matrix.dtype, new.dtype)
        padding = _padding(matrix, first_id, len(tokenizer))
        added[name] = torch.cat([new.to(finer), padding.to(finer)])
    network.add_rows(first_id, added)
    return LanguageModel(network, tokenizer, model.settings)


def _new_pieces(old: Tokenizer, new: Tokenizer) -> list[list[int]]:
    """Return for each new id, in order, the original ids it stands for."""
    if new.extension is None or len(new) == len(old):
        raise InputError("this tokenizer has no new tokens", hint="extend it first")
    earlier = old.extension
    base, known = (earlier.base, earlier.added) if earlier else (old.fingerprint, ())
    if new.extension.base != base or new.extension.added[: len(known)] != known:
        raise CheckpointError(
            "the tokenizer was extended from another one than the model's",
            hint="extend the tokenizer of this model",
        )
    added = sorted(new.extension.added[len(known) :], key=lambda token: token.id)
    return [[id_ for id_ in token.pieces if id_ != new.unk_id] for token in added]


def _trained(matrix: Tensor, ids: int, pad_id: int | None) -> Tensor:
    """Tell which rows have been trained. Shape: (V,), bool."""
    trained = torch.arange(len(matrix)) < ids
    if pad_id is not None:
        trained[pad_id] = False
    if matrix.dim() > 1:
        trained &= matrix.any(1).cpu()
    return trained


def _padding(matrix: Tensor, first_id: int, end_id: int) -> Tensor:
    """Return the rows that keep a padded matrix at a round number: copies of its padding rows."""
    spare = len(matrix) - first_id
    lack = 0
    if spare and end_id > len(matrix):
        lack = -end_id % math.gcd(len(matrix), _ROUND)
    return matrix[[first_id + i % spare for i in range(lack)]]


def _neighbours(
    tokenizer: Tokenizer,
    first_id: int,
    vectors: Tensor | None,
    corpus: Iterable[str] | None,
) -> Mixture:
    if vectors is None:
        if corpus is None:
            raise InputError('init="neighbours" needs a corpus', hint="give it, or vectors")
        vectors = context_vectors(tokenizer, corpus)
    if vectors.dim() != 2 or len(vectors) != len(tokenizer):
        raise InputError(
            f"vectors of the shape {tuple(vectors.shape)} for {len(tokenizer)} ids",
            hint="give one for each id of the extended tokenizer",
        )
    ids = torch.arange(len(tokenizer))
    return neighbour_mixture(vectors, ids[first_id:], ids[:first_id])
