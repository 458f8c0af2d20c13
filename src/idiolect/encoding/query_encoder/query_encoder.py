"""`QueryEncoder`: the vectors of an `Encoder`, without torch.

Importing torch takes longer than all the rest of a search from the command line. So a copy of an
encoder's weights is kept in the user's cache, under its fingerprint, as NumPy arrays.
`query_export` writes the copy, and first checks that it gives the same vectors for some texts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.matryoshka import check_dimensions, shortened, unit_length
from idiolect.encoding.query_encoder.numpy_networks import hidden_states, mean_row
from idiolect.encoding.text_reader import EncodingCounts, TextReader
from idiolect.errors import CheckpointError, IdiolectError
from idiolect.text.files import read_json
from idiolect.text.packaged_models import cache_folder
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["SETTINGS", "VERSION", "WEIGHTS", "QueryEncoder", "cached", "folder_of"]

SETTINGS, WEIGHTS = "query_encoder.json", "weights.safetensors"
VERSION = 1
_BY_ROWS = ("tokens.weight", "types.weight", "encoder.table.weight", "token_weights.values")
"""Large embedding tables, of which a text needs only some rows."""


class QueryEncoder:
    """Encodes a few short texts on a CPU.

    Args:
        folder: A folder that `query_export` wrote.

    Raises:
        CheckpointError: It is missing, damaged, or of another version.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        settings: dict[str, Any] = read_json(folder / SETTINGS)
        try:
            if settings["version"] != VERSION:
                raise KeyError(f"version {settings['version']}")
            self.fingerprint: str = settings["fingerprint"]
            self.dimensions: int = settings["dimensions"]
            self.normalize: bool = settings["normalize"]
            self._pooling: str = settings["pooling"]
            self._config: dict[str, Any] = settings["network"]
            file: Any = safe_open(folder / WEIGHTS, framework="np")
            names = set(file.keys())
            self._rows = {name: file.get_slice(name) for name in names.intersection(_BY_ROWS)}
            self._weights = {name: file.get_tensor(name) for name in names.difference(_BY_ROWS)}
            reader = settings["reader"]
            self.max_length: int = reader["max_length"]
            self.reader = TextReader(Tokenizer.load(folder), **reader)
        except (KeyError, TypeError, OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{folder} is damaged: {error}", hint="delete it; it is written again"
            ) from error

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        counts: EncodingCounts | None = None,
    ) -> NDArray[np.float32]:
        """Encode texts; see `Encoder.encode`. Shape: (texts, dimensions)."""
        width = check_dimensions(dimensions, self.dimensions)
        counted = EncodingCounts()
        rows = self.reader.read(texts, prompt_name, counted)
        vectors = np.zeros((len(rows), self.dimensions), np.float32)
        for number, row in enumerate(rows):
            if row:
                vectors[number] = self._encode_row(row)
        if self.normalize:
            vectors = unit_length(vectors)
        counted.add_to(counts, self.max_length)
        return shortened(vectors, width, normalize=self.normalize)

    def _encode_row(self, row: list[int]) -> NDArray[np.float32]:
        if self._config["kind"] == "static":
            return mean_row(self._rows["tokens.weight"], self._rows["token_weights.values"], row)
        states = hidden_states(self._rows, self._weights, self._config, row)
        vector = states[0] if self._pooling == "first" else states.mean(0)
        if "linear.weight" in self._weights:
            vector = self._weights["linear.weight"] @ vector + self._weights["linear.bias"]
        return np.asarray(vector, np.float32)


def cached(fingerprint: str | None) -> QueryEncoder | None:
    """Return the query encoder of a fingerprint, if there is one in the user's cache."""
    if not fingerprint:
        return None
    folder = folder_of(fingerprint)
    try:
        if not (folder / SETTINGS).exists():
            return None
        encoder = QueryEncoder(folder)
        os.utime(folder)  # the most recently used folders are kept
    except (IdiolectError, OSError, json.JSONDecodeError):
        return None
    return encoder if encoder.fingerprint == fingerprint else None


def folder_of(fingerprint: str) -> Path:
    """Return the folder of a fingerprint in the user's cache."""
    return cache_folder() / "query_encoders" / "".join(c for c in fingerprint if c.isalnum())
