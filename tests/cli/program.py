"""Run `idiolect` in a process of its own, as a user does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import idiolect

MAIN = "from idiolect.cli.main import main; main()"
SOURCE = Path(idiolect.__file__).parents[1]
"""Where the tested package is: a process that inherits no environment imports the same one."""


def idiolect_program(
    *arguments: object, columns: int = 200, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a folder; the caller checks the exit status."""
    return subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={
            "COLUMNS": str(columns),
            "PATH": "",
            "PYTHONPATH": str(SOURCE),
            "OMP_NUM_THREADS": "1",
        },
    )
