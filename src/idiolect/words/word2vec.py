"""word2vec (Mikolov et al. 2013, arXiv 1301.3781 and 1310.4546) with fastText's n-grams.

The loops are compiled for the CPU and read ids, not batches of tensors: a step is one prediction of
a few hundred multiplications. A training session has an overhead of milliseconds per step, longer
than such a step takes. Therefore this trainer is separate, with the same guarantees: a killed run
resumes, and with one thread it ends bit-identical to an uninterrupted run.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import ConfigError, InputError, TrainingError
from idiolect.training.progress import show_progress
from idiolect.words.character_ngrams import NgramRows
from idiolect.words.huffman import HuffmanCodes
from idiolect.words.random_words import alias_table
from idiolect.words.snapshot import Snapshot
from idiolect.words.word_stream import EncodedWords

__all__ = ["EpochLoss", "Word2VecConfig", "check_bounds", "keep_probabilities", "train_word2vec"]

_JOB_WORDS = 20_000
"""Words per job of a thread; a run may be saved between jobs."""
_SAVE_SECONDS = 60.0
_MIN_RATE_SHARE = 1e-4

EpochLoss = list[float]
"""The mean loss per prediction in each epoch."""


@dataclass(frozen=True)
class Word2VecConfig:
    """Settings of skip-gram or CBOW."""

    model: Literal["skipgram", "cbow"] = "skipgram"
    dimensions: int = 100
    """Width of the vectors."""
    window: int = 5
    """Maximum distance of a context word; the actual one is random, from 1 to this."""
    negative: int = 5
    """Noise words for each prediction; 0 trains hierarchical softmax instead."""
    shared_negatives: bool = True
    """Skip-gram: share the noise words within a window. Otherwise pair by pair, as word2vec.c."""
    epochs: int = 5
    learning_rate: float | None = None
    """Initial rate; it decays linearly. Default: .025 for skip-gram, .05 for CBOW or n-grams."""
    sample: float = 1e-3
    """Subsampling threshold: words with a larger share of the text are subsampled; 0 keeps all."""
    noise_exponent: float = 0.75
    """Noise words are sampled by their counts to this power; fastText uses .5."""
    cbow_mean: bool = True
    """CBOW: average the context vectors instead of summing them."""
    divide_gradient: bool = False
    """CBOW: divide the gradient by the context size if averaging; word2vec.c and gensim do not."""
    min_n: int = 0
    """Shortest character n-gram; 0 uses none. fastText: 3."""
    max_n: int = 6
    """Longest character n-gram."""
    buckets: int = 2_000_000
    """Number of rows that n-grams are hashed to."""
    threads: int = 1
    """Number of threads, which train without locks. With one, the result is bit-reproducible."""
    seed: int = 0
    rate: float = field(init=False, default=0.0)
    """The learning rate in use."""

    def __post_init__(self) -> None:
        if self.model not in ("skipgram", "cbow"):
            raise ConfigError(f"model is {self.model!r}", hint="one of skipgram, cbow, glove")
        bounds = {
            "dimensions": (1, 10_000),
            "window": (1, 1_000),
            "negative": (0, 1_000),
            "epochs": (1, 10_000),
            "min_n": (0, 50),
            "max_n": (1, 50),
            "buckets": (1, 100_000_000),
            "threads": (1, 1_024),
            "seed": (0, 2**32 - 1),
        }
        check_bounds(self, bounds)
        check_bounds(self, {"sample": (0.0, 1.0), "noise_exponent": (-10.0, 10.0)})
        if self.min_n > self.max_n:
            raise ConfigError(
                f"min_n is {self.min_n}, but max_n {self.max_n}", hint="choose min_n <= max_n"
            )
        default = 0.05 if self.model == "cbow" or self.min_n else 0.025
        rate = default if self.learning_rate is None else self.learning_rate
        if not 0 < rate <= 10:
            raise ConfigError(f"learning_rate is {rate}", hint="choose one above 0, such as 0.025")
        object.__setattr__(self, "rate", float(rate))


def check_bounds(config: Any, bounds: dict[str, tuple[Any, Any]]) -> None:
    """Check that the numbers of a configuration are in range.

    Raises:
        ConfigError: A value has the wrong type, or is out of range.
    """
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        whole = isinstance(low, int)
        good = isinstance(value, int) if whole else isinstance(value, int | float)
        if isinstance(value, bool) or not good or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise ConfigError(f"{name} is {value!r}", hint=f"{kind} from {low} to {high}")


def keep_probabilities(counts: NDArray[Any], sample: float) -> NDArray[np.float32]:
    """Return the probability of keeping each word: (√(f/tN) + 1) · tN/f, at most 1. (words,)."""
    if not sample:
        return np.ones(len(counts), np.float32)
    limit = sample * counts.sum()
    kept = (np.sqrt(counts / limit) + 1) * limit / counts
    return np.asarray(np.minimum(kept, 1), np.float32)


def train_word2vec(
    encoded: EncodedWords,
    words: list[str],
    counts: NDArray[Any],
    config: Word2VecConfig,
    folder: Path,
) -> tuple[NDArray[np.float32], NgramRows | None, EpochLoss]:
    """Train vectors; resume if the folder holds a snapshot of the same run.

    Args:
        encoded: The corpus.
        words: The vocabulary.
        counts: Occurrences of each word, in decreasing order.
        config: The settings.
        folder: Folder for snapshots.

    Returns:
        The vectors of words, followed by those of n-gram buckets; the n-grams; the losses by epoch.

    Raises:
        InputError: No word was predicted from another.
        TrainingError: The loss became NaN or infinite.
    """
    trainer = _Trainer(encoded, words, counts, config)
    jobs = trainer.jobs
    snapshot = Snapshot(folder, {"word2vec": asdict(config), "words": len(words)})
    state = snapshot.load(trainer.arrays)
    done = int(state.get("jobs", 0))
    losses: EpochLoss = list(state.get("losses", []))
    cost, predictions = float(state.get("cost", 0.0)), int(state.get("predictions", 0))
    total = len(encoded) * config.epochs
    began, saved = time.monotonic(), time.monotonic()
    with (
        show_progress("training words", total) as activity,
        ThreadPoolExecutor(config.threads) as pool,
    ):
        read = trainer.words_before(done)
        activity.start_at(read)
        first = read
        while done < len(jobs) * config.epochs:
            end = min(done + config.threads, done - done % len(jobs) + len(jobs))
            results = list(pool.map(trainer.run, range(done, end)))
            for spent, made in results:  # ordered, so that the threads do not change the sum
                cost += spent
                predictions += made
            done = end
            read = trainer.words_before(done)
            if not np.isfinite(cost):
                raise TrainingError(
                    f"the loss is {cost} after {read:,} words", hint="lower learning_rate"
                )
            speed = (read - first) / max(1e-9, time.monotonic() - began)
            activity.update(read, f"loss {cost / max(1, predictions):.4f}  {speed:,.0f} words/s")
            if done % len(jobs) == 0:
                losses.append(cost / max(1, predictions))
                cost, predictions = 0.0, 0
            if time.monotonic() - saved > _SAVE_SECONDS:
                saved = time.monotonic()
                snapshot.save(
                    trainer.arrays,
                    {"jobs": done, "losses": losses, "cost": cost, "predictions": predictions},
                )
    if not any(losses):  # every prediction has a loss above zero
        raise InputError(
            "no two words were left together to train on",
            hint="pass more and longer texts, lower min_count, or pass sample=0",
        )
    return trainer.vectors, trainer.ngrams, losses


class _Trainer:
    def __init__(
        self, encoded: EncodedWords, words: list[str], counts: NDArray[Any], config: Word2VecConfig
    ) -> None:
        self.encoded, self.config = encoded, config
        width, size = config.dimensions, len(words)
        self.ngrams = None
        self.parts, self.part_starts = np.zeros(0, np.int32), np.zeros(1, np.int64)
        rows = size
        if config.min_n:
            self.ngrams = NgramRows(config.min_n, config.max_n, config.buckets)
            self.parts, self.part_starts = self.ngrams.parts_of(words)
            rows += config.buckets
        generator = np.random.default_rng(config.seed)
        self.vectors = generator.random((rows, width), np.float32)
        self.vectors -= np.float32(0.5)
        self.vectors /= np.float32(width)
        self.output = np.zeros((size if config.negative else size - 1, width), np.float32)
        self.keep = keep_probabilities(counts, config.sample)
        self.noise = alias_table(counts.astype(np.float64) ** config.noise_exponent)
        if config.negative:
            none = np.zeros(0, np.int64)
            self.codes = (none, none.astype(np.int32), none.astype(np.uint8))
        else:
            codes = HuffmanCodes.of(counts)
            self.codes = (codes.starts, codes.nodes, codes.bits)
        self.total = len(encoded) * config.epochs
        self.jobs = encoded.jobs(_JOB_WORDS)
        self._epoch = -1
        self._order = self._before = np.zeros(0, np.int64)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"vectors": self.vectors, "output": self.output}

    def place(self, done: int) -> tuple[int, int, int]:
        """Return the epoch and index of the next job after `done` jobs, and the words before it.

        Skip-gram uses another order in each epoch: in corpus order, the last topic would be learnt
        with the lowest learning rate, and after all others. CBOW keeps the corpus order, which
        gives better vectors (docs/words.md).
        """
        epoch, place = divmod(done, len(self.jobs))
        if epoch != self._epoch:
            self._order = np.arange(len(self.jobs))
            if self.config.model == "skipgram":
                np.random.default_rng([self.config.seed, epoch]).shuffle(self._order)
            bounds = self.encoded.bounds[np.array(self.jobs)[self._order]]
            self._before = np.cumsum(np.append(0, bounds[:, 1] - bounds[:, 0]))
            self._epoch = epoch
        return epoch, int(self._order[place]), epoch * len(self.encoded) + int(self._before[place])

    def words_before(self, done: int) -> int:
        """Return the number of words read in this many jobs."""
        return self.place(done)[2]

    def run(self, done: int) -> tuple[float, int]:
        """Train on the sentences of one job."""
        from idiolect.words.window_kernels import train_windows

        config = self.config
        epoch, number, before = self.place(done)
        ids, bounds = self.encoded.read(*self.jobs[number])
        rates = np.array(
            [
                config.rate * max(_MIN_RATE_SHARE, 1 - (before + int(edge)) / (self.total + 1))
                for edge in (0, bounds[-1])
            ],
            np.float32,
        )
        seed = np.random.SeedSequence([config.seed, epoch, number]).generate_state(1, np.uint64)[0]
        cbow = config.model == "cbow"
        return train_windows(  # type: ignore[no-any-return]
            ids,
            bounds,
            self.keep,
            (self.vectors, self.output, self.parts, self.part_starts),
            (cbow, config.cbow_mean, config.divide_gradient),
            (self.noise, self.codes, config.negative),
            config.window,
            bool(config.shared_negatives and config.negative and not cbow),
            rates,
            seed,
        )
