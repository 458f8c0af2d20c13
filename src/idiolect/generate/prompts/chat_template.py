"""Chat templates: a conversation as one prompt, rendered in Jinja2's sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from idiolect.errors import CheckpointError, InputError
from idiolect.text.tokenizers.special_tokens import default_template
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["find_chat_template", "render_chat"]

_ERRORS = (
    *(ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError),
    ValueError,
)
"""Exceptions that expressions and filters of a template can raise."""

_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""Roles of the special tokens that templates may name."""


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}`, which marks what the assistant writes."""

    tags = {"generation"}  # noqa: RUF012 - declared by jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the marked part itself: here nothing reads the marks."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def find_chat_template(tokenizer: Tokenizer) -> str | None:
    """Return the chat template of a model's tokenizer, or None if it has none."""
    return default_template(tokenizer.settings)


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
        raise InputError(
            "this model has no chat template",
            hint="continue a text instead: idiolect generate, /v1/completions",
        )
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _to_json

    def fail(message: str) -> None:
        raise TemplateError(message)

    environment.globals["raise_exception"] = fail
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    names = {f"{role}_token": _content(tokenizer.settings.get(f"{role}_token")) for role in _ROLES}
    try:
        # Templates ask whether `tools is not none`, which would hold if it were undefined.
        return environment.from_string(template).render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **names,
        )
    except (TemplateError, *_ERRORS) as e:
        raise CheckpointError(
            f"the model's chat template cannot be used: {e or type(e).__name__}",
            hint="choose a model without one, or with another",
        ) from e


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON, with the arguments that templates may pass in transformers."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _content(token: Any) -> str:
    """Return the text of a special token, which may be a dictionary in the settings."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
