"""GloVe (Pennington, Socher and Manning 2014): word vectors fitted to logarithms of counts.

    loss = Σ f(x_ij) (w_i · c_j + b_i + d_j - log x_ij)² / 2,     f(x) = min(1, x / x_max)^0.75

AdaGrad follows the authors' program (its later versions; early ones multiply the steps of biases by
the learning rate). Squared gradients start at 1; they are accumulated after multiplication with the
learning rate, except for the biases. Gradients are clipped to ±100 before that, also those of
biases, which the authors' program does not clip. The result is w + c. Numbers are float32 instead
of float64, which halves the memory traffic.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import InputError, TrainingError
from idiolect.training.progress import show_progress
from idiolect.words.compiled import compiled
from idiolect.words.cooccurrences import PAIR, count_pairs
from idiolect.words.snapshot import Snapshot
from idiolect.words.word2vec import EpochLoss, check_bounds
from idiolect.words.word_stream import EncodedWords

__all__ = ["GloveConfig", "train_glove"]

_CHUNK = 200_000
_SAVE_SECONDS = 60.0
_ONE, _CLIP = np.float32(1), np.float32(100)


@dataclass(frozen=True)
class GloveConfig:
    """Settings of GloVe."""

    dimensions: int = 100
    """Width of the vectors."""
    window: int = 15
    """Maximum distance of two words that are counted together."""
    epochs: int = 25
    learning_rate: float = 0.05
    x_max: float = 100.0
    """Counts of at least this have full weight."""
    exponent: float = 0.75
    """Exponent of the weighting function below `x_max`."""
    memory_mb: int = 1024
    """Memory for counting, in MiB."""
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_bounds(
            self,
            {
                "dimensions": (1, 10_000),
                "window": (1, 1_000),
                "epochs": (1, 10_000),
                "memory_mb": (1, 1 << 20),
                "threads": (1, 1_024),
                "seed": (0, 2**32 - 1),
                "learning_rate": (1e-9, 10.0),
                "x_max": (1e-9, 1e12),
                "exponent": (0.0, 10.0),
            },
        )


@compiled(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _fit(
    first: Any,
    second: Any,
    logs: Any,
    weights: Any,
    rows: Any,
    squares: Any,
    biases: Any,
    bias_squares: Any,
    rate: Any,
) -> Any:
    """Train on some pairs; return the summed loss. `rows` and `biases` are [words, contexts]."""
    width = rows.shape[2]
    loss = 0.0
    for n in range(len(first)):
        i, j = first[n], second[n]
        w, c = rows[0, i], rows[1, j]
        score = np.float32(0)
        for k in range(width):
            score += w[k] * c[k]
        error = score + biases[0, i] + biases[1, j] - logs[n]
        weighted = weights[n] * error
        loss += 0.5 * np.float64(weighted) * np.float64(error)
        step, limit = weighted * rate, _CLIP * rate
        p, q = squares[0, i], squares[1, j]
        for k in range(width):
            a = min(max(step * c[k], -limit), limit)
            b = min(max(step * w[k], -limit), limit)
            w[k] -= a / np.sqrt(p[k])
            c[k] -= b / np.sqrt(q[k])
            p[k] += a * a
            q[k] += b * b
        weighted = min(max(weighted, -_CLIP), _CLIP)
        biases[0, i] -= weighted / np.sqrt(bias_squares[0, i])
        biases[1, j] -= weighted / np.sqrt(bias_squares[1, j])
        bias_squares[0, i] += weighted * weighted
        bias_squares[1, j] += weighted * weighted
    return loss


class _State:
    """The arrays of a run; index 0 is for words, 1 for contexts."""

    def __init__(self, size: int, config: GloveConfig) -> None:
        width = config.dimensions
        generator = np.random.default_rng(config.seed)
        self.rows = (generator.random((2, size, width), np.float32) - np.float32(0.5)) / np.float32(
            width
        )
        self.biases = (generator.random((2, size), np.float32) - np.float32(0.5)) / np.float32(
            width
        )
        self.squares, self.bias_squares = np.ones_like(self.rows), np.ones_like(self.biases)
        self.config = config

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        names = ("rows", "biases", "squares", "bias_squares")
        return {name: getattr(self, name) for name in names}

    def fit(self, pairs: NDArray[Any]) -> float:
        config = self.config
        counts = pairs["count"]
        weights = np.minimum(1.0, counts / config.x_max) ** config.exponent
        return float(
            _fit(
                np.ascontiguousarray(pairs["first"]),
                np.ascontiguousarray(pairs["second"]),
                np.log(counts).astype(np.float32),
                weights.astype(np.float32),
                self.rows,
                self.squares,
                self.biases,
                self.bias_squares,
                np.float32(config.learning_rate),
            )
        )


def train_glove(
    encoded: EncodedWords, size: int, config: GloveConfig, folder: Path
) -> tuple[NDArray[np.float32], EpochLoss]:
    """Count pairs and train; resume if the folder holds a snapshot of the same run.

    Args:
        encoded: The corpus.
        size: Number of words in the vocabulary.
        config: The settings.
        folder: Folder for pairs and snapshots.

    Returns:
        The vectors, and the mean loss per pair in each epoch.

    Raises:
        InputError: No two words of the vocabulary occur together.
        TrainingError: The loss became NaN or infinite.
    """
    snapshot = Snapshot(folder, {"glove": asdict(config), "words": size})
    state = _State(size, config)
    saved = snapshot.load(state.arrays)
    if saved:
        pairs: NDArray[Any] = np.memmap(folder / "pairs.bin", PAIR, mode="r")
    else:
        pairs = count_pairs(
            encoded, folder, window=config.window, memory_mb=config.memory_mb, seed=config.seed
        )
        if not len(pairs):
            raise InputError(
                "no two words occur together", hint="pass longer texts, or lower min_count"
            )
        snapshot.save(state.arrays, {"done": 0, "losses": [], "loss": 0.0})
    done, losses = int(saved.get("done", 0)), list(saved.get("losses", []))
    loss = float(saved.get("loss", 0.0))
    total = len(pairs) * config.epochs
    stride = _CHUNK * config.threads
    with (
        show_progress("fitting pairs of words", total) as activity,
        ThreadPoolExecutor(config.threads) as pool,
    ):
        activity.start_at(done)
        last = time.monotonic()
        while done < total:
            start = done % len(pairs)
            end = min(start + stride, len(pairs))
            chunks = [pairs[at : min(at + _CHUNK, end)] for at in range(start, end, _CHUNK)]
            for spent in pool.map(state.fit, chunks):  # ordered, whatever the number of threads
                loss += spent
            done += end - start
            if not np.isfinite(loss):
                raise TrainingError(f"the loss is {loss}", hint="lower learning_rate")
            activity.update(done, f"loss {loss / end:.5f}")
            if end == len(pairs):
                losses.append(loss / len(pairs))
                loss = 0.0
            if time.monotonic() - last > _SAVE_SECONDS:
                last = time.monotonic()
                snapshot.save(state.arrays, {"done": done, "losses": losses, "loss": loss})
    return state.rows[0] + state.rows[1], losses
