"""Write a language model as one GGUF file, for llama.cpp and the programs built on it.

It is the inverse of `gguf_weights`. The file is read back before it gets its final name: the
configuration and token ids must equal those of the model, and the weights too, except for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy
import torch
from torch import Tensor

from idiolect.errors import ConfigError, InputError, VerificationError
from idiolect.models.gguf.gguf_layouts import GGUF_LAYOUTS, REAL_NUMBERS, GGUFLayout
from idiolect.models.gguf.gguf_weights import GGUFWeights, gguf_settings, stored_names
from idiolect.models.language_model import LanguageModel
from idiolect.models.network_files import export_weights
from idiolect.models.weight_names import Rule
from idiolect.text.files import replacing_file
from idiolect.text.tokenizers.gguf import gguf_vocabulary
from idiolect.text.tokenizers.gguf.gguf_header import read_gguf_header
from idiolect.text.tokenizers.gguf.gguf_metadata import gguf_metadata

__all__ = ["GGUFPrecision", "export_gguf"]

GGUFPrecision = Literal["f32", "f16", "q8_0"]
"""Storage types of matrices; norms and biases are always float32."""
_SAMPLE = "The quick brown fox, 12 jumps over\n\tthe lazy dog's café: naïve 日本語."
_TOLERANCE = {"f32": 0.0, "f16": 1e-3, "q8_0": 1e-2}
"""Maximum error of a weight, relative to the largest absolute weight of its tensor."""


def export_gguf(
    model: LanguageModel, path: str | Path, *, precision: GGUFPrecision = "f16"
) -> None:
    """Write a model as a GGUF file, atomically.

    Adapters are merged, and added vocabulary rows are joined with the original ones.

    Args:
        model: A decoder of a family that llama.cpp supports, with a byte-level BPE tokenizer.
        path: The file.
        precision: Storage type of matrices; Q8_0 takes 8.5 bits per weight.

    Raises:
        ConfigError: llama.cpp has no such architecture, or would tokenize differently (for example
            new tokens added by `exact`); or the precision is unknown.
        InputError: The file cannot be written.
        VerificationError: The file, when read back, differs from the model.
    """
    if precision not in get_args(GGUFPrecision):
        raise ConfigError(f"unknown precision {precision!r}", hint="f32, f16 or q8_0")
    name, layout = _layout(model)
    if model.settings.get("rope_scaling"):
        raise ConfigError(
            "models with scaled rotary positions cannot be exported",
            hint="save the model in safetensors, and convert it with llama.cpp's own script",
        )
    fields = _fields(model, name, layout)
    fields |= gguf_metadata(model.tokenizer, model.network.config.vocab_size)
    tensors = _tensors(model, name, layout)
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} is a folder", hint="name a file, such as model.gguf")
    with replacing_file(target) as fresh:
        _write(fresh, name, fields, tensors, precision)
        _verify(model, fresh, tensors, _TOLERANCE[precision])


def _layout(model: LanguageModel) -> tuple[str, GGUFLayout]:
    """Return the name and layout of the GGUF architecture for a model."""
    kind = model.settings.get("model_type")
    architecture, _ = model.family.architecture(model.settings)
    for name, layout in GGUF_LAYOUTS.items():
        if (layout.model_type, layout.architecture) == (kind, architecture):
            return name, layout
    known = sorted({layout.architecture for layout in GGUF_LAYOUTS.values()})
    raise ConfigError(
        f"{architecture} cannot be exported to GGUF", hint=f"supported: {', '.join(known)}"
    )


def _fields(model: LanguageModel, name: str, layout: GGUFLayout) -> dict[str, Any]:
    """Return the metadata of the network."""
    settings, config = model.settings, model.network.config
    # Fields that are missing in `config.json`, because the family has a default.
    defaults = {
        "n_inner": config.intermediate_size,
        "rope_theta": config.rope_theta,
        "rotary_size": config.rotary_size,
        "n_positions": config.max_position_embeddings,
        "use_parallel_residual": config.parallel_residual,
        **dict.fromkeys(
            ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_eps"), config.norm_eps
        ),
    }
    # Not named after the architecture: llama.cpp expects models named phi3 to have certain tokens.
    fields: dict[str, Any] = {"general.architecture": name, "general.name": "idiolect"}
    for key, field in {**layout.fields, **layout.flags}.items():
        value = settings.get(field)
        value = defaults.get(field) if value is None else value
        if value is not None:
            # llama.cpp refuses a file whose types differ from its own, and JSON may have 10000.
            fields[f"{name}.{key}"] = float(value) if key in REAL_NUMBERS else value
    if config.position == "rotary":
        fields[f"{name}.rope.dimension_count"] = config.rotary_size
    if f"{name}.attention.key_length" in fields:
        fields[f"{name}.attention.value_length"] = fields[f"{name}.attention.key_length"]
    fields[f"{name}.vocab_size"] = config.vocab_size
    return fields


def _tensors(model: LanguageModel, name: str, layout: GGUFLayout) -> dict[str, Tensor]:
    """Return the weights by their names in the file, with rows in the file's order."""
    config = model.network.config
    names = stored_names(name, config.num_decoder_layers or config.num_encoder_layers)
    heads = config.num_attention_heads
    shared = config.num_key_value_heads or heads
    found = {}
    for published, tensor in export_weights(model.network, model.settings).items():
        if published not in names:
            raise ConfigError(f"GGUF has no place for the weights {published}")
        stored, rule = names[published]
        found[stored] = _stored(
            tensor.float(), stored, rule, layout, heads, shared if ".attn_k." in stored else heads
        )
    return found


def _stored(
    tensor: Tensor, stored: str, rule: Rule, layout: GGUFLayout, heads: int, own_heads: int
) -> Tensor:
    """Convert a published tensor to GGUF's form; see `gguf_weights` for the five differences."""
    if rule.transpose and tensor.dim() == 2:
        tensor = tensor.t()
    if layout.norm_offset and stored.endswith("norm.weight"):
        tensor = tensor + layout.norm_offset
    if rule.per_head:
        parts = tensor.reshape(heads, len(rule.ours), -1, *tensor.shape[1:])
        tensor = parts.swapaxes(0, 1).reshape(tensor.shape)
    if layout.permutes(stored):
        halves = tensor.reshape(own_heads, 2, tensor.shape[0] // own_heads // 2, *tensor.shape[1:])
        tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
    return tensor.contiguous()


def _write(
    path: Path,
    architecture: str,
    fields: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    precision: GGUFPrecision,
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    for key, value in fields.items():
        if key == "general.architecture":
            continue  # already written by the writer
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    kinds = gguf.GGMLQuantizationType
    kind = {"f32": kinds.F32, "f16": kinds.F16, "q8_0": kinds.Q8_0}[precision]
    for name, tensor in tensors.items():
        values = tensor.cpu().numpy()
        if values.ndim < 2 or kind == kinds.F32:
            writer.add_tensor(name, values)
        elif kind == kinds.Q8_0 and values.shape[-1] % 32 == 0:
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values.astype(numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _verify(
    model: LanguageModel, path: Path, tensors: Mapping[str, Tensor], tolerance: float
) -> None:
    """Check that the file, when read back, equals the model."""
    header = read_gguf_header(path)
    config = model.family.config(gguf_settings(header))
    ours = model.family.config(model.settings | {"vocab_size": model.network.config.vocab_size})
    different = [
        field
        for field, value in vars(ours).items()
        if not field.endswith(("dropout", "_token_id"))
        and not _equal(getattr(config, field), value)
    ]
    if different:
        raise ConfigError(
            f"GGUF cannot express this model's {', '.join(different)}",
            hint="save the model in safetensors instead",
        )
    weights = GGUFWeights(header)
    for name, tensor in tensors.items():
        error = (weights.read(name) - tensor).abs().max()
        if not torch.isfinite(error) or error > tolerance * tensor.abs().max():
            raise VerificationError(f"{name} was not stored as it is")
    engine, _ = gguf_vocabulary.read(header.metadata)
    texts = [_SAMPLE, *(t.text for t in model.extension.added)] if model.extension else [_SAMPLE]
    for text in texts:
        ids = engine.encode(text, add_special_tokens=False).ids
        if ids != model.tokenizer.encode(text, add_special_tokens=False):
            raise VerificationError(f"{text!r} is read with other ids from the GGUF file")


def _equal(read: Any, written: Any) -> bool:
    """Compare settings; the file stores numbers in float32."""
    if isinstance(written, float) and isinstance(read, int | float):
        return math.isclose(read, written, rel_tol=1e-6)
    return bool(read == written)
