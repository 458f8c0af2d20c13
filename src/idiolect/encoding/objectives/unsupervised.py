"""What an encoder learns from text alone: SimCSE and TSDAE."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.objectives.contrastive import embed_shared, share_loss
from idiolect.encoding.objectives.denoiser import Denoiser, damage
from idiolect.encoding.objectives.pair_batches import EpochSample
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import InputError
from idiolect.nn.transformer import Transformer
from idiolect.training.distributed import Workers
from idiolect.training.objectives.contrastive_losses import Candidates, InfoNCE

__all__ = ["TSDAE", "SimCSE", "TextBatch", "hash_texts"]


@dataclass(frozen=True)
class TextBatch:
    """Texts as a network reads them."""

    rows: list[list[int]]
    """The ids of each."""
    damaged: list[list[int]] = field(default_factory=list)
    """The ids of what is left of each."""

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.rows)

    @property
    def count(self) -> int:
        """Number of texts, or of the tokens that are to be written again."""
        return sum(len(row) - 1 for row in self.rows) if self.damaged else len(self.rows)

    @property
    def tokens(self) -> int:
        """How many real tokens are read."""
        return sum(map(len, self.rows)) + sum(map(len, self.damaged or self.rows))

    def part(self, rows: slice) -> Self:
        """Return some of the texts; all, where each is told apart from all others."""
        return type(self)(self.rows[rows], self.damaged[rows]) if self.damaged else self

    def to(self, device: torch.device) -> Self:
        """Return it: ids move when they are embedded."""
        return self


class SimCSE:
    """A text is its own pair: dropout makes two vectors of it (Gao et al. 2021, 2104.08821).

    Args:
        encoder: What is trained.
        texts: Different texts.
        temperature: Of `InfoNCE`.
        at_once: As in `Contrast`.
        workers: As in `Contrast`.

    Raises:
        InputError: There are fewer than two texts, or the network has no dropout.
    """

    predicts_text = False

    def __init__(
        self,
        encoder: Encoder,
        texts: Sequence[str],
        *,
        temperature: float = 0.05,
        at_once: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        _check(texts)
        config = encoder.model.network.config
        if not (config.dropout or config.attention_dropout or config.inner_dropout):
            raise InputError(
                "this model has no dropout, so a text read twice has one vector",
                hint='use objective="tsdae"',
            )
        self.encoder, self.texts = encoder, texts
        self.goal = InfoNCE(temperature=temperature)
        self.at_once, self.workers = at_once, workers or Workers()

    @property
    def fingerprint(self) -> str:
        """A hash of the texts."""
        return hash_texts(self.texts)

    def prepare(self, rows: EpochSample) -> TextBatch:
        """Read texts."""
        return TextBatch(self.encoder.reader.read(_pick(self.texts, rows), None, EncodingCounts()))

    def loss(self, network: Transformer, batch: TextBatch) -> Tensor:
        """Return the loss summed over the texts."""
        once, again = (
            embed_shared(self.encoder, batch.rows, self.workers, at_once=self.at_once)
            for _ in range(2)
        )
        pairs = Candidates.diagonal(len(batch), device=once.device)
        with torch.autocast(once.device.type, enabled=False):  # as in `Contrast`
            loss = self.goal(once, again, pairs)
        return share_loss(loss, self.workers)


class TSDAE:
    """A text has to be written again from the vector of its damaged self; see `Denoiser`.

    Args:
        encoder: What is trained.
        texts: Different texts.
        share: How many of a text's words are taken away.
        seed: Decides which, and how the new weights begin.

    Raises:
        InputError: There are fewer than two texts.
    """

    predicts_text = False

    def __init__(
        self, encoder: Encoder, texts: Sequence[str], *, share: float = 0.6, seed: int = 0
    ) -> None:
        _check(texts)
        self.encoder, self.texts, self.share, self.seed = encoder, texts, share, seed
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.denoiser = Denoiser(encoder.model.network).to(encoder.model.network.device)

    @property
    def fingerprint(self) -> str:
        """A hash of the texts and of what is taken away."""
        return hash_texts([*self.texts, str(self.share)])

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Make the decoder a part of the network, so that it trains and is kept with it."""
        network = self.encoder.model.network
        network.denoiser = self.denoiser
        try:
            yield
        finally:
            del network.denoiser

    def prepare(self, rows: EpochSample) -> TextBatch:
        """Read texts and what is left of them; what goes follows from seed, round and number."""
        texts = _pick(self.texts, rows)
        left = []
        for text, number in zip(texts, rows.sources, strict=True):
            words = text.split()
            chance = np.random.default_rng([self.seed, rows.round, number]).random(len(words))
            left.append(" ".join(damage(words, chance.tolist(), share=self.share)))
        reader = self.encoder.reader
        return TextBatch(
            reader.read(texts, None, EncodingCounts()), reader.read(left, None, EncodingCounts())
        )

    def loss(self, network: Transformer, batch: TextBatch) -> Tensor:
        """Return the loss summed over the tokens that are written again."""
        vectors = self.encoder.embed_rows(batch.damaged)
        if self.encoder.normalise:  # hidden states are of that size
            vectors = vectors * vectors.shape[1] ** 0.5
        longest = max(map(len, batch.rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch.rows])
        lengths = torch.tensor([len(row) for row in batch.rows])
        mask = torch.arange(longest) < lengths[:, None]
        device = vectors.device
        return self.denoiser.loss(network, ids.to(device), mask.to(device), vectors)


def _pick(texts: Sequence[str], rows: EpochSample) -> list[str]:
    return [texts[number] for number in rows.sources]


def _check(texts: Sequence[str]) -> None:
    if len(texts) < 2:
        raise InputError(f"{len(texts)} different texts to tune on", hint="give more")


def hash_texts(texts: Sequence[str]) -> str:
    """Return a hash of texts: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
