"""A recurrent layer computed by torch's fused kernels, and packed sequences for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from idiolect.errors import InputError
from idiolect.nn.basic import drop, dropout_rate
from idiolect.nn.packing import Packing
from idiolect.nn.recurrent.recurrent_cells import CellKind, CellWeights, State

__all__ = ["RecurrentLayer", "Sequences"]

_GATES: dict[CellKind, int] = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3}
_KERNELS: dict[CellKind, Any] = {
    "tanh": torch._VF.rnn_tanh,
    "relu": torch._VF.rnn_relu,
    "lstm": torch._VF.lstm,
    "gru": torch._VF.gru,
}


@dataclass(frozen=True)
class Sequences:
    """Sequences of unequal length without padding: all first tokens, then all second ones, …

    The order is that of `torch.nn.utils.rnn.PackedSequence`: the longest sequence comes first.
    """

    index: Tensor
    """Index of each token in the flattened grid. (tokens,)."""
    sequence: Tensor
    """Number of each token's sequence, counted from the longest. (tokens,)."""
    rows: Tensor
    """The grid's row of each sequence. (sequences,)."""
    steps: Tensor
    """Number of sequences that reach each step; on the CPU. (longest,)."""
    shape: torch.Size
    """Shape of the grid: (batch, length)."""

    @classmethod
    def of(cls, mask: Tensor) -> Sequences:
        """Pack a mask: 0 for padding, 1 for text, or ascending numbers of documents in a row.

        Raises:
            InputError: Document numbers do not ascend along a row.
        """
        packing = Packing.of(mask)
        starts, ends = torch.tensor(packing.spans, dtype=torch.long).reshape(-1, 2).unbind(1)
        lengths, order = (ends - starts).sort(descending=True, stable=True)
        longest = int(lengths[0]) if len(lengths) else 0
        times = torch.arange(longest)
        reaches = times[:, None] < lengths  # (longest, sequences)
        places = (starts[order] + times[:, None])[reaches]
        rows = torch.tensor([row for row, _ in packing.documents], dtype=torch.long)[order]
        sequence = torch.arange(len(lengths)).expand_as(reaches)[reaches]
        device = mask.device
        return cls(
            packing.index[places.to(device)],
            sequence.to(device),
            rows.to(device),
            reaches.sum(1),
            mask.shape,
        )

    def pack(self, grid: Tensor) -> Tensor:
        """Remove the padding of a grid. Shape: (batch, length, width) to (tokens, width)."""
        return grid.flatten(0, 1)[self.index]

    def unpack(self, packed: Tensor) -> Tensor:
        """Restore the grid, with zeros at padding. The inverse of `pack`."""
        grid = packed.new_zeros(self.shape.numel(), packed.shape[-1])
        return grid.index_copy(0, self.index, packed).view(*self.shape, -1)


class RecurrentLayer(nn.Module):
    """One layer of an RNN, LSTM or GRU, with weights in torch's layout.

    Args:
        kind: The kind of cell.
        input_size: Size of the input.
        hidden_size: Size of the state.
        weight_dropout: Share of the elements of `weight_hh` that a training pass sets to zero. The
            parameter itself is unchanged, so optimizers, gradients and files use the raw matrix.
    """

    def __init__(
        self, kind: CellKind, input_size: int, hidden_size: int, *, weight_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.kind: CellKind = kind
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight_dropout = weight_dropout
        size = _GATES[kind] * hidden_size
        self.weight_ih = nn.Parameter(torch.empty(size, input_size))
        """From input to gates; an LSTM's are input, forget, candidate, output."""
        self.weight_hh = nn.Parameter(torch.empty(size, hidden_size))
        """From state to gates."""
        self.bias_ih = nn.Parameter(torch.empty(size))
        self.bias_hh = nn.Parameter(torch.empty(size))
        self.reset_parameters()

    def extra_repr(self) -> str:
        """Return the sizes, for `repr`."""
        return f"{self.kind}, {self.input_size}, {self.hidden_size}"

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialize matrices from U(±1/√hidden_size); an LSTM's forget gate starts open.

        torch adds two biases. That of the forget gate is 1 in one and 0 in the other, so the sum is
        1 (Jozefowicz et al. 2015).
        """
        bound = 1 / math.sqrt(self.hidden_size)
        for matrix in (self.weight_ih, self.weight_hh):
            nn.init.uniform_(matrix, -bound, bound)
        for bias in (self.bias_ih, self.bias_hh):
            nn.init.zeros_(bias)
        if self.kind == "lstm":
            nn.init.ones_(self.bias_ih[self.hidden_size : 2 * self.hidden_size])

    @property
    def weights(self) -> CellWeights:
        """The weights by their names in the equations, without dropout."""
        return CellWeights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def first_state(self, batch: int) -> State:
        """Return the state before a text: zeros. Shape of each tensor: (batch, hidden_size)."""
        zeros = self.weight_hh.new_zeros(batch, self.hidden_size)
        return (zeros, zeros) if self.kind == "lstm" else (zeros,)

    def forward(
        self, x: Tensor, state: State | None = None, sequences: Sequences | None = None
    ) -> tuple[Tensor, State]:
        """Run the layer over sequences.

        Shape: x and result (batch, length, width), or (tokens, width) if packed; each tensor of a
            state (batch, hidden_size), in the order of the sequences if packed.

        Args:
            x: The inputs.
            state: The state before the first token; by default zeros.
            sequences: How the inputs are packed; by default they are a grid without padding.

        Returns:
            The state h of each step, and the state after each sequence's last one.

        Raises:
            InputError: The state has another batch size.
        """
        batch = len(x) if sequences is None else len(sequences.rows)
        state = self.first_state(batch) if state is None else state
        if len(state[0]) != batch:
            raise InputError(
                f"the state is of {len(state[0])} texts and the batch has {batch}",
                hint="pass the state of the same texts, or none",
            )
        if not x.numel():
            return x.new_zeros(*x.shape[:-1], self.hidden_size), state
        rate = dropout_rate(self.weight_dropout, self.training)
        # A new tensor in each pass: the raw matrix stays the parameter, and receives the gradient.
        weight_hh = drop(self.weight_hh, rate)
        flat = [self.weight_ih, weight_hh, self.bias_ih, self.bias_hh]
        before = tuple(part.to(x.dtype)[None] for part in state)
        given: Any = before if len(before) > 1 else before[0]
        settings = (True, 1, 0.0, self.training, False)  # biases, layers, dropout, …, directions
        # In the dtype of the weights: the kernels do not support autocast.
        with torch.autocast(x.device.type, enabled=False):
            if sequences is None:
                output, *after = _KERNELS[self.kind](x, given, flat, *settings, True)
            else:
                output, *after = _KERNELS[self.kind](x, sequences.steps, given, flat, *settings)
        return output, tuple(part[0] for part in after)
