"""`Extension`: the record of what was added to a tokenizer, kept beside it as `extension.json`.

It says which base pieces each new id stands for, so whoever holds the record can turn ids of the
larger vocabulary into ids of the original one, and start new embedding rows from the old ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from idiolect.errors import CheckpointError

__all__ = ["Added", "Check", "Extension", "Refused"]


@dataclass(frozen=True)
class Added:
    """A token that was added."""

    id: int
    text: str
    """The text it stands for, with the space before it if any."""
    pieces: tuple[int, ...]
    """Ids of the original vocabulary that spelt the text."""
    kind: Literal["word", "phrase", "part"] = "word"
    """`phrase` if it crosses a border of the pre-tokenizer; `part` if it is not a term itself but
    a step on the way to one."""


@dataclass(frozen=True)
class Refused:
    """A form of a term that was not added."""

    text: str
    reason: str


@dataclass(frozen=True)
class Check:
    """What the extension did to some real text."""

    documents: int
    changed: int
    """Documents whose ids differ by more than new ids in the place of the pieces they stand for."""
    decoded_otherwise: int
    """Documents of which decoding no longer gives back what it did. Those with an unknown token
    are not counted, since a new token restores what that lost."""
    with_terms: int
    """Documents in which a new id occurs."""
    uses: int
    """Occurrences of new ids."""
    used: int
    """New ids that occur at all."""
    inside_words: int
    """Occurrences that begin or end inside a longer word."""
    tokens_before: int
    tokens_after: int

    @property
    def saving(self) -> float:
        """Share of tokens saved, 0 to 1."""
        return 1 - self.tokens_after / max(self.tokens_before, 1)


@dataclass(frozen=True)
class Extension:
    """What was added to a tokenizer, and what was verified about it."""

    method: str
    base: str
    """Fingerprint of the original tokenizer."""
    size: int
    """Number of ids of the original tokenizer; the first new id."""
    added: tuple[Added, ...]
    refused: tuple[Refused, ...]
    checks: dict[str, Check]
    """By the name of the text: `domain`, `general`."""
    unverified: tuple[str, ...]
    """What could not be checked, in words."""
    notes: tuple[str, ...]
    """What else whoever uses the new tokens should know, in words."""
    replaced: dict[str, Any]
    """Parts of the engine's pipeline as they were, where they had to be replaced."""

    def to_base(self, ids: list[int]) -> list[int]:
        """Replace new ids by the base pieces they stand for."""
        if max(ids, default=0) < self.size:
            return ids
        pieces = {token.id: token.pieces for token in self.added}
        return [piece for id_ in ids for piece in pieces.get(id_, (id_,))]

    def to_dict(self) -> dict[str, Any]:
        """Give the record as plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        """Read what `to_dict` gave.

        Raises:
            CheckpointError: a field is missing or unknown.
        """
        try:
            return cls(
                **{
                    **record,
                    "added": tuple(
                        Added(**{**token, "pieces": tuple(token["pieces"])})
                        for token in record["added"]
                    ),
                    "refused": tuple(Refused(**form) for form in record["refused"]),
                    "checks": {name: Check(**check) for name, check in record["checks"].items()},
                    "unverified": tuple(record["unverified"]),
                    "notes": tuple(record["notes"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"the record of the extension is damaged: {error}",
                hint="extend the original tokenizer again",
            ) from error

    def __str__(self) -> str:
        terms = [token for token in self.added if token.kind != "part"]
        parts = len(self.added) - len(terms)
        lines = [f"{len(terms)} tokens added by {self.method!r}"]
        if parts:
            lines[0] += f", and {parts} steps on the way to them"
        if self.refused:
            lines[0] += f"; {len(self.refused)} refused"
        for name, check in self.checks.items():
            lines.append(
                f"{name}: {check.documents} documents, {check.saving:.1%} fewer tokens, "
                f"{check.changed} changed beyond the terms, "
                f"{check.inside_words} uses inside longer words"
            )
        lines += [f"not verified: {text}" for text in self.unverified]
        lines += [f"note: {text}" for text in self.notes]
        return "\n".join(lines)
