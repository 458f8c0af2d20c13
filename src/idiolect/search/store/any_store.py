"""`AnyStore`: what an index needs of a store, wherever the store is.

`Store` keeps this contract in a folder, `MilvusStore` on a cluster; one suite of tests runs on
both. What each call means is told by `idiolect.search.store.store.Store`.
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
    """A place for items that can be searched by vector and by words."""

    dimensions: int
    metric: Metric

    @property
    def settings(self) -> dict[str, Any]:
        """What the store was told to remember."""

    def remember(self, **settings: str | int) -> None:
        """Keep facts about the store."""

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
        """Change parts of one item."""

    def delete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> int:
        """Delete items by id or by filter."""

    def drop(self, namespace: str = "") -> int:
        """Delete a whole namespace."""

    def fetch(
        self, ids: Iterable[str], *, namespace: str = "", vectors: bool = False
    ) -> dict[str, Item]:
        """Return the items of ids."""

    def items(self, *, namespace: str = "", vectors: bool = False) -> Iterator[Item]:
        """Stream all items."""

    def list(
        self, prefix: str = "", *, after: str = "", limit: int = 100, namespace: str = ""
    ) -> Sequence[str]:
        """Return ids in order."""

    def namespaces(self) -> dict[str, int]:
        """Return how many items each namespace has."""

    def describe(self) -> Description:
        """Return what the store holds."""

    def query(
        self,
        vector: ArrayLike,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
    ) -> Hits:
        """Return the k nearest items."""

    def match(
        self,
        text: str,
        k: int = 10,
        *,
        filter: Mapping[str, Any] | str | None = None,
        namespace: str = "",
        marks: tuple[str, str] | None = None,
    ) -> Hits:
        """Return the k items whose texts match best."""

    def merge(self) -> None:
        """Bring what serves searches up to date now."""

    def close(self) -> None:
        """Let go of files and connections."""
