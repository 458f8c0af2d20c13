"""What `distill` minimises: pairs of texts, one in new tokens and one in old pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from idiolect.models.language_model import LanguageModel
from idiolect.nn.heads import LanguageHead
from idiolect.nn.transformer import Transformer
from idiolect.text.tokenizers.extension import Extension
from idiolect.training.data.packed_documents import Batch, PackedRows, TextTemplate
from idiolect.training.objectives.cross_entropy import cross_entropy, vocabulary_blocks
from idiolect.vocabulary.rows.contexts import Snippet

__all__ = ["HiddenStateMatching", "MatchingBatch", "Snippets"]


class Snippets:
    """An endless stream of snippets, each pass in an order that follows from seed and number.

    Args:
        snippets: Ids without special tokens.
        frame: What stands before and after each.
        rows: How many a step takes.
        seed: Decides the order.
    """

    def __init__(
        self, snippets: Sequence[Snippet], frame: TextTemplate, *, rows: int, seed: int = 0
    ) -> None:
        self.snippets, self.frame, self.rows, self.seed = snippets, frame, rows, seed
        self.given = 0
        self._pass, self._order = -1, np.zeros(0, np.int64)

    def take(self) -> PackedRows:
        """Return the rows of the next step."""
        places = range(self.given, self.given + self.rows)
        sources = [self._draw(place) for place in places]
        self.given = places.stop
        return _rows([self.snippets[i] for i in sources], self.frame, places.start, sources)

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {"given": self.given}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where a run stood."""
        self.given = state["given"]

    def _draw(self, place: int) -> int:
        number, place = divmod(place, len(self.snippets))
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng([self.seed, number]).permutation(len(self.snippets))
        return int(self._order[place])


def _rows(
    snippets: Sequence[Snippet], frame: TextTemplate, first: int, sources: Sequence[int]
) -> PackedRows:
    texts = [[*frame.before, *snippet.tolist(), *frame.after_cut] for snippet in snippets]
    return PackedRows(*_grid(texts), first, sources)


def _grid(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Lay texts out in rows, with a mask. Shape: two of (texts, longest)."""
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return ids, mask


@dataclass(frozen=True)
class MatchingBatch(Batch):
    """Texts in new tokens and in old pieces; `targets` says what a decoder has to predict."""

    teacher_ids: Tensor
    """(rows, teacher's length)."""
    teacher_mask: Tensor
    places: Tensor
    """Where the teacher has read what the student has read at each token. (rows, length)."""
    matched: Tensor
    """The tokens at which both should have the same hidden state. (rows, length), bool."""

    @property
    def count(self) -> int:
        """How many hidden states are compared."""
        return int(self.matched.sum())

    def to(self, device: torch.device) -> Self:
        """Move the batch to a device."""
        return type(self)(*(getattr(self, f.name).to(device) for f in fields(self)))

    def part(self, rows: slice) -> Self:
        """Return some of the rows."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))


class HiddenStateMatching:
    """The objective: equal hidden states; and for a decoder's head, the next token.

    Args:
        model: The student.
        teacher: The network before it was extended.
        extension: Says what each new token was made of.
    """

    predicts_text = False
    """The loss is a distance, not that of a text."""

    def __init__(self, model: LanguageModel, teacher: Transformer, extension: Extension) -> None:
        network = model.network
        self.teacher = teacher.eval()
        self.pieces = {token.id: token.pieces for token in extension.added}
        self.first_id = extension.size
        self.causal = network.encoder is None
        self.predicts = self.causal and "language" in network.heads
        frame = TextTemplate.of(model.tokenizer, causal=self.causal)
        # A decoder's text is not over where a snippet ends, and an encoder never reads one bare.
        self.frame = TextTemplate(frame.before, frame.after, () if self.causal else frame.after)

    def fit(self, snippet: Snippet) -> Snippet:
        """Cut a snippet off where the teacher would run out of positions."""
        longest = self.teacher.config.max_positions
        if not longest:
            return snippet
        room = longest - len(self.frame.before) - len(self.frame.after_cut)
        lengths = [len(self.pieces.get(id_, (id_,))) for id_ in snippet.tolist()]
        return snippet[: int((np.cumsum(lengths) <= room).sum())]

    def prepare(self, rows: PackedRows) -> MatchingBatch:
        """Read the same texts in old pieces."""
        real = rows.documents > 0
        texts, places = [], torch.zeros_like(rows.ids)
        for row, mask in enumerate(real):
            spelt = [self.pieces.get(id_, (id_,)) for id_ in rows.ids[row, mask].tolist()]
            texts.append([id_ for pieces in spelt for id_ in pieces])
            places[row, mask] = torch.tensor([len(pieces) for pieces in spelt]).cumsum(0) - 1
        teacher_ids, teacher_mask = _grid(texts)
        matched = real
        targets = torch.full_like(rows.ids, -1)
        if self.causal:
            # Before the first new token both have read the very same ids.
            matched = real & ((rows.ids >= self.first_id).cumsum(1) > 0)
            targets[:, :-1] = torch.where(real[:, 1:], rows.ids[:, 1:], -1)
        return MatchingBatch(
            rows.ids, rows.documents, targets, teacher_ids, teacher_mask, places, matched
        )

    def loss(self, network: Transformer, batch: MatchingBatch) -> Tensor:
        """Return the loss summed over the hidden states that are compared."""
        network.eval()  # Dropout would only add noise to what is compared.
        student, teacher = self._states(network, batch)
        distance = (student[batch.matched] - teacher[batch.matched]).float().square().mean(-1).sum()
        if not self.predicts:
            return distance
        head = network.heads["language"]
        assert isinstance(head, LanguageHead)
        wanted = batch.targets >= 0
        nll = cross_entropy(
            head.transform(student[wanted].detach()),
            batch.targets[wanted],
            vocabulary_blocks(network),
        )
        # Neither part may drown the other where they move the same rows.
        return distance + nll * (distance / nll).detach()

    def pair(self, snippets: Sequence[Snippet]) -> MatchingBatch:
        """Make one batch of snippets."""
        return self.prepare(_rows(snippets, self.frame, 0, ()))

    @torch.no_grad()
    def error(self, network: Transformer, snippets: Sequence[Snippet], rows: int) -> float:
        """Return the squared distance of hidden states as a share of the teacher's variance.

        Args:
            network: The student.
            snippets: What both read.
            rows: How many at once.
        """
        was_training = network.training
        network.eval()
        distance = squares = count = 0.0
        total = torch.zeros(network.config.width)
        for start in range(0, len(snippets), rows):
            batch = self.pair(snippets[start : start + rows]).to(network.device)
            student, teacher = (x[batch.matched].float() for x in self._states(network, batch))
            distance += float((student - teacher).square().sum())
            squares += float(teacher.square().sum())
            total = total + teacher.sum(0).cpu()
            count += len(teacher)
        network.train(was_training)
        return distance / (squares - float(total.square().sum()) / count)

    def _states(self, network: Transformer, batch: MatchingBatch) -> tuple[Tensor, Tensor]:
        """Return hidden states of student and teacher, token by token. (rows, length, width)."""
        with torch.no_grad():
            read = _read(self.teacher, batch.teacher_ids, batch.teacher_mask)
        teacher = read.gather(1, batch.places.unsqueeze(-1).expand(-1, -1, read.shape[-1]))
        return _read(network, batch.ids, batch.documents), teacher


def _read(network: Transformer, ids: Tensor, mask: Tensor) -> Tensor:
    if network.encoder is not None:
        return network.encode(ids, mask)
    hidden: Tensor = network(ids, mask, heads=False).hidden
    return hidden
