"""Kernels against NumPy, on this processor and a generic one, and the cache of compiled kernels."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from idiolect.search.diskann import product_codes
from idiolect.search.diskann.greedy_search import candidate_row, insert_sorted, pack_candidate
from idiolect.search.diskann.product_codes import (
    ProductCodes,
    build_lookup_table,
    decode_row,
    lookup_score,
)
from idiolect.search.diskann.scalar_quantizer import (
    ScalarQuantizer,
    aligned_zeros,
    estimate_product,
    quantize_query,
)
from idiolect.search.diskann.sign_codes import SignCodes, quantize_query_bits, score_signs
from idiolect.search.diskann.thread_pool import ThreadPool, work_in_background
from search.diskann.truth import clusters

CHECK = """
import numpy as np
from idiolect.search.diskann.scalar_quantizer import aligned_zeros
from idiolect.search.diskann.jit import kernel
from idiolect.search.diskann import simd as vector

@kernel
def run(a, b, lines, which):
    x, y = a.ctypes.data, b.ctypes.data
    if which == 0:
        return np.float64(vector.dot_int4(x, y, lines))
    if which == 1:
        return np.float64(vector.dot_int8(x, y, lines))
    if which == 2:
        return np.float64(vector.dot(x, y, lines))
    return np.float64(vector.squared_distance(x, y, lines))

@kernel
def tile(codes, queries, quads, least, products, over):
    vector.dot_int8_tile(
        codes.ctypes.data, queries.ctypes.data, quads, least.ctypes.data, products.ctypes.data,
        over.ctypes.data,
    )

rng = np.random.default_rng(0)
for quads in (1, 2, 5, 16):
    rows, queries = aligned_zeros(32, 4 * quads, np.uint8), aligned_zeros(8, 4 * quads, np.int8)
    rows[:] = rng.integers(0, 256, rows.shape)
    queries[:] = rng.integers(-127, 128, queries.shape)
    groups = aligned_zeros(2, quads * 64, np.uint8)
    groups[:] = rows.reshape(2, 16, quads, 4).swapaxes(1, 2).reshape(2, -1)
    wanted = queries.astype(int) @ rows.T.astype(int)
    products, over = np.empty((8, 32), np.int32), np.empty(8, np.uint32)
    least = np.sort(wanted)[:, 20].astype(np.int32)
    tile(groups, queries, quads, least, products, over)
    assert (products == wanted).all()
    assert (over == ((wanted > least[:, None]) * (1 << np.arange(32))).sum(1)).all()
for lines in (1, 2, 3, 8, 13):
    codes, query = aligned_zeros(lines, 64, np.uint8), aligned_zeros(2 * lines, 64, np.int8)
    codes[:] = rng.integers(0, 256, codes.shape)
    query[:] = rng.integers(-127, 128, query.shape)
    halves = np.stack([codes & 15, codes >> 4], 1).astype(int).reshape(-1, 64)
    assert run(codes, query, lines, 0) == (halves * query).sum()
    assert run(codes, query, lines, 1) == (codes.astype(int) * query[:lines]).sum()
    a, b = aligned_zeros(lines, 16, np.float32), aligned_zeros(lines, 16, np.float32)
    a[:], b[:] = rng.normal(size=a.shape), rng.normal(size=b.shape)
    np.testing.assert_allclose(run(a, b, lines, 2), (a * b).sum(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(a, b, lines, 3), ((a - b) ** 2).sum(), rtol=1e-5)
print("all agree")
"""


@pytest.mark.parametrize("processor", ["", "generic"])
def test_simd_kernels_agree_with_numpy(tmp_path: Path, processor: str) -> None:
    (tmp_path / "check.py").write_text(CHECK)
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    if processor:
        environment["NUMBA_CPU_NAME"] = processor
    done = subprocess.run(
        [sys.executable, tmp_path / "check.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all agree\n"), done.stderr


CACHE_HITS = """
import numpy as np
from idiolect.search.diskann import jit
from idiolect.search.diskann.array_file import checksum
checksum(np.zeros(10, np.uint8))
print(jit.kernel_folder(), sum(checksum.stats.cache_hits.values()))
"""


def _cache_hits(**environment: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", CACHE_HITS],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.split()


def test_a_second_process_loads_compiled_kernels(tmp_path: Path) -> None:
    first, second = (_cache_hits(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
    assert first[0] == second[0]
    assert first[0].startswith(str(tmp_path))
    assert (first[1], second[1]) == ("0", "1")


def test_kernels_work_without_a_writable_cache_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file")
    assert _cache_hits(XDG_CACHE_HOME=nowhere, HOME=nowhere, NUMBA_CACHE_DIR="") == ["None", "0"]


def test_candidates_sort_by_distance_and_then_row() -> None:
    distances = np.array([-np.inf, -3.5, -1e-30, 0, 1e-30, 2, 2, np.inf], np.float32)
    keys = [pack_candidate(d, i) for i, d in enumerate(distances)]
    assert keys == sorted(keys)
    assert [candidate_row(key) for key in keys] == list(range(8))
    assert candidate_row(pack_candidate(np.float32(1), 2**31 - 1)) == 2**31 - 1


def test_the_search_list_keeps_the_nearest() -> None:
    values = np.random.default_rng(0).permutation(100)
    pool, size = np.empty(10, np.int64), 0
    for value in values:
        insert_sorted(pool, size, np.int64(value))
        size = min(size + 1, 10)
    assert pool.tolist() == list(range(10))


@pytest.mark.parametrize(("bits", "error"), [(4, 0.12), (8, 0.01), (32, 1e-6)])
@pytest.mark.parametrize("dimension", [16, 80, 384])
def test_scalar_codes_estimate_inner_products(bits: int, error: float, dimension: int) -> None:
    points = aligned_zeros(500, dimension, np.float32)
    points[:] = clusters(500, dimension)
    quantizer = ScalarQuantizer.fit(points, bits)
    decoded = quantizer.decode(points)
    assert np.sqrt(((decoded - points) ** 2).mean() / points.var()) < error
    codes = aligned_zeros(500, quantizer.lines * 64, np.uint8)
    codes[:] = quantizer.encode(points)
    place = aligned_zeros(1, max(4 * dimension, len(quantizer.step)), np.uint8)[0]
    query = points[7] + 0.1
    scale = quantize_query(query, quantizer.step, bits, place)
    found = [
        estimate_product(codes.ctypes.data, i, quantizer.lines, bits, place.ctypes.data, scale)
        for i in range(500)
    ]
    exact = decoded @ query
    offset = np.mean(exact - found)
    assert np.abs(exact - found - offset).max() < 0.02 * exact.std()


def test_the_number_of_bits_depends_on_the_data() -> None:
    wide, plane = clusters(5000, 128), np.random.default_rng(0).normal(size=(10_000, 2))
    crowded = np.repeat(wide[:50], 100, axis=0) + 1e-3 * wide[np.arange(5000) % 977]
    assert ScalarQuantizer.choose(wide).bits == 4
    assert ScalarQuantizer.choose(plane.astype(np.float32)).bits == 32
    assert ScalarQuantizer.choose(crowded).bits > 4


@pytest.mark.parametrize("metric", [0, 1, 2])
def test_pq_and_rabitq_codes_estimate_scores(metric: int) -> None:
    points = clusters(2000, 96)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    query = points[3] + 0.3 * points[5]
    exact = points @ query - (0.5 * (points**2).sum(1) if metric == 2 else 0)
    with ThreadPool(1) as pool:
        products = ProductCodes.fit(points, 96, 0, pool)
        codes = products.encode(points, pool)
        signs = SignCodes.of(points, 96, metric, 0, pool)
    table = np.empty((len(products.centroids), 256), np.float32)
    rotated = products.rotate(query[None])[0]
    build_lookup_table(rotated, products.centroids, metric == 2, table)
    by_products = [lookup_score(codes, i, table) for i in range(2000)]
    planes, factors = np.empty((4, signs.codes.shape[1]), np.uint64), np.empty(3, np.float32)
    quantize_query_bits(query, signs.flips, np.empty(96, np.float32), planes, factors)
    by_signs = [score_signs(signs.codes, signs.factors, i, planes, factors) for i in range(2000)]
    assert np.corrcoef(exact, by_products)[0, 1] > 0.98
    assert np.corrcoef(exact, by_signs)[0, 1] > 0.93


def _coding_error(codebooks: ProductCodes, points: np.ndarray, pool: ThreadPool) -> float:
    rotated, codes = codebooks.rotate(points), codebooks.encode(points, pool)
    decoded = np.empty_like(rotated)
    for row in range(len(points)):
        decode_row(codes, row, codebooks.centroids, decoded[row])
    return float(((decoded - rotated) ** 2).sum())


@pytest.mark.parametrize(("dimension", "width"), [(96, 8), (44, 16), (20, 1)])
def test_a_rotation_before_coding_keeps_products_and_loses_less(
    dimension: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = clusters(2000, dimension)
    with ThreadPool(1) as pool:
        codebooks = ProductCodes.fit(points, dimension, 0, pool, width=width)
        rotated = codebooks.rotate(points)
        assert np.allclose(rotated @ rotated.T, points @ points.T, atol=1e-3)
        shape = codebooks.rotation.shape
        monkeypatch.setattr(
            product_codes, "_balanced_rotation", lambda *_: np.eye(*shape, dtype=np.float32)
        )
        straight = ProductCodes.fit(points, dimension, 0, pool, width=width)
        loss = _coding_error(codebooks, points, pool) / _coding_error(straight, points, pool)
    assert loss < (0.7 if width > 1 else 1.0), loss


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_only_the_pools_of_background_work_have_a_low_priority() -> None:
    """A thread of low priority that runs Python would hold up the searches of the process."""

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    found: list[int] = []

    def work() -> None:
        work_in_background()
        with ThreadPool(1) as pool:
            pool.parallel_for(lambda start, stop: found.append(priority()), 1, 1)
        found.append(priority())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    in_pool, outside = found
    assert outside == priority()
    assert in_pool == max(10, outside)


RELEASE = """
import numpy as np
from idiolect.search.diskann.jit import kernel, release_compiler
from idiolect.search.store.graphs.memory_plan import resident_memory

@kernel
def twice(x):
    return 2 * x

@kernel
def thrice(x):
    return 3 * x

assert twice(np.int64(4)) == 8
before = resident_memory()
release_compiler()
released = before - resident_memory()
assert released > 30e6, released
assert twice(np.int64(5)) == 10
assert thrice(np.int64(5)) == 15, "the compiler is read again"
release_compiler()
assert twice(np.float64(1.5)) == 3.0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="uses the list of mappings of Linux")
def test_the_memory_of_the_compiler_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(RELEASE)
    command = [sys.executable, str(tmp_path / "kernels.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
