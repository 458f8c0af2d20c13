"""`train_translator`: train an encoder-decoder on pairs of texts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.network import Network
from idiolect.text.arguments import check_whole, checked, load_if_named
from idiolect.text.parallel_text import TextPair
from idiolect.text.tokenizers import bpe
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.sentence_pairs import SentencePairs
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.objectives.translation import Translation
from idiolect.training.optim import Train
from idiolect.training.progress import notice
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig

__all__ = [
    "encode_texts",
    "end_id",
    "learn_joint_bpe",
    "new_translator",
    "position_limit",
    "train_translator",
]

_SPECIAL = ("<pad>", "<s>", "</s>")


def learn_joint_bpe(pairs: Iterable[TextPair], size: int) -> Tokenizer:
    """Learn one byte-level BPE vocabulary for both languages (Sennrich et al. 2016, 1508.07909).

    Args:
        pairs: The training pairs.
        size: Number of ids, including 256 bytes and three special tokens.

    Raises:
        InputError: The size is too small.
    """
    texts = (text for pair in pairs for text in (pair.source, pair.target))
    return bpe.train(texts, size, special_tokens=_SPECIAL)


def new_translator(
    settings: Mapping[str, Any], tokenizer: Tokenizer, *, seed: int = 0
) -> LanguageModel:
    """Create an untrained translator, with the special tokens of its tokenizer.

    Args:
        settings: The fields of a `config.json`, such as `{"model_type": "transformer"}`.
        tokenizer: The tokenizer, with tokens for padding, the beginning and the end.
        seed: Random seed of the weights.

    Raises:
        InputError: The tokenizer lacks one of these tokens.
        ConfigError: The settings are not supported.
    """
    ids = {
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    missing = [name.removesuffix("_token_id") for name, id_ in ids.items() if id_ is None]
    if missing:
        raise InputError(
            f"the tokenizer has no token for {', '.join(missing)}",
            hint="learn one from the pairs: --vocab-size",
        )
    return LanguageModel.new({**ids, **settings}, tokenizer, seed=seed)


def encode_texts(model: LanguageModel, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of texts with the model's special tokens, including an end token."""
    rows = model.tokenizer.encode_batch(texts)
    end = end_id(model)
    if end is not None and not _ends_rows(model.tokenizer, end):
        rows = [[*row, end] for row in rows]
    return rows


def end_id(model: LanguageModel) -> int | None:
    """Return the end-of-text id of the configuration or, failing that, of the tokenizer."""
    end: int | None = getattr(model.network.config, "eos_token_id", None)
    return model.tokenizer.eos_token_id if end is None else end


def position_limit(network: Network) -> int:
    """Return the maximum number of positions of a network; 0 if unlimited."""
    config = network.config
    limit: int = getattr(config, "max_position_embeddings", 0)
    return limit if getattr(config, "has_position_table", True) else 0


def _ends_rows(tokenizer: Tokenizer, end: int) -> bool:
    """Return whether the tokenizer's own template contains the end token (T5, BART, mBART)."""
    return end in tokenizer.encode("")


@checked
def train_translator(
    model: LanguageModel,
    pairs: Sequence[TextPair],
    *,
    output_dir: str | Path,
    steps: int,
    batch_tokens: int = 4096,
    label_smoothing: float = 0.1,
    train: Train = "all",
    unfreeze_original_rows: bool = True,
    average_checkpoints: int = 1,
    config: TrainingConfig | None = None,
    tensorboard: bool = False,
) -> LanguageModel:
    """Train an encoder-decoder to translate. Run it again to resume.

    Args:
        model: An encoder-decoder, whose network is changed in place; or a name or path to load.
        pairs: Texts and their translations.
        output_dir: The run's folder; see `RunFolder`. The finished model is in `output_dir/model`.
        steps: Steps of the whole run.
        batch_tokens: Maximum size of a step's batch: rows times the longest text of either side.
        label_smoothing: The share of each target's probability that is spread over the vocabulary.
        train: The parameters to train; see `pretrain`.
        unfreeze_original_rows: Train the vocabulary rows as well; necessary for a new model.
        average_checkpoints: Number of last checkpoints whose weights are averaged at the end.
        config: Rates and intervals. `max_length` applies to each side: longer pairs are left out,
            and a notice gives their number. `batch_size` has no effect.
        tensorboard: Write TensorBoard events to `output_dir/events`.

    Returns:
        The model, trained, in evaluation mode.

    Raises:
        ConfigError: The model is not an encoder-decoder, or a setting is out of range.
        InputError: There are no pairs, or no pair is short enough.
        CheckpointError: `output_dir` contains another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
    """
    model = load_if_named(model, LanguageModel, "model")
    config = TrainingConfig() if config is None else TrainingConfig.of(config)
    check_whole(batch_tokens, "batch_tokens", 1)
    objective = Translation(
        model.network, pad_id=model.tokenizer.pad_token_id or 0, label_smoothing=label_smoothing
    )
    sources, targets = _encode_pairs(model, pairs, config.max_length)
    session = TrainingSession(
        model,
        out=output_dir,
        config=config,
        steps=steps,
        train=train,
        unfreeze_original_rows=unfreeze_original_rows,
        tensorboard=tensorboard,
        average_checkpoints=average_checkpoints,
    )
    session.begin(
        {
            "model": fingerprint(model.network.state_dict()),
            "tokenizer": model.tokenizer.fingerprint,
            "pairs": hashlib.blake2b(repr((sources, targets)).encode(), digest_size=16).hexdigest(),
            "objective": "translation",
            "batch_tokens": batch_tokens,
            "label_smoothing": label_smoothing,
            "average_checkpoints": average_checkpoints,
        }
    )
    source = SentencePairs(sources, targets, batch_tokens=batch_tokens, seed=config.seed)
    session.train(objective, source)
    session.publish(model.save)
    return model


def _encode_pairs(
    model: LanguageModel, pairs: Sequence[TextPair], max_length: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the ids of both sides, without the pairs that are too long."""
    limit = position_limit(model.network)
    longest = min(max_length, limit) if limit else max_length
    sources = encode_texts(model, [pair.source for pair in pairs])
    targets = encode_texts(model, [pair.target for pair in pairs])
    kept = [
        (source, target)
        for source, target in zip(sources, targets, strict=True)
        if max(len(source), len(target)) <= longest
    ]
    if not kept:
        raise InputError(
            f"none of the {len(pairs):,} pairs has at most {longest} tokens a side",
            hint="raise max_length, or divide the texts",
        )
    if left_out := len(pairs) - len(kept):
        numbers = (
            i
            for i, rows in enumerate(zip(sources, targets, strict=True), 1)
            if max(map(len, rows)) > longest
        )
        first = ", ".join(str(n) for n, _ in zip(numbers, range(3), strict=False))
        notice(
            f"{left_out:,} of {len(pairs):,} pairs have more than {longest} tokens a side and are "
            f"left out (the first: {first})"
        )
    return [source for source, _ in kept], [target for _, target in kept]
