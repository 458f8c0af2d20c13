"""Continue pre-training on text of a domain before fine-tuning for a task."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError
from idiolect.text.corpus import Corpus
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig

__all__ = ["adapt_to_domain"]

_USUAL = {"train": "all", "max_length": 64, "batch_size": 16, "learning_rate": 1e-3}


def adapt_to_domain(
    encoder: Encoder,
    own_texts: Sequence[str],
    *,
    output_dir: str | Path,
    steps: int,
    texts: Sequence[str] = (),
    **settings: Any,
) -> Encoder:
    """Continue pre-training an encoder's network on a domain's text. Run it again to resume.

    This is ULMFiT's second stage (1801.06146), and "task-adaptive pretraining" if the text is the
    task's own (Gururangan et al. 2020, 2004.10964).

    Args:
        encoder: The encoder, whose network is changed in place.
        own_texts: The task's texts, which are trained on too.
        output_dir: The run's folder.
        steps: Steps of the run.
        texts: Files or folders with more text of the domain.
        settings: Arguments of `pretrain`, or fields of `TrainingConfig`.

    Raises:
        ConfigError: An unknown setting, or a value out of its range.
        InputError: There is too little text, or nothing to train; as for `pretrain`.
    """
    if not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"adaptation: steps is {steps!r}", hint="a whole number, at least 1")
    values: dict[str, Any] = _USUAL | settings
    own_arguments = {"model", "corpus", "output_dir", "steps", "config"}
    names = signature(pretrain).parameters.keys() - own_arguments
    given: dict[str, Any] = {name: values.pop(name) for name in names & values.keys()}
    documents = [*own_texts, *(Corpus(list(texts)) if texts else ())]
    pretrain(
        encoder.model,
        Corpus.of(documents),
        output_dir=output_dir,
        steps=steps,
        config=TrainingConfig.from_dict(values),
        **given,
    )
    return encoder
