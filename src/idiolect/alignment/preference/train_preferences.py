"""`train_preferences`: tune a language model on preferences, in one training session."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from idiolect.alignment.chat.chat_encoding import (
    encode_completion,
    prepare_prompts,
    unusable_template,
)
from idiolect.alignment.chat.fine_tune import longest_text
from idiolect.alignment.preference.completion_batch import EncodedCompletion, score_texts
from idiolect.alignment.preference.preference_objective import (
    PreferenceObjective,
    PreferenceSettings,
)
from idiolect.alignment.preference.preferences import JudgedCompletion, Preference, Prompt
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.generate.prompts.chat_template import find_chat_template
from idiolect.models.language_model import LanguageModel
from idiolect.nn.lora import LoraConfig
from idiolect.nn.matrix_precision import autocast
from idiolect.text.arguments import check_whole, load_if_named
from idiolect.text.files import write_atomic
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.optim import Train
from idiolect.training.progress import notice, track
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["encode_sides", "preference_config", "train_preferences", "wrapped"]

_SIDES_AT_ONCE = 8


def preference_config(**values: Any) -> TrainingConfig:
    """Return the defaults: 16 pairs a step, a learning rate of 1e-6, fp32, no weight decay.

    With adapters, a learning rate of 1e-5 to 1e-4 is usual.

    Args:
        values: Fields of `TrainingConfig` to override.
    """
    usual = {"learning_rate": 1e-6, "weight_decay": 0.0, "precision": "fp32", "max_length": 1024}
    return TrainingConfig.from_dict(usual | values)


def train_preferences(
    model: LanguageModel,
    data: Sequence[Preference] | Sequence[JudgedCompletion],
    *,
    output_dir: str | Path,
    settings: PreferenceSettings | None = None,
    epochs: int = 1,
    steps: int | None = None,
    chat: bool | None = None,
    train: Train = "all",
    lora: LoraConfig | None = None,
    config: TrainingConfig | None = None,
    tensorboard: bool = False,
) -> LanguageModel:
    """Tune a causal language model on preferences. Run it again to resume.

    The reference model is the given model. Its log-probabilities are computed once, before
    training, and kept in `output_dir`, so no second model is in memory. Original embedding rows
    stay unchanged. A model without a chat template gets a plain one if a prompt has messages.

    Args:
        model: The policy, whose network is changed in place; or a name or path to load.
        data: Pairs of completions; for KTO, judged completions.
        output_dir: The run's folder; see `RunFolder`. The finished model is in `output_dir/model`.
        settings: The loss; by default DPO.
        epochs: Passes over the data.
        steps: Steps of the whole run, instead of `epochs`.
        chat: Whether to wrap a plain prompt as a user message in the model's chat template; by
            default if it has one.
        train: Which parameters train; see `Train`.
        lora: Rank and target modules of the adapters, with `train="rows+lora"`.
        config: Training settings, by default `preference_config()`. A completion that does not fit
            into `max_length` is cut; where a prompt leaves no room, the example is left out. Both
            are counted.
        tensorboard: Write TensorBoard events to `output_dir/events`.

    Returns:
        The model, tuned, in evaluation mode.

    Raises:
        ConfigError: The model is not causal, or a setting is out of its range.
        InputError: No example is short enough, or KTO has fewer than two examples.
        CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
    """
    model = load_if_named(model, LanguageModel, "model")
    settings = settings or PreferenceSettings()
    config = preference_config() if config is None else TrainingConfig.of(config)
    if steps is None and check_whole(epochs, "epochs") < 1:
        raise ConfigError(f"epochs is {epochs}", hint="choose at least 1")
    data = [wrapped(one, model.tokenizer, chat) for one in data]
    prepare_prompts(model.tokenizer, (one.prompt for one in data))
    length = longest_text(model, config)
    examples, used = _encode(model, data, length)
    good = [one.good for one in used if isinstance(one, JudgedCompletion)]
    if good:
        examples = _mismatched(used, examples, length)
        _report_one_sided(good)
    if (settings.loss == "kto") != bool(good):
        wanted = "judged completions" if settings.loss == "kto" else "pairs of completions"
        raise InputError(f"{settings.loss} trains on {wanted}", hint="check the data")
    source = ShuffledEpochs(len(examples), rows=config.batch_size, seed=config.seed)
    session = TrainingSession(
        model,
        out=output_dir,
        config=config,
        steps=epochs * source.steps if steps is None else steps,
        train=train,
        lora=lora,
        tensorboard=tensorboard,
    )
    session.begin(
        {
            "model": fingerprint(model.network.state_dict()),
            "tokenizer": model.tokenizer.fingerprint,
            "objective": asdict(settings),
            "data": hashlib.blake2b(repr((examples, good)).encode(), digest_size=16).hexdigest(),
        }
    )
    objective = PreferenceObjective(
        model.network,
        examples,
        settings,
        good=good,
        pad_id=model.tokenizer.batch_pad_token_id or 0,
    )
    if settings.has_reference:
        objective.reference = _reference(session, objective)
    session.train(objective, source)
    session.publish(model.save)
    return model


def wrapped(one: Any, tokenizer: Tokenizer, chat: bool | None = None) -> Any:
    """Return an example with a plain prompt wrapped as a user message, if the model chats.

    Args:
        one: An example with a `prompt`.
        tokenizer: The tokenizer.
        chat: Whether to wrap it; by default if the tokenizer has a chat template.
    """
    if not isinstance(one.prompt, str):
        return one
    has_template = find_chat_template(tokenizer) is not None
    if not (has_template if chat is None else chat):
        return one
    prompt: Prompt = ({"role": "user", "content": one.prompt},)
    return type(one)(**{**_fields(one), "prompt": prompt})


def _fields(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def encode_sides(
    tokenizer: Tokenizer, prompt: Prompt, completions: Sequence[str]
) -> list[EncodedCompletion]:
    """Encode completions of a prompt.

    Raises:
        InputError: The prompt has messages, and the model has no chat template.
    """
    return [EncodedCompletion(*encode_completion(tokenizer, prompt, text)) for text in completions]


def _encode(
    model: LanguageModel, data: Sequence[Any], length: int
) -> tuple[list[list[EncodedCompletion]], list[Any]]:
    """Return the encoded sides of the examples that fit, and those examples."""
    failed = dict[int, CheckpointError]()
    found, used, left_out, cut = [], [], list[int](), 0
    for number, one in enumerate(track(data, "encoding the examples", len(data)), 1):
        pair = isinstance(one, Preference)
        texts = (one.chosen, one.rejected) if pair else (one.completion,)
        try:
            sides = encode_sides(model.tokenizer, one.prompt, texts)
        except CheckpointError as error:
            failed[number] = error
            continue
        room = length - max(len(side.prompt_ids) for side in sides)
        if room < 1:
            left_out.append(number)
            continue
        cut += any(len(side) > length for side in sides)
        found.append(
            [
                EncodedCompletion(
                    side.prompt_ids, side.completion_ids[: length - len(side.prompt_ids)]
                )
                for side in sides
            ]
        )
        used.append(one)
    if failed:
        raise unusable_template(failed, len(data), "examples")
    if left_out:
        first = ", ".join(map(str, left_out[:3]))
        notice(
            f"{len(left_out):,} of {len(data):,} examples have a prompt of {length} tokens or more "
            f"and are left out (the first: {first})"
        )
    if cut:
        notice(f"{cut:,} of {len(data):,} examples are cut after {length} tokens")
    if not found:
        raise InputError(
            f"all {len(data):,} examples have a prompt of {length} tokens or more"
            if data
            else "there are no examples",
            hint="raise max_length, or shorten the prompts",
        )
    return found, used


def _report_one_sided(good: Sequence[bool]) -> None:
    """Print a notice if all judged completions are good, or all are bad."""
    if len(set(good)) == 1:
        label, way = ("good", "more") if good[0] else ("bad", "less")
        notice(
            f"all {len(good):,} examples are {label}: KTO only makes completions {way} likely, "
            "and has nothing to tell them from; it is meant for both labels"
        )


def _mismatched(
    used: Sequence[JudgedCompletion], examples: Sequence[Sequence[EncodedCompletion]], length: int
) -> list[list[EncodedCompletion]]:
    """Pair each completion with one of another prompt, half the data away or the next that differs.

    Neighbours often share their prompt, and completions of the same prompt would bias the KL
    estimate. The other completion is cut to the `length` that a text may have.
    """
    count = len(examples)
    found = []
    for number, ((own,), one) in enumerate(zip(examples, used, strict=True)):
        others = ((number + count // 2 + step) % count for step in range(count))
        other = next((i for i in others if used[i].prompt != one.prompt), None)
        if other is None:
            raise InputError(
                "KTO compares with completions of other prompts, and there is one prompt only",
                hint="add examples of other prompts, or use dpo",
            )
        stranger = examples[other][0].completion_ids[: length - len(own.prompt_ids)]
        found.append([own, EncodedCompletion(own.prompt_ids, stranger)])
    return found


def _reference(session: TrainingSession, objective: PreferenceObjective) -> Tensor:
    """Return the reference log-probabilities, read from the run's folder if they are there."""
    path = session.folder.path / "reference.safetensors"

    def write() -> None:
        if not path.exists():
            found = _log_probs(session, objective)
            write_atomic(path, save({"log_probs": found}))

    session.on_first(write)
    return load_file(path)["log_probs"]


def _log_probs(session: TrainingSession, objective: PreferenceObjective) -> Tensor:
    network = session.model.network
    examples = objective.examples
    found = torch.zeros(len(examples), len(examples[0]))
    order = sorted(range(len(examples)), key=lambda i: max(map(len, examples[i])))
    starts = range(0, len(order), _SIDES_AT_ONCE)
    network.eval()
    with torch.no_grad(), autocast(session.precision, network.device):
        for start in track(starts, "reference log-probabilities, batches", len(starts)):
            numbers = order[start : start + _SIDES_AT_ONCE]
            batch = objective.batch(numbers).to(network.device)
            found[numbers] = score_texts(network, batch).log_probs.cpu()
    return found
