"""`distill`: new tokens learn to mean what their pieces meant to the model.

The teacher is the model before it was extended. It reads a text in the old pieces, the student
reads the same text with the new tokens, and the new rows are moved until the student's hidden
states are the teacher's (Dobler et al. 2025, "Token distillation", arXiv 2505.20133):

    teacher   he    took    met   form   in    daily
                             │     ╎╎╎╎╎╎╎    ╎╎╎╎╎╎     equal from the term's last piece on,
    student   he    took       metformin      daily      everywhere in an encoder

Only added rows train. No language-model head is needed, so it serves encoders as well; where a
decoder has one, its new rows learn to be predicted on the same texts.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.errors import CheckpointError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.heads import LanguageHead
from idiolect.nn.transformer import Transformer
from idiolect.text.extension import Extension
from idiolect.training.batches import Batch, Frame, Rows
from idiolect.training.checkpoint import RunFolder
from idiolect.training.loop import Trainer
from idiolect.training.objectives.cross_entropy import cross_entropy, vocabulary_blocks
from idiolect.training.optim import choose_parameters
from idiolect.training.plan import Plan
from idiolect.vocabulary.contexts import Contexts, find_contexts

__all__ = ["Distilled", "Snippet", "distill", "distillation_plan"]

Snippet = NDArray[np.int32]

_HELD_OUT = 20
"""One snippet in so many is kept for measuring."""


@dataclass(frozen=True)
class Distilled:
    """What came of a distillation."""

    snippets: int
    """Snippets trained on, in each pass."""
    steps: int
    error_before: float
    """On snippets kept apart: squared distance of the student's hidden states to the teacher's, as
    a share of the variance of these. 0 is perfect; 1 is no better than their mean."""
    error_after: float
    """The same after training."""
    contexts: dict[str, int]
    """For each new token, in how many snippets it stood."""

    @property
    def without(self) -> list[str]:
        """The new tokens that stood in none, whose rows are as they were."""
        return [text for text, count in self.contexts.items() if not count]


def distillation_plan(model: LanguageModel, *, seed: int = 0) -> Plan:
    """Return the usual plan: snippets of 50 tokens, 16 a step, no decay.

    The published rate of 1e-4 was for rows whose numbers have a size of about 0.02; others get one
    in proportion, since the distance a row has to go is.
    """
    rows = model.network.tokens.weight
    original = rows.original if isinstance(rows, ExtendedRows) else rows
    size = float(original.detach().float().square().mean().sqrt())
    rate = min(1e-2, size / 200)
    return Plan(length=50, batch=16, learning_rate=rate, weight_decay=0.0, seed=seed)


def distill(
    model: LanguageModel,
    teacher: LanguageModel,
    corpus: Iterable[str],
    *,
    contexts: int = 100,
    passes: int = 1,
    plan: Plan | None = None,
    out: str | Path | None = None,
) -> Distilled:
    """Train a model's added rows until it reads new tokens as the teacher reads their pieces.

    Args:
        model: The extended model; its added rows change in place, and nothing else of it.
        teacher: The model it was extended from.
        corpus: Documents of the domain.
        contexts: Snippets wanted for each new token.
        passes: How often each snippet is read.
        plan: Sizes and rates, by default `distillation_plan(model)`; `length` is a snippet's.
        out: A folder for the run, which can then be interrupted and gone on with. The finished
            model is put in `out/model`.

    Raises:
        InputError: The model has no added rows, no new token occurs in the corpus, or snippets are
            longer than the model's positions.
        CheckpointError: The teacher's tokenizer is not the one the model's was extended from, or
            `out` holds another run.
        VerificationError: Original rows moved.
    """
    plan = plan or distillation_plan(model)
    extension = _check(model, teacher)
    objective = _Distillation(model, teacher.network, extension)
    found = find_contexts(
        model.tokenizer, corpus, first_id=extension.size, contexts=contexts, length=plan.length
    )
    training, measuring = (list(map(objective.fit, part)) for part in _part(found))
    network = model.network
    source = _Snippets(training, objective.frame, plan)
    steps = -(-passes * len(training) // plan.batch)
    trainable = {p: p.requires_grad for p in network.parameters()}
    choose_parameters(network, "rows")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = RunFolder(out or scratch)
            folder.begin(_record(model, training, contexts, passes, plan))
            before = objective.error(network, measuring, plan)
            Trainer(network, objective, source, plan, steps=steps, folder=folder).run()
    finally:
        for parameter, flag in trainable.items():
            parameter.requires_grad_(flag)
    for rows in network.vocabulary_rows().values():
        assert isinstance(rows, ExtendedRows)
        rows.verify()
    if out is not None and not folder.model.exists():
        model.save(folder.model)
    return Distilled(
        snippets=len(training),
        steps=steps,
        error_before=before,
        error_after=objective.error(network, measuring, plan),
        contexts={token.text: found.count[token.id] for token in extension.added},
    )


def _check(model: LanguageModel, teacher: LanguageModel) -> Extension:
    extension = model.extension
    if extension is None or not isinstance(model.network.tokens.weight, ExtendedRows):
        raise InputError("this model has no added rows", hint="extend it first")
    if teacher.tokenizer.fingerprint != extension.base:
        raise CheckpointError(
            "the teacher's tokenizer is not the one this model's was extended from",
            hint="the teacher is the model before it was extended",
        )
    return extension


def _part(found: Contexts) -> tuple[list[Snippet], list[Snippet]]:
    """Keep some snippets apart for measuring."""
    if not found.snippets:
        raise InputError("no new token occurs in the corpus", hint="give text that has the terms")
    measuring = found.snippets[::_HELD_OUT]
    training = [s for i, s in enumerate(found.snippets) if i % _HELD_OUT]
    return training or measuring, measuring


def _record(
    model: LanguageModel, snippets: Sequence[Snippet], contexts: int, passes: int, plan: Plan
) -> dict[str, Any]:
    """Say what the run is, so that no other is gone on with by mistake."""
    digest = hashlib.sha256(np.concatenate(snippets).tobytes())
    for rows in model.network.vocabulary_rows().values():
        assert isinstance(rows, ExtendedRows)
        digest.update(rows.fingerprint.encode())
        digest.update(rows.added.detach().float().cpu().numpy().tobytes())
    return {
        "distillation": digest.hexdigest(),
        "contexts": contexts,
        "passes": passes,
        "plan": asdict(plan),
    }


class _Snippets:
    """Snippets in an order that follows from the seed and the number of the pass."""

    def __init__(self, snippets: Sequence[Snippet], frame: Frame, plan: Plan) -> None:
        self.snippets, self.frame, self.plan = snippets, frame, plan
        self.given = 0
        self._pass, self._order = -1, np.zeros(0, np.int64)

    def take(self) -> Rows:
        """Return the rows of the next step."""
        places = range(self.given, self.given + self.plan.batch)
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
            self._order = np.random.default_rng([self.plan.seed, number]).permutation(
                len(self.snippets)
            )
        return int(self._order[place])


def _rows(snippets: Sequence[Snippet], frame: Frame, first: int, sources: Sequence[int]) -> Rows:
    texts = [[*frame.before, *snippet.tolist(), *frame.after_cut] for snippet in snippets]
    return Rows(*_grid(texts), first, sources)


def _grid(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Lay texts out in rows, with a mask. Shape: two of (texts, longest)."""
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return ids, mask


@dataclass(frozen=True)
class _Pairs(Batch):
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


class _Distillation:
    """The objective: equal hidden states; and for a decoder's head, the next token."""

    predicts_text = False

    def __init__(self, model: LanguageModel, teacher: Transformer, extension: Extension) -> None:
        network = model.network
        self.teacher = teacher.eval()
        self.pieces = {token.id: token.pieces for token in extension.added}
        self.first_id = extension.size
        self.causal = network.encoder is None
        self.predicts = self.causal and "language" in network.heads
        frame = Frame.of(model.tokenizer, causal=self.causal)
        # A decoder's text is not over where a snippet ends, and an encoder never reads one bare.
        self.frame = Frame(frame.before, frame.after, () if self.causal else frame.after)

    def fit(self, snippet: Snippet) -> Snippet:
        """Cut a snippet off where the teacher would run out of positions."""
        longest = self.teacher.config.max_positions
        if not longest:
            return snippet
        room = longest - len(self.frame.before) - len(self.frame.after_cut)
        lengths = [len(self.pieces.get(id_, (id_,))) for id_ in snippet.tolist()]
        return snippet[: int((np.cumsum(lengths) <= room).sum())]

    def prepare(self, rows: Rows) -> _Pairs:
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
        return _Pairs(rows.ids, rows.documents, targets, teacher_ids, teacher_mask, places, matched)

    def loss(self, network: Transformer, batch: Batch) -> Tensor:
        """Return the loss summed over the hidden states that are compared."""
        assert isinstance(batch, _Pairs)
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

    @torch.no_grad()
    def error(self, network: Transformer, snippets: Sequence[Snippet], plan: Plan) -> float:
        """Return the distance of hidden states, as a share of the variance of the teacher's."""
        was_training = network.training
        network.eval()
        distance = squares = count = 0.0
        total = 0.0 + torch.zeros(network.config.width)
        for start in range(0, len(snippets), plan.batch):
            rows = _rows(snippets[start : start + plan.batch], self.frame, start, ())
            batch = self.prepare(rows).to(network.device)
            student, teacher = (x[batch.matched].float() for x in self._states(network, batch))
            distance += float((student - teacher).square().sum())
            squares += float(teacher.square().sum())
            total = total + teacher.sum(0).cpu()
            count += len(teacher)
        network.train(was_training)
        return distance / (squares - float(total.square().sum()) / count)

    def _states(self, network: Transformer, batch: _Pairs) -> tuple[Tensor, Tensor]:
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
