"""The forward pass of two kinds of networks for one short text, in NumPy.

    static         the mean of weighted rows
    post_norm      BERT (Devlin et al. 2019, 1810.04805): learned positions, and layer norms after
                   each residual sum. MiniLM, BGE, E5 and GTE are of this kind.

Weights have the names of the torch networks. Of the embedding tables, only the rows that a text
needs are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTIVATIONS", "POST_NORM_NAMES", "hidden_states", "mean_row"]

_Array = NDArray[np.float32]

POST_NORM_NAMES = {
    *("tokens.weight", "types.weight", "encoder.table.weight"),
    *("encoder.embedding_norm.weight", "encoder.embedding_norm.bias"),
}
"""The weights of a `post_norm` network, apart from those of its layers."""


def mean_row(table: Any, weights: Any, ids: Sequence[int]) -> _Array:
    """Return the mean of a text's weighted rows. Shape: (width,)."""
    total = sum(table[i : i + 1][0] * weights[i : i + 1][0] for i in ids)
    return np.asarray(total / np.float32(len(ids)), np.float32)


def hidden_states(
    rows: Mapping[str, Any],
    weights: Mapping[str, _Array],
    config: Mapping[str, Any],
    ids: list[int],
) -> _Array:
    """Return the last hidden states of a `post_norm` network. Shape: (length, width).

    Args:
        rows: The embedding tables of tokens, types and positions.
        weights: The other weights.
        config: The fields of `TransformerConfig` that `post_norm` networks differ in.
        ids: The text.
    """
    epsilon, first = config["norm_eps"], config["position_offset"]
    x = np.concatenate([rows["tokens.weight"][i : i + 1] for i in ids])
    if "types.weight" in rows:
        x = x + rows["types.weight"][0:1]
    x = x + rows["encoder.table.weight"][first : first + len(ids)]
    x = _norm(x, weights, "encoder.embedding_norm", epsilon)
    for number in range(config["num_encoder_layers"]):
        layer = f"encoder.layers.{number}."
        attended = _attend(x, weights, layer + "attention.", config["num_attention_heads"])
        x = _norm(x + attended, weights, layer + "attention_norm", epsilon)
        wide = ACTIVATIONS[config["activation"]](_linear(x, weights, layer + "feed_forward.up"))
        x = x + _linear(wide, weights, layer + "feed_forward.down")
        x = _norm(x, weights, layer + "feed_forward_norm", epsilon)
    return x


def _attend(x: _Array, weights: Mapping[str, _Array], name: str, heads: int) -> _Array:
    query, key, value = (
        _linear(x, weights, name + part).reshape(len(x), heads, -1).swapaxes(0, 1)
        for part in ("query", "key", "value")
    )
    scores = query @ key.swapaxes(1, 2) / np.float32(np.sqrt(query.shape[-1]))
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return _linear((shares @ value).swapaxes(0, 1).reshape(len(x), -1), weights, name + "output")


def _linear(x: _Array, weights: Mapping[str, _Array], name: str) -> _Array:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(x: _Array, weights: Mapping[str, _Array], name: str, epsilon: float) -> _Array:
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(epsilon))
    normed: _Array = centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return normed


def _gelu(x: _Array) -> _Array:
    return x * np.float32(0.5) * (1 + _erf(x / np.float32(np.sqrt(2))))


def _gelu_tanh(x: _Array) -> _Array:
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
    result: _Array = x * np.float32(0.5) * (1 + np.tanh(inner))
    return result


def _erf(x: _Array) -> _Array:
    """Approximate the error function to 1.5e-7 (Abramowitz & Stegun 1964, 7.1.26)."""
    size = np.abs(x)
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    result: _Array = np.sign(x) * (1 - series * np.exp(-size * size))
    return result


def _relu(x: _Array) -> _Array:
    return np.maximum(x, 0)


ACTIVATIONS: dict[str, Callable[[_Array], _Array]] = {
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": _relu,
}
"""Activations by their names in `TransformerConfig`."""
