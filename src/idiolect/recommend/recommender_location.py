"""Find a recommender: in its own folder, or in the folder of a run of the pipeline."""

from __future__ import annotations

from pathlib import Path

__all__ = ["INDEX", "RECORD", "RUN_RECOMMENDER", "is_recommender", "recommender_folder"]

RUN_RECOMMENDER = Path("stages", "recommend", "recommender")
"""The recommender of a run, in the run's folder."""

RECORD = "recommender.json"
"""The record of a recommender, which is written last."""

INDEX = "index"
"""The index of the items' vectors, in the folder of a recommender."""


def recommender_folder(directory: Path) -> Path:
    """Return the folder of a recommender; for a run's folder, that of the run's recommender.

    A recommender that was placed in the run's folder as `recommend` takes precedence.
    """
    if is_recommender(directory) or not (directory / RUN_RECOMMENDER.parts[0]).is_dir():
        return directory
    added = directory / "recommend"
    return added if is_recommender(added) else directory / RUN_RECOMMENDER


def is_recommender(directory: Path) -> bool:
    """Return whether a folder holds a finished recommender."""
    return (directory / RECORD).is_file()
