"""`idiolect serve` in a process of its own, on a free port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["running"]


@contextmanager
def running(path: Path | str, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve until the end of the block; the address, and the process."""
    command = [sys.executable, "-m", "idiolect", "serve", str(path), "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving"), process.stderr.read() if process.stderr else line
        yield line.split()[-1], process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)
