"""Chat templates: a conversation as one prompt, rendered in Jinja2's sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from idiolect.errors import CheckpointError, InputError
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["find_chat_template", "render_chat"]

_ERRORS = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError),
    ValueError,
)
"""Exceptions that expressions and filters of a template can raise."""


def find_chat_template(tokenizer: Tokenizer) -> str | None:
    """Return the chat template of a model's tokenizer, or None if it has none."""
    template = tokenizer.settings.get("chat_template")
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, dict)]
        named = {entry.get("name"): entry.get("template") for entry in entries}
        template = named.get("default")
    return template if isinstance(template, str) else None


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    template: str | None = None,
    add_generation_prompt: bool = True,
) -> str:
    """Return a conversation as text, in the format that the model was trained on.

    The template comes with the model and is not trusted. The sandbox blocks unsafe attributes and
    changes of the arguments.

    Args:
        tokenizer: The tokenizer.
        messages: Each with `role` (`system`, `user`, `assistant`) and `content`.
        template: A Jinja2 template; by default that of the model.
        add_generation_prompt: Whether to append the start of the assistant's turn.

    Raises:
        InputError: The model has no template.
        CheckpointError: The template raises, or tries to leave its sandbox.
    """
    template = find_chat_template(tokenizer) if template is None else template
    if template is None:
        raise InputError("this model has no chat template", hint="use idiolect generate")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )

    def fail(message: str) -> None:
        raise TemplateError(message)

    environment.globals["raise_exception"] = fail
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    names = {
        name: _content(tokenizer.settings.get(name))
        for name in ("bos_token", "eos_token", "unk_token")
    }
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=add_generation_prompt, **names
        )
    except (TemplateError, *_ERRORS) as e:
        raise CheckpointError(
            f"the model's chat template cannot be used: {e or type(e).__name__}",
            hint="choose a model without one, or with another",
        ) from e


def _content(token: Any) -> str:
    """Return the text of a special token, which may be a dictionary in the settings."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
