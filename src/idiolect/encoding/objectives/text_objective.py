"""The interface and the batches of objectives that need no pairs."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError, InputError
from idiolect.training.distributed import Workers
from idiolect.training.objectives.objective import Objective
from idiolect.training.training_config import TrainingConfig

__all__ = ["TextBatch", "TextObjective", "check_texts_to_tune", "hash_texts", "refuse_teacher"]


class TextObjective(Objective):
    """An objective that trains an encoder on texts alone."""

    texts: Sequence[str]
    """The distinct texts."""

    def __len__(self) -> int:
        """Return the number of examples in an epoch."""
        return len(self.texts)

    @classmethod
    @abstractmethod
    def create(
        cls,
        encoder: Encoder,
        texts: Sequence[str],
        *,
        teacher: Encoder | None,
        config: TrainingConfig,
        workers: Workers,
    ) -> Self:
        """Make the objective for a run.

        Raises:
            InputError: Too few texts, or a model that the objective cannot train.
            ConfigError: A teacher that is missing, not needed, or does not fit.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """A hash of the texts and settings."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Modules that train with the encoder's network and are discarded afterwards."""
        return {}


@dataclass(frozen=True)
class TextBatch:
    """Texts as token ids; each text is compared with all others of the batch."""

    rows: list[list[int]]
    """The ids of each text."""

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.rows)

    @property
    def count(self) -> int:
        """Number of texts: the loss is a sum over them."""
        return len(self.rows)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.rows))

    def to(self, device: torch.device) -> Self:
        """Return the batch unchanged; ids are moved to the device when they are encoded."""
        return self


def check_texts_to_tune(texts: Sequence[str]) -> None:
    """Refuse too few texts.

    Raises:
        InputError: There are fewer than two.
    """
    if len(texts) < 2:
        raise InputError(f"only {len(texts)} different texts to tune on", hint="pass at least two")


def refuse_teacher(objective: str, teacher: Encoder | None) -> None:
    """Refuse a teacher that an objective does not use.

    Raises:
        ConfigError: A teacher was passed.
    """
    if teacher is not None:
        raise ConfigError(
            f"the objective {objective!r} has no teacher",
            hint="only 'imitate' learns from a teacher",
        )


def hash_texts(texts: Sequence[str]) -> str:
    """Return a hash of texts: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
