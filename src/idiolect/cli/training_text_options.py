"""The text of a pre-training run from the command line: a corpus, several languages, or pairs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from idiolect.cli.text_options import report_skipped
from idiolect.errors import InputError
from idiolect.text.corpus import Corpus
from idiolect.text.parallel_text import read_parallel
from idiolect.text.skipped import Skipped
from idiolect.training.data.parallel_corpus import ParallelCorpus
from idiolect.training.objectives.objective_registry import find_objective

__all__ = ["RunText", "is_for_pairs", "parse_settings"]

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Parse NAME=VALUE; values are TOML, and anything else is a text.

    >>> parse_settings(["mask_ratio=0.35", "denoisers=ul2"])
    {'mask_ratio': 0.35, 'denoisers': 'ul2'}
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise InputError(f"{setting!r} is no setting", hint="NAME=VALUE, as mask_ratio=0.35")
        try:
            parsed[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[name] = value
    return parsed


def is_for_pairs(objective: str | None) -> bool:
    """Return whether an objective reads pairs of texts."""
    return objective is not None and find_objective("pretrain", objective).data == "pairs"


class RunText:
    """Corpus, replayed and validation text of a run, and their skipped records.

    Args:
        sources: Files of the corpus.
        languages: The language of each, separated by commas.
        replay: Files of general text; with languages, one for each.
        validation: Files of validation text, likewise.
        pairs: Whether each pair of files holds translations, line by line.
        reading: How files are read; see `Corpus`.

    Raises:
        InputError: A file is missing, or the number of files and languages differ.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        languages: str | None,
        replay: Sequence[str],
        validation: Sequence[str],
        pairs: bool,
        **reading: Any,
    ) -> None:
        self._corpora: list[tuple[Corpus, str]] = []
        self._empty_sides: list[tuple[Skipped, str]] = []
        self._reading = reading
        names = None if languages is None else [one.strip() for one in languages.split(",")]
        if names is not None and "" in names:
            raise InputError(f"--languages {languages!r} has an empty name", hint="such as en,de")
        self.corpus, self.replay, self.validation = (
            self._read(files, names, pairs, what) if files else None
            for files, what in (
                (sources, "the text"),
                (replay, "the replayed text"),
                (validation, "the validation text"),
            )
        )

    def report(self) -> None:
        """Print the skipped records."""
        for corpus, what in self._corpora:
            report_skipped(corpus.skipped, what)
        for skipped, what in self._empty_sides:
            report_skipped(skipped, what)

    def _read(
        self, files: Sequence[str], languages: Sequence[str] | None, pairs: bool, what: str
    ) -> Any:
        if pairs:
            return self._read_pairs(files, languages, what)
        if languages is None:
            return self._corpus(files, what)
        _check_counts(files, languages, what)
        named: dict[str, list[str]] = {}
        for file, language in zip(files, languages, strict=True):
            named.setdefault(language, []).append(file)
        return {name: self._corpus(own, f"{what} in {name}") for name, own in named.items()}

    def _corpus(self, files: Sequence[str], what: str) -> Corpus:
        settings = dict(self._reading)
        corpus = Corpus(list(files), settings.pop("field", None), **settings)
        self._corpora.append((corpus, what))
        return corpus

    def _read_pairs(
        self, files: Sequence[str], languages: Sequence[str] | None, what: str
    ) -> list[ParallelCorpus]:
        if len(files) % 2:
            raise InputError(
                f"an odd number of files, {len(files)}, for pairs of texts",
                hint="name a file of texts, then the file of their translations",
            )
        languages = [_suffix(file) for file in files] if languages is None else languages
        _check_counts(files, languages, what)
        made = []
        for i in range(0, len(files), 2):
            skipped = Skipped()
            pairs = read_parallel(
                *files[i : i + 2],
                max_unreadable=self._reading["max_unreadable"],
                skipped=skipped,
            )
            self._empty_sides.append((skipped, what))
            made.append(ParallelCorpus(pairs, (languages[i], languages[i + 1])))
        return made


def _check_counts(files: Sequence[str], languages: Sequence[str], what: str) -> None:
    if len(files) != len(languages):
        raise InputError(
            f"--languages names {len(languages)}, and {what} has {len(files)} sources",
            hint="name one for each source, in their order",
        )


def _suffix(file: str) -> str:
    """Return the language that a file's name ends with, as in train.en.gz."""
    path = Path(file)
    if path.suffix in _COMPRESSED:
        path = path.with_suffix("")
    return path.suffix.removeprefix(".") or path.name
