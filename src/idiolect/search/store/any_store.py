"""`AnyStore`: the interface that an index requires of its store.

`Store` implements it in a local folder, `MilvusStore` on a Milvus cluster. One test suite runs on
both. `idiolect.search.store.store.Store` documents each method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike

    from idiolect.search.diskann.metric import Metric
    from idiolect.search.items import Hits, Item
    from idiolect.search.store.description import Description

__all__ = ["AnyStore"]


class AnyStore(Protocol):
    """Stores items, and searches them by vector and by text."""

    dimensions: int
    metric: Metric

    @property
    def settings(self) -> dict[str, Any]:
        """All stored settings, including the dimensions and the metric."""

    def remember(self, **settings: str | int) -> None:
        """Store settings, such as the fingerprint of the encoder."""

    def upsert(self, items: Sequence[Item], *, namespace: str = "") -> None:
        """Add or replace items."""

    def update(
        self,
        id: str,
        *,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        vector: ArrayLike | None = None,
        namespace: str = "",
    ) -> None:
        """Change fields of one item."""

    def delete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> int:
        """Delete items by id or by filter, and return how many were deleted."""

    def drop(self, namespace: str = "") -> int:
        """Delete a whole namespace, and return how many items it had."""

    def fetch(
        self, ids: Iterable[str], *, namespace: str = "", vectors: bool = False
    ) -> dict[str, Item]:
        """Return the items with the given ids."""

    def items(self, *, namespace: str = "", vectors: bool = False) -> Iterator[Item]:
        """Stream all items."""

    def list(
        self, prefix: str = "", *, after: str = "", limit: int = 100, namespace: str = ""
    ) -> Sequence[str]:
        """Return ids in sorted order."""

    def namespaces(self) -> dict[str, int]:
        """Return the number of items in each namespace."""

    def describe(self) -> Description:
        """Return the size and the contents of the store."""

    def query(
        self,
        vector: ArrayLike,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Hits:
        """Return the k nearest items."""

    def query_many(
        self,
        vectors: ArrayLike,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Sequence[Hits]:
        """Return the k nearest items of each row of a matrix."""

    def match(
        self,
        text: str,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
        marks: tuple[str, str] | None = None,
    ) -> Hits:
        """Return the k items with the best text match (BM25)."""

    def merge(self) -> None:
        """Update the search indexes now."""

    def close(self) -> None:
        """Close all files and connections."""
