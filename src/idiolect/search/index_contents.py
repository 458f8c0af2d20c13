"""`IndexContents`: add, change, delete and read the items of an index.

An item that has a vector keeps it, and its text is not encoded. The texts of other items are
encoded by the index's encoder. Items that are already stored are skipped, so an unchanged input is
neither encoded nor written again, and needs no encoder.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from idiolect.errors import ConfigError, InputError
from idiolect.search.index_encoder import IndexEncoder
from idiolect.search.item_batches import read_batches
from idiolect.search.item_forms import as_items
from idiolect.search.items import Item, change, check_item, check_items, distinct, own_vector
from idiolect.search.metadata import encode_metadata, same_metadata
from idiolect.search.passages import PassageNamespace
from idiolect.search.tally import Tally
from idiolect.text.arguments import wrong_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray

    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.search.store.any_store import AnyStore

__all__ = ["IndexContents"]


class IndexContents:
    """The items of an index. `idiolect.search.index.Index` adds building and searching.

    `len(index)`, `id in index` and iteration refer to the items of the default namespace. Iteration
    yields them without their vectors.

    Args:
        store: holds the items and their vectors.
        encoder: computes vectors, or its location. By default the location that the index stores,
            if any. It is loaded when it is first needed.
        encoding_counts: counters that each encoding updates; without them, truncated and empty
            texts are logged as warnings.

    Raises:
        ConfigError: another encoder computed the vectors.
    """

    def __init__(
        self,
        store: AnyStore,
        encoder: Encoder | str | Path | None = None,
        *,
        encoding_counts: EncodingCounts | None = None,
    ) -> None:
        if not hasattr(store, "namespaces"):
            raise wrong_type(store, "store", "a store", "open an index with Index.open(path)")
        self.store = store
        self._encoder = IndexEncoder(store, encoder)
        self.encoding_counts = encoding_counts
        self.counts = Counter[str]()

    @property
    def encoder(self) -> Encoder | None:
        """The encoder, loaded at the first access; None if none is known.

        Raises:
            ConfigError: it is no longer at its stored location, or another encoder computed the
                vectors.
        """
        return self._encoder.get()

    @property
    def has_encoder(self) -> bool:
        """Whether an encoder computed vectors of the index, or was given for it."""
        return self._encoder.is_known

    @property
    def encoder_location(self) -> str | None:
        """Where the encoder is expected: a path or a name; None if that is not known."""
        return self._encoder.location

    def keep_query_encoder(self) -> None:
        """Keep a loaded encoder in the user's cache, so that later processes need no torch."""
        self._encoder.keep_for_queries()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __repr__(self) -> str:
        name = type(self).__name__
        where = getattr(self.store, "path", None) or type(self.store).__name__
        try:
            count = sum(self.store.namespaces().values())
        except Exception:  # a debugger must be able to show an index whose files are gone
            return f"<{name} {str(where)!r}>"
        return (
            f"<{name} {str(where)!r}: {count:,} items, {self.store.dimensions} dimensions,"
            f" {self.store.metric}, encoder {self._encoder.described}>"
        )

    def __len__(self) -> int:
        return self.store.namespaces().get("", 0)

    def __contains__(self, id: object) -> bool:
        id = id.id if isinstance(id, Item) else id
        return isinstance(id, str) and bool(self.store.fetch([id]))

    def __iter__(self) -> Iterator[Item]:
        return self.store.items()

    def get(self, id: str, *, namespace: str = "") -> Item | None:
        """Return the item with an id, with its vector; None if there is none.

        Raises:
            InputError: the id is not a text.
        """
        return self.store.fetch([id], namespace=namespace, vectors=True).get(id)

    def add(
        self,
        items: Iterable[Any],
        *,
        namespace: str = "",
        progress: bool = False,
        skip_invalid_metadata: bool = False,
    ) -> Counter[str]:
        """Add or replace items, and encode new and changed texts.

        Args:
            items: a stream of items, or of dicts or tuples with the fields of one, or a table; see
                `as_items`. The last with an id wins.
            namespace: the namespace of the items.
            progress: show progress on a terminal.
            skip_invalid_metadata: leave out metadata fields that cannot be stored, such as NaN or
                bytes, instead of raising an error; see `idiolect.search.metadata`.

        Returns:
            The number of `written`, `unchanged`, `empty` and `duplicate` items, and of `left_out`
            metadata fields. An item is unchanged if its text, its metadata and its own vector (if
            it has one) are already stored; the metadata values 1, 1.0 and true differ. An item is
            empty if its text has no tokens or its own vector is zero, which has no direction; it is
            not stored, and a stored item with its id is deleted. An item is a duplicate if an
            earlier item of this input has its id; each id is counted once among the other outcomes.
            Duplicates and fields that are left out are also logged as warnings.

        Raises:
            InputError: an item is not valid; earlier batches are stored. Or the name of the
                namespace ends in `:passages`, as those of passages do.
            ConfigError: an item has no vector, and there is no encoder.
        """
        PassageNamespace.refuse(namespace)
        return self._add_all(items, namespace, progress, skip_invalid_metadata)

    def _add_all(
        self, items: Iterable[Any], namespace: str, progress: bool, skip_invalid_metadata: bool
    ) -> Counter[str]:
        """Add items to a namespace, which may be one of passages."""
        tally = Tally()
        for batch in read_batches(as_items(items), progress=progress):
            checked = [self._checked(item) for item in batch]
            distinct, _ = encode_metadata(
                tally.distinct(checked), tally.left_out if skip_invalid_metadata else None
            )
            for id, outcome in self._add(distinct, namespace).items():
                tally.record(id, outcome)
        return tally.finish()

    def _checked(self, item: Item) -> Item:
        check_item(item)
        if item.vector is None:
            return item
        return replace(item, vector=own_vector(item, self.store.dimensions))

    def _add(self, batch: Sequence[Item], namespace: str) -> dict[str, str]:
        """Add checked items, and return the outcome of each id."""
        ids = [item.id for item in batch]
        old = self.store.fetch(ids, namespace=namespace, vectors=True)
        changed = [item for item in batch if not _is_stored(item, old.get(item.id))]
        ready = self._with_vectors(changed, old)
        kept = [item for item in ready if np.any(item.vector)]
        passages = self._write_passages(kept, namespace)
        self.store.upsert(kept, namespace=namespace)
        kept_ids = {item.id for item in kept}
        emptied = [item.id for item in changed if item.id in old and item.id not in kept_ids]
        if emptied:  # otherwise searches would still find their old texts
            self.store.delete(emptied, namespace=namespace)
        self._remove_passages(
            [old[item.id] for item in changed if item.id in old], passages, namespace
        )
        outcomes = dict.fromkeys(ids, "unchanged")
        outcomes |= dict.fromkeys((item.id for item in changed), "empty")
        return outcomes | dict.fromkeys(kept_ids, "written")

    def _with_vectors(self, items: Sequence[Item], old: Mapping[str, Item]) -> Sequence[Item]:
        """Give each item its own vector, the stored vector of an unchanged text, or a new one."""
        vectors = {
            item.id: old[item.id].vector if item.vector is None else item.vector
            for item in items
            if item.vector is not None or (item.id in old and old[item.id].text == item.text)
        }
        missing = [item for item in items if item.id not in vectors]
        if missing:
            if self.encoder is None:
                raise ConfigError(
                    f"item {missing[0].id!r} has no vector, and the index has no encoder",
                    hint="give every item a vector, or choose an encoder",
                )
            encoded = self._encode([item.text for item in missing], "document")
            vectors |= zip((item.id for item in missing), encoded, strict=True)
        return [replace(item, vector=vectors[item.id]) for item in items]

    def update(
        self,
        id: str,
        *,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        vector: ArrayLike | None = None,
        namespace: str = "",
    ) -> None:
        """Change fields of one item; omitted fields stay unchanged.

        Args:
            id: the id of the item.
            text: the new text. It is encoded, unless `vector` is given. Without an encoder, the
                item keeps its vector.
            metadata: fields to set; the value None removes a field.
            vector: (dimensions,) the new vector.
            namespace: the namespace of the item.

        Raises:
            InputError: the item does not exist, or the result is not valid.
            ConfigError: the encoder of the index cannot be found.
        """
        if text is not None and vector is None and self._encoder.is_known:
            check_item(Item(id, text))
            (vector,) = self._encode([text], "document")
            if not np.any(vector):
                raise InputError(
                    f"item {id!r}: the encoder finds no token in the new text",
                    hint="delete the item, or give it a text",
                )
        old = list(self.store.fetch([id], namespace=namespace, vectors=True).values())
        new = [change(item, text, metadata, vector) for item in old]
        check_items(new, self.store.dimensions, self.store.metric)  # before passages are written
        passages = self._write_passages(new, namespace)
        self.store.update(id, text=text, metadata=metadata, vector=vector, namespace=namespace)
        self._remove_passages(old, passages, namespace)

    def delete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> int:
        """Delete items by id or by filter, and return how many there were; unknown ids are skipped.

        Raises:
            InputError: not exactly one of `ids` and `filter` is given, or it is not valid.
        """
        ids = None if ids is None else distinct(ids)
        names = PassageNamespace.of(self.store)
        old = []
        if names is not None and ids is not None:
            old = list(self.store.fetch(ids, namespace=namespace).values())
        count = self.store.delete(ids, filter=filter, namespace=namespace)
        if names is not None and filter is not None:
            with suppress(InputError):  # no passage may have the field
                self.store.delete(filter=filter, namespace=names.name(namespace))
        self._remove_passages(old, [], namespace)
        return count

    def drop(self, namespace: str = "") -> int:
        """Delete a whole namespace with its passages, and return how many items it had."""
        names = PassageNamespace.of(self.store)
        count = self.store.drop(namespace)
        if names is not None and not names.is_one(namespace):
            self.store.drop(names.name(namespace))
        return count

    def _write_passages(self, items: Sequence[Item], namespace: str) -> list[Item]:
        """Write and return the passages of items, if this index has passages."""
        names = PassageNamespace.of(self.store)
        if names is None or names.is_one(namespace):
            return []
        passages = names.split(items)
        for batch in read_batches(passages, progress=False):
            self._add(batch, names.name(namespace))
        return passages

    def _remove_passages(self, old: Sequence[Item], new: Sequence[Item], namespace: str) -> None:
        """Delete the passages of old texts that are not among the new ones."""
        names = PassageNamespace.of(self.store)
        if names is None or names.is_one(namespace):
            return
        if outdated := names.outdated(old, new):
            self.store.delete(outdated, namespace=names.name(namespace))

    def _encode(self, texts: Sequence[str], prompt_name: str) -> NDArray[np.float32]:
        is_query = prompt_name == "query"
        encoder = self._encoder.for_queries() if is_query else self._encoder.get()
        if encoder is None:
            raise ConfigError(
                "dense and hybrid search need an encoder",
                hint="open the index with its encoder, or use mode='lexical'",
            )
        width = self.store.dimensions
        truncated = None if width == encoder.dimensions else width
        return encoder.encode(
            texts, prompt_name=prompt_name, dimensions=truncated, counts=self.encoding_counts
        )


def _is_stored(item: Item, old: Item | None) -> bool:
    """Return whether an item is already stored; if it has no vector, any stored one is accepted."""
    return (
        old is not None
        and old.text == item.text
        and (item.vector is None or np.array_equal(item.vector, np.asarray(old.vector)))
        and same_metadata(old.metadata, item.metadata)
    )
