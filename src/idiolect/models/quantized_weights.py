"""Which weights of a network are kept in few bits, and how they get their place in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from torch import Tensor, nn

from idiolect.errors import ConfigError
from idiolect.nn.embedding import QuantizedEmbedding
from idiolect.nn.network import Network
from idiolect.nn.quantization import QuantizedFormat, quantize_layers, replace_weight
from idiolect.nn.quantized_matrix import QuantizedMatrix, quantized_matrices

__all__ = ["Quantization", "check_quantization", "formats", "place_weights", "quantize_loaded"]

Quantization = Literal["nf4", "int8", "keep"]
"""How the matrices of the layers are kept in memory: `nf4` and `int8` quantise them (see
`nn.quantization`); `keep` leaves the blocks of a GGUF file as they are, which is exact.

Vocabulary rows are never quantised anew: those of a GGUF file keep its blocks, others their dtype.
So the published rows have the same values, bit for bit, as without quantization."""

_TABLES = ("tokens.weight", "heads.language.weight")


def check_quantization(quantization: str | None) -> None:
    """Refuse an unknown quantization.

    Raises:
        ConfigError: It is unknown; the message lists the known ones.
    """
    if quantization is not None and quantization not in get_args(Quantization):
        raise ConfigError(
            f"unknown quantization {quantization!r}",
            hint="one of " + ", ".join(get_args(Quantization)),
        )


def formats(network: Network, quantization: Quantization | None) -> dict[str, Quantization]:
    """Return how the matrices of a network are to be kept, by the names of the weights."""
    check_quantization(quantization)
    if quantization is None:
        return {}
    in_layers = {id(module) for block in network.blocks for module in block.modules()}
    layers = {
        f"{name}.weight": quantization
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and id(module) in in_layers
    }
    return layers | dict.fromkeys(_TABLES, "keep")


def place_weights(network: Network, weights: Mapping[str, Tensor | QuantizedMatrix]) -> None:
    """Load all weights of a network that was built without memory, in place.

    Raises:
        RuntimeError: Weights are missing.
    """
    state = {}
    for name, weight in weights.items():
        if not isinstance(weight, QuantizedMatrix):
            state[name] = weight
            continue
        if name == "tokens.weight":
            network.tokens = QuantizedEmbedding(weight)
        else:
            replace_weight(network.get_submodule(name.rpartition(".")[0]), weight)
        state |= {f"{name}.{part}": tensor for part, tensor in weight.state_dict().items()}
    network.load_state_dict(state, strict=True, assign=True)


def quantize_loaded(network: Network, quantization: Quantization) -> None:
    """Quantise the layers of a loaded network, in place; `keep` only checks it.

    Raises:
        ConfigError: It is quantised in another way, or has no blocks to keep.
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
