"""The folder of a run: its checkpoints, written so that a killed process loses nothing.

    run/
      run.json                what the run is; another run is refused in the same folder
      tokens/                 the corpus as ids
      checkpoint-00000200/    weights.safetensors, optimizer.safetensors, state.json
      metrics.jsonl           one line a step
      adapter/                trained adapters, as `peft` reads them
      model/                  the finished model

A checkpoint holds what trains, the optimizer's moments, the step and the place in the documents.
Nothing else determines the rest of the run: rates are a function of the step, and every random
number follows from the seed and the step. It is written under another name, flushed to the disk
and then renamed, and only after that the oldest one goes, so two whole ones are always there.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from idiolect.errors import CheckpointError, InputError
from idiolect.text.files import flush, read_json, write_atomic

__all__ = ["Checkpoint", "RunFolder"]

_FORMAT = 1
_NAME = re.compile(r"checkpoint-(\d{8})")
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Everything that determines how a run goes on."""

    step: int
    """Steps done."""
    weights: Mapping[str, Tensor]
    """What trains, by name."""
    optimizer: Mapping[str, Tensor]
    """The optimizer's moments, by `name:moment`."""
    state: Mapping[str, Any]
    """The place in the documents and what else is a number."""


class RunFolder:
    """Where a run keeps its state.

    Args:
        path: The folder; made when it is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make {path}: {error.strerror}") from error

    @property
    def tokens(self) -> Path:
        """Where the corpus is, as ids."""
        return self.path / "tokens"

    @property
    def adapter(self) -> Path:
        """Where trained adapters go."""
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """Where the finished model goes."""
        return self.path / "model"

    def begin(self, record: Mapping[str, Any]) -> None:
        """Say what the run is, or check that it is the same that was begun here.

        Raises:
            CheckpointError: The folder holds another run, or one of another version; the message
                names what differs.
        """
        for leftover in list(self.path.rglob(".*")):  # what a killed process was writing
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        path = self.path / "run.json"
        record = json.loads(json.dumps({"format": _FORMAT, **record}))
        if not path.exists():
            write_atomic(path, f"{json.dumps(record, indent=2)}\n".encode())
            return
        known = read_json(path)
        if known.get("format") != _FORMAT:
            raise CheckpointError(
                f"{path} is of format {known.get('format')}, this version writes {_FORMAT}",
                hint="finish it with the version that began it, or choose another folder",
            )
        different = _differences(known, record)
        if different:
            raise CheckpointError(
                f"{self.path} holds another run: {'; '.join(different[:5])}",
                hint="repeat that run's settings to go on with it, or choose another folder",
            )

    def check_space(self, needed: int) -> None:
        """Refuse to start what cannot be finished.

        Raises:
            InputError: The disk has fewer bytes free than the run will write.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise InputError(
                f"the run will write about {_size(needed)} to {self.path} and "
                f"{_size(free)} are free",
                hint="make room, or choose another folder",
            )

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, whole or not at all, and drop the oldest one.

        Raises:
            CheckpointError: The disk is full or fails; earlier checkpoints are untouched.
        """
        folder = self.path / f"checkpoint-{checkpoint.step:08}"
        if folder.exists():
            return
        fresh = Path(tempfile.mkdtemp(prefix=".checkpoint.", dir=self.path))
        try:
            save_file(dict(checkpoint.weights), fresh / "weights.safetensors")
            save_file(dict(checkpoint.optimizer), fresh / "optimizer.safetensors")
            for name in ("weights.safetensors", "optimizer.safetensors"):
                flush(fresh / name)
            state = {"format": _FORMAT, "step": checkpoint.step, **checkpoint.state}
            write_atomic(fresh / "state.json", f"{json.dumps(state)}\n".encode())
            fresh.chmod(0o755)
            fresh.rename(folder)
            flush(self.path)
        except (OSError, SafetensorError) as error:
            kept = self._steps()
            hint = f"the checkpoint of step {kept[-1]} is whole; " if kept else ""
            raise CheckpointError(
                f"cannot write the checkpoint of step {checkpoint.step}: {_reason(error)}",
                hint=f"{hint}make room and start again to go on from there",
            ) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        for step in self._steps()[:-_KEPT]:
            # Renamed first: a process killed while deleting leaves nothing that looks whole.
            gone = self.path / f".checkpoint.{step:08}.old"
            (self.path / f"checkpoint-{step:08}").rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def publish(self, save: Callable[[Path], None]) -> None:
        """Let the finished model be written, and show it when it is whole.

        Raises:
            CheckpointError: The disk is full or fails.
        """
        fresh = self.path / ".model.new"
        try:
            save(fresh / "model")
            (fresh / "model").rename(self.model)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"cannot write the model to {self.model}: {_reason(error)}",
                hint="make room and start again; the training itself is done and kept",
            ) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """Read the last checkpoint, if there is one.

        Raises:
            CheckpointError: It is damaged, or of another version.
        """
        steps = self._steps()
        if not steps:
            return None
        folder = self.path / f"checkpoint-{steps[-1]:08}"
        state = read_json(folder / "state.json")
        if state.get("format") != _FORMAT or state.get("step") != steps[-1]:
            raise CheckpointError(
                f"{folder} was written by another version", hint="finish the run with that version"
            )
        try:
            weights = load_file(folder / "weights.safetensors")
            optimizer = load_file(folder / "optimizer.safetensors")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder} is damaged: {_reason(error)}",
                hint="remove it to go on from the one before",
            ) from error
        return Checkpoint(steps[-1], weights, optimizer, state)

    def _steps(self) -> list[int]:
        names = (_NAME.fullmatch(path.name) for path in self.path.iterdir())
        return sorted(int(match[1]) for match in names if match)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return (str(text).strip().splitlines() or [type(error).__name__])[0][:200]


def _differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} was {known.get(name)!r} and is {wanted.get(name)!r}"
        for name in sorted({*known, *wanted})
        if known.get(name) != wanted.get(name)
    ]


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = round(count / 1000, 3)  # type: ignore[assignment]
    return f"{count:.3g} TB"
