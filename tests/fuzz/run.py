"""`make fuzz`: read broken inputs of every kind; only errors of the package may come out.

Each kind of input is read in a process of its own, with bounds on its memory and on the time of one
input. An input is determined by its target, the seed and its number, so a finding can be repeated:

    python tests/fuzz/run.py --inputs 10000            inputs of each target
    python tests/fuzz/run.py gguf --seed 3 --only 4711 one input, with its error
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from fuzz.targets import TARGETS, Target  # noqa: E402
from idiolect.errors import IdiolectError  # noqa: E402

SECONDS = 10
"""Of computing, for one input; waiting for other processes does not count."""
LONGEST = 120
"""Seconds, for one input that waits for something that does not come."""
MEMORY = 3 << 30
"""Bytes of address space beyond what a target takes when it begins."""
_ALARMS = (signal.SIGALRM, signal.SIGPROF)
_BESIDES = (KeyboardInterrupt, SystemExit)


@dataclass
class Findings:
    """What came out of a target, by its kind: how often, and the first number."""

    inputs: int = 0
    read: int = 0
    """Inputs that were read without an error."""
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, number: int) -> None:
        """Count a finding."""
        self.counts[kind] += 1
        self.first.setdefault(kind, number)


def input_of(name: str, target: Target, seed: int, number: int) -> bytes:
    """Return an input, which the three values determine."""
    return target.mutation(target.seeds, Random(f"{name} {seed} {number}"))


def fuzz(name: str, inputs: int, seed: int, seconds: float = float("inf")) -> Findings:
    """Read inputs; after one that kills or blocks the process, another continues.

    Args:
        name: The target.
        inputs: The most inputs to read.
        seed: The seed.
        seconds: When no further input is begun.
    """
    found = Findings()
    began = time.monotonic()
    end = began + seconds
    while found.inputs < inputs and time.monotonic() < end:
        start = found.inputs
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            _work(name, range(start, inputs), seed, end, writer)
        os.close(writer)
        ended = _watch(child, reader, found)
        if ended:
            found.add(ended, found.inputs)
            found.inputs += 1
        elif found.inputs == start and time.monotonic() < end:
            raise RuntimeError(f"{name} does not begin")
    found.seconds = time.monotonic() - began
    return found


def _watch(child: int, reader: int, found: Findings) -> str:
    """Take a child's reports; return how it ended, or nothing if it read all its inputs."""
    ending = ""
    with os.fdopen(reader) as reports:
        for line in reports:
            kind = line.rstrip("\n")
            if kind not in ("read", "refused"):
                found.add(kind, found.inputs)
            found.read += kind == "read"
            found.inputs += 1
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        ending = "took too long" if number in _ALARMS else signal.Signals(number).name
    elif status:
        ending = f"exit status {os.WEXITSTATUS(status)}"
    return ending


def _work(name: str, numbers: Sequence[int], seed: int, end: float, writer: int) -> None:
    """Read inputs in this process, and never return."""
    status = 1
    try:
        _quiet()
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            target = TARGETS[name](Path(folder))
            _bound_memory()
            for number in numbers:
                if time.monotonic() > end:
                    break
                data = input_of(name, target, seed, number)
                # The default action of both signals ends the process, also inside native code.
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                signal.setitimer(signal.ITIMER_REAL, LONGEST)
                report = _read(target, data)
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
                os.write(writer, f"{report}\n".encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _read(target: Target, data: bytes) -> str:
    """Read an input; return `read`, `refused`, or what came out."""
    try:
        target.read(data)
    except IdiolectError as error:
        return "refused" if "\n" not in str(error) else "an error of more than one line"
    except _BESIDES:
        raise
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "/src/idiolect/" in frame.filename]
        last = own[-1] if own else frames[-1]
        place = f"{last.filename.rpartition('/idiolect/')[2]}:{last.lineno}"
        text = " ".join(str(error).split())[:120]
        return f"{type(error).__name__} at {place}" + ("" if own else f": {text}")
    return "read"


def _quiet() -> None:
    faulthandler.disable()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _show_one(name: str, seed: int, number: int, save: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        target = TARGETS[name](Path(folder))
        data = input_of(name, target, seed, number)
        print(f"{len(data):,} bytes: {data[:2000]!r}")
        if save is not None:
            save.write_bytes(data)
        faulthandler.enable()
        target.read(data)
        print("read")


def main(arguments: Sequence[str]) -> int:
    """Run targets, print a line for each, and return 1 if there was a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; by default all")
    parser.add_argument("--inputs", type=int, default=5000, help="inputs of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each target")
    parser.add_argument("--only", type=int, help="read one input, and show its error")
    parser.add_argument("--save", type=Path, help="with --only: write the input to this file")
    given = parser.parse_args(arguments)
    names = given.targets or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target {unknown[0]}; known: {', '.join(TARGETS)}")
    if given.only is not None:
        _show_one(names[0], given.seed, given.only, given.save)
        return 0
    total, findings = 0, 0
    for name in names:
        found = fuzz(name, given.inputs, given.seed, given.seconds)
        total += found.inputs
        findings += len(found.counts)
        print(
            f"{name:20} {found.inputs:8,} inputs, {found.inputs / found.seconds:7,.0f} a second, "
            f"{found.read:7,} read, {len(found.counts)} findings",
            flush=True,
        )
        for kind, count in found.counts.most_common():
            print(f"    {count:6,} times, first --only {found.first[kind]}: {kind}", flush=True)
    print(f"{total:,} inputs, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
