"""The objective of `distill`: match the hidden states of new tokens to those of old pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idiolect.models.language_model import LanguageModel
from idiolect.nn.network import Network
from idiolect.text.templates.text_template import TextTemplate
from idiolect.text.tokenizers.extension import Extension
from idiolect.training.data.batch import IGNORE_INDEX, Batch, pad_rows
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.distributed import Workers
from idiolect.training.objectives.cross_entropy import cross_entropy, vocabulary_blocks
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.vocabulary.rows.contexts import Snippet

__all__ = ["HiddenStateMatching", "MatchingBatch", "Snippets"]

_NO_VARIANCE = 1e-5
"""Share of the squared length below which a variance is only rounding."""


class Snippets:
    """An endless stream of snippets; seed and epoch determine the order of each epoch.

    A step may take the last snippets of one epoch and the first of the next.

    Args:
        snippets: Ids without special tokens.
        template: The special tokens around each snippet.
        rows: Snippets per step.
        seed: Random seed of the order.
    """

    def __init__(
        self, snippets: Sequence[Snippet], template: TextTemplate, *, rows: int, seed: int = 0
    ) -> None:
        self.snippets, self.template, self.rows, self.seed = snippets, template, rows, seed
        self.taken = 0
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def take(self) -> PackedRows:
        """Return the rows of the next step."""
        places = range(self.taken, self.taken + self.rows)
        sources = [self._draw(place) for place in places]
        self.taken = places.stop
        return _rows([self.snippets[i] for i in sources], self.template, places.start, sources)

    def state(self) -> dict[str, Any]:
        """Return the position, for `restore`."""
        return {"taken": self.taken}

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.taken = state["taken"]

    def _draw(self, place: int) -> int:
        epoch, place = divmod(place, len(self.snippets))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.snippets))
        return int(self._order[place])


def _rows(
    snippets: Sequence[Snippet], template: TextTemplate, first: int, sources: Sequence[int]
) -> PackedRows:
    texts = [[*template.before, *snippet.tolist(), *template.after_cut] for snippet in snippets]
    return PackedRows(*pad_rows(texts), first, sources)


@dataclass(frozen=True, kw_only=True)
class MatchingBatch(Batch):
    """Texts in new tokens and in old pieces; `labels` are a decoder's targets."""

    teacher_input_ids: Tensor
    """(rows, teacher's length)."""
    teacher_attention_mask: Tensor
    """(rows, teacher's length)."""
    places: Tensor
    """For each of the student's tokens, the teacher's position after the same text. (rows, length).
    """
    matched: Tensor
    """The tokens whose hidden states should be equal. (rows, length), bool."""

    @property
    def count(self) -> int:
        """Number of compared hidden states."""
        return int(self.matched.sum())


class HiddenStateMatching(RowwiseObjective):
    """Match hidden states and, with a decoder's head, predict the next token.

    Args:
        model: The student.
        teacher: The network before it was extended.
        extension: The pieces of each new token.
        workers: The distributed processes.
    """

    def __init__(
        self,
        model: LanguageModel,
        teacher: Network,
        extension: Extension,
        *,
        workers: Workers | None = None,
    ) -> None:
        network = model.network
        self.teacher, self.workers = teacher.eval(), workers or Workers()
        self.pieces = {token.id: token.pieces for token in extension.added}
        self.first_id = extension.size
        self.causal = network.kind == "causal"
        self.predicts = self.causal and network.has_language_head
        own = TextTemplate.of(model.tokenizer, causal=self.causal)
        # A decoder gets no end token, since the text continues after a snippet. An encoder gets all
        # special tokens.
        self.template = TextTemplate(own.before, own.after, () if self.causal else own.after)

    def fit(self, snippet: Snippet) -> Snippet:
        """Truncate a snippet to the teacher's positions."""
        longest = self.teacher.config.max_position_embeddings
        if not longest:
            return snippet
        room = longest - len(self.template.before) - len(self.template.after_cut)
        lengths = [len(self.pieces.get(id_, (id_,))) for id_ in snippet.tolist()]
        return snippet[: int((np.cumsum(lengths) <= room).sum())]

    def prepare(self, rows: PackedRows) -> MatchingBatch:
        """Make a batch: the same texts in new tokens and in old pieces."""
        real = rows.document_ids > 0
        texts, places = [], torch.zeros_like(rows.input_ids)
        for row, mask in enumerate(real):
            spelled = [self.pieces.get(id_, (id_,)) for id_ in rows.input_ids[row, mask].tolist()]
            texts.append([id_ for pieces in spelled for id_ in pieces])
            places[row, mask] = torch.tensor([len(pieces) for pieces in spelled]).cumsum(0) - 1
        teacher_ids, teacher_mask = pad_rows(texts)
        matched = real
        labels = torch.full_like(rows.input_ids, IGNORE_INDEX)
        if self.causal:
            # Up to the first new token, student and teacher have read the same ids.
            matched = real & ((rows.input_ids >= self.first_id).cumsum(1) > 0)
            labels[:, :-1] = torch.where(real[:, 1:], rows.input_ids[:, 1:], IGNORE_INDEX)
        return MatchingBatch(
            input_ids=rows.input_ids,
            attention_mask=rows.document_ids,
            labels=labels,
            teacher_input_ids=teacher_ids,
            teacher_attention_mask=teacher_mask,
            places=places,
            matched=matched,
        )

    def loss(self, network: Network, batch: MatchingBatch) -> Tensor:
        """Return the loss summed over the compared hidden states."""
        network.eval()  # Dropout would only add noise to the comparison.
        student, teacher = self._states(network, batch)
        distance = (student[batch.matched] - teacher[batch.matched]).float().square().mean(-1).sum()
        if not self.predicts:
            return distance
        assert batch.labels is not None
        nll = cross_entropy(
            network.language_head.transform(student[batch.predicted].detach()),
            batch.labels[batch.predicted],
            vocabulary_blocks(network),
            softcap=network.language_head.softcap,
        )
        # Balance both parts, since with tied weights they train the same rows. The weight is
        # computed over all processes, so it does not depend on their number.
        sums = torch.stack([distance.detach(), nll.detach()])
        self.workers.sum_in_place(sums)
        return distance + nll * (sums[0] / sums[1])

    def batch_of(self, snippets: Sequence[Snippet]) -> MatchingBatch:
        """Make one batch of snippets."""
        return self.prepare(_rows(snippets, self.template, 0, ()))

    @torch.no_grad()
    def error(self, network: Network, snippets: Sequence[Snippet], rows: int) -> float:
        """Return the squared distance of hidden states as a share of the teacher's variance.

        Without variance, as in texts that all end with the same term, it is a share of the squared
        length. It is 0 if nothing is compared.

        Args:
            network: The student.
            snippets: The texts.
            rows: Snippets per forward pass.
        """
        was_training = network.training
        network.eval()
        distance = squares = count = 0.0
        total = torch.zeros(network.config.hidden_size)
        for start in range(0, len(snippets), rows):
            batch = self.batch_of(snippets[start : start + rows]).to(network.device)
            student, teacher = (x[batch.matched].float() for x in self._states(network, batch))
            distance += float((student - teacher).square().sum())
            squares += float(teacher.square().sum())
            total = total + teacher.sum(0).cpu()
            count += len(teacher)
        network.train(was_training)
        if not count:
            return 0.0
        variance = squares - float(total.square().sum()) / count
        # The difference of equal numbers is not exactly 0.
        return distance / (variance if variance > _NO_VARIANCE * squares else squares)

    def _states(self, network: Network, batch: MatchingBatch) -> tuple[Tensor, Tensor]:
        """Return hidden states of student and teacher, token by token. (rows, length, width)."""
        with torch.no_grad():
            read = self.teacher.text_states(batch.teacher_input_ids, batch.teacher_attention_mask)
        teacher = read.gather(1, batch.places.unsqueeze(-1).expand(-1, -1, read.shape[-1]))
        return network.text_states(batch.input_ids, batch.attention_mask), teacher
