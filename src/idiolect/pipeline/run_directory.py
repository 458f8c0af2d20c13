"""The folder of a run: its finished stages, their fingerprints, and a lock.

    RUN/stages/STAGE           a finished stage; inputs.json holds the fingerprint of its inputs
    RUN/stages/.STAGE.partial  an unfinished stage, from which a killed run resumes
    RUN/.lock                  held while a run is active

A stage appears by a single rename. Only its own folder decides whether it is finished, so no other
record can disagree. The manifest is only informative.
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

FORMAT = 2
"""Version of the folder's format; incremented when older versions cannot read it."""
_INPUTS = "inputs.json"
_METRICS = "metrics.json"


class RunDirectory:
    """The folder of a run.

    Args:
        path: The folder.

    Raises:
        CheckpointError: A newer version wrote it, or its manifest is damaged.
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
                    f"{found}), but this is {__version__} (format {FORMAT})",
                    hint="use that version, or choose another folder",
                )

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open the folder of an existing run.

        Raises:
            InputError: There is no run in it.
        """
        folder = cls(path)
        if not folder.manifest_path.exists():
            raise InputError(f"no run in {path}", hint="create one with idiolect run")
        return folder

    @property
    def manifest_path(self) -> Path:
        """Versions, and finished stages."""
        return self.path / "manifest.json"

    @property
    def metrics_path(self) -> Path:
        """The metrics of all stages, by stage."""
        return self.path / _METRICS

    @property
    def report_path(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @contextmanager
    def locked(self, config: str) -> Iterator[None]:
        """Lock the folder against other processes.

        Args:
            config: The configuration's text, which is stored in the folder.

        Raises:
            InputError: Another process holds the lock, the folder is not writable, or it holds
                other files.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.manifest_path.exists() and self._other_files():
                raise InputError(
                    f"{self.path} holds files that do not belong to a run",
                    hint="choose another folder",
                )
            file = (self.path / ".lock").open("a+")
        except OSError as error:
            raise InputError(
                f"cannot write to {self.path}: {error.strerror}",
                hint="check its permissions, or choose another folder",
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise InputError(
                    f"process {file.read().strip() or '?'} is running in {self.path}",
                    hint="wait until it ends, or choose another folder",
                ) from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            (self.path / "stages").mkdir(exist_ok=True)
            self._write_manifest()
            write_atomic(self.path / "idiolect.toml", config.encode())
            yield

    def stage(self, name: str) -> Path:
        """Return the folder of a finished stage."""
        return self.path / "stages" / name

    def done(self, name: str, fingerprint: str) -> bool:
        """Return whether a stage is finished for inputs with this fingerprint."""
        return _finished(self.stage(name), fingerprint)

    def metrics(self, name: str) -> dict[str, Any]:
        """Return the metrics of a finished stage.

        Raises:
            CheckpointError: The stage is not finished.
        """
        return read_json(self.stage(name) / _METRICS)

    def begin(self, name: str, fingerprint: str) -> Path:
        """Return a stage's working folder: that of a killed run with these inputs, or a new one."""
        partial = self._partial(name)
        if partial.exists() and _recorded(partial) != fingerprint:
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        _write(partial / _INPUTS, {"fingerprint": fingerprint})
        return partial

    def finish(self, name: str, metrics: Mapping[str, Any], seconds: float) -> None:
        """Store a stage's metrics, and publish its working folder as finished."""
        partial, final = self._partial(name), self.stage(name)
        _write(partial / _METRICS, metrics)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        stages = self._manifest.setdefault("stages", {})
        stages[name] = {"fingerprint": _recorded(final), "seconds": round(seconds, 2)}
        self._write_manifest()

    def summarize(self, names: Mapping[str, str]) -> None:
        """Write the metrics of all stages into one file, and delete other stages.

        Args:
            names: The fingerprint of each stage, by name.
        """
        for path in (self.path / "stages").iterdir():
            if path.name not in names:
                shutil.rmtree(path)
        stages = self._manifest.setdefault("stages", {})
        self._manifest["stages"] = {name: stages[name] for name in names if name in stages}
        self._write_manifest()
        _write(self.metrics_path, {name: self.metrics(name) for name in names})

    def seconds(self, name: str) -> float | None:
        """Return how long a stage took when it last ran."""
        stage = self._manifest.get("stages", {}).get(name)
        return None if stage is None else float(stage["seconds"])

    def _partial(self, name: str) -> Path:
        return self.path / "stages" / f".{name}.partial"

    def _other_files(self) -> bool:
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


def _finished(folder: Path, fingerprint: str) -> bool:
    return _recorded(folder) == fingerprint and (folder / _METRICS).exists()


def _recorded(folder: Path) -> str | None:
    path = folder / _INPUTS
    return read_json(path).get("fingerprint") if path.exists() else None


def _write(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, f"{json.dumps(value, ensure_ascii=False, indent=1)}\n".encode())
