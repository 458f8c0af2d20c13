"""The folder of a run: which steps are done, for which inputs, and who is at work in it.

    RUN/stages/STEP           a step that is done; inputs.json holds the fingerprint of its inputs
    RUN/stages/.STEP.partial  one that is not; a run that was killed goes on in it
    RUN/.lock                 held while a run is at work

A step appears by one rename. Whether it is done is asked of its own folder alone, so there is no
record that could disagree with it; the manifest is for people and for the report.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import tokenizers
import torch

from idiolect import __version__
from idiolect.errors import CheckpointError, InputError
from idiolect.text.files import read_json, write_atomic

__all__ = ["FORMAT", "RunDirectory"]

FORMAT = 1
"""Of the folder; it grows when an older version could not read it."""
_INPUTS = "inputs.json"
_METRICS = "metrics.json"


class RunDirectory:
    """Where a run keeps what it has made.

    Args:
        path: The folder.

    Raises:
        CheckpointError: A newer version has written it, or its manifest is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._manifest: dict[str, Any] = {}
        if self.manifest_path.exists():
            self._manifest = read_json(self.manifest_path)
            found = self._manifest.get("format")
            if not isinstance(found, int) or found > FORMAT:
                raise CheckpointError(
                    f"{self.path} is a run of idiolect {self._manifest.get('idiolect')} (format "
                    f"{found}), and this is {__version__} (format {FORMAT})",
                    hint="use that version, or choose another folder",
                )

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open a run that was begun.

        Raises:
            InputError: There is none.
        """
        folder = cls(path)
        if not folder.manifest_path.exists():
            raise InputError(f"no run in {path}", hint="idiolect run makes one")
        return folder

    @property
    def manifest_path(self) -> Path:
        """Versions, and the steps done."""
        return self.path / "manifest.json"

    @property
    def metrics_path(self) -> Path:
        """What all steps left in their `metrics.json`, by step."""
        return self.path / _METRICS

    @property
    def report_path(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @contextmanager
    def locked(self, config: str) -> Iterator[None]:
        """Work in the folder, alone.

        Args:
            config: The configuration's text, which is kept in the folder.

        Raises:
            InputError: Another process is at work in it, it cannot be written to, or it holds
                something else.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.manifest_path.exists() and self._strangers():
                raise InputError(
                    f"{self.path} holds other files and no run", hint="choose another folder"
                )
            file = (self.path / ".lock").open("a+")
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise InputError(
                    f"process {file.read().strip() or '?'} is at work in {self.path}",
                    hint="wait for it, or choose another folder",
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            (self.path / "stages").mkdir(exist_ok=True)
            self._write_manifest()
            write_atomic(self.path / "idiolect.toml", config.encode())
            yield

    def step(self, name: str) -> Path:
        """Return the folder of a step that is done."""
        return self.path / "stages" / name

    def done(self, name: str, fingerprint: str) -> bool:
        """Whether a step is done for these inputs."""
        return _whole(self.step(name), fingerprint)

    def metrics(self, name: str) -> dict[str, Any]:
        """Return what a finished step has measured.

        Raises:
            CheckpointError: It is not done.
        """
        return read_json(self.step(name) / _METRICS)

    def begin(self, name: str, fingerprint: str) -> Path:
        """Return the folder in which a step works: one it was killed in, or an empty one."""
        partial = self._partial(name)
        if partial.exists() and _recorded(partial) != fingerprint:
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        _write(partial / _INPUTS, {"fingerprint": fingerprint})
        return partial

    def finish(self, name: str, metrics: Mapping[str, Any], seconds: float) -> None:
        """Let a step that worked in `begin`'s folder appear as done."""
        partial, final = self._partial(name), self.step(name)
        _write(partial / _METRICS, metrics)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        steps = self._manifest.setdefault("steps", {})
        steps[name] = {"fingerprint": _recorded(final), "seconds": round(seconds, 2)}
        self._write_manifest()

    def summarise(self, names: Mapping[str, str]) -> None:
        """Write all steps' metrics into one file, and forget steps the road no longer has.

        Args:
            names: The fingerprint of each step.
        """
        for path in (self.path / "stages").iterdir():
            if path.name not in names:
                shutil.rmtree(path)
        steps = self._manifest.setdefault("steps", {})
        self._manifest["steps"] = {name: steps[name] for name in names if name in steps}
        self._write_manifest()
        _write(self.metrics_path, {name: self.metrics(name) for name in names})

    def seconds(self, name: str) -> float | None:
        """How long a step took when it last ran."""
        step = self._manifest.get("steps", {}).get(name)
        return None if step is None else float(step["seconds"])

    def _partial(self, name: str) -> Path:
        return self.path / "stages" / f".{name}.partial"

    def _strangers(self) -> bool:
        return any(path.name != ".lock" for path in self.path.iterdir())

    def _write_manifest(self) -> None:
        self._manifest |= {
            "format": FORMAT,
            "idiolect": __version__,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "tokenizers": tokenizers.__version__,
                "numpy": numpy.__version__,
            },
            "machine": {
                "processor": platform.machine(),
                "cores": os.cpu_count(),
                "threads": torch.get_num_threads(),
            },
        }
        _write(self.manifest_path, self._manifest)


def _whole(folder: Path, fingerprint: str) -> bool:
    return _recorded(folder) == fingerprint and (folder / _METRICS).exists()


def _recorded(folder: Path) -> str | None:
    path = folder / _INPUTS
    return read_json(path).get("fingerprint") if path.exists() else None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, f"{json.dumps(value, ensure_ascii=False, indent=1)}\n".encode())
