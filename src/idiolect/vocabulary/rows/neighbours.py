"""Mix the rows of a new token from those of similar original tokens.

This is FOCUS (Dobler & de Melo 2023, arXiv 2305.14481). Auxiliary vectors of all tokens, original
and new, give cosine similarities. Sparsemax (Martins & Astudillo 2016, arXiv 1602.02068) turns
them into weights, most of which are zero.

The auxiliary vectors can be given. Otherwise they are learned from the corpus, encoded by the
extended tokenizer: positive pointwise mutual information with frequent tokens in a window, reduced
by singular value decomposition (Levy et al. 2015, "Improving distributional similarity").
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from idiolect.vocabulary.rows.initial_rows import RowMixture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["WordLookup", "context_vectors", "neighbour_mixture", "sparsemax", "word_rows"]

_WINDOW = 5
"""Context tokens on each side."""
_CONTEXTS = 1024
"""Number of frequent tokens used as contexts."""
_WIDTH = 256
"""Maximum dimension of the vectors."""
_MAX_TOKENS = 5_000_000
"""Maximum number of corpus tokens to read."""
_SMOOTHING = 0.75
"""Exponent on context counts, which lowers the weight of rare contexts (Levy et al. 2015)."""


@runtime_checkable
class WordLookup(Protocol):
    """Vectors of words, such as `WordVectors`."""

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        ...

    def __contains__(self, word: object) -> bool: ...

    def __getitem__(self, word: str) -> NDArray[np.float32]: ...


def word_rows(tokenizer: Tokenizer, vectors: WordLookup) -> Tensor:
    """Return each token's vector if it is a word that has one. Shape: (ids, width), float32.

    A token is looked up without the spaces around it and with `_` for spaces inside, unchanged and
    then in lower case; a phrase without a vector of its own has the mean of its words. Pieces of
    words such as `##ing`, and tokens without vectors, get zeros.
    """
    rows = torch.zeros(len(tokenizer), vectors.dimensions)
    texts = tokenizer.decode_batch([[id_] for id_ in range(len(tokenizer))])
    for row, text in zip(rows, texts, strict=True):
        words = text.split()
        joined = "_".join(words)
        for form in (joined, joined.lower()):
            if form in vectors:
                row[:] = torch.from_numpy(vectors[form])
                break
        else:
            parts = [word.lower() for word in words]
            if len(parts) > 1 and all(part in vectors for part in parts):
                row[:] = torch.from_numpy(np.mean([vectors[part] for part in parts], 0))
    return rows


def context_vectors(tokenizer: Tokenizer, corpus: Iterable[str]) -> Tensor:
    """Learn a vector for each token from its contexts. Shape: (ids, width), float32.

    Tokens that do not occur get zeros. The result is deterministic.
    """
    stream = _encode_corpus(tokenizer, corpus)
    counts = np.bincount(stream[stream >= 0], minlength=len(tokenizer))
    present = np.flatnonzero(counts)
    contexts = np.argsort(-counts, kind="stable")[: min(_CONTEXTS, len(present))]
    pair_counts = torch.from_numpy(_count_pairs(stream, present, contexts))

    total = pair_counts.sum()
    expected = pair_counts.sum(0) ** _SMOOTHING
    expected /= expected.sum()
    row_totals = pair_counts.sum(1, keepdim=True).clamp(min=1)
    # Positive pointwise mutual information, in nats.
    ppmi = pair_counts.div_(row_totals).div_(expected.clamp(min=1 / total)).log_().clamp_(min=0)
    squares, directions = torch.linalg.eigh((ppmi.T @ ppmi).double())
    largest = squares.argsort(descending=True)[:_WIDTH]
    # Scaling by the square root of the singular values: P·V·S^(-1/2) = U·S^(1/2).
    scale = squares[largest].clamp(min=1e-12) ** -0.25
    vectors = torch.zeros(len(tokenizer), len(largest))
    vectors[present] = ppmi @ (directions[:, largest] * scale).float()
    return vectors


def _encode_corpus(tokenizer: Tokenizer, corpus: Iterable[str]) -> NDArray[Any]:
    """Return the concatenated ids of the corpus, with -1 for a window's width between documents."""
    gap, parts, size = [-1] * _WINDOW, [], 0
    documents = iter(corpus)
    while size < _MAX_TOKENS and (chunk := list(islice(documents, 1024))):
        for ids in tokenizer.encode_batch(chunk, add_special_tokens=False):
            parts.append(np.array(ids + gap, dtype=np.int32))
            size += len(ids)
    return np.concatenate(parts)


def _count_pairs(
    stream: NDArray[Any], present: NDArray[Any], contexts: NDArray[Any]
) -> NDArray[Any]:
    """Count the occurrences of each token near each context. (present, contexts), float32."""
    size = int(max(present.max(), contexts.max())) + 1
    row, column = np.full(size, -1, np.int64), np.full(size, -1, np.int64)
    row[present], column[contexts] = np.arange(len(present)), np.arange(len(contexts))
    counts = np.zeros(len(present) * len(contexts), np.float32)
    for distance in range(1, _WINDOW + 1):
        for center, near in (
            (stream[:-distance], stream[distance:]),
            (stream[distance:], stream[:-distance]),
        ):
            both = (center >= 0) & (near >= 0)
            both[both] = column[near[both]] >= 0
            keys, times = np.unique(
                row[center[both]] * len(contexts) + column[near[both]], return_counts=True
            )
            counts[keys] += times
    return counts.reshape(len(present), len(contexts))


def sparsemax(scores: Tensor) -> Tensor:
    """Project scores onto the probability simplex. Unlike softmax, most results are zero.

    >>> sparsemax(torch.tensor([1.0, 0.8, 0.1]))
    tensor([0.6000, 0.4000, 0.0000])

    Shape: (…, n) to (…, n).
    """
    ordered = scores.sort(dim=-1, descending=True).values
    sums = ordered.cumsum(-1) - 1
    rank = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype, device=scores.device)
    support = (rank * ordered > sums).sum(-1, keepdim=True)
    threshold = sums.gather(-1, support - 1) / support
    return (scores - threshold).clamp(min=0)


def neighbour_mixture(vectors: Tensor, new: Tensor, old: Tensor) -> RowMixture:
    """Mix the rows of original tokens by their similarity to each new one.

    Args:
        vectors: A vector for each id, zero if unknown. (ids, width).
        new: Ids of the new tokens. A token without a vector gets no entries. (N,).
        old: Ids of the original tokens. Those without a vector are excluded.
    """
    directions = F.normalize(vectors, dim=1)
    old = old[vectors[old].any(1)]
    rows: list[tuple[list[int], list[float]]] = []
    for chunk in torch.split(new, 256):
        weights = sparsemax(directions[chunk] @ directions[old].T)
        for id_, row in zip(chunk.tolist(), weights, strict=True):
            used = row.nonzero().squeeze(-1) if vectors[id_].any() else old.new_empty(0)
            rows.append((old[used].tolist(), row[used].tolist()))
    return RowMixture.of(rows)
