"""Snapshots of training arrays, so that a killed run resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError
from idiolect.text.files import flush, read_json, write_atomic
from idiolect.text.format_version import check_format, with_format

__all__ = ["Snapshot"]


class Snapshot:
    """The latest state of a run in a folder, kept in two slots that are written alternately.

    A state is written to the slot that the record does not name, and the record is replaced last.
    So a process killed at any time leaves a complete state.

    Args:
        folder: The folder.
        settings: Settings that identify the run.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = json.loads(json.dumps(settings))
        self._turn = 0

    def save(self, arrays: dict[str, NDArray[Any]], state: dict[str, Any]) -> None:
        """Write arrays, and a state of plain numbers."""
        self._turn = 1 - self._turn
        for name, array in arrays.items():
            path = self.folder / f"{name}.{self._turn}.npy"
            np.save(path, array, allow_pickle=False)
            flush(path)
        record = with_format({"settings": self.settings, "state": state, "turn": self._turn})
        write_atomic(self.folder / "snapshot.json", json.dumps(record).encode())

    def load(self, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """Fill arrays from the latest snapshot, and return its state; empty if there is none.

        Raises:
            CheckpointError: The folder holds another run, or its files are damaged.
        """
        if not (self.folder / "snapshot.json").exists():
            return {}
        path = self.folder / "snapshot.json"
        record = check_format(read_json(path), path, rebuild="delete the folder and train again")
        if record.get("settings") != self.settings:
            raise CheckpointError(
                f"{self.folder} holds a run with other settings",
                hint="delete it, or choose another output",
            )
        self._turn = record["turn"]
        for name, array in arrays.items():
            path = self.folder / f"{name}.{self._turn}.npy"
            try:
                saved = np.load(path, mmap_mode="r", allow_pickle=False)
                array[:] = saved
            except (OSError, ValueError) as error:
                raise CheckpointError(
                    f"{path} is damaged: {error}", hint="delete the folder and train again"
                ) from error
        state: dict[str, Any] = record["state"]
        return state
