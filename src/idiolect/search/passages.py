"""The passages of an index: chunks of its items, in a namespace of their own.

The vector of a long item covers only its beginning, and its words may be far apart. So an index
can also store the passages of its items (`Index.add_passages`). These are then kept up to date:
passages are written before their item, and those of the old text are deleted afterwards, so that
no passage is missing after an interrupted write is repeated. A search compares each passage with
the current text of its item.

A passage has the metadata of its item, for filters, and its position in the item's text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from idiolect.errors import InputError
from idiolect.search.chunks import split_text
from idiolect.search.items import Hit, Item

if TYPE_CHECKING:
    from idiolect.search.store.any_store import AnyStore

__all__ = ["PASSAGE_LENGTH", "PassageNamespace"]

PASSAGE_LENGTH = 96
"""Default maximum words of a passage."""
_SETTING = "passage_length"
_OWNER, _START = "passage_of", "passage_start"
_LONGEST_NAME = 480  # bytes; an id has 512 at most


@dataclass(frozen=True)
class PassageNamespace:
    """The namespaces of the passages of an index, and how items are split."""

    max_length: int
    """Maximum words of a passage."""
    store: AnyStore

    @classmethod
    def of(cls, store: AnyStore) -> Self | None:
        """Return the settings for the passages of a store; None if it has no passages."""
        length = store.settings.get(_SETTING)
        return None if length is None else cls(int(length), store)

    @classmethod
    def create(cls, store: AnyStore, max_length: int) -> Self:
        """Store how items are split; passages of another maximum length are dropped."""
        known = cls.of(store)
        if known is not None and known.max_length != max_length:
            for name in [name for name in store.namespaces() if name.endswith(cls.name(""))]:
                store.drop(name)
        store.remember(**{_SETTING: max_length})
        return cls(max_length, store)

    @staticmethod
    def name(namespace: str) -> str:
        """Return the name of the namespace for the passages of a namespace's items."""
        return f"{namespace}:passages"

    @classmethod
    def is_one(cls, namespace: str) -> bool:
        """Return whether a namespace is one of passages."""
        return namespace.endswith(cls.name(""))

    def exists(self, namespace: str) -> bool:
        """Return whether the items of a namespace have passages."""
        return self.name(namespace) in self.store.namespaces()

    @classmethod
    def refuse(cls, namespace: str) -> None:
        """Refuse the name of a namespace of passages for items.

        They would be mixed with passages, and deleted with them.

        Raises:
            InputError: The name ends like those of the namespaces of passages.
        """
        if isinstance(namespace, str) and cls.is_one(namespace):
            raise InputError(
                f"the namespace {namespace!r} is for passages: its name ends in {cls.name('')}",
                hint="choose another name",
            )

    @classmethod
    def item_counts(cls, store: AnyStore) -> dict[str, int]:
        """Return the number of items in each namespace, except namespaces of passages."""
        counts = store.namespaces().items()
        return {name: count for name, count in counts if not cls.is_one(name)}

    def split(self, items: Iterable[Item]) -> list[Item]:
        """Return the passages of items, without vectors."""
        passages = []
        for item in items:
            for number, chunk in enumerate(split_text(item.text, self.max_length)):
                place = {_OWNER: item.id, _START: chunk.start}
                metadata = {**item.metadata, **place}
                passages.append(Item(_id(item.id, number), chunk.text, metadata))
        return passages

    def outdated(self, old: Iterable[Item], new: Sequence[Item]) -> list[str]:
        """Return the ids of passages of old texts that are not ids of new passages."""
        kept = {passage.id for passage in new}
        return [passage.id for passage in self.split(old) if passage.id not in kept]

    @staticmethod
    def owner(hit: Hit) -> str:
        """Return the id of the item that a passage is a part of."""
        return str(hit.metadata.get(_OWNER, ""))

    @staticmethod
    def start(hit: Hit) -> int:
        """Return the start offset of a passage in its item's text."""
        place: Any = hit.metadata.get(_START, 0)
        return int(place)


def _id(item: str, number: int) -> str:
    if len(item.encode()) > _LONGEST_NAME:
        item = hashlib.sha256(item.encode()).hexdigest()
    return f"{item}#{number}"
