"""Parallel text: two line-aligned files, or an archive of many languages with English.

The archive is LASER's Tatoeba test (Artetxe & Schwenk 2019, 1812.10464): `tatoeba.deu-eng.deu` and
`tatoeba.deu-eng.eng` for German.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from idiolect.errors import InputError
from idiolect.text.record_types.text_lines import read_all_lines
from idiolect.text.suggestions import did_you_mean

__all__ = ["BitextPart", "ParallelText", "read_archive", "read_parallel", "read_sentences"]

_LONGEST = 1 << 20
"""Maximum bytes of a line."""

BitextPart = Literal["all", "first", "second"]
"""All sentences, or one of two halves."""

_MEMBER = re.compile(r"(?:.*/)?[\w-]+\.(\w+)-(\w+)\.(\w+)")


@dataclass(frozen=True)
class ParallelText:
    """Sentences and their translations."""

    name: str
    """The language of the sources, or the name of their file."""
    sources: list[str]
    """The sentences."""
    targets: list[str]
    """Their translations."""

    def part(self, part: BitextPart) -> ParallelText:
        """Return all pairs or one half. Equal target sentences are always in the same half."""
        if part == "all":
            return self
        kept = [
            (source, target)
            for source, target in zip(self.sources, self.targets, strict=True)
            if (_half(target) == 0) == (part == "first")
        ]
        return ParallelText(self.name, [s for s, _ in kept], [t for _, t in kept])


def read_parallel(source: Path, target: Path) -> ParallelText:
    """Read two files whose lines are translations; pairs with an empty line are left out.

    Raises:
        InputError: A file cannot be read, or they differ in their number of lines.
    """
    sides = read_sentences(source), read_sentences(target)
    return _aligned(source.name, *sides, f"{source} and {target}")


def read_sentences(path: Path) -> list[str]:
    """Read a file of one sentence per line, which may be compressed.

    Raises:
        InputError: The file, or a line of it, cannot be read.
    """
    return [line.strip() for line in read_all_lines(path, _LONGEST)]


def read_archive(path: Path, languages: list[str] | None = None) -> list[ParallelText]:
    """Read an archive of sentences in many languages and their English translations.

    Args:
        path: The `.tar.gz`.
        languages: Codes of the languages, such as `deu`; by default all.

    Raises:
        InputError: The archive cannot be read, has no such files, or lacks a language.
    """
    texts: dict[str, dict[str, list[str]]] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                match = _MEMBER.fullmatch(member.name)
                if not member.isfile() or match is None:
                    continue
                language, own = match[1], match[3]
                if languages is not None and language not in languages:
                    texts.setdefault(language, {})
                    continue
                stream = archive.extractfile(member)
                assert stream is not None, "it is a file"
                # Only a line feed ends a line: `splitlines` would also split a sentence that has a
                # line separator inside, and misalign all that follow.
                lines = stream.read().decode("utf-8").removesuffix("\n").split("\n")
                texts.setdefault(language, {})[own] = lines
    except (tarfile.TarError, OSError, UnicodeDecodeError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}", hint="give a .tar.gz") from error
    if not texts:
        raise InputError(
            f"{path} has no parallel text", hint="files are named such as tatoeba.deu-eng.deu"
        )
    for wanted in languages or ():
        if wanted not in texts:
            hint = did_you_mean(wanted, texts) or f"there are {', '.join(sorted(texts)[:20])}"
            raise InputError(f"{path} has no language {wanted!r}", hint=hint)
    found = []
    for language in languages or sorted(texts):
        sides = texts[language]
        other = [name for name in sides if name != language]
        if language not in sides or len(other) != 1:
            raise InputError(f"{path}: a side of {language} is missing", hint="fetch it again")
        found.append(_aligned(language, sides[language], sides[other[0]], f"{path}, {language}"))
    return found


def _aligned(name: str, sources: list[str], targets: list[str], where: str) -> ParallelText:
    if len(sources) != len(targets):
        raise InputError(
            f"{where}: {len(sources):,} and {len(targets):,} lines",
            hint="line n of one is the translation of line n of the other",
        )
    kept = [
        (s.strip(), t.strip())
        for s, t in zip(sources, targets, strict=True)
        if s.strip() and t.strip()
    ]
    if not kept:
        raise InputError(f"{where}: there are no sentences", hint="write one a line")
    return ParallelText(name, [s for s, _ in kept], [t for _, t in kept])


def _half(text: str) -> int:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % 2
