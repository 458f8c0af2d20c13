"""`probe`: run all probes on a model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.errors import InputError
from idiolect.tasks.probes.anisotropy import Anisotropy, measure_anisotropy
from idiolect.tasks.probes.attention_patterns import (
    PATTERNS,
    AttentionPatterns,
    attention_patterns,
)
from idiolect.tasks.probes.head_importance import PruningCurve, head_importance, pruning_curve
from idiolect.tasks.probes.layer_probes import ProbeResult, probe_texts, probe_words
from idiolect.tasks.probes.layer_states import self_attentions
from idiolect.tasks.probes.pruning_tasks import PruningTask, usual_task
from idiolect.tasks.probes.tagged_words import TaggedSentence
from idiolect.training.progress import status

__all__ = ["ModelProbes", "probe"]

_ATTENDED = 100
"""Texts whose attention is measured; memory grows with the square of the length."""
_IMPORTANT = 200
"""Number of texts that determine head importance, and of texts that measure pruning."""


@dataclass(frozen=True)
class ModelProbes:
    """Results of all probes."""

    layers: int
    """Number of layers; results by layer also have the embedding, as number 0."""
    texts: int
    """Number of texts."""
    probes: list[ProbeResult]
    """Layer probes."""
    anisotropy: Anisotropy
    """How similar in direction the states are."""
    patterns: AttentionPatterns | None
    """Where heads attend; `None` without attention."""
    importance: NDArray[np.float64] | None
    """Importance of each head. (layers, heads)."""
    pruning: PruningCurve | None
    """The cost of pruning heads."""

    def as_dict(self) -> dict[str, Any]:
        """Return the results as JSON values."""
        found: dict[str, Any] = {
            "layers": self.layers,
            "texts": self.texts,
            "probes": [asdict(one) for one in self.probes],
            "anisotropy": asdict(self.anisotropy),
        }
        if self.patterns is not None:
            found["patterns"] = {
                name: {
                    "shares": self.patterns.shares[number].tolist(),
                    "uniform": float(self.patterns.uniform[number]),
                }
                for number, name in enumerate(PATTERNS)
            }
        if self.importance is not None and self.pruning is not None:
            found["importance"] = self.importance.tolist()
            found["pruning"] = asdict(self.pruning)
        return found


def probe(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    tagged: Sequence[TaggedSentence] = (),
    task: PruningTask | None = None,
    seeds: int = 3,
    seed: int = 0,
) -> ModelProbes:
    """Probe the layers and heads of a model. The model is not changed.

    Args:
        encoder: The model: encoders, decoders, recurrent networks.
        texts: Texts of a sentence or a few.
        tagged: Sentences with part-of-speech tags, for the probes `pos` and `chunk`.
        task: Task that measures pruning; by default `usual_task` on the texts.
        seeds: Number of random prunings to compare with pruning by importance.
        seed: Random seed of samples.

    Raises:
        InputError: There are too few texts or sentences, or the model has no layers.
    """
    network = encoder.model.network
    if network.context_free or not network.blocks:
        raise InputError("a static model has no layers to probe", hint="probe its base")
    shuffled = random.Random(seed).sample(list(texts), len(texts))
    with status("probing the layers"):
        probes = [] if not tagged else probe_words(encoder, tagged)
        probes += probe_texts(encoder, shuffled, seed=seed)
        anisotropy = measure_anisotropy(encoder, shuffled[:1000], seed=seed)
    patterns = importance = curve = None
    if self_attentions(encoder):
        with status("measuring the heads"):
            patterns = attention_patterns(encoder, shuffled[:_ATTENDED])
            half = min(_IMPORTANT, len(shuffled) // 2)
            task = task or usual_task(encoder, shuffled[:half], shuffled[half : 2 * half])
            importance = head_importance(encoder, task.batches)
            curve = pruning_curve(
                encoder,
                importance,
                task.measure,
                name=task.measure_name,
                higher_is_better=task.higher_is_better,
                shares=(0.0, 0.1, 0.2, 0.3, 0.4, 0.6),
                seeds=seeds,
            )
    return ModelProbes(
        len(anisotropy.tokens) - 1, len(texts), probes, anisotropy, patterns, importance, curve
    )
