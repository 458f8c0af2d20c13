"""`Extension`: the record of the tokens added to a tokenizer, saved as `extension.json`.

It maps each new id to the base pieces that the id replaces. So ids of the larger vocabulary can be
converted to ids of the original one, and new embedding rows can be initialized from existing ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from idiolect.errors import CheckpointError

__all__ = ["Added", "Check", "Extension", "Refused"]


@dataclass(frozen=True)
class Added:
    """An added token."""

    id: int
    text: str
    """The text of the token, including a leading space if it has one."""
    pieces: tuple[int, ...]
    """Ids of the text in the original vocabulary."""
    kind: Literal["word", "phrase", "part"] = "word"
    """`phrase` if it crosses a pre-token boundary; `part` if it is an intermediate token from which
    a term is merged."""


@dataclass(frozen=True)
class Refused:
    """A form of a term that was not added."""

    text: str
    reason: str


@dataclass(frozen=True)
class Check:
    """The effect of the extension on real text."""

    documents: int
    changed: int
    """Documents whose ids change in other ways than new ids replacing their base pieces."""
    decoded_otherwise: int
    """Documents that are decoded differently than before. Those with an unknown token are not
    counted, because a new token may restore the lost text."""
    with_terms: int
    """Documents that contain a new id."""
    uses: int
    """Occurrences of new ids."""
    used: int
    """Number of new ids that occur."""
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
    """The tokens added to a tokenizer, and the results of its verification."""

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
    """Descriptions of checks that were not possible."""
    notes: tuple[str, ...]
    """Other remarks for users of the new tokens."""
    replaced: dict[str, Any]
    """The original parts of the engine's pipeline that had to be replaced."""

    def to_base(self, ids: list[int]) -> list[int]:
        """Replace new ids by their base pieces."""
        if max(ids, default=0) < self.size:
            return ids
        pieces = {token.id: token.pieces for token in self.added}
        return [piece for id_ in ids for piece in pieces.get(id_, (id_,))]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        """Read a record that `to_dict` returned.

        Raises:
            CheckpointError: a field is missing or unknown.
        """
        try:
            found = cls(
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
            numbers = [found.size, *(n for one in found.added for n in (one.id, *one.pieces))]
            if not all(type(number) is int and number >= 0 for number in numbers):
                raise TypeError("an id is no number")
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"the record of the extension is damaged: {error}",
                hint="extend the original tokenizer again",
            ) from error
        return found

    def __str__(self) -> str:
        terms = [token for token in self.added if token.kind != "part"]
        parts = len(self.added) - len(terms)
        lines = [f"{len(terms)} tokens added by {self.method!r}"]
        if parts:
            lines[0] += f", and {parts} intermediate tokens"
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
