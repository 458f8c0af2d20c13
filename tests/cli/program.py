"""Run `idiolect` as a user does, within this process: a new one would spend its time on imports."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import idiolect
from idiolect.cli.main import main

MAIN = "from idiolect.cli.main import main; main()"
SOURCE = Path(idiolect.__file__).parents[1]
"""Where the tested package is: a process that inherits no environment imports the same one."""


def idiolect_program(
    *arguments: object, columns: int = 200, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in a folder; the caller checks the exit status."""
    words = ["idiolect", *map(str, arguments)]
    output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    status = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder or Path.cwd()))
        stack.enter_context(mock.patch.dict(os.environ, {"COLUMNS": str(columns)}))
        stack.enter_context(mock.patch.object(sys, "argv", words))
        stack.enter_context(contextlib.redirect_stdout(output))
        stack.enter_context(contextlib.redirect_stderr(errors))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
    for stream in (output, errors):
        stream.seek(0)
    return subprocess.CompletedProcess(words, status, output.read(), errors.read())
