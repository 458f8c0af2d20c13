"""Generation defaults from a model's files, and the processors for given options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from idiolect.errors import ConfigError
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.logits_processors import (
    BadWords,
    ForcedStart,
    LogitsProcessor,
    MinimumLength,
    NoRepeatNgram,
    Penalties,
)
from idiolect.generate.required_words import RequiredWords
from idiolect.models.language_model import LanguageModel

__all__ = ["find_context_length", "find_ends", "option_processors", "required_words"]

_LIMITS = ("max_position_embeddings", "n_positions", "n_ctx")


def find_context_length(model: LanguageModel) -> int | None:
    """Return a model's context length in tokens; None if there is no limit."""
    named = (model.settings.get(name) for name in _LIMITS)
    limit = next((value for value in named if isinstance(value, int) and value > 0), None)
    return None if limit is None else max(1, limit - model.network.virtual_tokens)


def find_ends(model: LanguageModel) -> tuple[int, ...]:
    """Return the ids that end a text, from the generation config, the config or the tokenizer."""
    ends = _generation_config(model).get("eos_token_id", model.tokenizer.eos_token_id)
    ends = [] if ends is None else ends
    return tuple(ends) if isinstance(ends, list) else (int(ends),)


def option_processors(
    model: LanguageModel, options: GenerationOptions, ends: Sequence[int]
) -> list[LogitsProcessor]:
    """Return the processors that options and the model's generation config require, in order."""
    found: list[LogitsProcessor] = []
    penalties = Penalties(
        options.repetition_penalty, options.presence_penalty, options.frequency_penalty
    )
    if penalties != Penalties():
        found.append(penalties)
    if options.no_repeat_ngram_size:
        found.append(NoRepeatNgram(options.no_repeat_ngram_size))
    if options.bad_words:
        found.append(BadWords(tuple(_forms(model, options.bad_words))))
    # A model's files may name ends that its tokenizer lacks; these are never generated.
    ends = [token for token in ends if token < len(model.tokenizer)]
    if options.min_new_tokens and ends:
        found.append(MinimumLength(options.min_new_tokens, tuple(ends)))
    if isinstance(first := _generation_config(model).get("forced_bos_token_id"), int):
        found.append(ForcedStart(first))
    return found


def required_words(model: LanguageModel, options: GenerationOptions) -> RequiredWords | None:
    """Return the words that beams must contain, if there are any.

    Raises:
        ConfigError: They need more tokens than a text may have.
    """
    if not options.force_words:
        return None
    required = RequiredWords([_forms(model, forms) for forms in options.force_words])
    if required.shortest > options.max_new_tokens:
        raise ConfigError(
            f"force_words have {required.shortest} tokens, a text at most {options.max_new_tokens}",
            hint="raise max_new_tokens",
        )
    return required


def _forms(model: LanguageModel, words: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the ids of words at the start of a text, and after a space."""
    texts = [form for word in words for form in (word, " " + word)]
    ids = model.tokenizer.encode_batch(texts, add_special_tokens=False)
    return sorted({tuple(row) for row in ids if row})


def _generation_config(model: LanguageModel) -> dict[str, Any]:
    try:
        config = json.loads(model.companions.contents.get("generation_config.json", b"{}"))
    except ValueError:
        config = {}
    settings = {name: value for name, value in model.settings.items() if value is not None}
    return settings | (config if isinstance(config, dict) else {})
