"""Learnt prompts and prefixes in the layout of `peft`, loaded and saved.

`adapter_model.safetensors` contains one tensor, `prompt_embeddings`, with a row for each virtual
token: for a prompt, its embedding; for a prefix, the keys and values of the first layer, then those
of the second, and so on. If a prefix was reparameterised by a small network, only the network's
output is saved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from idiolect.errors import CheckpointError, ConfigError
from idiolect.nn.network import Network
from idiolect.nn.prompt.attach_prompt import prompt_of, set_prompt
from idiolect.nn.prompt.virtual_tokens import PrefixTokens
from idiolect.text.files import read_json, write_atomic

__all__ = ["PROMPT_CONFIG", "is_prompt", "load_prompt", "prompted_base", "save_prompt"]

PROMPT_CONFIG = "adapter_config.json"
"""The file with the type of a prompt and its base model."""

_WEIGHTS, _TENSOR = "adapter_model.safetensors", "prompt_embeddings"
_KINDS = {"PROMPT_TUNING": False, "PREFIX_TUNING": True}
"""The `peft_type` of each supported kind, and whether it is a prefix."""


def is_prompt(config: Mapping[str, Any]) -> bool:
    """Return whether an `adapter_config.json` describes a learnt prompt or prefix."""
    return config.get("peft_type") in _KINDS


def prompted_base(directory: Path) -> str | None:
    """Return the base model of a directory that contains only a prompt; None for other directories.

    Raises:
        CheckpointError: The prompt does not state its base model.
    """
    path = directory / PROMPT_CONFIG
    if not path.is_file() or (directory / "config.json").exists():
        return None
    config = read_json(path)
    if not is_prompt(config):
        return None
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(
            f"{path} does not name the base model",
            hint="load the base model, and then the prompt with load_prompt",
        )
    return base


def save_prompt(network: Network, directory: str | Path, *, base: str = "") -> None:
    """Write a network's virtual tokens as `adapter_config.json` and `adapter_model.safetensors`.

    Args:
        network: A network with virtual tokens.
        directory: Where to write.
        base: Name or directory of the base model, for `LanguageModel.load` and `peft`.

    Raises:
        ConfigError: The network has no virtual tokens.
    """
    virtual = prompt_of(network)
    if virtual is None:
        raise ConfigError("the model has no prompt", hint="call add_prompt first")
    table = virtual.table().detach().cpu().contiguous()
    config: dict[str, Any] = {
        "base_model_name_or_path": base or None,
        "inference_mode": True,
        "num_attention_heads": network.config.num_attention_heads,
        "num_layers": len(network.blocks),
        "num_transformer_submodules": 1,
        "num_virtual_tokens": virtual.count,
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "task_type": "CAUSAL_LM" if network.kind == "causal" else "FEATURE_EXTRACTION",
        "token_dim": table.shape[1],
    }
    if isinstance(virtual, PrefixTokens):
        del config["prompt_tuning_init"]
        width = table.shape[1] // (2 * virtual.depth)
        config |= {
            "encoder_hidden_size": width,
            "num_attention_heads": virtual.key_heads,
            "peft_type": "PREFIX_TUNING",
            "prefix_projection": False,
            "token_dim": width,
        }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / _WEIGHTS, save({_TENSOR: table}, metadata={"format": "pt"}))
    text = json.dumps(config, indent=2, sort_keys=True)
    write_atomic(directory / PROMPT_CONFIG, f"{text}\n".encode())


def load_prompt(network: Network, directory: str | Path) -> None:
    """Load virtual tokens saved by `save_prompt` or `peft` into a network, replacing its own.

    Raises:
        CheckpointError: Files are missing or damaged.
        ConfigError: The files are not a prompt or prefix, or belong to another model.
    """
    directory = Path(directory)
    config = read_json(directory / PROMPT_CONFIG)
    if not is_prompt(config):
        raise ConfigError(
            f"{directory} holds an adapter of the type {config.get('peft_type')!r}",
            hint="prompts are " + " and ".join(_KINDS),
        )
    if (config.get("num_transformer_submodules") or 1) != 1:
        raise ConfigError(
            f"the prompt in {directory} is for an encoder-decoder", hint="only others are supported"
        )
    try:
        tensors = load_file(directory / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {directory / _WEIGHTS}: {error}") from error
    if set(tensors) != {_TENSOR}:
        raise CheckpointError(
            f"{directory / _WEIGHTS} holds {', '.join(sorted(tensors)[:4]) or 'nothing'}",
            hint=f"expected {_TENSOR} alone",
        )
    set_prompt(network, tensors[_TENSOR], prefix=_KINDS[config["peft_type"]])
