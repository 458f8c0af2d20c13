"""Compile and load the kernels of merges before a background merge needs them.

numba compiles a kernel on its first call, and caches it for other processes. Both compiling and
loading repeatedly hold the GIL, so the searches of the process would wait: for seconds in total,
and for longer if that thread has a low priority. So kernels are compiled in a separate process,
once per machine, and loaded before the priority is lowered.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

__all__ = ["load_kernels", "merge_few"]

_COMPILE = f"from {__name__} import merge_few; merge_few(on_disk={{}})"


@cache
def load_kernels(*, on_disk: bool) -> None:
    """Load the kernels of merges in memory or on disk; compile them first if necessary."""
    from idiolect.search.diskann.jit import kernel_folder

    folder = kernel_folder()
    if folder is not None:
        compiled = folder / f"merges-{'disk' if on_disk else 'ram'}"
        if not compiled.exists() and _compile(on_disk):
            with contextlib.suppress(OSError):
                compiled.touch()
    merge_few(on_disk=on_disk)


def _compile(on_disk: bool) -> bool:
    """Compile the kernels in another process; return whether that worked."""
    path = os.pathsep.join(filter(None, sys.path))
    with contextlib.suppress(OSError):
        done = subprocess.run(
            [sys.executable, "-c", _COMPILE.format(on_disk)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            check=False,
        )
        return done.returncode == 0
    return False


def merge_few(*, on_disk: bool) -> None:
    """Merge a few vectors with every kernel of a merge."""
    from idiolect.search.diskann import DiskGraph, Graph
    from idiolect.search.diskann.disk.disk_update import update_disk_graph

    vectors = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    graph = Graph.build(vectors[:48], threads=1)
    graph.delete([0])
    graph.merge(threads=1)
    graph.insert(vectors[48:], threads=1)
    if on_disk:
        with tempfile.TemporaryDirectory() as folder:
            old, new = Path(folder) / "old", Path(folder) / "new"
            DiskGraph.write(old, graph, threads=1)
            update_disk_graph(new, DiskGraph.open(old), np.arange(1, 3), vectors[:4], threads=1)
