"""What an encoder with new tokens learns from the one it was made of: to give the same vectors.

The teacher reads a text in the old pieces and the student with the new tokens, and the student's
vector has to be the teacher's (Reimers & Gurevych 2020, "Making monolingual sentence embeddings
multilingual using knowledge distillation", 2004.09813). No pairs are needed, nor a language-model
head, and what the encoder was good at it stays good at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.objectives.contrastive import embed_shared, share_loss
from idiolect.encoding.objectives.pair_batches import EpochSample
from idiolect.encoding.objectives.unsupervised import TextBatch, hash_texts
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import ConfigError, InputError
from idiolect.nn.transformer import Transformer
from idiolect.training.distributed import Workers

__all__ = ["Imitation"]

_SHORTEST = 4
"""Words of a passage, where a text has as many: queries are as short."""


@dataclass(frozen=True)
class _Lesson(TextBatch):
    """The same texts as both read them."""

    taught: list[list[int]] = field(default_factory=list)
    """The ids that the teacher reads."""

    @property
    def tokens(self) -> int:
        """How many real tokens are read."""
        return sum(map(len, self.rows)) + sum(map(len, self.taught))


class Imitation:
    """The squared distance of two unit vectors, of a passage of each text.

    Passages are of all lengths, so that queries and whole documents are both practised.

    Args:
        encoder: What is trained.
        teacher: Whose vectors are wanted; it is not changed.
        texts: Different texts.
        seed: Decides which passages are read.
        at_once: As in `Contrast`.
        workers: As in `Contrast`.

    Raises:
        InputError: There are no texts.
        ConfigError: The teacher's vectors have another width.
    """

    predicts_text = False

    def __init__(
        self,
        encoder: Encoder,
        teacher: Encoder,
        texts: Sequence[str],
        *,
        seed: int = 0,
        at_once: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        if not texts:
            raise InputError("there is no text to tune on")
        if teacher.dimensions != encoder.dimensions:
            raise ConfigError(
                f"the teacher's vectors have {teacher.dimensions} dimensions and the encoder's "
                f"{encoder.dimensions}",
                hint="the teacher is the encoder before it was given new tokens",
            )
        self.encoder, self.teacher, self.texts, self.seed = encoder, teacher, texts, seed
        self.at_once, self.workers = at_once, workers or Workers()
        teacher.model.network.eval()

    @property
    def fingerprint(self) -> str:
        """A hash of the texts and the teacher."""
        return hash_texts([*self.texts, self.teacher.fingerprint])

    def prepare(self, rows: EpochSample) -> _Lesson:
        """Read a passage of each text; which one follows from seed, round and number."""
        lesson = _Lesson([], taught=[])
        for number in rows.sources:
            chance = np.random.default_rng([self.seed, rows.round, number])
            own, taught = self._read_whole(self._draw(self.texts[number].split(), chance))
            lesson.rows.append(own)
            lesson.taught.append(taught)
        return lesson

    def loss(self, network: Transformer, batch: _Lesson) -> Tensor:
        """Return the loss summed over the texts."""
        network.eval()  # Dropout would only add noise to what is compared.
        with torch.no_grad():
            wanted = embed_shared(self.teacher, batch.taught, self.workers, at_once=None)
        found = embed_shared(self.encoder, batch.rows, self.workers, at_once=self.at_once)
        with torch.autocast(found.device.type, enabled=False):
            loss = 2 * (1 - torch.cosine_similarity(found.float(), wanted.float())).sum()
        return share_loss(loss, self.workers)

    def _draw(self, words: list[str], chance: np.random.Generator) -> list[str]:
        most = min(len(words), self.encoder.length)
        length = int(chance.integers(min(_SHORTEST, most), most + 1))
        start = int(chance.integers(0, len(words) - length + 1))
        return words[start : start + length]

    def _read_whole(self, words: list[str]) -> list[list[int]]:
        """Read as many of the words as neither has to cut: both must have read the same."""
        while True:
            counts = EncodingCounts()
            rows = [
                encoder.reader.read([" ".join(words)], None, counts)[0]
                for encoder in (self.encoder, self.teacher)
            ]
            if not counts.truncated or len(words) < 2:
                return rows
            words = words[: len(words) // 2]
