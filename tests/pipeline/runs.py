"""Runs in separate processes, which tests block, starve of disk space or kill."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from idiolect.errors import IdiolectError
from idiolect.pipeline.run import run
from idiolect.pipeline.run_directory import RunDirectory

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pipeline.runs"])


def hold(path: Path, held: Event) -> None:
    """Hold the lock of a run's folder."""
    with RunDirectory(path).locked(""):
        held.set()
        time.sleep(600)


def killed_at_the_first_record(path: Path) -> None:
    """End this process, as a kill would, when the first file of a run gets its name."""
    os.replace = lambda *_: os._exit(9)
    with RunDirectory(path).locked(""):
        pass


def run_on_full_disk(config: Path) -> None:
    """Run with files limited to a few kilobytes, and write the error to a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        run(config)
    except IdiolectError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        (config.parent / "error.txt").write_text(str(error))


def start(config: Path) -> BaseProcess:
    """Start a run."""
    process = FORKS.Process(target=run, args=(config,))
    process.start()
    return process
