"""The systems of a run, to search before and after: encoders with and without new words.

When a run chooses the encoder of its index, it stores the vectors of all items by each candidate. A
system is searched exactly, by the cosine of these vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.pipeline.encoder_choice import stored_vectors
from idiolect.pipeline.stages.index_stage import index_system
from idiolect.search.items import Hit, Hits
from idiolect.text.files import read_json

if TYPE_CHECKING:
    from idiolect.search.index import Index

__all__ = ["ServedSystem", "find_systems"]

_ENCODERS = {"plain.tuning": "plain.tune", "tuning": "tune"}
"""The stage that saves the encoder of a system. That of the base is not saved."""
_MOST = 10_000
"""Items that a filter may leave: the most results of a search."""
_CHECKED = 20


class ServedSystem:
    """An encoder, and the vectors of all items by it.

    Args:
        name: The system.
        label: For display.
        model: The folder of its encoder, which is loaded when it is first needed.
        ids: The items.
        vectors: Their vectors. Shape: (items, dimensions).
    """

    def __init__(
        self, name: str, label: str, model: Path, ids: list[str], vectors: NDArray[np.float32]
    ) -> None:
        self.name, self.label = name, label
        self._model, self._ids, self._vectors = model, ids, vectors

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder.load(self._model)

    def search(
        self, index: Index, query: str, top_k: int, filter: Mapping[str, Any] | None
    ) -> Hits:
        """Find the items nearest to a query; see `Index.search`."""
        vector = self._encoder.encode([query], prompt_name="query")[0]
        lengths = np.linalg.norm(self._vectors, axis=1) * np.linalg.norm(vector)
        scores = self._vectors @ vector / np.maximum(lengths, 1e-12)
        if filter is not None:
            some = next(index.store.items(vectors=True)).vector
            assert some is not None
            allowed = {hit.id for hit in index.store.query(some, _MOST, filter=filter)}
            scores[[id not in allowed for id in self._ids]] = -np.inf
        best = [
            int(n) for n in np.argsort(-scores, kind="stable")[:top_k] if np.isfinite(scores[n])
        ]
        items = index.store.fetch([self._ids[n] for n in best])
        found = ((items[self._ids[n]], n) for n in best if self._ids[n] in items)
        return [Hit(one.id, float(scores[n]), one.text, one.metadata) for one, n in found]


def find_systems(run: Path, index: Index) -> dict[str, ServedSystem]:
    """Return the systems of a run that can be searched; none if items were added or changed."""
    stage = run / "stages" / "index"
    labels = {
        one["name"]: one["label"] for one in read_json(stage / "metrics.json").get("candidates", [])
    }
    ids = [item.id for item in index.store.items()]
    own = stored_vectors(stage, index_system(run))
    if own is None or len(own) != len(ids) or not _is_aligned(own, ids, index.get):
        return {}
    systems = {}
    for name, folder in _ENCODERS.items():
        vectors, model = stored_vectors(stage, name), run / "stages" / folder / "model"
        if vectors is not None and len(vectors) == len(ids) and model.is_dir():
            label = labels.get(name, name)
            systems[name] = ServedSystem(name, label, model, ids, vectors)
    return systems


def _is_aligned(vectors: NDArray[np.float32], ids: list[str], get: Callable[[str], Any]) -> bool:
    """Return whether stored vectors are those of the index, in the order of its items."""
    for number in np.linspace(0, len(ids) - 1, _CHECKED).astype(int).tolist():
        item = get(ids[number])
        width = len(item.vector)
        cut = vectors[number][:width]
        cosine = cut @ item.vector / np.linalg.norm(cut) / np.linalg.norm(item.vector)
        if not cosine > 0.999:
            return False
    return True
