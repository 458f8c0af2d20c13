"""Choose the weights of a network to quantise, and put them into the network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from torch import Tensor, nn

from idiolect.errors import ConfigError
from idiolect.models.gguf.gguf_blocks import recovered_blocks
from idiolect.nn.embedding import ExtendedRows, QuantizedEmbedding
from idiolect.nn.network import Network
from idiolect.nn.quantization import QuantizedFormat, quantize_layers, replace_weight
from idiolect.nn.quantized_matrix import QuantizedMatrix, quantized_matrices

__all__ = [
    "TABLES",
    "Quantization",
    "check_kept",
    "check_quantization",
    "formats",
    "keep_blocks_of_rows",
    "place_weights",
    "quantize_loaded",
]

Quantization = Literal["nf4", "int8", "keep"]
"""Quantisation of the matrices of the layers in memory: `nf4` and `int8` quantise them (see
`nn.quantization`); `keep` keeps the blocks of a GGUF file, which is lossless.

Vocabulary rows are never re-quantised: those of a GGUF file keep its blocks, others their dtype. So
the published rows have the same values, bit for bit, as without quantisation. If the model of a
GGUF file was saved to a directory in float32, the blocks are recovered from the values."""
_LOG = logging.getLogger(__name__)

TABLES = ("tokens.weight", "heads.language.weight")
"""Names of the matrices with one row per id."""


def check_quantization(quantization: str | None) -> None:
    """Check the name of a quantisation.

    Raises:
        ConfigError: It is unknown; the message lists the known ones.
    """
    if quantization is not None and quantization not in get_args(Quantization):
        raise ConfigError(
            f"unknown quantization {quantization!r}",
            hint="one of " + ", ".join(get_args(Quantization)),
        )


def formats(network: Network, quantization: Quantization | None) -> dict[str, Quantization]:
    """Return the quantisation of each matrix of a network, by the name of the weight."""
    check_quantization(quantization)
    if quantization is None:
        return {}
    in_layers = {id(module) for block in network.blocks for module in block.modules()}
    layers = {
        f"{name}.weight": quantization
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and id(module) in in_layers
    }
    return layers | dict.fromkeys(TABLES, "keep")


def place_weights(network: Network, weights: Mapping[str, Tensor | QuantizedMatrix]) -> None:
    """Load all weights into a network that was built on the "meta" device, in place.

    Raises:
        RuntimeError: Weights are missing.
    """
    state = {}
    for name, weight in weights.items():
        if not isinstance(weight, QuantizedMatrix):
            state[name] = weight
            continue
        _place(network, name, weight)
        state |= {f"{name}.{part}": tensor for part, tensor in weight.state_dict().items()}
    network.load_state_dict(state, strict=True, assign=True)


def _place(network: Network, name: str, matrix: QuantizedMatrix) -> None:
    if name == "tokens.weight":
        network.tokens = QuantizedEmbedding(matrix)
    else:
        replace_weight(network.get_submodule(name.rpartition(".")[0]), matrix)


def check_kept(network: Network, source: Path) -> None:
    """Check that a network loaded with `keep` has quantised blocks; warn of layers that have none.

    Raises:
        ConfigError: No layer has quantised blocks.
    """
    wanted = [name for name in formats(network, "keep") if name not in TABLES]
    kept = quantized_matrices(network)
    missing = [name for name in wanted if name not in kept]
    if len(missing) == len(wanted):
        raise ConfigError(
            f"{source} holds no quantised blocks to keep",
            hint="quantise to nf4 or int8, or load a GGUF file",
        )
    if missing:
        _LOG.warning(
            "%s: %d of %d matrices are not in blocks and stay in full precision, such as %s",
            *(source, len(missing), len(wanted), missing[0]),
        )


def keep_blocks_of_rows(network: Network) -> None:
    """Convert the original vocabulary rows to GGUF blocks, where these represent them exactly."""
    for name, rows in network.vocabulary_rows().items():
        original = rows.original if isinstance(rows, ExtendedRows) else rows
        blocks = recovered_blocks(original) if isinstance(original, nn.Parameter) else None
        if blocks is None:
            continue
        if isinstance(rows, ExtendedRows):
            del rows.original
            rows.original = blocks
        else:
            _place(network, name, blocks)


def quantize_loaded(network: Network, quantization: Quantization) -> None:
    """Quantise the layers of a loaded network, in place; with `keep`, only check them.

    Raises:
        ConfigError: The network has another quantisation, or no blocks to keep.
    """
    check_quantization(quantization)
    present = {matrix.format for matrix in quantized_matrices(network).values()}
    if quantization == "keep":
        if not present:
            raise ConfigError(
                "the model is in full precision and has no quantised blocks to keep",
                hint="load it with quantization='keep' from a GGUF file, or use nf4 or int8",
            )
        return
    wanted: QuantizedFormat = quantization
    if wanted not in present:
        quantize_layers(network.blocks, wanted)
