"""Survey a folder of data, and write a first configuration for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idiolect.errors import IdiolectError, InputError
from idiolect.pipeline.data import Data
from idiolect.pipeline.settings import DataSettings
from idiolect.pipeline.survey.data_files import DataFile, find_data_files
from idiolect.pipeline.survey.roles import Roles, find_roles
from idiolect.pipeline.survey.starter_config import starter_config
from idiolect.recommend.splits import split

__all__ = ["Survey", "survey"]

_KEYS = (
    "items", "corpus", "general", "pairs", "queries", "qrels", "similar", "glossary", "histories",
)  # fmt: skip
_TRIED = 64 << 20  # bytes; larger data is not read whole


@dataclass(frozen=True)
class Survey:
    """A proposed configuration for a folder."""

    text: str
    """The configuration."""
    findings: tuple[str, ...]
    """Findings: the role of each file, missing inputs, and open questions."""


def survey(folder: Path, *, base: str, report: Callable[[str], object] = lambda _: None) -> Survey:
    """Inspect a folder of data, and propose a configuration for it.

    Args:
        folder: The folder.
        base: The base model.
        report: Called with each finding, also before an error is raised.

    Raises:
        InputError: The folder does not exist, or contains no catalogue.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}", hint="pass the folder that holds your data")
    files, roles = find_data_files(folder), Roles()
    findings: list[str] = []
    try:
        find_roles(folder, files, roles)
    finally:
        for file in files:
            name = file.name if file.name.isprintable() else repr(file.name)
            findings.append(f"{name}: {file.described()}")
            findings.append(f"  {roles.remarks.get(file.name, '')}")
            report("\n".join(findings[-2:]))
    data = _data(roles)
    more = [*_missing(roles), *_tried(folder, files, data)]
    for finding in more:
        report(finding)
    findings += more
    return Survey(starter_config(base, data, roles.questions), tuple(findings))


def _data(roles: Roles) -> dict[str, Any]:
    """Return the keys of `[data]` that differ from their defaults."""
    given: dict[str, Any] = {key: file.name for key, file in roles.chosen.items()}
    default = DataSettings(items="items")
    for name, value in roles.fields.items():
        if value is not None and value != getattr(default, name):
            given[name] = value
    return given


def _missing(roles: Roles) -> Iterator[str]:
    """Yield missing inputs, and open questions."""
    for key in _KEYS:
        if key not in roles.chosen:
            yield f"{key}: none found"
    for question in roles.questions:
        yield f"question: {question}"


def _tried(folder: Path, files: list[DataFile], given: Mapping[str, Any]) -> Iterator[str]:
    """Read the data as a run would, if that is quick, and yield the results."""
    used = [file for file in files if file.name in given.values()]
    if sum(file.size for file in used) > _TRIED:
        yield "the files are large and were not read whole; idiolect run checks them first"
        return
    try:
        data = Data(DataSettings.model_validate(given), folder)
        parts = [f"{len(data.items):,} items"]
        data.check()
        if data.histories is not None:
            parts.append(f"{len(data.histories.events):,} events of users")
            split(data.histories)
        judged = [query for query in data.qrels if query in data.queries]
        for name, found in (("pairs", data.pairs()), ("judged queries", judged)):
            if found:
                parts.append(f"{len(found):,} {name}")
    except IdiolectError as error:
        yield f"idiolect run would stop: {error}"
        return
    left_out = "".join(f"; {count:,} {why}" for why, count in data.skipped.most_common())
    yield f"read: {', '.join(parts)}{f' (left out{left_out})' if left_out else ''}"
