"""The folder of a training run, and checkpoints that survive a killed process.

    run/
      run.json                settings and fingerprints; a different run is refused here
      tokens/                 the corpus as token ids; validation-tokens/ the validation text;
                            of several corpora tokens-0/, tokens-1/, …
      checkpoint-00000200/    weights.safetensors, optimizer.safetensors, state.json; and
                            carried.safetensors where states are carried from step to step
      reference.safetensors   log-probabilities of a reference model (preference tuning)
      metrics.jsonl           one line per step
      adapter/                trained adapters, as `peft` reads them
      model/                  the finished model
      published.json          its files, to notice damage

A checkpoint contains the trained parameters, the optimizer's moments, the step and the position in
the documents. Nothing else determines the rest of the run: learning rates are a function of the
step, and random numbers are derived from the seed and the step. A checkpoint is written under a
temporary name, flushed to disk and renamed. Only then is the oldest one deleted, so the last
complete checkpoints always remain. If a checkpoint is damaged, the previous one is used, with a
notice.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from idiolect.errors import CheckpointError, InputError
from idiolect.text.arguments import check_path
from idiolect.text.file_record import FileRecord
from idiolect.text.files import flush, read_json, write_atomic
from idiolect.text.format_version import check_format, with_format
from idiolect.training.progress import notice

__all__ = ["Checkpoint", "RunFolder", "record_change"]

_FORMAT = 1
_PUBLISHED = "published.json"
_FINISH = "finish it with the version that started it, or choose another folder"
_NAME = re.compile(r"checkpoint-(\d{8})")
_TEMPORARY = re.compile(
    r"\.(checkpoint|model|(validation-)?tokens(-\d+)?|run\.json|metrics\.jsonl"
    r"|(projection|reference)\.safetensors)\..+"
)
"""Pattern of the temporary names of a run's files."""
_TOKENS = re.compile(r"(validation-)?tokens(-\d+)?")
"""Pattern of the names of folders of token ids."""


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a run resumes."""

    step: int
    """Completed steps."""
    weights: Mapping[str, Tensor]
    """The trained parameters, by name."""
    optimizer: Mapping[str, Tensor]
    """The optimizer's moments, by `name:moment`."""
    state: Mapping[str, Any]
    """The position in the documents, and other scalar state."""
    carried: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the objective carries from step to step, by name."""


class RunFolder:
    """The folder of a run.

    Args:
        path: The folder; created if it is missing.
        kept: Number of checkpoints to keep; older ones are deleted.
        every: Steps between regular checkpoints. Others, which an interrupted run saves at its last
            step, are not averaged and do not count as kept.

    Raises:
        InputError: The folder cannot be created.
    """

    def __init__(self, path: str | Path, *, kept: int = 2, every: int = 1) -> None:
        self.kept, self.every = kept, every
        self.path = check_path(path, "output_dir")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot create {path}: {error.strerror}") from error

    @property
    def tokens(self) -> Path:
        """Folder of the token ids of the corpus."""
        return self.path / "tokens"

    @property
    def validation_tokens(self) -> Path:
        """Folder of the token ids of the validation text."""
        return self.path / "validation-tokens"

    @property
    def adapter(self) -> Path:
        """Folder of the trained adapters."""
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """Folder of the finished model."""
        return self.path / "model"

    @property
    def record(self) -> dict[str, Any]:
        """The record that `begin` wrote; empty if there is none or it is damaged."""
        try:
            return read_json(self.path / "run.json")
        except CheckpointError:
            return {}

    def begin(
        self, record: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None
    ) -> None:
        """Record the run's settings, or check that the folder contains the same run.

        Temporary files that a killed process left behind are deleted; no other file is changed.

        Args:
            record: Settings and fingerprints that determine the result.
            defaults: Values of entries that records of earlier versions lack.

        Raises:
            CheckpointError: The folder contains a different run with a checkpoint, or a run of
                another version; the message lists the differences.
        """
        self._delete_temporary_files()
        path = self.path / "run.json"
        record = json.loads(json.dumps(with_format(record, _FORMAT)))
        if not path.exists():
            write_atomic(path, f"{json.dumps(record, indent=2)}\n".encode())
            return
        try:
            known = read_json(path)
        except CheckpointError as error:
            raise CheckpointError(
                error.message, hint=f"delete the folder {self.path} to start the run again"
            ) from error
        check_format(known, path, oldest=_FORMAT, newest=_FORMAT, rebuild=_FINISH)
        different = list(_differences(known, record, defaults or {}))
        if different and not self._steps() and not self.model.exists():
            # That run ended before its first checkpoint, perhaps because of a mistake fixed now.
            self._clear()
            write_atomic(path, f"{json.dumps(record, indent=2)}\n".encode())
        elif different:
            raise CheckpointError(
                f"{self.path} holds another run: {'; '.join(different[:5])}",
                hint="use that run's settings to resume it, or choose another folder",
            )

    def check_space(self, needed: int) -> None:
        """Check before training that the disk has enough space for the run.

        Args:
            needed: Number of bytes that the run will write.

        Raises:
            InputError: The disk has fewer bytes free than the run will write.
        """
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise InputError(
                f"the run will write about {decimal(needed)} to {self.path} and "
                f"{decimal(free)} are free",
                hint="make room, or choose another folder",
            )

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint atomically, and delete old ones.

        Raises:
            CheckpointError: The disk is full or fails; earlier checkpoints are untouched.
        """
        folder = self.path / f"checkpoint-{checkpoint.step:08}"
        if folder.exists():
            return
        temporary = Path(tempfile.mkdtemp(prefix=".checkpoint.", dir=self.path))
        try:
            save_file(dict(checkpoint.weights), temporary / "weights.safetensors")
            save_file(dict(checkpoint.optimizer), temporary / "optimizer.safetensors")
            if checkpoint.carried:
                save_file(dict(checkpoint.carried), temporary / "carried.safetensors")
            for path in temporary.glob("*.safetensors"):
                flush(path)
            state = with_format({"step": checkpoint.step, **checkpoint.state}, _FORMAT)
            if checkpoint.carried:
                state["carries"] = True
            write_atomic(temporary / "state.json", f"{json.dumps(state)}\n".encode())
            temporary.chmod(0o755)
            temporary.rename(folder)
            flush(self.path)
        except (OSError, SafetensorError) as error:
            kept = self._steps()
            hint = f"the checkpoint of step {kept[-1]} is complete; " if kept else ""
            raise CheckpointError(
                f"cannot write the checkpoint of step {checkpoint.step}: {_reason(error)}",
                hint=f"{hint}make room and run again to resume",
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        steps = self._steps()
        for step in sorted({*steps} - {*steps[-2:], *self._regular()[-self.kept :]}):
            # Renamed first, so that a process killed while deleting leaves no partial checkpoint.
            old = self.path / f".checkpoint.{step:08}.old"
            (self.path / f"checkpoint-{step:08}").rename(old)
            shutil.rmtree(old, ignore_errors=True)

    def publish(self, save: Callable[[Path], None]) -> None:
        """Write the finished model under a temporary name, then move it to `model`.

        Args:
            save: Writes the model into the directory it is called with.

        Raises:
            CheckpointError: The disk is full or fails.
        """
        temporary = self.path / ".model.new"
        try:
            if self.model.exists():  # damaged; files that users added remain
                save(self.model)
            else:
                save(temporary / "model")
                (temporary / "model").rename(self.model)
            self._record_files()
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"cannot write the model to {self.model}: {_reason(error)}",
                hint="make room and run again; the trained weights are in the last checkpoint",
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _record_files(self) -> None:
        _write_published(self._published, _sizes_and_hashes(FileRecord.of(self.model)))

    def is_published(self) -> bool:
        """Return whether the finished model is complete; a notice names a damaged file.

        If only the record of its files is missing, the record is written.
        """
        if not self.model.exists():
            return False
        try:
            record = FileRecord(read_json(self._published))
        except CheckpointError:  # killed before it was written, an older version, or damaged
            if not (self.model / "config.json").exists():
                return False
            with contextlib.suppress(OSError):  # a finished run in a read-only folder
                self._record_files()
            return True
        damage = [f"{name} {problem}" for name, problem in record.damage(self.model).items()]
        if damage:
            notice(f"{self.model}: {damage[0]}; writing the model again")
        return not damage

    def latest(self) -> Checkpoint | None:
        """Read the last intact checkpoint, if there is one.

        A damaged one is reported and deleted; the run repeats the steps since the previous one.

        Raises:
            CheckpointError: It was written by another version.
        """
        for step in reversed(self._steps()):
            folder = self.path / f"checkpoint-{step:08}"
            try:
                return _read_checkpoint(folder, step)
            except _DamagedError as error:
                notice(f"{folder} is damaged and not used: {error}")
                shutil.rmtree(folder, ignore_errors=True)
        return None

    def mean_weights(self, count: int) -> dict[str, Tensor]:
        """Return the mean weights of the last checkpoints (Vaswani et al. 2017, 1706.03762).

        Those of a run's last step and of its regular steps are averaged, so that the result does
        not depend on how often the run was interrupted.

        Args:
            count: Number of checkpoints; if there are fewer, all of them.

        Raises:
            CheckpointError: A checkpoint is damaged or cannot be read.
        """
        steps = self._regular()[-count:]
        sums: dict[str, Tensor] = {}
        for step in steps:
            path = self.path / f"checkpoint-{step:08}" / "weights.safetensors"
            try:
                weights = load_file(path)
            except (OSError, SafetensorError) as error:
                raise CheckpointError(
                    f"{path} cannot be averaged: {_reason(error)}",
                    hint="delete that checkpoint and run again",
                ) from error
            for name, weight in weights.items():
                sums[name] = sums[name] + weight.double() if name in sums else weight.double()
        return {name: total / len(steps) for name, total in sums.items()}

    @property
    def _published(self) -> Path:
        return self.path / _PUBLISHED

    def _delete_temporary_files(self) -> None:
        """Delete the temporary files that a killed process left behind."""
        own = [path for path in self.path.iterdir() if _TEMPORARY.fullmatch(path.name)]
        for folder in (self.adapter, self.path / "mined"):
            own += folder.glob(".*")
        for path in own:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _clear(self) -> None:
        """Delete the files of a run without a checkpoint."""
        tokens = [path for path in self.path.iterdir() if _TOKENS.fullmatch(path.name)]
        for path in (*tokens, self.path / "mined"):
            shutil.rmtree(path, ignore_errors=True)
        for name in ("metrics.jsonl", "projection.safetensors", "reference.safetensors"):
            (self.path / name).unlink(missing_ok=True)

    def _steps(self) -> list[int]:
        names = (_NAME.fullmatch(path.name) for path in self.path.iterdir())
        return sorted(int(match[1]) for match in names if match)

    def _regular(self) -> list[int]:
        """Return the steps of regular checkpoints, and the last step."""
        steps = self._steps()
        return [step for step in steps if step % self.every == 0 or step == steps[-1]]


def record_change(path: Path) -> None:
    """Record that a file of a run's finished model was rewritten, which is no damage.

    Does nothing for a model outside a run's folder.
    """
    published = path.parent.parent / _PUBLISHED
    try:
        record = read_json(published)
    except CheckpointError:
        return
    if path.name in record:
        own = _sizes_and_hashes(FileRecord.of(path.parent, [path.name]))
        _write_published(published, record | own)


def _sizes_and_hashes(files: FileRecord) -> dict[str, Any]:
    # Without times, so that the folder does not depend on how often it was interrupted.
    return {
        name: {"size": file["size"], "hash": file["hash"]} for name, file in files.files.items()
    }


def _write_published(path: Path, record: Mapping[str, Any]) -> None:
    write_atomic(path, f"{json.dumps(record, indent=1)}\n".encode())


class _DamagedError(Exception):
    """A checkpoint cannot be read."""


def _read_checkpoint(folder: Path, step: int) -> Checkpoint:
    try:
        state = read_json(folder / "state.json")
        weights = load_file(folder / "weights.safetensors")
        optimizer = load_file(folder / "optimizer.safetensors")
        carries = state.get("carries", False)
        carried = load_file(folder / "carried.safetensors") if carries else {}
    except CheckpointError as error:
        raise _DamagedError(error.message) from error
    except (FileNotFoundError, SafetensorError) as error:
        raise _DamagedError(_reason(error)) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {folder}: {_reason(error)}") from error
    check_format(state, folder, oldest=_FORMAT, newest=_FORMAT, rebuild=_FINISH)
    if state.get("step") != step or not {"source", "mean_loss"} <= state.keys():
        raise _DamagedError("its state.json is not complete")
    return Checkpoint(step, weights, optimizer, state, carried)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return (str(text).strip().splitlines() or [type(error).__name__])[0][:200]


def _differences(
    known: Mapping[str, Any], wanted: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[str]:
    for name in sorted({*known, *wanted}):
        usual = defaults.get(name)
        before, now = known.get(name, usual), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, usual if isinstance(usual, dict) else {})
        elif before != now:
            yield f"{name} was {before!r} and is {now!r}"
