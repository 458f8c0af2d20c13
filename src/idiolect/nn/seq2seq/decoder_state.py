"""The state of a recurrent decoder between two steps, whose size does not grow with the target."""

from __future__ import annotations

from torch import Tensor

from idiolect.errors import InputError

__all__ = ["CellState", "DecoderState"]

CellState = Tensor | tuple[Tensor, Tensor]
"""The states of all layers, of an LSTM with its cells. (layers, batch, width)."""


class DecoderState:
    """A recurrent decoder's encoded source, recurrent state and attention state."""

    def __init__(self) -> None:
        self.length = 0
        """Number of completed steps."""
        self.memory: Tensor | None = None
        """The encoder's states, padded on the right. (batch, source, width)."""
        self.keys: Tensor | None = None
        """The keys of attention. (batch, source, width)."""
        self.mask: Tensor | None = None
        """Mask of the positions with a token. (batch, source), bool."""
        self.order: Tensor | None = None
        """The place of each position in the given source, if padding was moved. (batch, source)."""
        self.source_ids: Tensor | None = None
        """The source ids, to copy from. (batch, source)."""
        self.recurrent: CellState | None = None
        """The decoder's state."""
        self.fed: Tensor | None = None
        """The output of the last step, if it is an input of the next one. (batch, 1, width)."""
        self.coverage: Tensor | None = None
        """The sum of the attention weights so far (coverage). (batch, 1, source)."""

    @property
    def query(self) -> Tensor:
        """The state of the last layer. (batch, 1, width)."""
        assert self.recurrent is not None
        hidden = self.recurrent[0] if isinstance(self.recurrent, tuple) else self.recurrent
        return hidden[-1][:, None]

    def check_rows(self, rows: int) -> None:
        """Check that a batch has as many texts as the state.

        Raises:
            InputError: The numbers differ.
        """
        if self.memory is not None and len(self.memory) != rows:
            raise InputError(
                f"a batch of {rows} texts with the state of {len(self.memory)}",
                hint="select the remaining rows of the cache, or begin with an empty cache",
            )

    def select(self, rows: Tensor) -> None:
        """Keep the given rows of the batch, in the given order (for beams and finished texts)."""
        self._select(rows, ("memory", "keys", "mask", "order", "source_ids", "fed", "coverage"))

    def select_beams(self, rows: Tensor, texts: Tensor | None = None) -> None:
        """Keep the chosen beams; see `Cache.select_beams`. Every beam has its own row."""
        if texts is not None or (self.memory is not None and len(rows) != len(self.memory)):
            self.select(rows)
        else:
            self._select(rows, ("fed", "coverage"))

    def _select(self, rows: Tensor, names: tuple[str, ...]) -> None:
        for name in names:
            tensor = getattr(self, name)
            if tensor is not None:
                setattr(self, name, tensor[rows])
        if isinstance(self.recurrent, tuple):
            self.recurrent = (self.recurrent[0][:, rows], self.recurrent[1][:, rows])
        elif self.recurrent is not None:
            self.recurrent = self.recurrent[:, rows]
