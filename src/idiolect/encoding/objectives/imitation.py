"""Imitation (distillation): an encoder with added tokens reproduces the original's vectors.

The teacher reads a text with the old tokenizer, the student with the new tokens. The student's
vector is trained to equal the teacher's (Reimers & Gurevych 2020, "Making monolingual sentence
embeddings multilingual using knowledge distillation", 2004.09813). This needs neither pairs nor a
language-model head, and preserves the abilities of the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.objectives.contrastive import embed_shared
from idiolect.encoding.objectives.text_objective import TextBatch, TextObjective, hash_texts
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import ConfigError, InputError
from idiolect.nn.network import Network
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.distributed import Workers
from idiolect.training.objectives.objective import WholeBatchObjective
from idiolect.training.training_config import TrainingConfig

__all__ = ["Imitation", "ParallelTexts"]

_MINIMUM_WORDS = 4
"""Minimum words of a passage, about the length of a query; shorter texts are used whole."""


@dataclass(frozen=True)
class ParallelTexts(TextBatch):
    """The same texts in the student's and the teacher's token ids."""

    teacher_rows: list[list[int]] = field(default_factory=list)
    """The teacher's ids."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.rows)) + sum(map(len, self.teacher_rows))


class Imitation(TextObjective, WholeBatchObjective):
    """The squared distance between the two unit vectors of one passage per text.

    Passages vary in length, so that both short queries and whole documents are covered.

    Args:
        encoder: The encoder to train.
        teacher: The encoder to reproduce; it is not changed.
        texts: Distinct texts.
        seed: Random seed of the passages.
        micro_batch_size: As in `ContrastiveObjective`.
        workers: As in `ContrastiveObjective`.

    Raises:
        InputError: There are no texts.
        ConfigError: The teacher's vectors have another width.
    """

    def __init__(
        self,
        encoder: Encoder,
        teacher: Encoder,
        texts: Sequence[str],
        *,
        seed: int = 0,
        micro_batch_size: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        if not texts:
            raise InputError("there is no text to tune on", hint="pass at least one text")
        if teacher.dimensions != encoder.dimensions:
            raise ConfigError(
                f"the teacher's vectors have {teacher.dimensions} dimensions and the encoder's "
                f"{encoder.dimensions}",
                hint="pass the encoder before its vocabulary grew",
            )
        self.encoder, self.teacher, self.texts, self.seed = encoder, teacher, texts, seed
        self.micro_batch_size, self.workers = micro_batch_size, workers or Workers()
        teacher.model.network.eval()

    @classmethod
    def create(
        cls,
        encoder: Encoder,
        texts: Sequence[str],
        *,
        teacher: Encoder | None,
        config: TrainingConfig,
        workers: Workers,
    ) -> Self:
        """Make the objective for a run; see `TextObjective`."""
        if teacher is None:
            raise ConfigError(
                "the objective 'imitate' needs a teacher",
                hint="the teacher is the encoder before its vocabulary grew",
            )
        return cls(
            encoder,
            teacher,
            texts,
            seed=config.seed,
            micro_batch_size=config.micro_batch_size,
            workers=workers,
        )

    @property
    def fingerprint(self) -> str:
        """A hash of the texts and the teacher."""
        return hash_texts([*self.texts, self.teacher.fingerprint])

    def prepare(self, rows: EpochSample) -> ParallelTexts:
        """Sample a passage of each text, determined by seed, epoch and text."""
        batch = ParallelTexts([], teacher_rows=[])
        for number in rows.sources:
            rng = np.random.default_rng([self.seed, rows.epoch, number])
            own, taught = self._read_whole(self._passage(self.texts[number].split(), rng))
            batch.rows.append(own)
            batch.teacher_rows.append(taught)
        return batch

    def loss(self, network: Network, batch: ParallelTexts) -> Tensor:
        """Return the loss summed over the texts."""
        network.eval()  # Dropout would only add noise to the comparison.
        with torch.no_grad():
            target = embed_shared(
                self.teacher, batch.teacher_rows, self.workers, micro_batch_size=None
            )
        vectors = embed_shared(
            self.encoder, batch.rows, self.workers, micro_batch_size=self.micro_batch_size
        )
        with torch.autocast(vectors.device.type, enabled=False):
            return 2 * (1 - torch.cosine_similarity(vectors.float(), target.float())).sum()

    def _passage(self, words: list[str], rng: np.random.Generator) -> list[str]:
        longest = min(len(words), self.encoder.max_length)
        length = int(rng.integers(min(_MINIMUM_WORDS, longest), longest + 1))
        start = int(rng.integers(0, len(words) - length + 1))
        return words[start : start + length]

    def _read_whole(self, words: list[str]) -> list[list[int]]:
        """Return the ids of as many words as fit both encoders, so that both read the same text."""
        while True:
            counts = EncodingCounts()
            rows = [
                encoder.reader.read([" ".join(words)], None, counts)[0]
                for encoder in (self.encoder, self.teacher)
            ]
            if not counts.truncated or len(words) < 2:
                return rows
            words = words[: len(words) // 2]
