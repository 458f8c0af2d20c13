"""A graph as a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError
from idiolect.search.diskann.array_file import ArrayFile, write_arrays
from idiolect.search.diskann.codes import Quantiser
from idiolect.search.diskann.graph_rows import GraphRows

__all__ = ["read_rows", "write_rows"]

_KIND, _VERSION = "graph", 2  # before 2 there were no labels


def write_rows(
    path: str | Path, rows: GraphRows, free: NDArray[np.int64], facts: Mapping[str, Any]
) -> None:
    """Write rows, the free ones among them, and facts.

    Raises:
        InputError: the file cannot be written.
    """
    count = rows.count
    facts = {
        **facts,
        "metric": rows.metric,
        "dimension": rows.dimension,
        "entry": rows.entry,
        "fitted": rows.fitted,
        "bits": rows.quantiser.bits,
    }
    arrays = {
        "vectors": rows.vectors[:count],
        "neighbours": rows.neighbours[:count],
        "hubs": rows.hubs[:count],
        "side": rows.side[:count],
        "labels": rows.labels[:count],
        "alive": rows.alive[:count],
        "free": free,
        "low": rows.quantiser.low,
        "step": rows.quantiser.step,
    }
    if rows.quantiser.bits < 32:
        arrays["codes"] = rows.codes[:count]
    write_arrays(path, _KIND, _VERSION, facts, arrays)


def read_rows(
    path: str | Path, *, verify: bool
) -> tuple[GraphRows, NDArray[np.int64], dict[str, Any]]:
    """Return what `write_rows` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or no graph.
    """
    file = ArrayFile(path, _KIND, _VERSION)
    if verify:
        file.verify()
    facts, vectors = file.facts, file.array("vectors")
    codes = vectors.view(np.uint8) if facts["bits"] == 32 else file.array("codes")
    rows = GraphRows(
        metric=facts["metric"],
        dimension=facts["dimension"],
        quantiser=Quantiser(facts["bits"], file.array("low"), file.array("step")),
        vectors=vectors,
        codes=codes,
        side=file.array("side"),
        neighbours=file.array("neighbours"),
        hubs=file.array("hubs"),
        labels=file.array("labels") if "labels" in file else np.empty(0, np.int32),
        alive=file.array("alive"),
        count=len(vectors),
        entry=facts["entry"],
        fitted=facts["fitted"],
    )
    rows.find_starts()
    if verify:
        for name in ("neighbours", "hubs"):
            edges = file.array(name)
            if edges.size and not -1 <= edges.min() <= edges.max() < rows.count:
                raise CheckpointError(
                    f"{path} is damaged: its {name} lead to rows that do not exist",
                    hint="build it again, or restore it from a copy",
                )
    return rows, file.array("free"), facts
