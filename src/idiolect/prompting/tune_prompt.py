"""Train a language model to continue prompts with the right answers, with four adaptations.

    prompt   virtual tokens before the text      a few thousand parameters
    prefix   keys and values in every layer      some hundred thousand
    lora     low-rank updates of the matrices    some hundred thousand
    full     everything except original rows     the whole network

The loss covers only the answer's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from idiolect.errors import ConfigError, InputError
from idiolect.generate.generator import Generator
from idiolect.generate.model_defaults import find_context_length
from idiolect.models.language_model import LanguageModel
from idiolect.models.prompt_files import save_prompt
from idiolect.nn.lora import LoraConfig
from idiolect.nn.network import Network
from idiolect.nn.prompt.attach_prompt import prompt_of
from idiolect.nn.prompt.prompt_config import PromptConfig
from idiolect.nn.prompt.virtual_tokens import PrefixTokens
from idiolect.prompting.prompt_task import PromptTask
from idiolect.tasks.classify.labelled_texts import LabelledText, fingerprint_texts
from idiolect.tasks.harness.likelihood import encode_ending
from idiolect.training.data.batch import IGNORE_INDEX, Batch, pad_rows
from idiolect.training.data.shuffled_epochs import EpochSample, ShuffledEpochs
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.objectives.causal import language_loss
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.optim import Train
from idiolect.training.progress import notice
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["PROMPT_FILE", "AnswerObjective", "PromptAdaptation", "tune_prompt", "tuning_config"]

PromptAdaptation = Literal["prompt", "prefix", "lora", "full"]
"""Which parameters train."""

PROMPT_FILE = "prompt.json"
"""File with the template and labels, saved with the tuned model."""

_TRAINED: dict[PromptAdaptation, Train] = {
    "prompt": "prompt",
    "prefix": "prompt",
    "lora": "rows+lora",
    "full": "all",
}
_RATES: dict[PromptAdaptation, float] = {
    "prompt": 1e-2,
    "prefix": 5e-3,
    "lora": 1e-3,
    "full": 1e-4,
}


def tuning_config(adaptation: PromptAdaptation = "prompt", **values: Any) -> TrainingConfig:
    """Return the default training settings of an adaptation.

    Args:
        adaptation: Which parameters train.
        values: Fields of `TrainingConfig` to override.

    Raises:
        ConfigError: An unknown adaptation, or values out of their range.
    """
    if adaptation not in get_args(PromptAdaptation):
        raise ConfigError(
            f"unknown adaptation {adaptation!r}",
            hint="one of " + ", ".join(get_args(PromptAdaptation)),
        )
    usual = {
        "batch_size": 16,
        "learning_rate": _RATES[adaptation],
        "weight_decay": 0.0,
        "min_lr_ratio": 0.0,
    }
    return TrainingConfig.from_dict(usual | values)


def tune_prompt(
    model: LanguageModel,
    task: PromptTask,
    examples: Sequence[LabelledText],
    *,
    output_dir: str | Path,
    adaptation: PromptAdaptation = "prompt",
    prompt: PromptConfig | None = None,
    lora: LoraConfig | None = None,
    epochs: int = 5,
    steps: int | None = None,
    config: TrainingConfig | None = None,
    base: str = "",
) -> LanguageModel:
    """Train on the answers of examples. Run it again to resume.

    Args:
        model: A causal language model, changed in place.
        task: The prompt whose answers are trained.
        examples: Texts with labels of the task.
        output_dir: The run's folder. What was trained is in `output_dir/model`: the virtual tokens
            alone, or the whole model.
        adaptation: Which parameters train.
        prompt: Number and initialisation of the virtual tokens; None for a model that has virtual
            tokens, which are trained further.
        lora: Rank and target modules of the adapters.
        epochs: Number of epochs over the examples.
        steps: Number of steps, instead of `epochs`.
        config: Training settings, by default `tuning_config(adaptation)`. A row longer than
            `max_length` or the model's context loses its beginning; they are counted.
        base: Name of the base model, stored with a saved prompt.

    Raises:
        InputError: No examples, a label that the task does not have, or a model with an encoder.
        ConfigError: The model has virtual tokens that the settings do not fit.
        CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
    """
    if model.network.kind != "causal":
        raise InputError(
            "answers need a causal language model", hint="tune a classifier with idiolect tasks"
        )
    config = config or tuning_config(adaptation)
    known = set(task.labels)
    if not examples or (unknown := [e.label for e in examples if e.label not in known]):
        what = f"the label {unknown[0]!r}" if examples else "no examples"
        raise InputError(f"{what}; the task has {', '.join(task.labels)}", hint="check the file")
    method: Literal["prompt", "prefix"] = "prefix" if adaptation == "prefix" else "prompt"
    if (present := prompt_of(model.network)) is not None:
        kind = "prefix" if isinstance(present, PrefixTokens) else "prompt"
        if adaptation != kind or prompt is not None:
            raise ConfigError(
                f"the model already has a {kind} of {present.count} virtual tokens",
                hint=f"train it further with the method {kind} and without settings of its own, or "
                "start from the base model",
            )
    prompt = prompt or PromptConfig(method=method)
    if adaptation in ("prompt", "prefix") and prompt.method != adaptation:
        raise ConfigError(f"a {prompt.method} for adaptation {adaptation}", hint="use one of them")
    added = prompt.num_virtual_tokens if _TRAINED[adaptation] == "prompt" else 0
    _report_cut(model, task, examples, config, 0 if prompt_of(model.network) else added)
    source = ShuffledEpochs(len(examples), rows=config.batch_size, seed=config.seed)
    session = TrainingSession(
        model,
        out=output_dir,
        config=config,
        steps=epochs * source.steps if steps is None else steps,
        train=_TRAINED[adaptation],
        lora=lora,
        prompt=prompt,
        heads=adaptation == "full",
    )
    session.begin(
        {
            "model": fingerprint(model.network.state_dict()),
            "examples": fingerprint_texts(examples),
            "template": task.template.as_dict(),
            "demonstrations": [asdict(one) for one in task.demonstrations],
        }
    )
    session.train(AnswerObjective(model, task, examples, config.max_length), source)

    def save(directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        if prompt_of(model.network) is None:
            model.save(directory)
        else:
            save_prompt(model.network, directory, base=base)
        task.save(directory / PROMPT_FILE)

    session.publish(save)
    return model


def _report_cut(
    model: LanguageModel,
    task: PromptTask,
    examples: Sequence[LabelledText],
    config: TrainingConfig,
    virtual_tokens: int,
) -> None:
    """Print how many rows lose their beginning, where the instruction is."""
    room = find_context_length(model)
    longest = config.max_length if room is None else min(config.max_length, room - virtual_tokens)
    rows = model.tokenizer.encode_batch(
        [
            task.template.render(one, task.demonstrations) + task.template.answer(str(one.label))
            for one in examples
        ]
    )
    # The last token of an answer is predicted and not read.
    if cut := sum(len(ids) - 1 > longest for ids in rows):
        notice(f"{cut:,} of {len(examples):,} examples are cut to their last {longest} tokens")


class AnswerObjective(RowwiseObjective):
    """Cross-entropy of the right answers' tokens.

    Args:
        model: The model.
        task: The prompt.
        examples: The examples; a data source gives their indices.
        max_length: Maximum tokens of a row; longer rows, and those that the model's context cannot
            hold, are truncated on the left.
    """

    def __init__(
        self,
        model: LanguageModel,
        task: PromptTask,
        examples: Sequence[LabelledText],
        max_length: int,
    ) -> None:
        self.generator = Generator(model)
        self.task, self.examples, self.max_length = task, examples, max_length

    def prepare(self, rows: EpochSample) -> Batch:
        """Make a batch of examples: labels are the answers' tokens."""
        # Not the generator's context length, since virtual tokens are added after it is made.
        room = find_context_length(self.generator.model)
        longest = self.max_length if room is None else min(self.max_length, room)
        inputs, labels = [], []
        for number in rows.sources:
            example = self.examples[number]
            context = self.task.template.render(example, self.task.demonstrations)
            answer = self.task.template.answer(str(example.label))
            ids, start = encode_ending(self.generator, context, answer)
            cut = max(0, len(ids) - 1 - longest)
            targets = [IGNORE_INDEX] * (start - 1) + ids[start:]
            inputs.append(ids[cut:-1])
            labels.append(targets[cut:])
        ids_grid, mask = pad_rows(inputs)
        label_grid, _ = pad_rows(labels, IGNORE_INDEX)
        return Batch(input_ids=ids_grid, attention_mask=mask, labels=label_grid)

    def loss(self, network: Network, batch: Batch) -> torch.Tensor:
        """Return the loss summed over the answers' tokens."""
        return language_loss(network, batch)
