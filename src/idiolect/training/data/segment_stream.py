"""A corpus as one long text, read in segments that follow one another.

The text is divided into as many equal parts as there are rows. Row r of each step continues where
row r of the previous step ended, so a network that carries its state reads each part from beginning
to end:

    step          1      2      3
    row 0      |─────||─────||─────|      documents 1, 2, 3, …
    row 1      |─────||─────||─────|      documents 58, 59, …

The order of the documents is the corpus's own, in every epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.errors import InputError
from idiolect.text.templates.text_template import TextTemplate
from idiolect.training.data.token_file import TokenFile

__all__ = ["SegmentStream", "Segments", "StreamPosition"]

_SHORT, _SPREAD, _LEAST = 0.05, 5.0, 5
"""Share of segments of about half the length; standard deviation of a length; shortest segment."""


@dataclass(frozen=True)
class Segments:
    """One segment of each row."""

    input_ids: Tensor
    """(rows, length), int64."""
    labels: Tensor
    """The token after each. (rows, length), int64."""
    restarts: bool
    """Whether these are the first segments of an epoch."""
    rate_factor: float
    """Factor on the learning rate."""
    sources: Sequence[int]
    """Numbers of the documents in which the rows begin."""


@dataclass(frozen=True, kw_only=True)
class StreamPosition:
    """The position of a run in its text."""

    epochs: int = 0
    """Completed epochs."""
    place: int = 0
    """Number of tokens of each row that were read in this epoch."""
    segments: int = 0
    """Segments read since the start of the run."""


class SegmentStream:
    """An endless stream of segments.

    Args:
        tokens: The documents.
        template: The special tokens around each text. If the same token ends a text and begins the
            next one, it is inserted once.
        length: Tokens per segment, the length of truncated backpropagation.
        rows: Rows per step.
        seed: Random seed of the lengths.
        varies: Sample the length of each segment around `length`, and sometimes around half of it,
            so that segments begin at different tokens; the learning rate is scaled with the length
            (Merity et al. 2017, 1708.02182).
        name: Name of the text in messages.

    Raises:
        InputError: The parts are shorter than a segment.
    """

    def __init__(
        self,
        tokens: TokenFile,
        template: TextTemplate,
        *,
        length: int,
        rows: int,
        seed: int = 0,
        varies: bool = False,
        name: str = "the corpus",
    ) -> None:
        before = template.before if template.before != template.after else ()
        self._before, self._after = np.array(before, np.int64), np.array(template.after, np.int64)
        special = len(before) + len(template.after)
        sizes = [len(tokens[number]) + special for number in range(len(tokens))]
        self._ends = np.cumsum(np.array(sizes, np.int64))
        self.tokens, self.length, self.rows = tokens, length, rows
        self.seed, self.varies = seed, varies
        total = int(self._ends[-1]) if len(sizes) else 0
        self.part = max(0, total - 1) // rows
        """Tokens per row and epoch."""
        if self.part < length:
            raise InputError(
                f"{name} has {total} tokens, which is {self.part} for each of {rows} rows: "
                f"less than one segment of {length}",
                hint="add text, or set a smaller batch_size or max_length",
            )
        self.position = StreamPosition()

    def take(self) -> Segments:
        """Return the next segment of each row."""
        at = self.position
        length = min(self._draw(at.segments), self.part - at.place)
        starts = [row * self.part + at.place for row in range(self.rows)]
        grid = torch.from_numpy(np.stack([self._read(s, s + length + 1) for s in starts]))
        place = at.place + length
        ends = place >= self.part
        self.position = StreamPosition(
            epochs=at.epochs + ends, place=0 if ends else place, segments=at.segments + 1
        )
        return Segments(
            grid[:, :-1].contiguous(),
            grid[:, 1:].contiguous(),
            restarts=at.place == 0,
            rate_factor=length / self.length if self.varies else 1.0,
            sources=np.searchsorted(self._ends, starts, side="right").tolist(),
        )

    def state(self) -> dict[str, Any]:
        """Return the position, for `restore`."""
        return asdict(self.position)

    def restore(self, state: dict[str, Any]) -> None:
        """Return to a saved position."""
        self.position = StreamPosition(**state)

    def _draw(self, number: int) -> int:
        """Sample the length of a segment, ignoring the end of the text."""
        if not self.varies:
            return self.length
        random = np.random.default_rng([self.seed, number])
        mean = self.length / 2 if random.random() < _SHORT else self.length
        return max(_LEAST, round(random.normal(mean, _SPREAD)))

    def _read(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the tokens between two positions in the text."""
        first = number = int(np.searchsorted(self._ends, start, side="right"))
        pieces: list[NDArray[Any]] = []
        while number < len(self._ends) and (number == first or self._ends[number - 1] < stop):
            pieces += [self._before, self.tokens[number], self._after]
            number += 1
        begin = int(self._ends[first - 1]) if first else 0
        return np.concatenate(pieces)[start - begin : stop - begin].astype(np.int64)
