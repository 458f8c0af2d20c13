"""`make kills`: kill -9 each kind of command at random moments, and run it again until it ends.

The result must equal that of a run nobody disturbed, file by file, but for times; nothing
half-written may be left. An index is compared by its items, vectors and findings.

    python tests/kills/run.py --kills 50             of each kind
    python tests/kills/run.py "words, GloVe" --seed 3
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from kills.commands import COMMANDS, Kind, write_data  # noqa: E402
from kills.outcome import differences  # noqa: E402

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["kills.run", "kills.preloaded"])
IN_A_ROW = 5
"""Kills of one run, after which it is left alone."""
LONGEST = 300
"""Seconds that a run may take."""
_THERE = re.compile(r"already contains a .* \(choose another --out\)")
"""What commands that write all at once say, if the kill came after they had written."""


@dataclass
class Counts:
    """What became of the runs of a kind."""

    seconds: float = 0.0
    """Of the run that nobody disturbed."""
    kills: int = 0
    runs: int = 0
    """Runs that were killed at least once, and ended."""
    resumed: int = 0
    """Kills after which something was there to resume from."""
    findings: list[str] = field(default_factory=list)


def _execute(folder: Path, command: str) -> None:
    """Run a command in this process."""
    os.chdir(folder)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["idiolect", *command.split()]
    from idiolect.cli.main import main
    from idiolect.words import glove, word2vec

    # Usually every half minute: these runs are shorter.
    glove._SAVE_SECONDS = word2vec._SAVE_SECONDS = 0.0
    main()


def _start(folder: Path, command: str) -> BaseProcess:
    process = FORKS.Process(target=_execute, args=(folder, command))
    process.start()
    return process


def _finish(process: BaseProcess, folder: Path) -> str:
    """Wait for a run; return what went wrong."""
    process.join(LONGEST)
    if process.exitcode is None:
        process.kill()
        process.join()
        return f"it did not end within {LONGEST} seconds"
    if process.exitcode:
        error = (folder / "log.txt").read_text()[-600:]
        if not _THERE.search(error):
            return f"exit status {process.exitcode}: {error}"
    return ""


def _prepare(data: Path, folder: Path, kind: Kind) -> None:
    shutil.copytree(data, folder)
    if kind.before and (problem := _finish(_start(folder, kind.before), folder)):
        raise RuntimeError(f"{kind.before}: {problem}")


def _undisturbed(kind: Kind, data: Path, here: Path) -> float:
    """Run a command twice; return the seconds of the second time, when caches are warm."""
    for _ in range(2):
        shutil.rmtree(here, ignore_errors=True)
        _prepare(data, here, kind)
        began = time.perf_counter()
        if problem := _finish(_start(here, kind.command), here):
            raise RuntimeError(problem)
    return time.perf_counter() - began


def kill_runs(kind: Kind, kills: int, seed: int, data: Path, folder: Path) -> Counts:
    """Kill runs of a kind until there were so many kills; compare each that ended.

    All run in one place, since files name the place, and are moved from there.
    """
    folder.mkdir(parents=True)
    here, whole = folder / "here", folder / "whole"
    counts, draw = Counts(_undisturbed(kind, data, here)), Random(seed)
    here.rename(whole)
    while counts.kills < kills:
        _prepare(data, here, kind)
        moments: list[float] = []
        while counts.kills < kills and len(moments) < IN_A_ROW:
            process = _start(here, kind.command)
            moment = draw.uniform(0, counts.seconds)
            process.join(moment)
            process.kill()  # nothing if it has ended
            process.join()
            if process.exitcode != -signal.SIGKILL:
                break
            moments.append(round(moment, 2))
            counts.kills += 1
            counts.resumed += any(here.glob(f"*{kind.out}*"))
        if process.exitcode != 0:
            process = _start(here, kind.command)
        problem = _finish(process, here)
        problems = [problem] if problem else differences(whole, here)
        counts.findings += [f"killed after {moments} s: {line}" for line in problems]
        if problems:
            here.rename(Path(tempfile.mkdtemp(prefix="killed", dir=folder)))
        else:
            shutil.rmtree(here)
        counts.runs += bool(moments)
    return counts


def main(arguments: Sequence[str]) -> int:
    """Kill runs, print a line for each kind, and return 1 if there was a finding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", help=f"of {'; '.join(COMMANDS)}; by default all")
    parser.add_argument("--kills", type=int, default=5, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep the folders of what was found here")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.kinds if name not in COMMANDS]:
        parser.error(f"no kind {unknown[0]}; known: {'; '.join(COMMANDS)}")
    total = Counts()
    print(f"{'kind':<26} seconds  kills  with something to resume  runs  findings", flush=True)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        data = Path(folder) / "data"
        data.mkdir()
        write_data(data)
        for name in given.kinds or COMMANDS:
            place = (given.keep or Path(folder)) / name.replace(", ", "-").replace(" ", "-")
            counts = kill_runs(COMMANDS[name], given.kills, given.seed, data, place)
            print(
                f"{name:<26} {counts.seconds:7.1f}  {counts.kills:5}  {counts.resumed:24}  "
                f"{counts.runs:4}  {len(counts.findings):8}",
                flush=True,
            )
            for finding in counts.findings:
                print(f"    {finding}", flush=True)
            total.kills += counts.kills
            total.findings += counts.findings
            if not counts.findings or not given.keep:
                shutil.rmtree(place, ignore_errors=True)
    kinds = len(given.kinds or COMMANDS)
    print(f"{total.kills} kills of {kinds} kinds, {len(total.findings)} findings")
    return 1 if total.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
