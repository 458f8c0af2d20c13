"""Write a configuration that describes every key; commented keys show their defaults.

Removing the `# ` in front of a commented key makes it a setting with the same value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.settings import DataSettings

__all__ = ["starter_config"]

_KEYS = ("format", "base", "out", "seed")
_HEAD = """\
# Each key is described above it. Keys in comments show their defaults; an empty default, "" or [],
# means that the key is not set.
"""


def starter_config(base: str, data: Mapping[str, Any], questions: Iterable[str] = ()) -> str:
    """Return the text of a configuration.

    Args:
        base: The base model.
        data: Values of keys in `[data]`; other keys stay comments.
        questions: Decisions for the reader, as comments at the top.
    """
    lines = [_HEAD]
    lines += [f"# To decide: {_one_line(question)}" for question in questions]
    if lines[1:]:
        lines.append("")
    lines += _lines(PipelineConfig, {"base": base}, _KEYS)
    lines += ["", "[data]", *_lines(DataSettings, data, tuple(DataSettings.model_fields))]
    for table, field in PipelineConfig.model_fields.items():
        if table not in ("data", *_KEYS):
            kind: Any = field.annotation
            lines += ["", f"[{table}]", *_lines(kind, {}, tuple(kind.model_fields))]
    return "\n".join(lines) + "\n"


def _lines(kind: Any, given: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        field = kind.model_fields[name]
        yield f"# {_one_line(field.description or '')}"
        if name in given:
            yield f"{name} = {_toml(given[name])}"
        else:
            yield f"# {name} = {_toml(field.default)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _toml(value: Any) -> str:
    """Return a value as TOML; None becomes an empty text.

    JSON's strings, numbers, lists and booleans are valid TOML, except for one character.
    """
    plain = "" if value is None else list(value) if isinstance(value, tuple) else value
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
