"""`Recommender`: a trained recommender in a folder.

DIR/
recommender.json         model, split, what was left out; written last
ids.json                 ids of users and items, and the items' texts
histories.safetensors    all events, from which `evaluate` makes the same split again
scorer.safetensors       what the model learned
items.safetensors        vectors of the items' texts, if an encoder was given
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from idiolect.errors import CheckpointError, InputError
from idiolect.recommend.blend import Blend
from idiolect.recommend.histories import Histories
from idiolect.recommend.model_names import SCORERS
from idiolect.recommend.next_item_metrics import hide_seen
from idiolect.recommend.scorer import ItemScorer, Popularity
from idiolect.recommend.splits import Split, split
from idiolect.text.arguments import check_path, check_whole, checked, iterate
from idiolect.text.fields import id_text
from idiolect.text.files import read_bytes, read_json, write_atomic

__all__ = ["RUN_RECOMMENDER", "Recommendation", "Recommender"]

RUN_RECOMMENDER = Path("stages", "recommend", "recommender")
"""The recommender of a run of the pipeline, in the run's folder."""
_FORMAT = 1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One recommended item."""

    id: str
    score: float
    """Higher is better; comparable within one answer only."""
    text: str = ""
    """The item's text, if the recommender was trained with a catalogue."""
    because: str | None = None
    """The item of the history that speaks most for it, if one does."""


class Recommender:
    """Recommends the next items after a history.

    >>> recommender = Recommender.load("runs/next")                    # doctest: +SKIP
    >>> recommender.recommend(["p17", "p4"], top_k=3)                  # doctest: +SKIP

    Args:
        scorer: The fitted model.
        histories: All events, with the items' numbers.
        record: How it was trained.
        texts: The text of each item, or none.
        vectors: The vector of each item's text, or `None`. Shape: (items, width).
    """

    def __init__(
        self,
        scorer: ItemScorer,
        histories: Histories,
        record: Mapping[str, Any],
        texts: Sequence[str] = (),
        vectors: NDArray[np.float32] | None = None,
    ) -> None:
        self.scorer, self.histories, self.record = scorer, histories, dict(record)
        self.texts, self.vectors = list(texts), vectors
        self._numbers = {id: number for number, id in enumerate(histories.items)}
        self._popularity = Popularity.fit(self.split().train)

    @property
    def exclude_seen(self) -> bool:
        """Whether the evaluation leaves out the items of a history."""
        return bool(self.record["exclude_seen"])

    def split(self) -> Split:
        """Return the split that the model was trained on."""
        return split(self.histories, self.record["split"])

    @classmethod
    @checked
    def load(cls, directory: str | Path) -> Self:
        """Load a recommender that `save` wrote, or that of a run of the pipeline.

        Raises:
            CheckpointError: Files are missing or damaged.
        """
        directory = check_path(directory, "directory")
        if (directory / RUN_RECOMMENDER.parts[0]).is_dir():
            directory = directory / RUN_RECOMMENDER
        if not (directory / "recommender.json").is_file():
            raise CheckpointError(
                f"{directory} holds no recommender",
                hint="train one: idiolect recommend train HISTORIES --model transitions -o DIR",
            )
        record, ids = (read_json(directory / name) for name in ("recommender.json", "ids.json"))
        try:
            parts = load(read_bytes(directory / "histories.safetensors"))
            arrays = load(read_bytes(directory / "scorer.safetensors"))
            histories = Histories(
                tuple(ids["users"]),
                tuple(ids["items"]),
                parts["offsets"],
                parts["events"],
                parts.get("times"),
            )
            scorer = _scorer(record["model"], arrays)
            vectors = None
            if record.get("encoder"):
                vectors = load(read_bytes(directory / "items.safetensors"))["vectors"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{directory} is damaged: {error}", hint="train it again"
            ) from error
        return cls(scorer, histories, record, ids.get("texts", ()), vectors)

    def save(self, directory: str | Path) -> None:
        """Write the recommender.

        The record is removed first and written last, so `load` refuses a folder in between.

        Raises:
            InputError: The folder cannot be written to.
        """
        directory = check_path(directory, "directory")
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot create {directory}: {error.strerror}") from error
        histories = self.histories
        parts: dict[str, NDArray[np.generic]] = {
            "offsets": histories.offsets,
            "events": histories.events,
        }
        if histories.times is not None:
            parts["times"] = histories.times
        ids = {"users": histories.users, "items": histories.items, "texts": self.texts}
        record = {"format": _FORMAT, **self.record}
        (directory / "recommender.json").unlink(missing_ok=True)
        write_atomic(directory / "scorer.safetensors", _packed(self.scorer.arrays()))
        if self.vectors is None:
            (directory / "items.safetensors").unlink(missing_ok=True)
        else:
            packed = _packed({"vectors": self.vectors})
            write_atomic(directory / "items.safetensors", packed)
        write_atomic(directory / "histories.safetensors", _packed(parts))
        write_atomic(directory / "ids.json", json.dumps(ids, ensure_ascii=False).encode())
        write_atomic(directory / "recommender.json", f"{json.dumps(record, indent=2)}\n".encode())

    @checked
    def recommend(
        self,
        history: Iterable[str],
        top_k: int = 10,
        exclude_seen: bool = True,
        *,
        only: Iterable[str] | None = None,
    ) -> list[Recommendation]:
        """Recommend the next items.

        Ids that were in no event are left out, with a warning. After a history of none but those,
        or an empty one, the most popular items are recommended.

        Args:
            history: Ids of items, oldest first.
            top_k: How many items to recommend.
            exclude_seen: Never recommend an item of the history.
            only: Ids of the items that may be recommended, such as those in stock; unknown ones
                are ignored. By default all.

        Raises:
            InputError: The history is no list of ids, or `top_k` is not at least 1.
        """
        check_whole(top_k, "top_k", 1)
        ids = [_checked_id(one) for one in iterate(history, "history", "a list of ids")]
        known = [self._numbers[id] for id in ids if id in self._numbers]
        if unknown := [id for id in ids if id not in self._numbers]:
            _LOG.warning(
                "%d of %d ids of the history are unknown: %s%s",
                len(unknown),
                len(ids),
                ", ".join(unknown[:5]),
                "" if known else "; the most popular items are recommended",
            )
        context = np.array(known, np.int64)
        scorer = self.scorer if known else self._popularity
        scores = scorer.score([context])
        if exclude_seen:
            hide_seen(scores, [context])
        if only is not None:
            allowed = {_checked_id(one) for one in iterate(only, "only", "a list of ids")}
            hidden = [number for id, number in self._numbers.items() if id not in allowed]
            scores[0, hidden] = -np.inf
        # Equal scores, as of all items that nothing is known about, are ordered by popularity.
        best = np.lexsort((-self._popularity.counts, -scores[0]))[:top_k]
        best = best[np.isfinite(scores[0][best])]
        reasons = self._reasons(context, best)
        return [
            Recommendation(
                self.histories.items[number],
                float(scores[0][number]),
                self.texts[number] if self.texts else "",
                reason,
            )
            for number, reason in zip(best.tolist(), reasons, strict=True)
        ]

    def _reasons(self, context: NDArray[np.int64], best: NDArray[np.int64]) -> list[str | None]:
        """Return, for each recommended item, the item of the history that alone scores it most.

        Scores of different histories are compared by how far each is above its mean.
        """
        distinct = np.unique(context)[:50]
        if not len(distinct):
            return [None] * len(best)
        alone = self.scorer.score([np.array([number]) for number in distinct])
        alone = alone - alone.mean(1, keepdims=True)
        winners = alone[:, best].argmax(0)
        return [
            self.histories.items[distinct[winner]] if alone[winner, number] > 0 else None
            for winner, number in zip(winners, best, strict=True)
        ]


def _checked_id(value: object) -> str:
    id = id_text(value)
    if id is None:
        raise InputError(f"{value!r} is no id of an item", hint="pass ids of items")
    return id


def _scorer(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> ItemScorer:
    """Make the scorer of a name; the parts of a blend have the prefix of their names."""
    if name != Blend.name:
        return SCORERS[name]().of_arrays(arrays)
    parts: dict[str, dict[str, NDArray[np.generic]]] = {}
    for key, value in arrays.items():
        part, _, rest = key.partition("/")
        parts.setdefault(part, {})[rest] = value
    weights = {part: float(values.pop("weight")[0]) for part, values in parts.items()}
    return Blend({part: _scorer(part, values) for part, values in parts.items()}, weights)


def _packed(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
