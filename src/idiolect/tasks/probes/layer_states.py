"""The hidden states of every layer of any network, and the attention weights of every head.

Texts of equal length are read together, so no batch has padding, and states have the same row and
position in every kind of network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.nn.attention import Attention

__all__ = ["LayerStates", "equal_lengths", "self_attentions", "states_by_layer"]

_TOKENS = 2048
"""Tokens per batch: few, since the states of all layers are kept."""


@dataclass(frozen=True)
class LayerStates:
    """The states of some texts of equal length."""

    texts: list[int]
    """Indices of the texts."""
    input_ids: Tensor
    """Their ids. (texts, length)."""
    states: list[Tensor]
    """The embedding, then the output of each layer, the last one after a final norm. Each (texts,
    length, width); widths may differ."""
    attentions: list[Tensor]
    """Weights of each layer, if asked for. (texts, heads, queries, keys)."""


def equal_lengths(
    rows: Sequence[Sequence[int]], max_tokens: int = _TOKENS
) -> Iterator[tuple[list[int], Tensor]]:
    """Batch the rows that have ids, those of equal length together.

    Yields:
        Row numbers, and their ids. (rows, length).
    """
    order = sorted((i for i, row in enumerate(rows) if row), key=lambda i: len(rows[i]))
    for length, numbers in groupby(order, key=lambda i: len(rows[i])):
        alike, count = list(numbers), max(max_tokens // length, 1)
        for start in range(0, len(alike), count):
            some = alike[start : start + count]
            yield some, torch.tensor([list(rows[i]) for i in some])


def self_attentions(encoder: Encoder) -> list[Attention]:
    """Return the self-attention of each layer that an encoder runs, in order."""
    network = encoder.model.network
    stack = getattr(network, "encoder", None) or getattr(network, "decoder", None)
    layers = getattr(stack, "layers", ())
    return [layer.attention for layer in layers if isinstance(layer.attention, Attention)]


def states_by_layer(
    encoder: Encoder, rows: Sequence[Sequence[int]], *, attentions: bool = False
) -> Iterator[LayerStates]:
    """Read texts, and yield the states of all layers, some texts at a time.

    Args:
        encoder: The encoder; of an encoder-decoder network, the encoder is read.
        rows: Ids that its `reader` returned; empty ones are left out.
        attentions: Whether to keep the attention weights as well.
    """
    network = encoder.model.network.eval()
    for texts, input_ids in equal_lengths(rows):
        with torch.inference_mode(), _recording(encoder, attentions) as (states, weights):
            last = network.text_states(
                input_ids.to(network.device), None, bidirectional=encoder.bidirectional
            )
        states[-1:] = [last]
        yield LayerStates(texts, input_ids, states, weights)


@contextmanager
def _recording(encoder: Encoder, attentions: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Record the input of the first layer, the output of each layer, and the attention weights."""
    states: list[Tensor] = []
    weights: list[Tensor] = []

    def note_input(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not states:
            states.append(arguments[0])

    def note_output(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as stack:
        for block in encoder.model.network.blocks:
            stack.callback(block.register_forward_pre_hook(note_input).remove)
            stack.callback(block.register_forward_hook(note_output).remove)
        if attentions:
            for attention in self_attentions(encoder):
                attention.observer = weights.append
                stack.callback(_ending(attention))
        yield states, weights


def _ending(attention: Attention) -> Callable[[], None]:
    def end() -> None:
        attention.observer = None

    return end
