"""Find an index: in its own folder, or in the folder of a run of the pipeline."""

from __future__ import annotations

from pathlib import Path

from idiolect.errors import InputError
from idiolect.text.arguments import check_path

__all__ = ["RUN_INDEX", "index_folder", "is_index", "run_inside"]

RUN_INDEX = Path("stages", "index", "index")
"""The index of a run, in the run's folder."""


def index_folder(path: str | Path) -> Path:
    """Return the folder of an index, which need not exist; for a run's folder, that of its index.

    Raises:
        InputError: the run has no index yet.
    """
    folder = check_path(path, "path")
    if not (folder / RUN_INDEX.parts[0]).is_dir():
        return folder
    index = folder / RUN_INDEX
    if not index.is_dir():
        raise InputError(f"the run {folder} has no index yet", hint="`idiolect run` resumes it")
    return index


def is_index(folder: Path) -> bool:
    """Return whether a folder holds an index."""
    return (folder / "ledger.db").is_file()


def run_inside(folder: Path) -> str:
    """Return a hint with a run in a folder, as `shop/run` in `shop`; empty if there is none."""
    found = sorted(folder.glob(f"*/{RUN_INDEX.parts[0]}"))
    return f"did you mean {found[0].parent}?" if found else ""
