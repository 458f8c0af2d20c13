"""Write the rows of a graph to a file, and read them back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from idiolect.errors import CheckpointError
from idiolect.search.diskann.array_file import ArrayFile, fits_shape, write_arrays
from idiolect.search.diskann.graph_rows import GraphRows, padded_width
from idiolect.search.diskann.metric import METRICS
from idiolect.search.diskann.scalar_quantizer import ScalarQuantizer

__all__ = ["read_rows", "write_rows"]

_KIND, _VERSION = "graph", 2
"""Version of the format. A file of version 2 may have an array of labels, which is ignored."""


def write_rows(path: str | Path, rows: GraphRows, facts: Mapping[str, Any]) -> None:
    """Write rows and `facts` (JSON values for the header) to a file.

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
        "bits": rows.quantizer.bits,
    }
    arrays = {
        "vectors": rows.vectors[:count],
        "neighbours": rows.neighbours[:count],
        "hubs": rows.hubs[:count],
        "side": rows.norm_terms[:count],
        "alive": rows.alive[:count],
        "free": rows.free,
        "low": rows.quantizer.low,
        "step": rows.quantizer.step,
    }
    if rows.quantizer.bits < 32:
        arrays["codes"] = rows.codes[:count]
    write_arrays(path, _KIND, _VERSION, facts, arrays)


def read_rows(path: str | Path, *, verify: bool) -> tuple[GraphRows, dict[str, Any]]:
    """Read the rows and facts that `write_rows` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or not a graph.
    """
    file = ArrayFile(path, _KIND, _VERSION)
    if verify:
        file.verify()
    facts, vectors = file.facts, file.array("vectors")
    if not _is_graph(file):
        raise CheckpointError(
            f"{path} is damaged: its arrays do not fit together",
            hint="build it again, or restore it from a copy",
        )
    alive, free = file.array("alive"), file.array("free")
    codes = vectors.view(np.uint8) if facts["bits"] == 32 else file.array("codes")
    rows = GraphRows(
        metric=facts["metric"],
        dimension=facts["dimension"],
        quantizer=ScalarQuantizer(facts["bits"], file.array("low"), file.array("step")),
        vectors=vectors,
        codes=codes,
        norm_terms=file.array("side"),
        neighbours=file.array("neighbours"),
        hubs=file.array("hubs"),
        alive=alive,
        count=len(vectors),
        entry=facts["entry"],
        fitted=facts["fitted"],
        free=free,
        deleted=int(len(vectors) - len(free) - alive.sum()),
    )
    if verify:
        for name in ("neighbours", "hubs"):
            edges = file.array(name)
            if edges.size and not -1 <= edges.min() <= edges.max() < rows.count:
                raise CheckpointError(
                    f"{path} is damaged: its {name} point to rows that do not exist",
                    hint="build it again, or restore it from a copy",
                )
    return rows, facts


def _is_graph(file: ArrayFile) -> bool:
    """Return whether header and arrays are consistent; kernels do not check bounds."""
    facts = file.facts
    if not {"metric", "dimension", "bits", "entry", "fitted", "width", "seed"} <= facts.keys():
        return False
    names = ["vectors", "neighbours", "hubs", "side", "alive", "free", "low", "step"]
    names += ["codes"] if facts["bits"] < 32 else []
    arrays = {name: file.array(name) for name in names}
    count, width = len(arrays["alive"]), padded_width(facts["dimension"])
    coded = len(arrays["low"]) if arrays["low"].ndim == 1 else 0
    shapes: dict[str, tuple[Any, ...]] = {
        "vectors": (np.float32, count, width),
        "neighbours": (np.int32, count, None),
        "hubs": (np.int32, count, None),
        "side": (np.float32, None),
        "alive": (np.bool_, None),
        "free": (np.int64, None),
        "low": (np.float32, None),
        "step": (np.float32, coded),
        "codes": (np.uint8, count, coded * facts["bits"] // 8),
    }
    free = arrays["free"]
    return (
        facts["metric"] in METRICS.values()
        and facts["bits"] in (4, 8, 32)
        and facts["dimension"] > 0
        and facts["fitted"] >= 0
        and facts["width"] > 0
        and -1 <= facts["entry"] < max(count, 1)
        and (count == 0 or facts["entry"] >= 0)
        and coded >= width
        and (facts["metric"] == METRICS["cosine"] or len(arrays["side"]) == count)
        and fits_shape(arrays, {name: shapes[name] for name in names})
        and (not free.size or bool(0 <= free.min() <= free.max() < count))
    )
