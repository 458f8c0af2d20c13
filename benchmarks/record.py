"""Run a benchmark and write what it prints to `docs/benchmarks/`, with machine, date and versions.

    python benchmarks/record.py embedding
    python benchmarks/record.py store --items 10000

The documentation's page of benchmarks is made from these files alone. A benchmark that calls
`figure` gives the handbook a value under a name; outside of a recording the call does nothing.
"""

from __future__ import annotations

import ast
import contextlib
import datetime
import io
import json
import os
import platform
import re
import runpy
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TextIO

__all__ = ["figure", "main"]

BENCHMARKS = Path(__file__).parent
OUT = BENCHMARKS.parent / "docs" / "benchmarks"
ALWAYS = ("idiolect", "numpy", "torch", "numba", "tokenizers")
"""Packages whose versions are written for every benchmark."""
_FIGURES: dict[str, dict[str, str]] = {}


def figure(key: str, value: str, what: str) -> None:
    """Give the handbook a figure: what `{measured}` prints for the key, and what it is."""
    _FIGURES[key] = {"value": value, "what": what}


class _Both(io.TextIOBase):
    """Prints, and keeps what it has printed."""

    def __init__(self, screen: TextIO) -> None:
        self.screen, self.kept = screen, io.StringIO()

    def write(self, text: str) -> int:
        self.kept.write(text)
        return self.screen.write(text)

    def flush(self) -> None:
        self.screen.flush()


def machine() -> dict[str, str | int]:
    """Return processor, cores and memory of this machine, and nothing that names it."""
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": " ".join(found[1].split()) if found else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _busy() -> float:
    """Return the seconds of processor time that all processes of this machine have taken."""
    user, nice, system = map(int, Path("/proc/stat").read_text(encoding="utf-8").split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Return those of this process and of those that it started and that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def versions(path: Path) -> dict[str, str]:
    """Return the versions of Python, and of the packages that a benchmark imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    packages = metadata.packages_distributions()
    found = {packages[name][0] for name in (*names, *ALWAYS) if name in packages}
    known = {name: metadata.version(name) for name in sorted(found, key=str.lower)}
    return {"python": platform.python_version(), **known}


def _without_places(text: str, arguments: list[str]) -> str:
    """Put the last names of paths that were given for whole paths."""
    for argument in arguments:
        if argument.startswith("/"):
            text = text.replace(argument, Path(argument).name)
    return text


def main(arguments: list[str]) -> None:
    """Run the benchmark that is named first, with the other arguments."""
    name, *given = arguments
    path = BENCHMARKS / f"{name}.py"
    began, busy, own = time.perf_counter(), _busy(), _own()
    sys.argv = [str(path), *given]
    with contextlib.redirect_stdout(_Both(sys.stdout)) as both:
        runpy.run_path(str(path), run_name="__main__")
    seconds = time.perf_counter() - began
    others = (_busy() - busy - (_own() - own)) / (seconds * (os.cpu_count() or 1))
    record = {
        "command": _without_places(" ".join(["python", f"benchmarks/{name}.py", *given]), given),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "seconds": round(seconds),
        "machine": machine(),
        "others": round(max(others, 0.0), 2),
        "versions": versions(path),
        "figures": _FIGURES,
        "lines": _without_places(both.kept.getvalue(), given).splitlines(),
    }
    OUT.mkdir(exist_ok=True)
    text = json.dumps(record, ensure_ascii=False, indent=1)
    (OUT / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    import record  # what benchmarks import: their figures arrive there

    record.main(sys.argv[1:])
