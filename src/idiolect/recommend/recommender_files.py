"""The folder of a recommender, as `Recommender.save` writes it and `load` reads it.

DIR/
recommender.json         model, split, counts of skipped events; written last
ids.json                 ids of users and items, and the items' texts and metadata
histories.safetensors    all events, from which `evaluate` repeats the split
scorer.safetensors       the parameters of the model
items.safetensors        text embeddings of the items, if an encoder was given
index/                   the index of the items' vectors, if one was built
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from idiolect.errors import CheckpointError, InputError
from idiolect.recommend.histories import Histories
from idiolect.recommend.model_names import SCORERS
from idiolect.recommend.recommender_location import INDEX, RECORD, is_recommender
from idiolect.recommend.scorer import ItemScorer
from idiolect.recommend.scorers.blend import Blend
from idiolect.recommend.scorers.learned_blend import LearnedBlend
from idiolect.text.files import read_bytes, read_json, write_atomic
from idiolect.text.format_version import check_format, with_format

__all__ = ["StoredRecommender"]

_FORMAT = 1
_IDS, _EVENTS = "ids.json", "histories.safetensors"
_LEARNED, _TEXTS = "scorer.safetensors", "items.safetensors"


@dataclass(frozen=True)
class StoredRecommender:
    """The stored data of a recommender."""

    scorer: ItemScorer
    histories: Histories
    record: Mapping[str, Any]
    texts: Sequence[str] = ()
    vectors: NDArray[np.float32] | None = None
    metadata: Sequence[Mapping[str, Any]] = ()

    def write(self, directory: Path) -> None:
        """Write the files.

        `recommender.json` is removed first and written last, so `read` rejects an incomplete
        folder.

        Raises:
            InputError: The folder cannot be written to.
        """
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
        ids: dict[str, Any] = {"users": histories.users, "items": histories.items}
        ids |= {"texts": list(self.texts), "metadata": list(self.metadata)}
        record = with_format(self.record, _FORMAT)
        (directory / RECORD).unlink(missing_ok=True)
        shutil.rmtree(directory / INDEX, ignore_errors=True)  # the index of the previous model
        write_atomic(directory / _LEARNED, _packed(self.scorer.arrays()))
        if self.vectors is None:
            (directory / _TEXTS).unlink(missing_ok=True)
        else:
            write_atomic(directory / _TEXTS, _packed({"vectors": self.vectors}))
        write_atomic(directory / _EVENTS, _packed(parts))
        write_atomic(directory / _IDS, json.dumps(ids, ensure_ascii=False).encode())
        write_atomic(directory / RECORD, f"{json.dumps(record, indent=2)}\n".encode())

    @classmethod
    def read(cls, directory: Path) -> StoredRecommender:
        """Read the files.

        Raises:
            CheckpointError: Files are missing or damaged.
        """
        if not is_recommender(directory):
            raise CheckpointError(
                f"{directory} holds no recommender",
                hint="train one: idiolect recommend train HISTORIES --model transitions -o DIR",
            )
        path = directory / RECORD
        record = check_format(read_json(path), path, newest=_FORMAT, rebuild="train it again")
        ids = read_json(directory / _IDS)
        try:
            parts = load(read_bytes(directory / _EVENTS))
            _check_ids(ids, parts)
            if missing := {"split", "exclude_seen"} - record.keys():
                raise ValueError(f"{RECORD} lacks {', '.join(sorted(missing))}")
            histories = Histories(
                tuple(ids["users"]),
                tuple(ids["items"]),
                parts["offsets"],
                parts["events"],
                parts.get("times"),
            )
            scorer = _scorer(record["model"], load(read_bytes(directory / _LEARNED)))
            vectors = None
            if (directory / _TEXTS).is_file():
                vectors = load(read_bytes(directory / _TEXTS))["vectors"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{directory} is damaged: {error}", hint="train it again"
            ) from error
        texts, metadata = ids.get("texts", ()), ids.get("metadata", ())
        return cls(scorer, histories, record, texts, vectors, metadata)


def _scorer(name: str, arrays: Mapping[str, NDArray[np.generic]]) -> ItemScorer:
    """Create a scorer by name; arrays of a combination's parts have the part's name as prefix."""
    if name == Blend.name:
        parts = _parts(arrays)
        weights = {part: float(values.pop("weight")[0]) for part, values in parts.items()}
        return Blend({part: _scorer(part, values) for part, values in parts.items()}, weights)
    if name == LearnedBlend.name:
        parts = _parts(arrays)
        own = parts.pop(LearnedBlend.own)
        return LearnedBlend.of_parts(
            {part: _scorer(part, values) for part, values in parts.items()}, own
        )
    return SCORERS[name]().of_arrays(arrays)


def _parts(
    arrays: Mapping[str, NDArray[np.generic]],
) -> dict[str, dict[str, NDArray[np.generic]]]:
    parts: dict[str, dict[str, NDArray[np.generic]]] = {}
    for key, value in arrays.items():
        part, _, rest = key.partition("/")
        parts.setdefault(part, {})[rest] = value
    return parts


def _packed(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _check_ids(ids: Mapping[str, Any], events: Mapping[str, NDArray[Any]]) -> None:
    """Check that ids, texts and metadata are lists of the right types and lengths.

    Raises:
        KeyError, ValueError: They are not.
    """
    users, items = ids["users"], ids["items"]
    for name, kind in (("users", str), ("items", str), ("texts", str), ("metadata", dict)):
        found = ids.get(name, [])
        if not isinstance(found, list) or not all(isinstance(one, kind) for one in found):
            raise ValueError(f"{name} of {_IDS} are no list of {kind.__name__}")
    for name in ("texts", "metadata"):
        if ids.get(name) and len(ids[name]) != len(items):
            raise ValueError(f"{len(items):,} items and {len(ids[name]):,} {name}")
    offsets, numbers = events["offsets"], events["events"]
    if len(offsets) != len(users) + 1:
        raise ValueError(f"{len(users):,} users and histories of {len(offsets) - 1:,}")
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(items):
        raise ValueError(f"{len(items):,} items, and events of others")
