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
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idiolect.errors import CheckpointError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.transformer import Transformer
from idiolect.text.tokenizers.extension import Extension
from idiolect.training.checkpoint import RunFolder
from idiolect.training.loop import Trainer
from idiolect.training.optim import choose_parameters, row_rate
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.rows.contexts import Contexts, Snippet, find_contexts
from idiolect.vocabulary.rows.hidden_state_matching import HiddenStateMatching, Snippets

__all__ = ["DistillationResult", "distill", "distillation_plan"]

_HELD_OUT = 20
"""One snippet in so many is kept for measuring."""


@dataclass(frozen=True)
class DistillationResult:
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
    """For each new token, in how many of the snippets trained on it stood."""

    @property
    def without(self) -> list[str]:
        """The new tokens that stood in none, whose rows are as they were."""
        return [text for text, count in self.contexts.items() if not count]


def distillation_plan(model: LanguageModel, *, seed: int = 0) -> TrainingConfig:
    """Return the usual plan: snippets of 50 tokens, 16 a step, no decay, the rate of `row_rate`."""
    rate = row_rate(model.network)
    return TrainingConfig(length=50, batch=16, learning_rate=rate, weight_decay=0.0, seed=seed)


def distill(
    model: LanguageModel,
    teacher: LanguageModel,
    corpus: Iterable[str],
    *,
    contexts: int = 100,
    passes: int = 1,
    plan: TrainingConfig | None = None,
    out: str | Path | None = None,
) -> DistillationResult:
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
        InputError: The model has no added rows, or no new token occurs in the corpus.
        CheckpointError: The teacher's tokenizer is not the one the model's was extended from, or
            `out` holds another run.
        VerificationError: Original rows moved.
    """
    extension = _check(model, teacher)
    plan = plan or distillation_plan(model)
    if passes < 1 or contexts < 1:
        raise InputError(f"{passes} passes over {contexts} contexts", hint="both are at least 1")
    objective = HiddenStateMatching(model, teacher.network, extension)
    found = find_contexts(
        model.tokenizer, corpus, first_id=extension.size, contexts=contexts, length=plan.length
    )
    training, measuring = (list(map(objective.fit, part)) for part in _part(found))
    network = model.network
    source = Snippets(training, objective.frame, rows=plan.batch, seed=plan.seed)
    steps = -(-passes * len(training) // plan.batch)
    count = Counter(id_ for snippet in training for id_ in set(snippet.tolist()))
    with _only_rows_of(count, network), tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(out or scratch)
        folder.begin(_record(model, training, contexts, passes, plan))
        before = objective.error(network, measuring, plan.batch)
        Trainer(network, objective, source, plan, steps=steps, folder=folder).run()
    for rows in network.vocabulary_rows().values():
        assert isinstance(rows, ExtendedRows)
        rows.verify()
    if out is not None and not folder.model.exists():
        folder.publish(model.save)
    return DistillationResult(
        snippets=len(training),
        steps=steps,
        error_before=before,
        error_after=objective.error(network, measuring, plan.batch),
        contexts={token.text: count[token.id] for token in extension.added},
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
    model: LanguageModel,
    snippets: Sequence[Snippet],
    contexts: int,
    passes: int,
    plan: TrainingConfig,
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


@contextmanager
def _only_rows_of(count: Counter[int], network: Transformer) -> Iterator[None]:
    """Let nothing train but the rows of tokens that have contexts."""
    trainable = {p: p.requires_grad for p in network.parameters()}
    choose_parameters(network, "rows")
    hooks = []
    for rows in network.vocabulary_rows().values():
        assert isinstance(rows, ExtendedRows)
        taught = torch.tensor([count[id_] > 0 for id_ in range(rows.first_id, rows.end_id)])
        taught = taught.view(-1, *[1] * (rows.added.dim() - 1)).to(rows.added.device)
        hook = partial(torch.mul, taught)
        hooks.append(rows.added.register_hook(hook))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, flag in trainable.items():
            parameter.requires_grad_(flag)
