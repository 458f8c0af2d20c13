"""Choose the parameters to train, their groups, and the optimizer that updates them.

Frozen parameters are not passed to the optimizer, so neither decay nor momentum changes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from idiolect.errors import ConfigError, InputError
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.lora import LoraLinear
from idiolect.nn.network import Network
from idiolect.nn.prompt.attach_prompt import prompt_of
from idiolect.nn.quantized_matrix import QuantizedMatrix, quantized_matrices, whole
from idiolect.nn.recurrent.recurrent_layer import RecurrentLayer
from idiolect.training.averaged_sgd import AveragedSGD
from idiolect.training.row_sparse_adamw import RowSparseAdamW
from idiolect.training.training_config import OptimizerName

__all__ = [
    "ParameterGroup",
    "Part",
    "Train",
    "choose_parameters",
    "make_optimizer",
    "original_rows",
    "parameter_groups",
    "row_rate",
]

Train = Literal["attached", "prompt", "rows", "rows+lora", "body", "all"]
"""The trained parameters: only attached modules; the virtual tokens of a prompt or prefix; the
added rows; added rows and LoRA adapters; everything except the vocabulary rows; everything except
the original rows."""

Part = Literal["original", "rows", "prompt", "adapters", "heads", "attached", "body"]
"""Parts of a network: original rows of the vocabulary, added rows, virtual tokens, LoRA adapters,
task heads, modules attached for training, and the rest."""

_TRAINED: dict[Train, tuple[Part, ...]] = {
    "attached": (),
    "prompt": ("prompt",),
    "rows": ("rows",),
    "rows+lora": ("rows", "adapters"),
    "body": ("body", "heads"),
    "all": ("rows", "body", "heads"),
}


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    part: Part
    """The part of the network they belong to."""
    names: tuple[str, ...]
    """The parameters."""
    learning_rate: float | None = None
    """The maximum learning rate; `None` for the run's."""


def original_rows(network: Network) -> dict[str, nn.Parameter | QuantizedMatrix]:
    """Return the parameters with the published rows of embedding and head, by name.

    If the vocabulary has not been extended, these are all its rows.
    """
    parts = _parts(network)
    held: dict[str, nn.Parameter | QuantizedMatrix] = dict(network.named_parameters())
    held |= quantized_matrices(network)
    return {name: rows for name, rows in held.items() if parts.get(id(rows)) == "original"}


def choose_parameters(
    network: Network,
    train: Train,
    *,
    unfreeze_original_rows: bool = False,
    heads: bool = True,
) -> dict[str, nn.Parameter]:
    """Freeze all parameters but those to train, and return these by name.

    Args:
        network: The network, with its adapters and attached modules.
        train: The parameters to train; see `Train`. Attached modules are always trained.
        unfreeze_original_rows: Train the published rows as well.
        heads: Whether the task heads are trained, including rows added to them. They do not affect
            text vectors.

    Raises:
        ConfigError: `train` is unknown, or parameters to train are quantised.
        InputError: There is nothing to train.
    """
    if train not in get_args(Train):
        raise ConfigError(
            f"unknown parameters to train: {train!r}", hint="one of " + ", ".join(get_args(Train))
        )
    wanted: set[Part] = {*_TRAINED[train], "attached"}
    if unfreeze_original_rows:
        wanted.add("original")
    if quantized_matrices(network) and wanted & {"body", "original"}:
        raise ConfigError(
            "quantised weights are frozen and cannot train",
            hint="train rows or rows+lora, or load the model in full precision",
        )
    parts = _parts(network)
    excluded = set() if heads else _head_parameters(network)
    chosen = {}
    for name, parameter in network.named_parameters():
        trains = parts[id(parameter)] in wanted and id(parameter) not in excluded
        parameter.requires_grad_(trains)
        if trains:
            chosen[name] = parameter
    only_attached = all(parts[id(parameter)] == "attached" for parameter in chosen.values())
    if only_attached and train == "prompt":
        raise InputError("this model has no prompt to train", hint="call add_prompt first")
    if only_attached and (train != "attached" or not chosen):
        raise InputError(
            "this model has no added rows to train",
            hint="extend its vocabulary first, or use train='all'",
        )
    return chosen


def parameter_groups(network: Network, learning_rates: Mapping[str, float]) -> list[ParameterGroup]:
    """Group the trainable parameters by the part of the network they belong to.

    Args:
        network: The network, after `choose_parameters`.
        learning_rates: Maximum rate of a part, by its name; other parts use the run's rate.
    """
    parts = _parts(network)
    names: dict[Part, list[str]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            names.setdefault(parts[id(parameter)], []).append(name)
    return [
        ParameterGroup(part, tuple(own), learning_rates.get(part)) for part, own in names.items()
    ]


def row_rate(network: Network) -> float:
    """Return the learning rate if only rows are trained: a fiftieth of the original rows' RMS.

    Adam changes each element by about the rate, so the rate must be proportional to the size of the
    rows. It is rounded to three digits: the last bits of the sum depend on the number of threads,
    and a run resumed with another number must get the same rate.
    """
    rows = network.tokens.weight
    original = rows.original if isinstance(rows, ExtendedRows) else rows
    return min(3e-2, float(f"{whole(original).float().square().mean().sqrt() / 50:.3g}"))


def make_optimizer(
    network: nn.Module,
    *,
    weight_decay: float,
    learning_rates: Mapping[str, float | None] | None = None,
    optimizer: OptimizerName = "adamw",
    beta2: float = 0.95,
) -> RowSparseAdamW | AveragedSGD:
    """Build an optimizer of trainable parameters, without decay on norms, biases and embeddings.

    Args:
        network: The network.
        weight_decay: Decay of the weights of linear layers.
        learning_rates: Maximum rates of single parameters by name. Each group of the optimizer
            stores its rate as `max_learning_rate`; `None` for the run's rate.
        optimizer: Name of the optimizer.
        beta2: AdamW's decay of the mean squared gradient, below 1.
    """
    decayed = {id(parameter) for parameter in _linear_weights(network)}
    rates = learning_rates or {}
    groups: dict[tuple[float | None, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            key = (rates.get(name), id(parameter) in decayed)
            groups.setdefault(key, []).append(parameter)
    described = [
        {
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
            "max_learning_rate": rate,
        }
        for (rate, decays), parameters in groups.items()
    ]
    if optimizer != "adamw":
        return AveragedSGD(described, averages=optimizer == "nt-asgd")
    return RowSparseAdamW(
        described,
        lr=0.0,
        betas=(0.9, beta2),
        eps=1e-8,
        fused=True,
    )


def _parts(network: Network) -> dict[int, Part]:
    """Find the part of each parameter, by its `id`.

    Parameters are found through the modules that own them. A parameter that an attached module
    shares with the network belongs to the network.
    """
    parts: dict[int, Part] = {}
    for one in _networks(network):
        for rows in one.vocabulary_rows().values():
            if isinstance(rows, ExtendedRows):
                parts.setdefault(id(rows.original), "original")
                parts.setdefault(id(rows.added), "rows")
            else:
                parts.setdefault(id(rows), "original")
        if (virtual := prompt_of(one)) is not None:
            for parameter in virtual.parameters():
                parts.setdefault(id(parameter), "prompt")
        own = [module for name, module in one.named_children() if name != "attached"]
        for module in (inner for child in own for inner in child.modules()):
            if isinstance(module, LoraLinear):
                for parameter in module.adapter.values():
                    parts.setdefault(id(parameter), "adapters")
        for head_id in _head_parameters(one):
            parts.setdefault(head_id, "heads")
        for child in own:
            for parameter in child.parameters():
                parts.setdefault(id(parameter), "body")
    for parameter in network.parameters():
        parts.setdefault(id(parameter), "attached")
    return parts


def _head_parameters(network: Network) -> set[int]:
    """Return the `id`s of the parameters of all task heads."""
    heads = (head for one in _networks(network) for head in one.head_modules)
    return {id(parameter) for head in heads for parameter in head.parameters()}


def _networks(network: Network) -> Iterator[Network]:
    """Yield a network and the networks attached to it."""
    return (module for module in network.modules() if isinstance(module, Network))


def _linear_weights(network: nn.Module) -> Iterable[Tensor]:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            yield module.weight
        if isinstance(module, RecurrentLayer):
            yield module.weight_ih
            yield module.weight_hh
        if isinstance(module, LoraLinear):
            yield module.lora_a
            yield module.lora_b
