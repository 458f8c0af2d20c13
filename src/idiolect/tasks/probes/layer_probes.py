"""Layer probes: what a linear probe can predict from each layer of a network.

    pos       the part of speech of a word, from its last token         Liu et al. 2019, 1903.08855
    chunk     the noun, verb or preposition chunk of a word             ditto; here chunks by rule
    length    the number of words of a text, in six bins                SentEval, 1805.01070
    content   which of some words of middle frequency is in a text      ditto (WC)

A text is represented by the mean of its tokens. Two baselines need no network: the most frequent
class, and, for words, the most frequent class of that word.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.errors import InputError
from idiolect.tasks.probes.layer_states import states_by_layer
from idiolect.tasks.probes.linear_probe import LinearProbe
from idiolect.tasks.probes.tagged_words import TaggedSentence, chunk_tags

__all__ = ["ProbeResult", "probe_texts", "probe_words"]

_BINS = 6
_CONTENT_WORDS = 20
_TRAIN_SHARE = 0.7
_FEWEST = 10
"""Sentences with which both the training and the test part have some."""


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of one kind of probe on each layer."""

    name: str
    """`pos`, `chunk`, `length` or `content`."""
    accuracy: list[float]
    """Accuracy on held-out texts: for the embedding, then for each layer."""
    majority: float
    """Accuracy of the most frequent class."""
    by_word: float | None
    """Accuracy of the most frequent class of each word; `None` for texts."""
    classes: int
    """Number of classes."""
    examples: tuple[int, int]
    """Numbers of training and test examples."""

    @property
    def best_layer(self) -> int:
        """The first layer with the highest accuracy; 0 is the embedding."""
        return int(np.argmax(self.accuracy))


@dataclass
class _Examples:
    """Examples that share a representation by layer."""

    features: list[list[Tensor]] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    """Indices of each example's text and of the word in it."""

    def add(self, places: Sequence[tuple[int, int]], layers: Sequence[Tensor]) -> None:
        self.features.append(list(layers))
        self.places += places

    def layers(self) -> list[Tensor]:
        return [torch.cat(parts).float().cpu() for parts in zip(*self.features, strict=True)]


def probe_words(
    encoder: Encoder, sentences: Sequence[TaggedSentence], *, max_words: int = 6000
) -> list[ProbeResult]:
    """Probe words for their part of speech and their chunk.

    Args:
        encoder: The encoder.
        sentences: Sentences with tags; the last ones are the test texts.
        max_words: Words to read, over all sentences; at least ten sentences are read.

    Raises:
        InputError: There are too few sentences.
    """
    if len(sentences) < _FEWEST:
        raise InputError(f"{len(sentences)} tagged sentences", hint=f"give at least {_FEWEST}")
    rows, ends = _align(encoder, sentences, max_words)
    examples = _Examples()
    for batch in states_by_layer(encoder, rows):
        places = [
            (text, word, row, end)
            for row, text in enumerate(batch.texts)
            for word, end in ends[text]
        ]
        if places:
            index = [p[2] for p in places], [p[3] for p in places]
            examples.add([(p[0], p[1]) for p in places], [s[index] for s in batch.states])
    layers, border = examples.layers(), int(len(rows) * _TRAIN_SHARE)
    in_train = np.array([text < border for text, _ in examples.places])
    words = [sentences[text].words[word].lower() for text, word in examples.places]
    kinds = {
        "pos": [sentence.tags for sentence in sentences[: len(rows)]],
        "chunk": [chunk_tags(sentence.tags) for sentence in sentences[: len(rows)]],
    }
    return [
        _probe(name, layers, [tags[text][word] for text, word in examples.places], in_train, words)
        for name, tags in kinds.items()
    ]


def probe_texts(encoder: Encoder, texts: Sequence[str], *, seed: int = 0) -> list[ProbeResult]:
    """Probe texts for their length and for a word they contain.

    Args:
        encoder: The encoder.
        texts: The texts, of which 30 % are test texts.
        seed: Random seed of that choice.

    Raises:
        InputError: There are too few texts that are not empty.
    """
    from idiolect.encoding.text_reader import EncodingCounts

    rows = encoder.reader.read(list(texts), None, EncodingCounts())
    if (count := sum(map(bool, rows))) < 50:
        raise InputError(f"{count} texts with tokens to probe", hint="give at least 50")
    examples = _Examples()
    for batch in states_by_layer(encoder, rows):
        examples.add([(text, 0) for text in batch.texts], [s.mean(1) for s in batch.states])
    layers, read = examples.layers(), [text for text, _ in examples.places]
    in_train = np.random.default_rng(seed).random(len(read)) < _TRAIN_SHARE
    words = [re.findall(r"\w+", texts[text].lower()) for text in read]
    lengths = np.array([len(one) for one in words])
    borders = np.unique(np.quantile(lengths[in_train], np.arange(1, _BINS) / _BINS))
    results = [_probe("length", layers, np.searchsorted(borders, lengths).tolist(), in_train)]
    labels = _content_labels(words)
    kept = np.array([label is not None for label in labels])
    if kept.sum() >= 50:
        chosen = torch.from_numpy(kept)
        results.append(
            _probe(
                "content",
                [layer[chosen] for layer in layers],
                [label for label in labels if label is not None],
                in_train[kept],
            )
        )
    return results


def _content_labels(words: Sequence[Sequence[str]]) -> list[str | None]:
    """Return the only word of middle frequency in each text, if there is exactly one."""
    frequency = Counter(word for one in words for word in set(one) if len(word) > 3)
    common = [w for w, count in frequency.most_common() if count <= max(20, len(words) // 25)]
    chosen = set(common[:_CONTENT_WORDS])
    found = [chosen & set(one) for one in words]
    return [next(iter(one)) if len(one) == 1 else None for one in found]


def _align(
    encoder: Encoder, sentences: Sequence[TaggedSentence], max_words: int
) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Return the ids of sentences, and each word's index with the position of its last token."""
    template, tokenizer = encoder.reader.template, encoder.model.tokenizer
    before, after = list(template.before), list(template.after)
    rows: list[list[int]] = []
    ends: list[list[tuple[int, int]]] = []
    count = 0
    for sentence in sentences:
        text, last = " ".join(sentence.words), {}
        starts = np.cumsum([0, *(len(word) + 1 for word in sentence.words)])
        [(ids, offsets)] = tokenizer.encode_with_offsets([text], add_special_tokens=False)
        ids = ids[: encoder.max_length - len(before) - len(after)]
        for position, (start, end) in enumerate(offsets[: len(ids)]):
            if end > start:
                # A token may include the space before its word.
                last[int(np.searchsorted(starts, end - 1, side="right")) - 1] = position
        rows.append([*before, *ids, *after] if ids else [])
        ends.append([(word, len(before) + position) for word, position in sorted(last.items())])
        count += len(last)
        if count >= max_words and len(rows) >= _FEWEST:
            break
    return rows, ends


def _probe(
    name: str,
    layers: Sequence[Tensor],
    labels: Sequence[str | int],
    in_train: NDArray[np.bool_],
    words: Sequence[str] = (),
) -> ProbeResult:
    # Classes that the training texts lack cannot be learnt by any system; they count as errors.
    named = sorted({label for label, own in zip(labels, in_train, strict=True) if own}, key=str)
    number = {label: i for i, label in enumerate(named)}
    truth = np.array([number.get(label, -1) for label in labels])
    own = torch.from_numpy(in_train)
    common = Counter(truth[in_train].tolist()).most_common(1)[0][0]
    return ProbeResult(
        name,
        [
            LinearProbe(layer[own], truth[in_train], len(named)).accuracy(
                layer[~own], truth[~in_train]
            )
            for layer in layers
        ],
        float((truth[~in_train] == common).mean()),
        _by_word(words, truth, in_train, common) if words else None,
        len(named),
        (int(in_train.sum()), int((~in_train).sum())),
    )


def _by_word(
    words: Sequence[str], truth: NDArray[np.int64], in_train: NDArray[np.bool_], common: int
) -> float:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for word, label, own in zip(words, truth.tolist(), in_train, strict=True):
        if own:
            counts[word][label] += 1
    best = {word: count.most_common(1)[0][0] for word, count in counts.items()}
    found = [best.get(w, common) for w, own in zip(words, in_train, strict=True) if not own]
    return float((np.array(found) == truth[~in_train]).mean())
