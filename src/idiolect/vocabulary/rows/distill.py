"""`distill`: train the rows of new tokens to reproduce the hidden states of their old pieces.

The teacher is the model before it was extended. It reads a text in the old pieces, and the student
reads the same text with the new tokens. The new rows are trained so that the student's hidden
states match the teacher's (Dobler et al. 2025, "Token distillation", arXiv 2505.20133):

    teacher   he    took    met   form   in    daily
                             │     ╎╎╎╎╎╎╎    ╎╎╎╎╎╎     equal from the term's last piece on,
    student   he    took       metformin      daily      everywhere in an encoder

Only added rows train. No language-model head is needed, so encoders can be distilled as well. The
new rows of a decoder's head learn to be predicted on the same texts.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from idiolect.errors import CheckpointError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.network import Network
from idiolect.text.arguments import check_whole, checked, load_if_named
from idiolect.text.corpus import documents_of
from idiolect.text.tokenizers.extension import Extension
from idiolect.training.distributed import Workers
from idiolect.training.optim import row_rate
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.rows.contexts import Contexts, Snippet, find_contexts
from idiolect.vocabulary.rows.hidden_state_matching import HiddenStateMatching, Snippets

__all__ = ["DistillationResult", "distill", "distillation_config"]

_HELD_OUT = 20
"""One snippet in this many is held out to measure the error."""


@dataclass(frozen=True)
class DistillationResult:
    """The outcome of a distillation."""

    snippets: int
    """Snippets trained on in each epoch."""
    steps: int
    error_before: float
    """Error on held-out snippets before training: squared distance of the student's hidden states
    to the teacher's, as a share of their variance. 0 is perfect; 1 is no better than the mean."""
    error_after: float
    """The same after training."""
    contexts: dict[str, int]
    """For each new token, the number of training snippets it occurs in."""

    @property
    def without(self) -> list[str]:
        """The new tokens that occur in no snippet; their rows are unchanged."""
        return [text for text, count in self.contexts.items() if not count]


def distillation_config(model: LanguageModel, *, seed: int = 0) -> TrainingConfig:
    """Return the default training settings: 16 snippets of 50 tokens per step, no weight decay.

    The learning rate is that of `row_rate`.
    """
    rate = row_rate(model.network)
    return TrainingConfig(
        max_length=50, batch_size=16, learning_rate=rate, weight_decay=0.0, seed=seed
    )


@checked
def distill(
    model: LanguageModel,
    teacher: LanguageModel,
    corpus: Iterable[str],
    *,
    contexts: int = 100,
    epochs: int = 1,
    config: TrainingConfig | None = None,
    output_dir: str | Path | None = None,
    tensorboard: bool = False,
) -> DistillationResult:
    """Train a model's added rows so that its hidden states match those of the teacher.

    Under `torchrun` every process calls this with the same arguments.

    Args:
        model: The extended model; its added rows change in place, and nothing else does.
        teacher: The model it was extended from.
        corpus: Documents of the domain.
        contexts: Number of snippets for each new token.
        epochs: Number of passes over the snippets.
        config: Training settings, by default `distillation_config(model)`. `max_length` is the
            length of a snippet.
        output_dir: A folder for the run, which can then be interrupted and resumed. The finished
            model is in `output_dir/model`.
        tensorboard: Write TensorBoard events to `output_dir/events`.

    Raises:
        InputError: The model has no added rows, or no new token occurs in the corpus.
        CheckpointError: The teacher's tokenizer is not the one the model's was extended from, or
            `output_dir` holds another run.
        VerificationError: Original embedding rows changed.
    """
    model = load_if_named(model, LanguageModel, "model")
    teacher = load_if_named(teacher, LanguageModel, "teacher")
    corpus = documents_of(corpus, "corpus")
    extension = _check(model, teacher)
    config = distillation_config(model) if config is None else TrainingConfig.of(config)
    if check_whole(epochs, "epochs") < 1 or check_whole(contexts, "contexts") < 1:
        raise InputError(
            f"epochs is {epochs} and contexts is {contexts}", hint="both must be at least 1"
        )
    objective = HiddenStateMatching(
        model, teacher.network, extension, workers=Workers.join(model.network.device)
    )
    found = find_contexts(
        model.tokenizer,
        corpus,
        first_id=extension.size,
        contexts=contexts,
        length=config.max_length,
    )
    training, held_out = (list(map(objective.fit, part)) for part in _split(found))
    network = model.network
    source = Snippets(training, objective.template, rows=config.batch_size, seed=config.seed)
    count = Counter(id_ for snippet in training for id_ in set(snippet.tolist()))
    before = objective.error(network, held_out, config.batch_size)
    with _only_rows_of(count, network), tempfile.TemporaryDirectory() as scratch:
        session = TrainingSession(
            model,
            out=output_dir or scratch,
            config=config,
            steps=-(-epochs * len(training) // config.batch_size),
            train="rows",
            tensorboard=tensorboard,
        )
        session.begin(
            {
                "distillation": _fingerprint(model, training),
                "contexts": contexts,
                "epochs": epochs,
            }
        )
        session.train(objective, source)
        if output_dir is not None:
            session.publish(model.save)
    network.eval()
    return DistillationResult(
        snippets=len(training),
        steps=session.steps,
        error_before=before,
        error_after=objective.error(network, held_out, config.batch_size),
        contexts={token.text: count[token.id] for token in extension.added},
    )


def _check(model: LanguageModel, teacher: LanguageModel) -> Extension:
    extension = model.extension
    if extension is None or not isinstance(model.network.tokens.weight, ExtendedRows):
        raise InputError("this model has no added rows", hint="extend it first")
    if teacher.tokenizer.fingerprint != extension.base:
        raise CheckpointError(
            "the teacher's tokenizer is not the one this model's was extended from",
            hint="pass the model before it was extended",
        )
    return extension


def _split(found: Contexts) -> tuple[list[Snippet], list[Snippet]]:
    """Split snippets into those to train on and those held out to measure the error."""
    if not found.snippets:
        raise InputError("no new token occurs in the corpus", hint="add text with the terms")
    held_out = found.snippets[::_HELD_OUT]
    training = [s for i, s in enumerate(found.snippets) if i % _HELD_OUT]
    return training or held_out, held_out


def _fingerprint(model: LanguageModel, snippets: Sequence[Snippet]) -> str:
    """Hash the snippets and the initial rows of a run."""
    digest = hashlib.sha256(np.concatenate(snippets).tobytes())
    for rows in model.network.vocabulary_rows().values():
        assert isinstance(rows, ExtendedRows)
        digest.update(rows.fingerprint.encode())
        digest.update(rows.added.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _only_rows_of(count: Counter[int], network: Network) -> Iterator[None]:
    """Train only the rows of tokens that have contexts, and restore `requires_grad` afterwards."""
    trainable = {p: p.requires_grad for p in network.parameters()}
    hooks = []
    for rows in network.vocabulary_rows().values():
        assert isinstance(rows, ExtendedRows)
        rows.added.requires_grad_(True)
        has_context = torch.tensor([count[id_] > 0 for id_ in range(rows.first_id, rows.end_id)])
        has_context = has_context.view(-1, *[1] * (rows.added.dim() - 1)).to(rows.added.device)
        hooks.append(rows.added.register_hook(partial(torch.mul, has_context)))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, flag in trainable.items():
            parameter.requires_grad_(flag)
