"""The ids of prompts, and the number of new tokens that fit into the model's context."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from idiolect.errors import InputError
from idiolect.generate.generation import TextRow
from idiolect.models.language_model import LanguageModel

__all__ = ["negative_ids", "prompt_ids", "room_for"]


def prompt_ids(model: LanguageModel, prompt: str | Sequence[int], number: int) -> list[int]:
    """Return the ids of a prompt; for an empty prompt, the start token.

    Args:
        model: The model.
        prompt: A text, or its ids.
        number: The number of the prompt, for messages.

    Raises:
        InputError: The prompt is neither, has an id outside the vocabulary, or is empty and the
            model has no start token.
    """
    tokenizer, size = model.tokenizer, len(model.tokenizer)
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else _integers(prompt, number)
    if wrong := [token for token in ids if not 0 <= token < size]:
        raise InputError(
            f"prompt {number} has the id {wrong[0]}, but the model's ids are 0 to {size - 1}",
            hint="encode it with the model's own tokenizer",
        )
    if ids:
        return ids
    for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if start is not None:
            return [start]
    raise InputError(
        f"prompt {number} is empty, and the model has no token to begin a text with",
        hint="give it a text",
    )


def negative_ids(
    model: LanguageModel, prompts: str | Sequence[str] | None, rows: Sequence[TextRow]
) -> list[list[int]]:
    """Return the ids of the negative prompt of each row; by default the row's last token.

    Args:
        model: The model.
        prompts: Negative prompts: one for all, or one for each prompt.
        rows: The texts to generate, in the order of their prompts.

    Raises:
        InputError: There are fewer negative prompts than prompts.
    """
    if prompts is None:
        return [row.source[-1:] for row in rows]
    if isinstance(prompts, str):
        return [prompt_ids(model, prompts, row.number) for row in rows]
    if len(prompts) <= rows[-1].number:
        raise InputError(
            f"{len(prompts)} negative prompts, and more prompts",
            hint="give one for each, or one for all",
        )
    return [prompt_ids(model, prompts[row.number], row.number) for row in rows]


def room_for(
    source: Sequence[int],
    number: int,
    max_new_tokens: int,
    context_length: int | None,
    *,
    encoder_decoder: bool,
) -> tuple[int, bool]:
    """Return the maximum number of new tokens, and whether the context sets that limit.

    Raises:
        InputError: The prompt does not fit into the model's context.
    """
    if context_length is None:
        return max_new_tokens, False
    # The decoder of an encoder-decoder has its own context, which starts with one start token.
    left = context_length - (1 if encoder_decoder else len(source))
    if len(source) > context_length or left < 1:
        raise InputError(
            f"prompt {number} has {len(source)} tokens, "
            f"but the model's context has {context_length}",
            hint="shorten it",
        )
    return min(max_new_tokens, left), left < max_new_tokens


def _integers(prompt: object, number: int) -> list[int]:
    try:
        if isinstance(prompt, bytes | bytearray):  # bytes are not token ids
            raise TypeError
        return [operator.index(token) for token in prompt]  # type: ignore[attr-defined]
    except TypeError as error:
        raise InputError(
            f"prompt {number} is neither a text nor a list of token ids",
            hint="give a list of prompts; one prompt of ids is [[5, 6, 7]]",
        ) from error
