"""`Terms`: the terms to add to a tokenizer, with their sources, and the rejected ones.

A term has one or more *forms*. Each form is a string that becomes one token and takes one
embedding row: most tokenizers encode `␣diabetes` and `diabetes` differently.
"""

from __future__ import annotations

import codecs
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from idiolect.errors import InputError
from idiolect.text.arguments import iterate_texts
from idiolect.text.files import read_json, write_atomic
from idiolect.text.format_version import check_format, with_format

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MAX_TERM_LENGTH",
    "RejectedTerm",
    "Term",
    "TermSource",
    "Terms",
    "read_glossary",
    "rejection_reason",
]

MAX_TERM_LENGTH = 100
"""Maximum number of characters. WordPiece maps longer words to the unknown token."""

TermSource = Literal["corpus", "glossary", "given"]


@dataclass(frozen=True)
class Term:
    """A word, code or phrase to add to the vocabulary."""

    text: str
    """The term itself, without surrounding space."""
    forms: tuple[str, ...]
    """Strings that become one token each, including a leading space if there is one."""
    source: TermSource = "given"
    saved: int = 0
    """Tokens its forms save in the audited corpus, together with all other chosen terms."""


@dataclass(frozen=True)
class RejectedTerm:
    """A term that is not added, and why."""

    text: str
    reason: str


class Terms(Sequence[Term]):
    """The chosen terms, most useful first, and the rejected ones with a reason."""

    def __init__(
        self,
        terms: Iterable[Term],
        rejected: Iterable[RejectedTerm] = (),
        method: str | None = None,
    ) -> None:
        self._terms = tuple(terms)
        self.rejected = tuple(rejected)
        self.method = method
        """The extension method that the terms were chosen for, if any."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Terms:
        """Make terms from plain strings, each with two forms: with and without a leading space.

        Strings that cannot be terms are rejected; duplicates are merged.
        """
        terms: dict[str, Term] = {}
        rejected = []
        for text in iterate_texts(texts, "terms"):
            clean = text.strip()
            if reason := rejection_reason(clean):
                rejected.append(RejectedTerm(text, reason))
            else:
                terms.setdefault(clean, Term(clean, (f" {clean}", clean)))
        return cls(terms.values(), rejected)

    @property
    def forms(self) -> list[str]:
        """All distinct forms, in order. Each takes one embedding row."""
        return list(dict.fromkeys(form for term in self for form in term.forms))

    @property
    def saved(self) -> int:
        """Tokens that all of them save in the audited corpus."""
        return sum(term.saved for term in self)

    def save(self, path: str | Path) -> None:
        """Write the terms as JSON, atomically.

        Raises:
            InputError: The file cannot be written.
        """
        record = {
            "terms": [asdict(term) for term in self],
            "left_out": [asdict(term) for term in self.rejected],
            "method": self.method,
        }
        text = json.dumps(with_format(record), ensure_ascii=False, indent=1)
        try:
            write_atomic(Path(path), f"{text}\n".encode())
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror}", hint="check the folder and its space"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Terms:
        """Read a file written by `save`.

        Raises:
            CheckpointError: the file is missing or is not JSON.
            InputError: the JSON does not contain terms.
        """
        record = check_format(read_json(Path(path)), Path(path), rebuild="audit again")
        try:
            return cls(
                [Term(**{**term, "forms": tuple(term["forms"])}) for term in record["terms"]],
                [RejectedTerm(**term) for term in record["left_out"]],
                record.get("method"),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} does not contain terms",
                hint="write it with Terms.save or `idiolect audit --terms`",
            ) from error

    @overload
    def __getitem__(self, index: int) -> Term: ...
    @overload
    def __getitem__(self, index: slice) -> Terms: ...
    def __getitem__(self, index: int | slice) -> Term | Terms:
        if isinstance(index, slice):
            return Terms(self._terms[index], self.rejected, self.method)
        return self._terms[index]

    def __len__(self) -> int:
        return len(self._terms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Terms) and (self._terms, self.rejected) == (
            other._terms,
            other.rejected,
        )

    def __hash__(self) -> int:
        return hash((self._terms, self.rejected))

    def __repr__(self) -> str:
        return f"Terms({len(self)} terms, {len(self.forms)} forms, {len(self.rejected)} rejected)"


def rejection_reason(text: str) -> str:
    """Return why a string cannot be a term, or an empty string if it can.

    >>> rejection_reason("HbA1c"), rejection_reason("")
    ('', 'empty')
    """
    if not text.strip():
        return "empty"
    if len(text) > MAX_TERM_LENGTH:
        return f"longer than {MAX_TERM_LENGTH} characters"
    control = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")), "")
    if control:
        return f"contains a control character (U+{ord(control):04X})"
    return ""


def read_glossary(path: str | Path) -> list[str]:
    """Read one term per line. Empty lines are kept, so that the audit can report them.

    A line that is `#`, or begins with `#` and a space, is a comment. The encoding is UTF-8, or
    UTF-16 if the file begins with its byte order mark.

    Raises:
        InputError: the file cannot be read, or a line (named in the message) is not UTF-8.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raw = raw.decode("utf-16", "replace").encode()
    terms = []
    for number, line in enumerate(raw.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        try:
            term = line.decode().strip()
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is not UTF-8 in line {number}",
                hint="convert it, for example with iconv -t UTF-8",
            ) from error
        if term != "#" and not term.startswith("# "):
            terms.append(term)
    return terms
