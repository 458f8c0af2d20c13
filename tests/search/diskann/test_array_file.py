"""Files of arrays: atomic writes, and the detection of damage."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import CheckpointError, InputError
from idiolect.search.diskann import DiskGraph, Graph
from idiolect.search.diskann.array_file import ArrayFile, StreamedArray, checksum, write_arrays
from search.diskann.truth import clusters


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Graph]:
    path = tmp_path_factory.mktemp("graph") / "graph"
    graph = Graph.build(clusters(300, 20), degree=8, list_size=16)
    graph.delete([5])
    graph.save(path)
    return path, graph


def test_a_saved_graph_has_the_same_results_and_can_be_changed(saved: tuple[Path, Graph]) -> None:
    path, graph = saved
    before = path.read_bytes()
    again = Graph.open(path)
    queries = clusters(20, 20, seed=1)
    for one, other in zip(graph.search(queries, 7), again.search(queries, 7), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (len(again), again.deleted, again.rows) == (299, 1, 300)
    again.merge()
    again.delete([6])
    assert again.insert(queries).tolist() == [5, *range(300, 319)]
    assert path.read_bytes() == before, "the file changes only when it is saved"
    again.save(path.with_name("second"))
    assert len(Graph.open(path.with_name("second"))) == 318


def test_every_flipped_byte_is_detected(saved: tuple[Path, Graph], tmp_path: Path) -> None:
    """Bytes of the header and of each array; the padding between arrays is not checked."""
    path, _ = saved
    whole = path.read_bytes()
    file = ArrayFile(path, "graph", 2)
    places = [*range(40), len(whole) - 1, len(whole) - 200]
    start, length = struct.unpack("<QQ", whole[8:24])
    for entry in json.loads(whole[start : start + length])["arrays"]:
        array = file.array(entry["name"])
        places += [entry["place"] + i for i in {0, array.nbytes // 2, array.nbytes - 1} if i >= 0]
    bad = tmp_path / "bad"
    for place in places:
        data = bytearray(whole)
        data[place] ^= 0x10
        bad.write_bytes(data)
        with pytest.raises(CheckpointError, match="bad "):
            Graph.open(bad)


@pytest.mark.parametrize("length", [0, 5, 39, 40, 4096, 9000, -1])
def test_truncation_is_detected(saved: tuple[Path, Graph], tmp_path: Path, length: int) -> None:
    (tmp_path / "cut").write_bytes(saved[0].read_bytes()[:length])
    with pytest.raises(CheckpointError, match="cut"):
        Graph.open(tmp_path / "cut", verify=False)


def test_files_of_other_kinds_are_rejected(saved: tuple[Path, Graph], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        Graph.open(tmp_path / "missing")
    (tmp_path / "text").write_text("SQLite format 3 and a lot more text than a header has")
    with pytest.raises(CheckpointError, match="not an index file"):
        Graph.open(tmp_path / "text")
    with pytest.raises(CheckpointError, match="holds a graph, not a disk graph"):
        DiskGraph.open(saved[0])
    write_arrays(tmp_path / "new", "graph", 3, {}, {})
    with pytest.raises(CheckpointError, match="version 3, this program reads 2"):
        Graph.open(tmp_path / "new")


@pytest.mark.parametrize("version", [1, 2])
def test_older_files_are_read_with_or_without_labels(
    saved: tuple[Path, Graph], tmp_path: Path, version: int
) -> None:
    """Version 2 could hold a label for each row; they are ignored."""
    path, graph = saved
    file = ArrayFile(path, "graph", 2)
    names = ("vectors", "neighbours", "hubs", "side", "alive", "free", "low", "step", "codes")
    arrays = {name: file.array(name) for name in names}
    if version == 2:
        arrays["labels"] = np.arange(300, dtype=np.int32) % 3
    old = tmp_path / "old"
    write_arrays(old, "graph", version, file.facts, arrays)
    again = Graph.open(old)
    queries = clusters(20, 20, seed=1)
    for one, other in zip(graph.search(queries, 7), again.search(queries, 7), strict=True):
        np.testing.assert_array_equal(one, other)
    again.save(old)
    assert "labels" not in ArrayFile(old, "graph", 2)


def test_edges_out_of_the_graph_are_rejected(tmp_path: Path) -> None:
    graph = Graph.build(clusters(30, 4))
    graph.snapshot().neighbours[3, 0] = 30
    graph.save(tmp_path / "graph")
    with pytest.raises(CheckpointError, match="neighbours point to rows that do not exist"):
        Graph.open(tmp_path / "graph")


def test_a_failed_write_leaves_the_old_file(saved: tuple[Path, Graph]) -> None:
    path, _ = saved
    before = path.read_bytes()

    def chunks():
        yield np.zeros((2, 3), np.float32)
        raise MemoryError

    with pytest.raises(MemoryError):
        write_arrays(path, "graph", 1, {}, {"a": StreamedArray(np.dtype("f4"), (9, 3), chunks())})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []
    with pytest.raises(InputError, match="cannot write"):
        write_arrays(path / "below", "graph", 1, {}, {})


def test_streamed_arrays_are_written_like_whole_arrays(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(300_000, 5)).astype(np.float32)
    pieces = np.split(data, [7, 100_000, 100_001])
    write_arrays(tmp_path / "a", "x", 1, {"n": 1}, {"data": data})
    write_arrays(
        tmp_path / "b", "x", 1, {"n": 1}, {"data": StreamedArray(data.dtype, data.shape, pieces)}
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    np.testing.assert_array_equal(ArrayFile(tmp_path / "b", "x", 1).array("data"), data)


@given(st.binary(min_size=1, max_size=300), st.data())
@settings(deadline=None, max_examples=200)
def test_the_checksum_detects_any_changed_byte(data: bytes, draw: st.DataObject) -> None:
    place = draw.draw(st.integers(0, len(data) - 1))
    flip = draw.draw(st.integers(1, 255))
    other = bytearray(data)
    other[place] ^= flip
    one, two = (np.frombuffer(bytearray(d), np.uint8) for d in (data, other))
    assert checksum(one) != checksum(two)
    assert checksum(one) != checksum(np.append(one, np.uint8(0)))


def test_two_processes_read_one_file(saved: tuple[Path, Graph]) -> None:
    path, graph = saved
    code = (
        "import sys, numpy as np; from idiolect.search.diskann import Graph;"
        "g = Graph.open(sys.argv[1]); print(g.search(np.ones((1, 20)), 5)[0].tolist())"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    expected = f"{graph.search(np.ones((1, 20)), 5)[0].tolist()}\n"
    assert [run.communicate()[0] for run in runs] == [expected] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_loaded_array_is_in_memory_once(tmp_path: Path) -> None:
    """The pages of the mapping are not read, which would count as memory of the process."""
    values = np.random.default_rng(0).integers(0, 255, (4096, 1024), np.uint8)
    path = tmp_path / "file"
    write_arrays(path, "graph", 2, {}, {"values": values})
    file = ArrayFile(path, "graph", 2)

    def mapped() -> int:
        """Return how many KiB of the mapping are in memory."""
        lines = Path("/proc/self/smaps").read_text().splitlines()
        start = next(n for n, line in enumerate(lines) if line.endswith(str(path)))
        return int(next(line for line in lines[start:] if line.startswith("Rss:")).split()[1])

    np.testing.assert_array_equal(file.load("values"), values)
    assert mapped() < 512
    file.verify()
    assert mapped() >= 4096
    data = bytearray(path.read_bytes())
    data[file.place("values") + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="its values, bytes 4,096 to"):
        ArrayFile(path, "graph", 2).load("values")
