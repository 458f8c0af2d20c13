"""The features of a saved LambdaMART model, so that it can be used without the code that made it.

The model's directory holds `lambdamart.json` (the trees) and `features.json` (these settings).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from idiolect.encoding.encoder import Encoder
from idiolect.errors import CheckpointError, InputError
from idiolect.ranking.evaluation.baselines import BM25, Dense
from idiolect.ranking.evaluation.metrics import Run, ranked
from idiolect.ranking.features import Features
from idiolect.text.files import read_json, write_atomic
from idiolect.text.format_version import check_format, with_format

__all__ = ["FeatureSettings"]

_LISTS = ("runs", "dimensions")
"""Fields that are lists in JSON."""


@dataclass(frozen=True)
class FeatureSettings:
    """Which scores are used as features."""

    runs: tuple[str, ...] = ()
    """Names of the runs. The first run has the candidates."""
    bm25: bool = True
    """Whether BM25 is a feature. Without runs it also finds the candidates."""
    encoder: str | None = None
    """Directory or hub id of the encoder."""
    encoder_fingerprint: str | None = None
    """`Encoder.fingerprint` at training time."""
    dimensions: tuple[int, ...] = ()
    """Truncated embedding sizes (Matryoshka) whose similarities are also features."""

    def candidates(
        self,
        runs: Mapping[str, Run],
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        *,
        depth: int = 100,
    ) -> dict[str, dict[str, float]]:
        """Return the best documents of each query, by the first run or by BM25.

        Args:
            runs: Runs by name.
            queries: The text of each query.
            documents: The text of each document.
            depth: Documents kept for each query.

        Raises:
            InputError: The runs are not those of these settings.
        """
        self.check_runs(runs)
        if not self.runs:
            return {q: dict(found) for q, found in BM25(documents).search(queries, depth).items()}
        first = runs[self.runs[0]]
        kept = {}
        for query in queries:
            found = first.get(query, {})
            names = ranked(found)[:depth]
            if names:
                kept[query] = {doc: found[doc] for doc in names}
        return kept

    def build(
        self,
        runs: Mapping[str, Run],
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        *,
        encoder: Encoder | None = None,
        progress: bool = False,
    ) -> Features:
        """Build the features.

        Args:
            runs: Runs by name.
            queries: The text of each query.
            documents: The text of each document.
            encoder: The encoder, if the settings name one.
            progress: Show the progress of encoding.

        Raises:
            InputError: The runs or the encoder are not those of these settings.
        """
        self.check_runs(runs)
        found = None if encoder is None else encoder.fingerprint
        if found != self.encoder_fingerprint:
            raise InputError(
                "the encoder is not the one that the features were computed with",
                hint=f"the model was trained with {self.encoder}",
            )
        return Features(
            queries,
            bm25=BM25(documents) if self.bm25 else None,
            dense=None if encoder is None else Dense(encoder, documents, progress=progress),
            dimensions=self.dimensions,
            runs={name: runs[name] for name in self.runs},
        )

    def save(self, path: str | Path) -> None:
        """Write the settings as JSON."""
        write_atomic(Path(path), f"{json.dumps(with_format(asdict(self)), indent=2)}\n".encode())

    @classmethod
    def load(cls, path: str | Path) -> FeatureSettings:
        """Read settings that `save` wrote.

        Raises:
            CheckpointError: The file is missing or damaged.
        """
        record = check_format(read_json(Path(path)), Path(path), rebuild="train it again")
        try:
            lists: dict[str, Any] = {name: tuple(record.pop(name)) for name in _LISTS}
            return cls(**lists, **record)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged: {error}", hint="train it again") from error

    def check_runs(self, runs: Mapping[str, Run]) -> None:
        """Check the names of the runs.

        Raises:
            InputError: A run is missing or unknown.
        """
        if set(runs) != set(self.runs):
            names = ", ".join(self.runs) or "none"
            raise InputError(
                f"the model needs the runs {names}, not {', '.join(runs) or 'none'}",
                hint="name runs in the form NAME=FILE",
            )
