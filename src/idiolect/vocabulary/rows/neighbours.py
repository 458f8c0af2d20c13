"""Which old tokens a new one is used like, and a sparse mixture of their rows.

The mixture is that of FOCUS (Dobler & de Melo 2023, arXiv 2305.14481): vectors that know both old
and new tokens say how alike they are, and sparsemax (Martins & Astudillo 2016, arXiv 1602.02068)
turns the likeness into weights, most of which are zero. Where nobody gives such vectors, they are
learnt from the corpus as extended tokens cut it: positive pointwise mutual information with the
most frequent tokens nearby, reduced by its singular vectors (Levy et al. 2015, "Improving
distributional similarity").
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from idiolect.vocabulary.rows.initial_rows import Mixture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["context_vectors", "neighbour_mixture", "sparsemax"]

_WINDOW = 5
"""Tokens to either side that count as nearby."""
_CONTEXTS = 1024
"""Frequent tokens whose company is counted."""
_WIDTH = 256
"""Numbers in a vector."""
_TOKENS = 5_000_000
"""Tokens of the corpus that are read."""
_SMOOTHING = 0.75
"""Exponent on the counts of contexts, against the pull of rare ones (Levy et al. 2015)."""


def context_vectors(tokenizer: Tokenizer, corpus: Iterable[str]) -> Tensor:
    """Learn a vector for each token from the company it keeps. Shape: (ids, width), float32.

    Tokens that do not occur get zeros. The same corpus gives the same vectors.
    """
    stream = _read(tokenizer, corpus)
    counts = np.bincount(stream[stream >= 0], minlength=len(tokenizer))
    present = np.flatnonzero(counts)
    contexts = np.argsort(-counts, kind="stable")[: min(_CONTEXTS, len(present))]
    together = torch.from_numpy(_count_pairs(stream, present, contexts))

    total = together.sum()
    expected = together.sum(0) ** _SMOOTHING
    expected /= expected.sum()
    seen = together.sum(1, keepdim=True).clamp(min=1)
    # Positive pointwise mutual information: how much likelier than by chance, in nats.
    information = together.div_(seen).div_(expected.clamp(min=1 / total)).log_().clamp_(min=0)
    squares, directions = torch.linalg.eigh((information.T @ information).double())
    strongest = squares.argsort(descending=True)[:_WIDTH]
    scale = squares[strongest].clamp(min=1e-12) ** -0.25
    vectors = torch.zeros(len(tokenizer), len(strongest))
    vectors[present] = information @ (directions[:, strongest] * scale).float()
    return vectors


def _read(tokenizer: Tokenizer, corpus: Iterable[str]) -> NDArray[Any]:
    """Return the ids of the corpus in a row, with a gap of -1 after each document."""
    gap, parts, size = [-1] * _WINDOW, [], 0
    documents = iter(corpus)
    while size < _TOKENS and (chunk := list(islice(documents, 1024))):
        for ids in tokenizer.encode_batch(chunk, special_tokens=False):
            parts.append(np.array(ids + gap, dtype=np.int32))
            size += len(ids)
    return np.concatenate(parts)


def _count_pairs(
    stream: NDArray[Any], present: NDArray[Any], contexts: NDArray[Any]
) -> NDArray[Any]:
    """Count how often each token stands near each context. (present, contexts), float32."""
    size = int(max(present.max(), contexts.max())) + 1
    row, column = np.full(size, -1, np.int64), np.full(size, -1, np.int64)
    row[present], column[contexts] = np.arange(len(present)), np.arange(len(contexts))
    counts = np.zeros(len(present) * len(contexts), np.float32)
    for distance in range(1, _WINDOW + 1):
        for centre, near in (
            (stream[:-distance], stream[distance:]),
            (stream[distance:], stream[:-distance]),
        ):
            both = (centre >= 0) & (near >= 0)
            both[both] = column[near[both]] >= 0
            keys, times = np.unique(
                row[centre[both]] * len(contexts) + column[near[both]], return_counts=True
            )
            counts[keys] += times
    return counts.reshape(len(present), len(contexts))


def sparsemax(scores: Tensor) -> Tensor:
    """Project scores onto the probability simplex; unlike softmax, most results are zero.

    >>> sparsemax(torch.tensor([1.0, 0.8, 0.1]))
    tensor([0.6000, 0.4000, 0.0000])

    Shape: (…, n) to (…, n).
    """
    ordered = scores.sort(dim=-1, descending=True).values
    sums = ordered.cumsum(-1) - 1
    place = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype, device=scores.device)
    support = (place * ordered > sums).sum(-1, keepdim=True)
    threshold = sums.gather(-1, support - 1) / support
    return (scores - threshold).clamp(min=0)


def neighbour_mixture(vectors: Tensor, new: Tensor, old: Tensor) -> Mixture:
    """Mix the rows of old tokens by their likeness to each new one.

    Args:
        vectors: One for each id, zero where nothing is known. (ids, width).
        new: Ids of the new tokens; one without a vector gets an empty mixture. (N,).
        old: Ids of the tokens that may be mixed; those without a vector are not.
    """
    directions = F.normalize(vectors, dim=1)
    old = old[vectors[old].any(1)]
    rows: list[tuple[list[int], list[float]]] = []
    for chunk in torch.split(new, 256):
        weights = sparsemax(directions[chunk] @ directions[old].T)
        for id_, row in zip(chunk.tolist(), weights, strict=True):
            used = row.nonzero().squeeze(-1) if vectors[id_].any() else old.new_empty(0)
            rows.append((old[used].tolist(), row[used].tolist()))
    return Mixture.of(rows)
