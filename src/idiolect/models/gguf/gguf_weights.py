"""Read models from GGUF files: configuration, tokenizer and weights in the Hugging Face layout.

`gguf_layouts` maps the metadata of an architecture to the fields of `config.json`. The weight names
come from the tables of the `gguf` package, the storage types from its de-quantisation.

GGUF differs from the published checkpoints in five ways, which are reversed here:

- Llama's query and key rows are permuted for llama.cpp's rotary positions.
- GPT-NeoX's query, key and value rows are in three blocks instead of alternating by head.
- Gemma's norm weights are stored plus one.
- Matrices are always (out, in), also for GPT-2.
- Llama 3's rotary scaling is stored as the factors of its frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from idiolect.errors import CheckpointError, ConfigError
from idiolect.models.gguf.gguf_blocks import GGUFMatrix
from idiolect.models.gguf.gguf_layouts import GGUF_LAYOUTS, GGUFLayout
from idiolect.models.registry import find_family
from idiolect.models.weight_names import Rule
from idiolect.text.tokenizers.gguf.gguf_header import GGUFHeader, TensorEntry, read_gguf_header

__all__ = ["GGUFWeights", "gguf_settings", "stored_names"]

_SPECIAL = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
_ROTARY_FACTORS = "rope_freqs.weight"
_TABLES = ("token_embd.weight", "output.weight")


def gguf_settings(header: GGUFHeader) -> dict[str, Any]:
    """Return the fields of a `config.json` for the model in a GGUF file.

    Raises:
        ConfigError: The architecture, or the scaling of positions, is not supported.
        CheckpointError: A value is missing or has the wrong type.
    """
    layout = _layout(header)
    if _TABLES[0] not in header.tensors:
        raise CheckpointError(f"{header.path} holds no weights", hint="use the whole model's file")
    settings: dict[str, Any] = {
        "model_type": layout.model_type,
        "architectures": [layout.architecture],
        "vocab_size": header.tensors[_TABLES[0]].shape[0],
        "tie_word_embeddings": _TABLES[1] not in header.tensors,
        **layout.constants,
    }
    for key, name in layout.fields.items():
        value = _value(header, f"{_architecture(header)}.{key}", (int, float))
        if value is not None:
            settings[name] = value
    for key, name in layout.flags.items():
        value = header.metadata.get(f"{_architecture(header)}.{key}")
        if isinstance(value, bool):
            settings[name] = value
    if layout.complete is not None:
        layout.complete(settings)
    for role, name in _SPECIAL.items():
        id_ = _value(header, f"tokenizer.ggml.{role}_token_id", (int,))
        if id_ is not None and id_ < settings["vocab_size"]:
            settings[name] = id_
    if scaling := _rotary_scaling(header):
        settings["rope_scaling"] = scaling
    return settings


def _architecture(header: GGUFHeader) -> str:
    """Return the file's architecture, which is also the prefix of its keys."""
    return str(header.metadata.get("general.architecture"))


def _layout(header: GGUFHeader) -> GGUFLayout:
    name = _architecture(header)
    if name not in GGUF_LAYOUTS:
        raise ConfigError(
            f"GGUF models of the architecture {name!r} are not supported",
            hint=f"supported: {', '.join(GGUF_LAYOUTS)}; or use the checkpoint in safetensors",
        )
    return GGUF_LAYOUTS[name]


def _value(header: GGUFHeader, key: str, types: tuple[type, ...]) -> Any:
    value = header.metadata.get(key)
    if value is None:
        return None
    if not isinstance(value, types) or isinstance(value, bool):
        raise CheckpointError(f"{header.path}: {key} is {value!r}", hint="fetch the file again")
    return value


def _rotary_scaling(header: GGUFHeader) -> dict[str, Any] | None:
    """Return `rope_scaling` of `config.json`; None without scaling."""
    prefix = f"{_architecture(header)}.rope.scaling"
    kind = header.metadata.get(f"{prefix}.type", "none")
    factor = _value(header, f"{prefix}.factor", (int, float))
    trained = _value(header, f"{prefix}.original_context_length", (int,))
    if kind in ("linear", "yarn") and factor is not None:
        scaling = {"rope_type": kind, "factor": factor}
        return scaling | ({"original_max_position_embeddings": trained} if trained else {})
    if kind != "none":
        raise ConfigError(f"rotary scaling {kind!r} of GGUF files is not supported")
    if _ROTARY_FACTORS not in header.tensors:
        return None
    return _llama3_scaling(header, GGUFWeights(header).read(_ROTARY_FACTORS))


def _llama3_scaling(header: GGUFHeader, factors: Tensor) -> dict[str, Any]:
    """Find the parameters of Llama 3's scaling that result in the factors in the file.

    All published models interpolate the frequencies between 1 and 4 turns per 8,192 positions.
    """
    scaling: dict[str, Any] = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    theta = _value(header, f"{_architecture(header)}.rope.freq_base", (int, float)) or 10_000.0
    exponents = torch.arange(len(factors), dtype=torch.float64) / len(factors)
    wavelengths = 2 * math.pi * theta**exponents
    smooth = ((8192 / wavelengths) - 1.0) / 3.0
    stretched = 1 / ((1 - smooth) / scaling["factor"] + smooth)
    expected = torch.where(
        wavelengths < 8192 / 4, 1.0, torch.where(wavelengths > 8192, scaling["factor"], stretched)
    )
    if not torch.allclose(expected.float(), factors, rtol=1e-3):
        raise ConfigError(
            f"{header.path} scales rotary positions by unknown factors",
            hint="use the checkpoint in safetensors",
        )
    return scaling


class GGUFWeights:
    """The tensors of a GGUF file under their published names, as float32, read on access.

    Args:
        header: The file's header.

    Raises:
        CheckpointError: A tensor lies outside the file.
        ConfigError: A storage type is not supported; the message names it.
    """

    def __init__(self, header: GGUFHeader) -> None:
        self._header = header
        self._data = numpy.memmap(header.path, mode="r")
        self._layout = _layout(header)
        self._sizes = {name: _stored_bytes(name, header) for name in header.tensors}
        self._names = self._published_names()

    @classmethod
    def open(cls, path: Path) -> GGUFWeights:
        """Open the weights of a file."""
        return cls(read_gguf_header(path))

    @property
    def names(self) -> list[str]:
        """The published names; a tensor without one keeps its name in the file."""
        return list(self._names)

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor in the form of the published checkpoint."""
        stored, rule = self._names[name]
        tensor = self._in_published_order(self.read(stored), stored, rule)
        if self._layout.norm_offset and stored.endswith("norm.weight"):
            tensor = tensor - self._layout.norm_offset
        if rule is not None and rule.transpose and tensor.dim() == 2:
            tensor = tensor.t()
        return tensor

    def blocks(self, name: str, take: Callable[[Tensor], Tensor]) -> GGUFMatrix | None:
        """Return a matrix in the blocks of the file; `None` if it is not stored in blocks.

        Its shape is (out, in), even if the published one is transposed.

        Args:
            name: The published name.
            take: Selects rows from the bytes of all rows.
        """
        import gguf

        stored, rule = self._names[name]
        entry = self._header.tensors[stored]
        kind = gguf.GGMLQuantizationType(entry.type)
        if len(entry.shape) != 2 or gguf.GGML_QUANT_SIZES[kind][0] == 1:
            return None
        rows = torch.tensor(self._rows(stored))
        rows = take(self._in_published_order(rows, stored, rule)).contiguous()
        return GGUFMatrix(rows, entry.shape[1], kind.name)

    def read(self, stored: str) -> Tensor:
        """De-quantise a tensor by its name in the file."""
        import gguf

        entry = self._header.tensors[stored]
        values = gguf.dequantize(self._rows(stored), gguf.GGMLQuantizationType(entry.type))
        # Torch's own memory is in huge pages, see `idiolect/__init__.py`.
        return torch.tensor(values, dtype=torch.float32).reshape(entry.shape)

    def _rows(self, stored: str) -> numpy.ndarray[Any, Any]:
        """Return the bytes of a tensor, in rows, as a view of the file."""
        entry = self._header.tensors[stored]
        raw = self._data[entry.offset : entry.offset + self._sizes[stored]]
        return raw.reshape(*entry.shape[:-1], -1)

    def _in_published_order(self, rows: Tensor, stored: str, rule: Rule | None) -> Tensor:
        """Return rows, or their bytes, in the order of the published checkpoint."""
        if self._layout.permutes(stored):
            rows = _unpermute(rows, self._heads(".attn_k." in stored))
        if rule is not None and rule.per_head:
            rows = _alternate(rows, len(rule.ours), self._heads(False))
        return rows

    def _heads(self, key: bool) -> int:
        prefix = f"{_architecture(self._header)}.attention.head_count"
        heads = _value(self._header, prefix, (int,))
        shared = _value(self._header, f"{prefix}_kv", (int,)) if key else None
        count = shared or heads
        if not count:
            raise CheckpointError(
                f"{self._header.path} does not hold the number of attention heads",
                hint="fetch the file again",
            )
        return int(count)

    def _published_names(self) -> dict[str, tuple[str, Rule | None]]:
        """Map published names to those in the file."""
        header = self._header
        blocks = _value(header, f"{_architecture(header)}.block_count", (int,)) or 0
        if blocks > len(header.tensors):
            raise CheckpointError(f"{header.path} holds fewer layers than it says")
        published: dict[str, tuple[str, Rule | None]] = {
            name: (stored, rule)
            for name, (stored, rule) in stored_names(_architecture(header), blocks).items()
            if stored in header.tensors
        }
        known = {stored for stored, _ in published.values()} | {_ROTARY_FACTORS}
        published |= {name: (name, None) for name in header.tensors if name not in known}
        return published


def stored_names(architecture: str, blocks: int) -> dict[str, tuple[str, Rule]]:
    """Map published names to those in GGUF files, by the tables of the `gguf` package.

    Args:
        architecture: Name of a layout.
        blocks: Number of layers.
    """
    import gguf

    layout = GGUF_LAYOUTS[architecture]
    family = find_family({"model_type": layout.model_type})
    kind = family.architectures[layout.architecture]
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(numbers[architecture], blocks)
    stored = {}
    for rule in (*family.rules, *kind.rules):
        for theirs in _expand(rule.theirs, blocks):
            full = theirs if rule.bare else kind.prefix + theirs
            found = names.get_name(full, try_suffixes=(".weight", ".bias"))
            if found is not None:
                stored[full] = (found, rule)
    return stored


def _expand(template: str, blocks: int) -> list[str]:
    kinds = ("weight", "bias") if "*" in template else ("",)
    numbers = range(blocks) if "{n}" in template else (0,)
    return [template.replace("{n}", str(n)).replace("*", kind) for n in numbers for kind in kinds]


def _stored_bytes(name: str, header: GGUFHeader) -> int:
    """Return the size of a tensor in the file, after checking that the file holds it."""
    import gguf

    entry: TensorEntry = header.tensors[name]
    try:
        kind = gguf.GGMLQuantizationType(entry.type)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        gguf.dequantize(numpy.zeros((1, size), dtype=numpy.uint8), kind)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ConfigError(
            f"{header.path}: {name} is stored in the unsupported type {_type_name(entry.type)}",
            hint="use a file in F32, F16, BF16, Q8_0, Q4, Q5 or a K-quantisation",
        ) from error
    if entry.shape[-1] % block:
        raise CheckpointError(f"{header.path}: the rows of {name} are no whole blocks of {block}")
    total = math.prod(entry.shape) // block * size
    if entry.offset + total > header.size:
        raise CheckpointError(
            f"{header.path} is truncated: {name} ends at byte {entry.offset + total:,} of "
            f"{header.size:,}",
            hint="fetch it again",
        )
    return total


def _type_name(number: int) -> str:
    import gguf

    try:
        return gguf.GGMLQuantizationType(number).name
    except ValueError:
        return str(number)


def _unpermute(tensor: Tensor, heads: int) -> Tensor:
    """Return query or key rows to the published order: halves of a head instead of pairs."""
    shape = tensor.shape
    if shape[0] % (2 * heads):
        raise CheckpointError(f"{shape[0]} rows cannot belong to {heads} heads")
    pairs = tensor.reshape(heads, shape[0] // heads // 2, 2, *shape[1:])
    return pairs.swapaxes(1, 2).reshape(shape)


def _alternate(tensor: Tensor, parts: int, heads: int) -> Tensor:
    """Return fused rows to the published order: all parts of a head, head by head."""
    if tensor.shape[0] % (parts * heads):
        raise CheckpointError(f"{tensor.shape[0]} rows cannot belong to {heads} heads")
    rows = tensor.reshape(parts, heads, -1, *tensor.shape[1:])
    return rows.swapaxes(0, 1).reshape(tensor.shape)
