"""Training pairs from one text: its title, a heading or a few of its words are the query.

The document of a title is the text without it. The document of a heading is the text under it; a
heading that many texts have, such as "Methods", is preceded by the title. A crop is a span of a few
words, and its document is the rest of the text: the inverse cloze task (Lee et al. 2019,
1906.00300) with spans of the length of a query instead of whole sentences. The query is cut out of
its document, so that it cannot be matched to itself; other occurrences of its words stay.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.objectives.contrastive import loss_of_pairs
from idiolect.encoding.objectives.text_objective import (
    TextBatch,
    TextObjective,
    check_texts_to_tune,
    hash_texts,
    refuse_teacher,
)
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import InputError
from idiolect.nn.network import Network
from idiolect.text.headings import split_sections, split_title
from idiolect.text.skipped import Skipped, shown_places, skip
from idiolect.text.text_file import text_digest
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.distributed import Workers
from idiolect.training.objectives.contrastive_losses import InfoNCE
from idiolect.training.objectives.objective import WholeBatchObjective
from idiolect.training.training_config import TrainingConfig

__all__ = ["Crops", "Headings", "PartKind", "Parts", "QueriedTexts", "Titles", "crop"]

PartKind = Literal["titles", "headings", "crops"]
"""Which parts of a text are queries."""

_LOG = logging.getLogger(__name__)
_WORDS = (3, 10)
"""Words of a crop, at least and at most."""
_MAX_SHARED = 5
"""A title or heading that more texts than this have does not distinguish them."""
_MISSING = {"titles": "title", "headings": "heading"}


@dataclass(frozen=True)
class QueriedTexts(TextBatch):
    """Documents in `rows`, each with a query that was part of it."""

    queries: list[list[int]] = field(default_factory=list)
    """The ids of each query."""
    ignored: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    """True where a document is not a negative, since its query is equal. (texts, texts), bool."""

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return sum(map(len, self.rows)) + sum(map(len, self.queries))


def crop(words: Sequence[str], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Cut a span of 3 to 10 words, at most half of them, out of a text.

    Returns:
        The span and the remaining words. For a single word, that word twice.
    """
    longest = min(_WORDS[1], len(words) // 2)
    if longest < 1:
        return list(words), list(words)
    length = int(rng.integers(min(_WORDS[0], longest), longest + 1))
    start = int(rng.integers(0, len(words) - length + 1))
    end = start + length
    return list(words[start:end]), [*words[:start], *words[end:]]


class _TextParts(TextObjective, WholeBatchObjective):
    """Bring a part of a text close to the rest of it, and away from other texts.

    Args:
        encoder: The encoder to train.
        texts: Distinct texts. Texts without such a part are skipped and counted in `skipped`.
        seed: Random seed of the choice of parts.
        temperature: Temperature of `InfoNCE`.
        micro_batch_size: As in `ContrastiveObjective`.
        workers: As in `ContrastiveObjective`.

    Raises:
        InputError: There are fewer than two texts, or fewer than two with such a part.
    """

    kinds: ClassVar[tuple[PartKind, ...]]
    """The kinds of parts. In each epoch, one of those that a text has is sampled."""

    def __init__(
        self,
        encoder: Encoder,
        texts: Sequence[str],
        *,
        seed: int = 0,
        temperature: float = 0.05,
        micro_batch_size: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        check_texts_to_tune(texts)
        self.encoder, self.texts, self.seed = encoder, texts, seed
        self.criterion = InfoNCE(temperature=temperature)
        self.micro_batch_size, self.workers = micro_batch_size, workers or Workers()
        self.skipped = Skipped()
        """Number of texts without a title or heading, and the first of them."""
        self._shared = set[bytes]() if self.kinds == ("crops",) else _shared_headings(texts)
        self._numbers = [n for n in range(len(texts)) if self._check(n)]
        if len(self._numbers) < 2:
            reason, count = self.skipped.most_common(1)[0]
            raise InputError(
                f"{count:,} of {len(texts):,} texts {reason}{shown_places(self.skipped, reason)}",
                hint="choose the objective 'crops'",
            )

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
        refuse_teacher(cls.__name__.lower(), teacher)
        made = cls(
            encoder,
            texts,
            seed=config.seed,
            micro_batch_size=config.micro_batch_size,
            workers=workers,
        )
        for reason, count in made.skipped.items():
            places = shown_places(made.skipped, reason)
            lost = "" if "crops" in cls.kinds else " and are not trained on"
            _LOG.warning("%d of %d texts %s%s%s", count, len(texts), reason, lost, places)
        return made

    def __len__(self) -> int:
        """Return the number of texts that have a part to train on."""
        return len(self._numbers)

    @property
    def fingerprint(self) -> str:
        """A hash of the texts."""
        return hash_texts(self.texts)

    def prepare(self, rows: EpochSample) -> QueriedTexts:
        """Draw a part of each text, determined by seed, epoch and text."""
        numbers = [self._numbers[source] for source in rows.sources]
        cut = [self._draw(number, rows.epoch) for number in numbers]
        queries, documents = map(list, zip(*cut, strict=True))
        read = self.encoder.reader.read
        return QueriedTexts(
            read(documents, "document", EncodingCounts()),
            queries=read(queries, "query", EncodingCounts()),
            ignored=_equal(queries),
        )

    def loss(self, network: Network, batch: QueriedTexts) -> Tensor:
        """Return the loss summed over the texts."""
        return loss_of_pairs(
            self.encoder,
            self.criterion,
            batch.queries,
            batch.rows,
            self.workers,
            micro_batch_size=self.micro_batch_size,
            ignored=batch.ignored,
        )

    def _check(self, number: int) -> bool:
        """Return whether a text has a part; count the kinds of parts that it lacks."""
        parts = self._parts(self.texts[number])
        for kind in self.kinds:
            if kind != "crops" and kind not in parts:
                reason = f"have no {_MISSING[kind]} of their own"
                skip(self.skipped, reason, f"text {number + 1:,}")
        return bool(parts) or "crops" in self.kinds

    def _draw(self, number: int, epoch: int) -> tuple[str, str]:
        """Return a part of a text, and the document it is a query for."""
        rng = np.random.default_rng([self.seed, epoch, number])
        text = self.texts[number]
        parts = self._parts(text)
        offered = [kind for kind in self.kinds if kind == "crops" or kind in parts]
        kind = offered[int(rng.integers(len(offered)))] if len(offered) > 1 else offered[0]
        if kind == "crops":
            query, rest = crop(text.split(), rng)
            return " ".join(query), " ".join(rest)
        choices = parts[kind]
        return choices[int(rng.integers(len(choices)))]

    def _parts(self, text: str) -> Mapping[PartKind, list[tuple[str, str]]]:
        """Find the titles and headings of a text, each with its document."""
        if self.kinds == ("crops",):
            return {}
        titled = split_title(text)
        if titled and self._is_shared(titled[0]):
            titled = None
        parts: dict[PartKind, list[tuple[str, str]]] = {}
        if titled and "titles" in self.kinds:
            parts["titles"] = [titled]
        if "headings" in self.kinds:
            found = []
            for section in split_sections(text):
                if not self._is_shared(section.heading):
                    found.append((section.heading, section.body))
                elif titled:
                    found.append((f"{titled[0]} {section.heading}", section.body))
            if found:
                parts["headings"] = found
        return parts

    def _is_shared(self, heading: str) -> bool:
        return text_digest(heading.casefold()) in self._shared


class Crops(_TextParts):
    """Bring a few words of a text close to the rest of it, and away from other texts."""

    kinds = ("crops",)


class Titles(_TextParts):
    """Bring the title of a text close to the rest of it, and away from other texts."""

    kinds = ("titles",)


class Headings(_TextParts):
    """Bring a heading close to the text under it, and away from other texts."""

    kinds = ("headings",)


class Parts(_TextParts):
    """Use the title, a heading or a crop of each text, sampled again in each epoch."""

    kinds = ("titles", "headings", "crops")


def _shared_headings(texts: Sequence[str]) -> set[bytes]:
    """Return the digests of the titles and headings that many texts have."""
    counts: Counter[bytes] = Counter()
    for text in texts:
        titled = split_title(text)
        found = {titled[0]} if titled else set()
        found |= {section.heading for section in split_sections(text)}
        counts.update({text_digest(heading.casefold()) for heading in found})
    return {digest for digest, count in counts.items() if count > _MAX_SHARED}


def _equal(queries: Sequence[str]) -> Tensor:
    """Return True for pairs i ≠ j with equal queries. Shape: (queries, queries), bool."""
    numbers: dict[str, int] = {}
    place = torch.tensor([numbers.setdefault(query, len(numbers)) for query in queries])
    equal = place[:, None] == place[None, :]
    return equal.fill_diagonal_(False)
