"""`fine_tune`: supervised fine-tuning (SFT) of a language model on conversations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idiolect.alignment.chat.chat_encoding import (
    EncodedText,
    LossOn,
    encode_conversation,
    give_template,
    unusable_template,
)
from idiolect.alignment.chat.conversations import Conversation
from idiolect.alignment.chat.packed_conversations import pack_conversations
from idiolect.alignment.chat.supervised import SupervisedTuning
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.generate.model_defaults import find_context_length, find_ends
from idiolect.models.language_model import LanguageModel
from idiolect.nn.lora import LoraConfig
from idiolect.text.arguments import check_whole, load_if_named
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.optim import Train
from idiolect.training.progress import notice
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = ["alignment_config", "fine_tune", "longest_text"]


def alignment_config(**values: Any) -> TrainingConfig:
    """Return the defaults: 16 texts a step, a learning rate of 2e-5, fp32, no weight decay.

    Args:
        values: Fields of `TrainingConfig` to override.
    """
    usual = {"learning_rate": 2e-5, "weight_decay": 0.0, "precision": "fp32"}
    return TrainingConfig.from_dict(usual | values)


def fine_tune(
    model: LanguageModel,
    conversations: Sequence[Conversation],
    *,
    output_dir: str | Path,
    epochs: int = 3,
    steps: int | None = None,
    validation: Sequence[Conversation] = (),
    loss_on: LossOn = "completion",
    packing: bool = False,
    train: Train = "all",
    lora: LoraConfig | None = None,
    config: TrainingConfig | None = None,
    tensorboard: bool = False,
) -> LanguageModel:
    """Fine-tune a causal language model on conversations. Run it again to resume.

    Original embedding rows stay unchanged. A model without a chat template gets a plain one if a
    conversation has messages; it is saved with the model.

    Args:
        model: The model, whose network is changed in place; or a name or path to load.
        conversations: The training conversations.
        output_dir: The run's folder; see `RunFolder`. The finished model is in `output_dir/model`.
        epochs: Passes over the conversations.
        steps: Steps of the whole run, instead of `epochs`.
        validation: Held-out conversations for the validation loss.
        loss_on: Tokens with a loss: those that the assistant writes, or all.
        packing: Fill each row with several conversations, which cannot attend to one another.
        train: Which parameters train; see `Train`.
        lora: Rank and target modules of the adapters, with `train="rows+lora"`.
        config: Training settings, by default `alignment_config()`. Conversations that are longer
            than `max_length` are cut; those whose prompt alone is are left out. Both are counted.
        tensorboard: Write TensorBoard events to `output_dir/events`.

    Returns:
        The model, tuned, in evaluation mode.

    Raises:
        ConfigError: The model does not read from left to right, or a setting is out of its range.
        InputError: No conversation is short enough.
        CheckpointError: `output_dir` holds another run, or the chat template cannot be used.
        TrainingError: The loss is not finite or explodes.
    """
    model = load_if_named(model, LanguageModel, "model")
    config = alignment_config() if config is None else TrainingConfig.of(config)
    tokenizer, pad_id = model.tokenizer, model.tokenizer.batch_pad_token_id or 0
    # Plain texts need no template; with one, the model would be asked in a format it never read.
    chats = any(one.messages for one in (*conversations, *validation))
    if chats and give_template(tokenizer):
        notice("the model has no chat template; it gets a plain one, saved with the tuned model")
    if not find_ends(model):
        notice(
            "the model has no end token, so it does not learn where an answer ends; "
            "name one in its tokenizer's files or its generation config"
        )
    length = longest_text(model, config)
    texts = _encode_all(model, conversations, loss_on, length, "conversations")
    held_out = _encode_all(model, validation, loss_on, length, "validation conversations")
    rows: list[list[int]] = [[number] for number in range(len(texts))]
    if packing:
        rows = pack_conversations([len(text.ids) for text in texts], length)
    source = ShuffledEpochs(len(rows), rows=config.batch_size, seed=config.seed)
    if steps is None and check_whole(epochs, "epochs") < 1:
        raise ConfigError(f"epochs is {epochs}", hint="choose at least 1")
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
            "tokenizer": tokenizer.fingerprint,
            "objective": "sft",
            "conversations": _digest(texts),
            "validation": _digest(held_out),
            "loss_on": loss_on,
            "packing": packing,
        }
    )
    objective = SupervisedTuning(model.network, texts, rows, pad_id=pad_id)
    alone: list[list[int]] = [[number] for number in range(len(held_out))]
    tested = SupervisedTuning(model.network, held_out, alone, pad_id=pad_id)

    def validate() -> float:
        return tested.mean_loss(session.model.network)

    session.train(objective, source, validate=validate if held_out else None)
    session.publish(model.save)
    return model


def longest_text(model: LanguageModel, config: TrainingConfig) -> int:
    """Return how many tokens a text may have: `max_length`, or the model's context if shorter."""
    context = find_context_length(model)
    return config.max_length if context is None else min(config.max_length, context)


def _encode_all(
    model: LanguageModel,
    conversations: Sequence[Conversation],
    loss_on: LossOn,
    length: int,
    what: str,
) -> list[EncodedText]:
    """Return encoded conversations; count those that are truncated or left out."""
    failed = dict[int, CheckpointError]()
    found, left_out, cut = list[EncodedText](), list[int](), 0
    for number, conversation in enumerate(conversations, 1):
        try:
            texts = encode_conversation(model.tokenizer, conversation, loss_on=loss_on)
        except CheckpointError as error:
            failed[number] = error
            continue
        shortened = [EncodedText(text.ids[:length], text.written[:length]) for text in texts]
        kept = [text for text in shortened if any(text.written[1:])]
        found += kept
        if not kept:
            left_out.append(number)
        elif any(len(text.ids) > length for text in texts):
            cut += 1
    if failed:
        raise unusable_template(failed, len(conversations), what)
    if left_out:
        first = ", ".join(map(str, left_out[:3]))
        notice(
            f"{len(left_out):,} of {len(conversations):,} {what} have a prompt of {length} tokens "
            f"or more and are left out (the first: {first})"
        )
    if cut:
        notice(f"{cut:,} of {len(conversations):,} {what} are cut after {length} tokens")
    if conversations and not found:
        raise InputError(
            f"all {len(conversations):,} {what} have a prompt of {length} tokens or more",
            hint="raise max_length, or shorten the prompts",
        )
    return found


def _digest(texts: Sequence[EncodedText]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(repr((text.ids, text.written)).encode())
    return digest.hexdigest()
