"""`train_words`: train `WordVectors` on a corpus, resumable."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idiolect.errors import CheckpointError, ConfigError, InputError, TrainingError
from idiolect.text.arguments import check_path, check_whole
from idiolect.text.corpus import documents_of
from idiolect.text.files import read_json, write_atomic
from idiolect.words.glove import GloveConfig, train_glove
from idiolect.words.phrases import Phrases
from idiolect.words.word2vec import EpochLoss, Word2VecConfig, train_word2vec
from idiolect.words.word_stream import (
    EncodedWords,
    Splitter,
    WordCounts,
    count_words,
    fingerprint,
    split_words,
    write_ids,
)
from idiolect.words.word_vectors import WordVectors

__all__ = ["WordTraining", "train_words"]


@dataclass(frozen=True)
class WordTraining:
    """Result of training word vectors."""

    vectors: WordVectors
    losses: EpochLoss
    """Mean loss per prediction, or per pair, in each epoch."""
    trained_words: int
    """Number of words in the corpus that are in the vocabulary."""
    left_out: int
    """Number of words in the corpus that are rarer than `min_count`."""


def train_words(
    corpus: Iterable[str],
    output: str | Path,
    config: Word2VecConfig | GloveConfig | None = None,
    *,
    min_count: int = 5,
    phrases: int = 0,
    phrase_threshold: float = 100.0,
    whitespace: bool = False,
) -> WordTraining:
    """Train word vectors and write them. The same call resumes an interrupted run.

    Intermediate files are kept in the folder `OUTPUT.run` and deleted at the end.

    Args:
        corpus: Documents: a `Corpus`, a path, or texts.
        output: The file to write; see `WordVectors.save`.
        config: `Word2VecConfig` (the default) or `GloveConfig`.
        min_count: Words that occur less often have no vector.
        phrases: Number of passes that join frequent word pairs.
        phrase_threshold: Minimum score of a phrase.
        whitespace: Whether to split only at white space. By default words are lower-cased, without
            punctuation.

    Raises:
        InputError: Too few words are frequent enough, or none co-occurs with another.
        CheckpointError: The folder holds a run with another corpus or other settings.
        TrainingError: The loss became NaN or infinite.
    """
    output = check_path(output, "output")
    check_whole(min_count, "min_count", least=1)
    check_whole(phrases, "phrases", least=0)
    if not output.parent.is_dir():
        raise InputError(f"no such folder: {output.parent}", hint="create it first")
    if output.is_dir():
        raise InputError(f"{output} is a folder", hint="name a file, such as words.safetensors")
    config = config or Word2VecConfig()
    split = str.split if whitespace else split_words
    documents = documents_of(corpus, "corpus")
    if isinstance(documents, Iterator):
        documents = list(documents)  # they are read several times
    settings = {
        "corpus": fingerprint(documents),
        "kind": type(config).__name__,
        "config": asdict(config),
        "min_count": min_count,
        "phrases": [phrases, phrase_threshold],
        "whitespace": whitespace,
    }
    folder = output.with_name(f"{output.name}.run")
    folder.mkdir(exist_ok=True)
    try:
        counts, encoded = _prepared(folder, documents, settings, min_count, phrases, split)
        vectors, losses = _trained(encoded, counts, config, folder)
    except (InputError, ConfigError, TrainingError):
        _delete(folder)  # these settings would fail again, and others could not use it
        raise
    vectors.save(output)
    trained = len(encoded)
    _delete(folder)
    return WordTraining(vectors, losses, trained, counts.left_out)


def _delete(folder: Path) -> None:
    """Delete a run's folder, its records first: a remainder without them cannot be resumed."""
    for name in ("snapshot.json", "corpus.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _trained(
    encoded: EncodedWords,
    counts: WordCounts,
    config: Word2VecConfig | GloveConfig,
    folder: Path,
) -> tuple[WordVectors, EpochLoss]:
    if isinstance(config, GloveConfig):
        rows, losses = train_glove(encoded, len(counts.words), config, folder)
        return WordVectors(counts.words, rows, counts.counts), losses
    rows, ngrams, losses = train_word2vec(encoded, counts.words, counts.counts, config, folder)
    if ngrams is None:
        return WordVectors(counts.words, rows, counts.counts), losses
    table = rows[len(counts.words) :]
    parts, starts = ngrams.parts_of(counts.words)
    rows = np.stack([rows[parts[a:b]].mean(0) for a, b in itertools.pairwise(starts)])
    made = WordVectors(counts.words, rows, counts.counts, ngrams=ngrams, ngram_table=table)
    return made, losses


def _prepared(
    folder: Path,
    documents: Iterable[str],
    settings: dict[str, Any],
    min_count: int,
    phrases: int,
    split: Splitter,
) -> tuple[WordCounts, EncodedWords]:
    """Count and encode the corpus, or open the files of an interrupted run."""
    record = folder / "corpus.json"
    if record.exists():
        saved = read_json(record)
        wanted, begun = json.loads(json.dumps(settings)), saved.get("settings", {})
        if begun != wanted:
            same = {**begun, "corpus": wanted["corpus"]} == wanted
            other = "another corpus: its texts differ" if same else "other settings"
            raise CheckpointError(
                f"{folder} holds a run with {other}",
                hint="delete it, or choose another output",
            )
        counts = WordCounts(saved["words"], np.array(saved["counts"], np.int64), saved["left_out"])
        return counts, EncodedWords.open(folder)
    if phrases:
        learned = Phrases.learn(
            documents,
            passes=phrases,
            min_count=min_count,
            threshold=settings["phrases"][1],
            split=split,
        )
        plain = split

        def split(document: str) -> list[str]:
            return learned.join(plain(document))

    counts = WordCounts.of(count_words(documents, split), min_count)
    encoded = write_ids(documents, counts.words, folder, split)
    saved = {
        "settings": settings,
        "words": counts.words,
        "counts": counts.counts.tolist(),
        "left_out": counts.left_out,
    }
    write_atomic(record, json.dumps(saved).encode())
    return counts, encoded
