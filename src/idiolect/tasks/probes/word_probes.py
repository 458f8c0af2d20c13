"""Word vectors as the features of tasks: tagging words, and classifying texts.

This is the extrinsic evaluation of Schnabel et al. 2015 ("Evaluation methods for unsupervised word
embeddings"). The vectors are frozen; a `LinearProbe` learns from them.

- Tagging: the vectors of a word and of two words on each side, side by side. A part of speech, or
  a chunk made of them by rule (see `chunk_tags`).
- Classification, such as sentiment: the mean of a text's vectors.

One fifth of the texts is held out. Unknown words are zero vectors. Two baselines show what the
vectors add: the most frequent label, and random vectors of the same words and width, from which a
probe can only learn the identity of the words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.errors import InputError
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.probes.linear_probe import LinearProbe
from idiolect.tasks.probes.tagged_words import TaggedSentence, chunk_tags
from idiolect.words.evaluation import WordScore
from idiolect.words.word_stream import split_words
from idiolect.words.word_vectors import WordVectors

__all__ = ["WordProbe", "probe_words", "tagging_probes", "text_probe"]

_REACH = 2
"""Words on each side of a tagged one whose vectors are features."""
_HELD_OUT = 0.2
_MAX_WORDS = 30_000
"""Maximum number of tagged training words; their features take 60 MB with 100 dimensions."""


@dataclass(frozen=True)
class WordProbe:
    """A prediction task on words or texts."""

    name: str
    kind: str
    """`tagging` or `classification`."""
    sentences: tuple[tuple[str, ...], ...]
    """The words of each sentence or text."""
    labels: tuple[tuple[str, ...], ...]
    """Tagging: the tags of a sentence's words. Classification: one label."""


def tagging_probes(
    name: str, sentences: Sequence[TaggedSentence], *, lowercase: bool = True
) -> tuple[WordProbe, WordProbe]:
    """Return the tasks of tagging parts of speech, and chunks of them."""
    words = tuple(
        tuple(word.lower() if lowercase else word for word in one.words) for one in sentences
    )
    tags = tuple(one.tags for one in sentences)
    return (
        WordProbe(f"{name}: parts of speech", "tagging", words, tags),
        WordProbe(f"{name}: chunks", "tagging", words, tuple(chunk_tags(one) for one in tags)),
    )


def text_probe(
    name: str, texts: Sequence[LabelledText], *, split: Callable[[str], list[str]] = split_words
) -> WordProbe:
    """Return the task of classifying texts, such as by sentiment."""
    words = tuple(tuple(split(one.text)) for one in texts)
    return WordProbe(name, "classification", words, tuple((str(one.label),) for one in texts))


def probe_words(vectors: WordVectors, task: WordProbe, *, seed: int = 0) -> WordScore:
    """Measure the accuracy of a linear probe on frozen vectors, beside two baselines.

    Args:
        vectors: The vectors.
        task: The task.
        seed: Random seed of the texts that are held out, and of the random vectors.

    Returns:
        The accuracy on the held-out part. `score` and the baselines cover the words that have a
        vector (classification: texts with such a word); `score_all` covers all.

    Raises:
        InputError: There are fewer than ten sentences, or fewer than two labels.
    """
    generator = np.random.default_rng(seed)
    training, held_out = _split(task, generator)
    names, known_labels = np.unique(
        [label for n in (*training, *held_out) for label in task.labels[n]], return_inverse=True
    )
    if len(names) < 2:
        raise InputError(f"{task.name} has one label", hint="pass sentences of several labels")
    rows = torch.from_numpy(vectors.directions)
    noise = torch.from_numpy(generator.standard_normal(rows.shape, np.float32))
    places = [
        np.array([-1 if (at := vectors.place(word)) is None else at for word in words], np.int64)
        for words in task.sentences
    ]
    sets = [[places[n] for n in numbers] for numbers in (training, held_out)]
    count = sum(len(task.labels[n]) for n in training)
    labels = known_labels[:count], known_labels[count:]
    tagging = task.kind == "tagging"
    windows = [_windows(one) if tagging else None for one in sets]
    known = np.concatenate([one >= 0 if tagging else [(one >= 0).any()] for one in sets[1]])

    def right(table: Tensor) -> NDArray[np.bool_]:
        table = torch.cat([table, torch.zeros(1, table.shape[1])])  # index -1 is this zero row
        features = [
            table[window].flatten(1) if window is not None else _means(table, one)
            for window, one in zip(windows, sets, strict=True)
        ]
        found = LinearProbe(features[0], labels[0], len(names)).predict(features[1])
        return np.asarray(found == labels[1])

    hits = right(rows)
    most = np.bincount(labels[0]).argmax()
    return WordScore(
        task.name,
        task.kind,
        _share(hits, known),
        float(hits.mean()),
        int(known.sum()),
        len(known),
        baselines={
            "majority": _share(labels[1] == most, known),
            "random vectors": _share(right(noise), known),
        },
    )


def _split(task: WordProbe, generator: np.random.Generator) -> tuple[list[int], list[int]]:
    """Return the indices of the training sentences and of the held-out ones."""
    order = [int(n) for n in generator.permutation(len(task.sentences)) if task.sentences[n]]
    if len(order) < 10:
        raise InputError(
            f"{task.name} has {len(order)} sentences or texts", hint="pass at least ten"
        )
    held = int(len(order) * _HELD_OUT)
    if task.kind != "tagging":
        return order[held:], order[:held]
    return (
        _up_to(task, order[held:], _MAX_WORDS),
        _up_to(task, order[:held], int(_MAX_WORDS * _HELD_OUT)),
    )


def _up_to(task: WordProbe, numbers: list[int], words: int) -> list[int]:
    """Return the first sentences, up to this many words."""
    before = np.cumsum([0, *(len(task.sentences[n]) for n in numbers)])[:-1]
    return [n for n, start in zip(numbers, before, strict=True) if start < words]


def _windows(sentences: Sequence[NDArray[np.int64]]) -> Tensor:
    """Return the indices of each word and its neighbours; -1 outside a sentence. (words, 5)."""
    gap = np.full(_REACH, -1)
    stream = np.concatenate([part for one in sentences for part in (gap, one)] + [gap])
    inside = np.concatenate([part for one in sentences for part in (gap == 0, one == one)])
    near = np.lib.stride_tricks.sliding_window_view(stream, 2 * _REACH + 1)
    return torch.from_numpy(near[np.flatnonzero(inside) - _REACH])


def _means(table: Tensor, texts: Sequence[NDArray[np.int64]]) -> Tensor:
    """Return the mean vector of each text's known words; zeros if none. (texts, dimensions)."""
    rows = torch.zeros(len(texts), table.shape[1])
    for row, text in zip(rows, texts, strict=True):
        own = text[text >= 0]
        if len(own):
            row[:] = table[torch.from_numpy(own)].mean(0)
    return rows


def _share(hits: NDArray[np.bool_], known: NDArray[np.bool_]) -> float:
    return float(hits[known].mean()) if known.any() else float("nan")
