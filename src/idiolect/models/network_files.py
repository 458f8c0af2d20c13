"""Load a network from a checkpoint and export it; check names, shapes and tied copies.

All problems of a checkpoint are reported in one error.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from idiolect.errors import CheckpointError
from idiolect.models.family import Family
from idiolect.models.gguf.gguf_blocks import recovered_blocks
from idiolect.models.quantized_weights import (
    TABLES,
    Quantization,
    check_kept,
    formats,
    place_weights,
)
from idiolect.models.registry import find_family
from idiolect.models.weight_files import open_weights
from idiolect.models.weight_names import NameTable, WeightSource, matches
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.heads import make_head
from idiolect.nn.lora import lora_layers
from idiolect.nn.network import Network
from idiolect.nn.quantization import quantized
from idiolect.nn.quantized_matrix import QuantizedMatrix, quantized_matrices, whole
from idiolect.nn.shapes_only import shapes_only

__all__ = [
    "Tensors",
    "build_network",
    "export_weights",
    "held_class",
    "read_network",
]

_HEAD = "heads.language.weight"
_LOG = logging.getLogger(__name__)


class Tensors(Protocol):
    """The tensors of a checkpoint by their published names."""

    @property
    def names(self) -> list[str]:
        """The names of all tensors."""

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor."""

    def blocks(self, name: str, take: Callable[[Tensor], Tensor]) -> QuantizedMatrix | None:
        """Return some rows of a matrix in its stored quantised blocks; None if it has none."""


def read_network(
    directory: Path, settings: Mapping[str, Any], *, dtype: torch.dtype | None = None
) -> Network:
    """Build the network of a `config.json` and load the weights in its directory.

    See `build_network` for the arguments and the errors.
    """
    return build_network(open_weights(directory), settings, source=directory, dtype=dtype)


def build_network(
    weights: Tensors,
    settings: Mapping[str, Any],
    *,
    source: Path,
    dtype: torch.dtype | None = None,
    quantization: Quantization | None = None,
) -> Network:
    """Build the network of a `config.json` and load its weights.

    Args:
        weights: The checkpoint's tensors.
        settings: The fields of `config.json`.
        source: The directory or file of the checkpoint, for messages.
        dtype: Dtype of the weights; by default that of the files.
        quantization: Quantise the matrices of the layers; see `Quantization`. They are converted
            one by one, so memory never contains all of them in full precision.

    Raises:
        ConfigError: Unsupported fields would change the result, or there are no blocks to keep.
        CheckpointError: Weights are missing, unexpected or of a wrong shape, or tied copies
            differ; the message lists all of them.
    """
    family = find_family(settings)
    table = family.names(settings)
    stored = _stored_names(weights, family)
    config = _resolve_tying(family.config(settings), family, table, weights, stored)
    # Our matrices may be parts of published ones, which fuse at most three of ours.
    with shapes_only(most=1_000 + 8 * len(stored)):
        network = family.network(config)

    wanted = {ours: tensor.shape for ours, tensor in network.state_dict().items()}
    sources = {ours: table.source(ours) for ours in wanted}
    found = {
        ours: stored.get(source.name) or _stored_copy(ours, family, stored)
        for ours, source in sources.items()
    }
    held, problems = _read_all(
        weights,
        found,
        sources,
        wanted,
        formats(network, quantization),
        # The rows of a static model may be 8-bit integers; the token weights include their scale.
        integers=(torch.int8,) if network.context_free else (),
    )
    expected = {source.name for source in sources.values()}
    _refuse(
        source,
        {
            "missing": [sources[ours].full_name for ours, name in found.items() if name is None],
            **problems,
            "unexpected": [
                name
                for bare, name in stored.items()
                if bare not in expected and not _known_name(bare, family)
            ],
            "copies that differ": [
                f"{stored[alias]} and {found[ours]}"
                for alias, ours in family.aliases.items()
                if alias in stored
                and alias not in expected
                and ours in held
                and not _equal(whole(held[ours]), weights[stored[alias]])
            ],
        },
    )
    if dtype is None:
        # All weights get the most precise dtype found in the files.
        dtype = reduce(torch.promote_types, (one.dtype for one in held.values()))
        dtype = dtype if dtype.is_floating_point else torch.float32
    place_weights(network, {ours: one.to(dtype) for ours, one in held.items()})
    if quantization == "keep":
        check_kept(network, source)
    return network.eval()


def _read_all(
    weights: Tensors,
    found: Mapping[str, str | None],
    sources: Mapping[str, WeightSource],
    wanted: Mapping[str, torch.Size],
    quantized_as: Mapping[str, Quantization],
    integers: Collection[torch.dtype],
) -> tuple[dict[str, Tensor | QuantizedMatrix], dict[str, list[str]]]:
    """Read the network's weights by our names, and list those that do not match, by problem."""
    held: dict[str, Tensor | QuantizedMatrix] = {}
    wrong, whole_numbers = [], []
    for ours, name in found.items():
        if name is None:
            continue
        source, how = sources[ours], quantized_as.get(ours)
        sizes = [wanted[part][0] for part in source.names]
        if how == "keep":
            take = partial(source.split, sizes=sizes) if source.parts > 1 else _all_rows
            matrix = weights.blocks(name, take)
            if matrix is not None and matrix.shape == wanted[ours]:
                held[ours] = matrix
                continue
        tensor, shape = weights[name], source.stored_shape(wanted)
        if tensor.shape != shape:
            wrong.append(f"{name} is {_shape(tensor.shape)}, not {_shape(shape)}")
        elif not tensor.is_floating_point() and tensor.dtype not in integers:
            whole_numbers.append(name)
        else:
            exact = source.extract(tensor, sizes)
            if how == "keep":  # vocabulary rows are handled later, once added rows are separated
                held[ours] = exact if ours in TABLES else recovered_blocks(exact) or exact
            else:
                held[ours] = exact if how is None else quantized(exact, how)
    return held, {"wrong shape": wrong, "integers instead of weights": whole_numbers}


def _all_rows(rows: Tensor) -> Tensor:
    return rows


def held_class(weights: Tensors, settings: Mapping[str, Any], *, source: Path) -> dict[str, Any]:
    """Return the settings with the model class that matches the checkpoint's weights.

    Published encoders often name the class they were pre-trained with, but lack the weights of its
    head. Then the class without a head is used, with a warning.

    Args:
        weights: The checkpoint's tensors.
        settings: The fields of `config.json`.
        source: The directory or file of the checkpoint, for the warning.

    Raises:
        ConfigError: Unsupported fields would change the result.
    """
    family = find_family(settings)
    name, architecture = family.architecture(settings)
    body = next((other for other, a in family.architectures.items() if not a.tasks), None)
    if body is None or not architecture.tasks or family.head_may_be_absent:
        return dict(settings)
    config, table = family.config(settings), family.names(settings)
    with shapes_only():
        heads = nn.ModuleDict({task: make_head(task, config) for task in architecture.tasks})
    own = [table.source(f"heads.{ours}").name for ours in heads.state_dict()]
    stored = _stored_names(weights, family)
    if not own or any(theirs in stored for theirs in own):
        return dict(settings)
    _LOG.warning(
        "%s names the class %s and does not hold its head (%s); loaded as %s",
        *(source, name, _list_names(own), body),
    )
    return {**settings, "architectures": [body]}


def _refuse(source: Path, problems: Mapping[str, list[str]]) -> None:
    """Raise one error with the names of all tensors that do not match, if there are any."""
    found = [
        f"{kind}: {_list_names(list(dict.fromkeys(names)))}"
        for kind, names in problems.items()
        if names
    ]
    if found:
        raise CheckpointError(
            f"the weights in {source} do not fit its configuration: " + "; ".join(found),
            hint="use files of one model",
        )


def export_weights(network: Network, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the network's weights under the published names.

    Added vocabulary rows are concatenated with the original ones, and adapters are merged. Virtual
    tokens are not exported; see `prompt_files`.
    """
    table = find_family(settings).names(settings)
    fused: dict[str, list[tuple[WeightSource, Tensor]]] = {}
    for ours, tensor in _joined(network).items():
        source = table.source(ours)
        fused.setdefault(source.full_name, []).append((source, tensor.detach().cpu()))
    exported = {}
    for name, parts in fused.items():
        parts.sort(key=lambda part: part[0].part)
        exported[name] = parts[0][0].combine([tensor for _, tensor in parts])
    return exported


def _joined(network: Network) -> dict[str, Tensor]:
    """Return the network's state with joined vocabulary rows and merged adapters.

    The network itself is unchanged.
    """
    state: dict[str, Tensor] = network.state_dict()
    joined = {
        name: rows.joined()
        for name, rows in network.vocabulary_rows().items()
        if isinstance(rows, ExtendedRows)
    }
    adapted = lora_layers(network)
    inside = {f"{name}." for name in (*joined, *quantized_matrices(network))}
    inside |= {f"{name}.lora_" for name in adapted} | {"prompt."}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(tuple(inside))}
    for name, matrix in quantized_matrices(network).items():
        owner = name.removesuffix(".weight")
        if owner not in adapted and name.removesuffix(".original") not in joined:
            state[name] = whole(matrix)
    state |= {f"{name}.weight": layer.merged() for name, layer in adapted.items()}
    return state | joined


def _stored_names(weights: Tensors, family: Family) -> dict[str, str]:
    """Map each name without prefix to its name in the files.

    Prefixes vary: the config of the published `gpt2` names the class with a head, but its weights
    lack that class's prefix. Before 2019, norm weights were called gamma and beta, as in
    TensorFlow.
    """
    prefixes = {a.prefix for a in family.architectures.values() if a.prefix}
    stored = {}
    for name in weights.names:
        bare = next((name.removeprefix(p) for p in prefixes if name.startswith(p)), name)
        stored[re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", bare))] = name
    return stored


def _resolve_tying(
    config: Any,
    family: Family,
    table: NameTable,
    weights: Tensors,
    stored: Mapping[str, str],
) -> Any:
    """Determine from the stored weights whether the language-model head is tied.

    If config.json says "tied" but the files contain a different head, that head is kept.
    """
    if "language" not in config.tasks:
        return config
    head = stored.get(table.source(_HEAD).name)
    if head is None and not config.tie_word_embeddings and family.head_may_be_absent:
        return replace(config, tie_word_embeddings=True)
    tokens = stored.get(table.source("tokens.weight").name)
    if config.tie_word_embeddings and head is not None and tokens is not None:
        return replace(config, tie_word_embeddings=_equal(weights[head], weights[tokens]))
    return config


def _stored_copy(ours: str, family: Family, stored: Mapping[str, str]) -> str | None:
    """Find the name of a tied copy that is stored instead of the weight itself."""
    if ours == _HEAD:
        return None
    copies = (stored.get(alias) for alias, copied in family.aliases.items() if copied == ours)
    return next((name for name in copies if name is not None), None)


def _known_name(bare: str, family: Family) -> bool:
    """Return whether an unused tensor is one that the family lists as not needed."""
    if bare in family.aliases or any(re.fullmatch(pattern, bare) for pattern in family.ignored):
        return True
    rules = (rule for other in family.architectures.values() for rule in other.rules)
    return any(matches(rule.theirs, bare) for rule in rules)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Compare copies in the less precise of their dtypes."""
    if torch.promote_types(one.dtype, other.dtype) == one.dtype:
        return torch.equal(one.to(other.dtype), other)
    return torch.equal(one, other.to(one.dtype))


def _shape(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "a number"


def _list_names(names: list[str], count: int = 8) -> str:
    rest = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + rest
