"""`Terms`: the words a tokenizer is to learn, where they come from, and what was left out.

A term is taught as one or several *forms*, each a stretch of text that becomes one token and
takes one row of the embedding: most tokenizers tell `␣diabetes` from `diabetes`.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from idiolect.errors import InputError
from idiolect.text.files import read_json, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LONGEST", "LeftOut", "Term", "TermSource", "Terms", "objection", "read_glossary"]

LONGEST = 100
"""Characters in a term; WordPiece, too, gives up on words longer than this."""

TermSource = Literal["corpus", "glossary", "given"]


@dataclass(frozen=True)
class Term:
    """A word, code or phrase to be taught."""

    text: str
    """As a person writes it, without space around it."""
    forms: tuple[str, ...]
    """The stretches of text that become one token each, with the space before them if any."""
    source: TermSource = "given"
    saved: int = 0
    """Tokens its forms save in the audited corpus, beyond what terms before it save."""


@dataclass(frozen=True)
class LeftOut:
    """A term that is not taught, and why."""

    text: str
    reason: str


class Terms(Sequence[Term]):
    """The terms chosen, the most useful first, and those left out with the reason."""

    def __init__(self, terms: Iterable[Term], left_out: Iterable[LeftOut] = ()) -> None:
        self._terms = tuple(terms)
        self.left_out = tuple(left_out)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Terms:
        """Make terms of plain strings; each is taught with and without a space before it.

        Strings that cannot be terms are left out, repeated ones merged.
        """
        terms: dict[str, Term] = {}
        left_out = []
        for text in texts:
            clean = text.strip()
            if reason := objection(clean):
                left_out.append(LeftOut(text, reason))
            else:
                terms.setdefault(clean, Term(clean, (f" {clean}", clean)))
        return cls(terms.values(), left_out)

    @property
    def forms(self) -> list[str]:
        """All forms, in order, each once: one row of the embedding each."""
        return list(dict.fromkeys(form for term in self for form in term.forms))

    def save(self, path: str | Path) -> None:
        """Write the terms as JSON, whole or not at all."""
        record = {
            "terms": [asdict(term) for term in self],
            "left_out": [asdict(term) for term in self.left_out],
        }
        text = json.dumps(record, ensure_ascii=False, indent=1)
        write_atomic(Path(path), f"{text}\n".encode())

    @classmethod
    def load(cls, path: str | Path) -> Terms:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing or no JSON.
            InputError: it holds something else than terms.
        """
        record: dict[str, Any] = read_json(Path(path))
        try:
            return cls(
                [Term(**{**term, "forms": tuple(term["forms"])}) for term in record["terms"]],
                [LeftOut(**term) for term in record["left_out"]],
            )
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{path} holds no terms", hint="write it with Terms.save or `idiolect audit`"
            ) from error

    @overload
    def __getitem__(self, index: int) -> Term: ...
    @overload
    def __getitem__(self, index: slice) -> Terms: ...
    def __getitem__(self, index: int | slice) -> Term | Terms:
        if isinstance(index, slice):
            return Terms(self._terms[index], self.left_out)
        return self._terms[index]

    def __len__(self) -> int:
        return len(self._terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Terms) and (self._terms, self.left_out) == (
            other._terms,
            other.left_out,
        )

    def __hash__(self) -> int:
        return hash((self._terms, self.left_out))

    def __repr__(self) -> str:
        return f"Terms({len(self)} terms, {len(self.forms)} forms, {len(self.left_out)} left out)"


def objection(text: str) -> str:
    """Say why a text cannot be a term; empty if it can.

    >>> objection("HbA1c"), objection("")
    ('', 'empty')
    """
    if not text.strip():
        return "empty"
    if len(text) > LONGEST:
        return f"longer than {LONGEST} characters"
    odd = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")), "")
    if odd:
        return f"holds a control character (U+{ord(odd):04X})"
    return ""


def read_glossary(path: str | Path) -> list[str]:
    """Read a list of terms, one a line. An empty line is kept, for the audit to say so.

    Raises:
        InputError: the file is missing, or is not UTF-8 (the line is named).
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    terms = []
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            terms.append(line.decode().strip())
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is not UTF-8 in line {number}",
                hint="convert it, for example with iconv -t UTF-8",
            ) from error
    return terms
