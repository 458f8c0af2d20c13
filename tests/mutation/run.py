"""`make mutants`: break the source in one known way at a time, and see that a test fails each time.

`mutants.toml` lists the mutations: each replaces a piece of source text that occurs exactly once,
and names the tests that must notice. Everything happens in a copy of the checkout.

    python tests/mutation/run.py            all of them
    python tests/mutation/run.py clipping   those whose title contains the word
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutants.toml")
_COPIED = ("src", "tests", "assets", "examples", "pyproject.toml", "README.md")
_LIMIT = 600
"""Seconds that the tests of a mutant may take."""


@dataclass(frozen=True)
class Mutant:
    """One way to break the source."""

    title: str
    path: str
    """The file, relative to the repository."""
    old: str
    """Text that occurs in it once."""
    new: str
    tests: tuple[str, ...]
    """Node ids of the tests that must fail."""

    def apply(self, root: Path) -> None:
        """Replace the text in a checkout.

        Raises:
            ValueError: It does not occur exactly once.
        """
        file = root / self.path
        text = file.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.title}: {text.count(self.old)} occurrences in {self.path}")
        file.write_text(text.replace(self.old, self.new), encoding="utf-8")


def read_mutants() -> list[Mutant]:
    """Read the list."""
    table = tomllib.loads(LIST.read_text(encoding="utf-8"))
    return [Mutant(**{**one, "tests": tuple(one["tests"])}) for one in table["mutant"]]


@contextmanager
def _copy() -> Iterator[Path]:
    """Make a copy of the checkout that may be changed."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "checkout"
        root.mkdir()
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, root / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                shutil.copy(source, root / name)
        if (ROOT.parent / "shared").exists():
            (Path(scratch) / "shared").symlink_to(ROOT.parent / "shared")
        yield root


def _run(root: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:xdist", *tests],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_LIMIT,
    )


def try_mutant(mutant: Mutant) -> str:
    """Return `caught`, or what happened instead."""
    with _copy() as root:
        mutant.apply(root)
        try:
            result = _run(root, mutant.tests)
        except subprocess.TimeoutExpired:
            return "caught"  # a test that hangs is noticed
        if result.returncode == 1:
            return "caught"
        return "SURVIVED" if result.returncode == 0 else f"BROKEN: {result.stdout[-300:]}"


def main(words: list[str]) -> int:
    """Try the mutants; return 1 if one is not caught."""
    chosen = [m for m in read_mutants() if all(word in m.title for word in words)]
    if not chosen:
        print(f"no mutant has all of these words in its title: {' '.join(words)}")
        return 2
    tests = tuple(sorted({test for mutant in chosen for test in mutant.tests}))
    with _copy() as root:
        if (result := _run(root, tests)).returncode:
            print(f"these tests fail without any mutation:\n{result.stdout[-3000:]}")
            return 1
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, outcome in zip(chosen, pool.map(try_mutant, chosen), strict=True):
            failed += outcome != "caught"
            print(f"{outcome:9} {mutant.title}", flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} caught")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
