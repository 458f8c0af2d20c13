"""Which weights train, and the AdamW that moves them.

What does not train is not given to the optimizer at all: no decay and no momentum can move it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError, InputError
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.lora import LoraLinear
from idiolect.nn.transformer import Transformer

__all__ = ["Train", "choose_parameters", "make_optimizer", "original_rows", "row_rate"]

Train = Literal["rows", "rows+lora", "body", "all"]
"""What trains: the added rows; these and adapters; everything but the vocabulary's rows; everything
but the original rows."""


def original_rows(network: Transformer) -> dict[str, nn.Parameter]:
    """Return the parameters that hold the published rows of embedding and head.

    In a vocabulary that has not grown, that is all of them.
    """
    rows = network.vocabulary_rows()
    names = {*rows, *(f"{name}.original" for name in rows)}
    return {name: p for name, p in network.named_parameters() if name in names}


def choose_parameters(
    network: Transformer, train: Train, *, unfreeze_original_rows: bool = False
) -> dict[str, nn.Parameter]:
    """Freeze a network but for what is to train, and return that.

    Args:
        network: The network; adapters are attached before.
        train: What trains.
        unfreeze_original_rows: Train the published rows as well.

    Raises:
        InputError: There is nothing to train.
    """
    if train not in get_args(Train):
        raise ConfigError(f"train={train!r}", hint="one of " + ", ".join(get_args(Train)))
    original = original_rows(network)
    added = {f"{name}.added" for name in network.vocabulary_rows()}
    chosen = {}
    for name, parameter in network.named_parameters():
        if name in original:
            wanted = unfreeze_original_rows
        elif name in added:
            wanted = train != "body"
        elif "lora_" in name:
            wanted = train == "rows+lora"
        else:
            wanted = train in ("body", "all")
        parameter.requires_grad_(wanted)
        if wanted:
            chosen[name] = parameter
    if not chosen:
        raise InputError(
            f"train={train!r}: this model has no added rows",
            hint='extend its vocabulary first, or choose train="all"',
        )
    return chosen


def row_rate(network: Transformer) -> float:
    """Return the learning rate for rows that train alone: a fiftieth of the size of the old ones.

    Adam moves a number by the rate, so what suits rows of 0.3 takes those of 0.02 apart.
    """
    rows = network.tokens.weight
    original = rows.original if isinstance(rows, ExtendedRows) else rows
    return min(3e-2, float(original.detach().float().square().mean().sqrt()) / 50)


def make_optimizer(network: nn.Module, *, weight_decay: float) -> torch.optim.AdamW:
    """Build AdamW over what trains, without decay on norms, biases and embeddings."""
    decayed = {id(p) for p in _linear_weights(network)}
    training = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in training if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in training if id(p) not in decayed], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8, fused=True)


def _linear_weights(network: nn.Module) -> Iterable[Tensor]:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            yield module.weight
        if isinstance(module, LoraLinear):
            yield module.lora_a
            yield module.lora_b
