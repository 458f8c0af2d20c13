"""LoRA adapters in the layout of `peft`, loaded and saved.

Some checkpoints (GPT-2) fuse query, key and value in one tensor, and their adapters have one pair
of matrices for all three. Our three separate adapters are saved as one block-diagonal pair of three
times the rank:

    A = [A_q; A_k; A_v]      B = diag(B_q, B_k, B_v)

The update is the same. When a fused adapter of `peft` is loaded, each of the three layers gets the
shared A and its own part of B. DoRA's magnitudes are one vector for all rows of the fused tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from idiolect.errors import CheckpointError, ConfigError
from idiolect.models.language_model import LanguageModel
from idiolect.models.prompt_files import is_prompt, load_prompt
from idiolect.models.weight_names import WeightSource
from idiolect.nn.basic import Linear
from idiolect.nn.lora import LoraLinear, lora_layers
from idiolect.nn.network import Network
from idiolect.nn.quantized_matrix import whole
from idiolect.text.files import read_json, write_atomic

__all__ = ["load_adapter", "save_adapter"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX, _MAGNITUDE = "base_model.model.", "lora_magnitude_vector"
# Unsupported settings that would change the result, and their values that mean "not used".
_UNUSED: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "lora_bias": (False,),
    "modules_to_save": ([],),
    "trainable_token_indices": ([], {}),
    "use_qalora": (False,),
    "layer_replication": ([],),
    "target_parameters": ([],),
    **dict.fromkeys(("alora_invocation_tokens", "arrow_config", "kasa_config"), ([], {})),
    **dict.fromkeys(("monteclora_config", "use_bdlora"), ({}, False)),
}
_CHANGING = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Initialisations that subtract the first adapter from the base's weights; `peft` repeats this
when it loads such an adapter."""


def save_adapter(model: LanguageModel, directory: str | Path) -> None:
    """Write a model's adapters as `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        ConfigError: The model has no adapters.
    """
    layers = lora_layers(model.network)
    if not layers:
        raise ConfigError("the model has no adapters", hint="call add_lora first")
    first = next(iter(layers.values()))
    table = model.family.names(model.settings)
    groups: dict[str, list[tuple[WeightSource, LoraLinear]]] = {}
    for ours, layer in layers.items():
        source = table.source(f"{ours}.weight")
        groups.setdefault(source.full_name.removesuffix(".weight"), []).append((source, layer))
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for name, parts in groups.items():
        a, b, scale = _join(parts, _sizes(model.network, parts[0][0]))
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = a
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = b
        if parts[0][1].lora_magnitude is not None:
            tensors[f"{_PREFIX}{name}.{_MAGNITUDE}"] = _join_magnitudes(model.network, parts)
        ranks[name] = len(a)
        alphas[name] = scale * (len(a) ** 0.5 if first.use_rslora else len(a))
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": first.use_rslora,
        "use_dora": first.lora_magnitude is not None,
        "lora_dropout": first.dropout,
        "target_modules": list(groups),
        "rank_pattern": {_escape(n): r for n, r in ranks.items() if r != rank},
        "alpha_pattern": {_escape(n): a for n, a in alphas.items() if a != alpha},
        "fan_in_fan_out": any(part.rule.transpose for g in groups.values() for part, _ in g),
        "bias": "none",
        "inference_mode": True,
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / _WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_atomic(directory / _CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def load_adapter(model: LanguageModel, directory: str | Path) -> list[str]:
    """Add a LoRA adapter, prompt or prefix saved by this package or `peft` to a model, in place.

    Returns:
        The names of the adapted layers; none for a prompt.

    Raises:
        CheckpointError: Files are missing or damaged, or an adapter matches no layer of the model.
        ConfigError: The kind of adapter or one of its settings is not supported.
    """
    directory = Path(directory)
    config = read_json(directory / _CONFIG)
    if is_prompt(config):
        load_prompt(model.network, directory)
        return []
    _refuse_unsupported(config)
    try:
        tensors = load_file(directory / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {directory / _WEIGHTS}: {error}") from error
    table = model.family.names(model.settings)
    network = model.network
    adapted, used = {}, set()
    for ours, module in network.named_modules():
        if not isinstance(module, torch.nn.Linear) or ours.startswith("heads."):
            continue
        source = table.source(f"{ours}.weight")
        name = _PREFIX + source.full_name.removesuffix(".weight")
        if f"{name}.lora_A.weight" not in tensors:
            continue
        a, b = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
        magnitude = tensors.get(f"{name}.{_MAGNITUDE}")
        used |= {f"{name}.lora_A.weight", f"{name}.lora_B.weight", f"{name}.{_MAGNITUDE}"}
        sizes = _sizes(network, source)
        if source.parts > 1 and len(b) == sum(sizes):
            b = source.split(b, sizes)
            magnitude = None if magnitude is None else source.split(magnitude, sizes)
        if (b.shape[0], a.shape[1]) != tuple(module.weight.shape):
            raise CheckpointError(
                f"the adapter of {name} is {b.shape[0]}×{a.shape[1]}, but the layer is "
                f"{module.weight.shape[0]}×{module.weight.shape[1]}",
                hint="use an adapter of this model",
            )
        if (magnitude is not None) != bool(config.get("use_dora")):
            raise CheckpointError(
                f"use_dora is {bool(config.get('use_dora'))} and the adapter of {name} has "
                f"{'a' if magnitude is not None else 'no'} magnitude vector",
                hint="fetch both files of the adapter again",
            )
        layer = LoraLinear(
            module,
            rank=len(a),
            lora_alpha=_alpha(name.removeprefix(_PREFIX), config),
            dropout=float(config.get("lora_dropout", 0.0)),
            use_rslora=bool(config.get("use_rslora")),
            use_dora=magnitude is not None,
        )
        layer.lora_a.data.copy_(a)
        layer.lora_b.data.copy_(b)
        if layer.lora_magnitude is not None and magnitude is not None:
            layer.lora_magnitude.data.copy_(magnitude)
        adapted[ours] = layer
    left = set(tensors) - used
    if left:
        raise CheckpointError(
            f"the model has no layer for {sorted(left)[0]}",
            hint="use an adapter of this model",
        )
    for ours, layer in adapted.items():
        parent, _, leaf = ours.rpartition(".")
        setattr(network.get_submodule(parent), leaf, layer)
    return list(adapted)


def _sizes(network: Network, source: WeightSource) -> list[int]:
    """Return the number of rows of each part of a published matrix."""
    layers = (network.get_submodule(name.removesuffix(".weight")) for name in source.names)
    return [layer.out_features for layer in layers if isinstance(layer, torch.nn.Linear)]


def _join(
    parts: list[tuple[WeightSource, LoraLinear]], sizes: list[int]
) -> tuple[Tensor, Tensor, float]:
    """Join the adapters of one published tensor to one pair of matrices and a scale."""
    source, first = parts[0]
    if source.parts == 1:
        return first.lora_a.detach().contiguous(), first.lora_b.detach().contiguous(), first.scale
    by_part = {part.part: layer for part, layer in parts}
    a = torch.cat([layer.lora_a for layer in by_part.values()]).detach()
    blocks = [a.new_zeros(size, len(a)) for size in sizes]
    column = 0
    for part, layer in by_part.items():
        # All parts share one scale; differences between their scales are multiplied into B.
        blocks[part][:, column : column + len(layer.lora_a)] = layer.lora_b.detach() * (
            layer.scale / first.scale
        )
        column += len(layer.lora_a)
    return a, source.join(blocks), first.scale


def _join_magnitudes(network: Network, parts: list[tuple[WeightSource, LoraLinear]]) -> Tensor:
    """Join the DoRA magnitudes for the rows of one published tensor. Shape: (out,)."""
    source = parts[0][0]
    lengths = []
    for name in source.names:
        layer = network.get_submodule(name.removesuffix(".weight"))
        assert isinstance(layer, Linear)
        if isinstance(layer, LoraLinear) and layer.lora_magnitude is not None:
            lengths.append(layer.lora_magnitude.detach())
        else:  # not adapted: its rows keep their norms
            lengths.append(whole(layer.weight).float().norm(dim=1))
    return source.join(lengths) if source.parts > 1 else lengths[0].contiguous()


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise ConfigError(
            f"adapters of the type {config.get('peft_type')!r} are not supported",
            hint="LORA, PROMPT_TUNING and PREFIX_TUNING are",
        )
    refused = [
        key
        for key, unused in _UNUSED.items()
        if config.get(key) is not None and config[key] not in unused
    ]
    if refused:
        raise ConfigError("adapters with " + ", ".join(refused) + " are not supported")
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(_CHANGING):
        raise ConfigError(
            f"adapters with init_lora_weights {start!r} are for a base whose weights it changed",
            hint="convert it: save_pretrained of peft has path_initial_model_for_weight_conversion",
        )


def _alpha(name: str, config: Mapping[str, Any]) -> float:
    # As in `peft`, the first of several patterns that match counts.
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return float(value)
    return float(config.get("lora_alpha", 8))


def _escape(name: str) -> str:
    """Escape a module name, since `peft` interprets the keys as regular expressions."""
    return re.escape(name)
