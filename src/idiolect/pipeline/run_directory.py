"""The folder of a run: its finished stages, their fingerprints, and a lock.

    RUN/stages/STAGE           a finished stage
        inputs.json            fingerprints of its inputs, and of the stages it read
        outputs.json           its files, see `FileRecord`
    RUN/stages/.STAGE.partial  an unfinished stage, from which a killed run resumes
    RUN/replaced/STAGE-1       files that users had added or changed in a stage that was repeated
    RUN/.lock                  held while a run is active

A stage is published by a single rename. Only its own folder decides whether it is finished, so no
other record can contradict it. A stage with a missing or damaged file is not finished. The manifest
is only informative.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy
import tokenizers
import torch

from idiolect import __version__
from idiolect.errors import CheckpointError, InputError
from idiolect.pipeline.stage import SharedOutput
from idiolect.text.file_record import FileRecord
from idiolect.text.files import read_json, write_atomic
from idiolect.training.progress import notice

__all__ = ["FORMAT", "RunDirectory"]

FORMAT = 2
"""Version of the folder's format; incremented when older versions cannot read it."""
_INPUTS = "inputs.json"
_OUTPUTS = "outputs.json"
_METRICS = "metrics.json"
_MANIFEST = "manifest.json"
_ABOUT_THE_RUN = (_INPUTS, _METRICS, "metrics.jsonl", "run.json")
"""Files with times and paths, which differ even if the result is the same."""


class RunDirectory:
    """The folder of a run.

    Args:
        path: The folder.
        say: Called with a message for each damaged file and each old output that is kept.

    Raises:
        CheckpointError: A newer version wrote it.
    """

    def __init__(self, path: str | Path, say: Callable[[str], None] = notice) -> None:
        self.path, self._say = Path(path), say
        self._manifest: dict[str, Any] = {}
        if self._exists():
            # All essential data of a manifest is also in the folders of the stages.
            self._manifest = _read(self.manifest_path) or {}
            if not _is_manifest(self._manifest):
                what = "damaged" if os.path.lexists(self.manifest_path) else "missing"
                say(f"{self.manifest_path} is {what} and is written again")
                self._manifest = {}
            known = self._manifest.get("stages", {})
            self._manifest["stages"] = self._finished_stages() | known
            found = self._manifest.get("format", FORMAT)
            if found > FORMAT:
                raise CheckpointError(
                    f"{self.path} is a run of idiolect {self._manifest.get('idiolect')} (format "
                    f"{found}), but this is {__version__} (format {FORMAT})",
                    hint="use that version, or choose another folder",
                )
            if found < FORMAT:
                say(
                    f"{self.path} is a run of an older idiolect (format {found}, not {FORMAT}): "
                    "every stage is repeated"
                )

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Open the folder of an existing run.

        Raises:
            InputError: The folder contains no run.
        """
        folder = cls(path)
        if not folder._exists():
            raise InputError(f"no run in {path}", hint="create one with idiolect run")
        return folder

    @property
    def manifest_path(self) -> Path:
        """Path of the manifest: versions, and finished stages."""
        return self.path / _MANIFEST

    @property
    def metrics_path(self) -> Path:
        """Path of the metrics of all stages, by stage."""
        return self.path / _METRICS

    @property
    def report_path(self) -> Path:
        """Path of the report."""
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
            if not self._exists() and self._other_files():
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
            # First: what a run leaves that is killed before it must not look like other files.
            self._write_manifest()
            (self.path / "stages").mkdir(exist_ok=True)
            write_atomic(self.path / "idiolect.toml", config.encode())
            yield

    def stage(self, name: str) -> Path:
        """Return the folder of a finished stage."""
        return self.path / "stages" / name

    def digest(self, name: str) -> str:
        """Return a hash of a finished stage's output, without the part that users may change."""
        record = _read(self.stage(name) / _OUTPUTS) or {}
        shared = str(record.get("shared", _INPUTS))
        return FileRecord(record.get("files")).digest((*_ABOUT_THE_RUN, shared))

    def done(
        self, name: str, inputs: Mapping[str, Any], shares: SharedOutput | None = None
    ) -> bool:
        """Return whether a stage is finished for these inputs, with all its files intact.

        Args:
            name: The stage.
            inputs: Fingerprints of its inputs.
            shares: The part of its output that users may change; it only has to be readable.
        """
        folder = self.stage(name)
        if not folder.exists() or _read(folder / _INPUTS) not in (None, dict(inputs)):
            return False
        problem = self._damage(folder, shares)
        if problem:
            self._say(f"{name}: {problem}; repeating the stage")
        return not problem

    def metrics(self, name: str) -> dict[str, Any]:
        """Return the metrics of a finished stage.

        Raises:
            CheckpointError: The stage is not finished.
        """
        return read_json(self.stage(name) / _METRICS)

    def begin(self, name: str, inputs: Mapping[str, Any]) -> Path:
        """Return a stage's working folder: that of a killed run with these inputs, or a new one."""
        partial = self._partial(name)
        if partial.exists() and _read(partial / _INPUTS) != dict(inputs):
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        _write(partial / _INPUTS, inputs)
        return partial

    def finish(
        self,
        name: str,
        metrics: Mapping[str, Any],
        seconds: float,
        shares: SharedOutput | None = None,
    ) -> None:
        """Store a stage's metrics and a record of its files, and publish its working folder.

        Files that users changed or added in the stage's old folder are kept in `replaced`.
        """
        partial, final = self._partial(name), self.stage(name)
        _write(partial / _METRICS, metrics)
        (partial / _OUTPUTS).unlink(missing_ok=True)
        record: dict[str, Any] = {"seconds": round(seconds, 2)}
        if shares is not None:
            state = shares.state(partial / shares.folder)
            record |= {"shared": shares.folder, "state": state}
        _write(partial / _OUTPUTS, {**record, "files": FileRecord.of(partial).files})
        if final.exists():
            self._keep_changes(name, shares)
            shutil.rmtree(final)
        partial.rename(final)
        self._manifest.setdefault("stages", {})[name] = _summary(final)
        self._write_manifest()

    def report_done(self) -> bool:
        """Return whether the report exists, is undamaged, and shows the metrics of this run."""
        record = FileRecord(self._manifest.get("report"))
        return {*record.files} == {*self._report_files} and not record.damage(self.path)

    def finish_report(self) -> None:
        """Record the report, and the metrics that it shows."""
        self._manifest["report"] = FileRecord.of(self.path, self._report_files).files
        self._write_manifest()

    @property
    def _report_files(self) -> tuple[str, ...]:
        """The report and the metrics it shows, which change if a stage is taken out of the run."""
        return (self.report_path.name, self.metrics_path.name)

    def summarize(self, names: Mapping[str, str]) -> None:
        """Write the metrics of all stages to one file, and delete stages that are no longer needed.

        Args:
            names: The fingerprint of each stage, by name.
        """
        stages = self._manifest.setdefault("stages", {})
        for name in {*stages} - {*names}:
            shutil.rmtree(self.stage(name), ignore_errors=True)
            shutil.rmtree(self._partial(name), ignore_errors=True)
        self._manifest["stages"] = {name: stages[name] for name in names if name in stages}
        self._write_manifest()
        _write(self.metrics_path, {name: self.metrics(name) for name in names})

    def seconds(self, name: str) -> float | None:
        """Return how long a stage took when it last ran."""
        stage = self._manifest.get("stages", {}).get(name)
        return None if stage is None else float(stage["seconds"])

    def _exists(self) -> bool:
        """Return whether there is a run: its manifest, or finished stages."""
        return self.manifest_path.exists() or bool(self._finished_stages())

    def _finished_stages(self) -> dict[str, Any]:
        """Return the manifest's entries for the stages, read from their folders."""
        folders = sorted((self.path / "stages").glob("[!.]*"), key=lambda p: p.stat().st_mtime_ns)
        return {path.name: _summary(path) for path in folders if (path / _OUTPUTS).exists()}

    def _damage(self, folder: Path, shares: SharedOutput | None) -> str:
        """Return a description of the damage in a finished stage, or an empty string."""
        record = _read(folder / _OUTPUTS)
        if record is None or not FileRecord(record.get("files")).files:
            return f"{_OUTPUTS} is missing or damaged"
        known = json.dumps(record)
        files = FileRecord(record["files"])
        damaged = files.damage(folder)
        shared = {}
        if shares is not None:
            shared = {name: p for name, p in damaged.items() if _is_in(name, shares.folder)}
        others = [f"{name} {what}" for name, what in damaged.items() if name not in shared]
        if others:
            more = f", and {len(others) - 1} more" if len(others) > 1 else ""
            return f"{others[0]}{more}"
        if shares is not None and shared:
            path = folder / shares.folder
            used = shares.state(path) != record.get("state")
            if problem := shares.find_damage(path):
                return problem
            if not used:  # a repair does not count as a change by users
                record["state"] = shares.state(path)
            intact = {name: f for name, f in files.files.items() if not _is_in(name, shares.folder)}
            found = FileRecord.of(path).files
            files.files = intact | {f"{shares.folder}/{name}": f for name, f in found.items()}
        record["files"] = files.files
        if json.dumps(record) != known:
            _write(folder / _OUTPUTS, record)
        return ""

    def _keep_changes(self, name: str, shares: SharedOutput | None) -> None:
        """Keep files that users changed or added in a stage's folder after it was finished."""
        old = self.stage(name)
        record = _read(old / _OUTPUTS)
        if record is None:
            return
        own = {*record.get("files", ()), _OUTPUTS}
        kept = []
        if shares is not None:
            own |= {name for name in _names(old) if _is_in(name, shares.folder)}
            # An unreadable output may contain changes as well.
            if (old / shares.folder).exists() and (
                shares.state(old / shares.folder) or None
            ) != record.get("state"):
                kept = [shares.folder]
        kept += [name for name in _names(old) if name not in own]
        if not kept:
            return
        parent = self.path / "replaced"
        folder = next(p for n in count(1) if not (p := parent / f"{name}-{n}").exists())
        for one in kept:
            (folder / one).parent.mkdir(parents=True, exist_ok=True)
            (old / one).rename(folder / one)
        self._say(f"{name}: {', '.join(kept[:3])} had changed since the run; kept in {folder}")

    def _partial(self, name: str) -> Path:
        return self.path / "stages" / f".{name}.partial"

    def _other_files(self) -> bool:
        begun = (".lock", f".{_MANIFEST}.new")
        return any(path.name not in begun for path in self.path.iterdir())

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


def _read(path: Path) -> dict[str, Any] | None:
    """Read a record; None if it is missing or damaged."""
    try:
        return read_json(path)
    except CheckpointError:
        return None


def _is_manifest(value: Mapping[str, Any]) -> bool:
    stages = value.get("stages", {})
    return (
        bool(value)
        and isinstance(value.get("format", FORMAT), int)
        and isinstance(stages, dict)
        and all(
            isinstance(stage, dict) and isinstance(stage.get("seconds"), int | float)
            for stage in stages.values()
        )
    )


def _summary(stage: Path) -> dict[str, Any]:
    """Return the fingerprint and the duration of a finished stage."""
    inputs, outputs = _read(stage / _INPUTS) or {}, _read(stage / _OUTPUTS) or {}
    return {"fingerprint": inputs.get("fingerprint"), "seconds": outputs.get("seconds") or 0.0}


def _names(folder: Path) -> list[str]:
    """List the files of a folder."""
    return [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]


def _is_in(name: str, folder: str) -> bool:
    return name.split("/")[0] == folder


def _write(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, f"{json.dumps(value, ensure_ascii=False, indent=1)}\n".encode())
