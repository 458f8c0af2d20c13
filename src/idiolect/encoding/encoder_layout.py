"""The directory layout of sentence-transformers, in addition to the model's own files.

    modules.json                       the modules: transformer, pooling, dense, normalize
    1_Pooling/config.json              how hidden states become a vector
    2_Dense/                           a linear map of that vector (optional; two are read as one)
    sentence_bert_config.json          maximum number of tokens
    config_sentence_transformers.json  prompts

The layout has no setting for echo pooling, for bidirectional attention in a causal model, and for
the encoder alone of a model such as BART. They are saved as values of the pooling's config that
sentence-transformers refuses, so it never computes different vectors. For the same reason, unknown
modules and settings of the pooling are errors when reading. Settings of the other files that a
published model had are kept.

Texts are data, so the tokenizer's settings say that the names of special tokens in them are text
(`split_special_tokens`), unless a prompt of the model needs them.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idiolect.encoding.pooling import Pooling, check_pooling
from idiolect.encoding.projection import Projection
from idiolect.errors import CheckpointError, ConfigError
from idiolect.models.language_model import LanguageModel
from idiolect.text.files import read_json, read_text, write_atomic

__all__ = ["LAYOUT_FILES", "EncoderLayout", "encoder_repr"]

LAYOUT_FILES = (
    "modules.json",
    "*_Pooling/config.json",
    "*_Dense/config.json",
    "*_Dense/model.safetensors",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
"""The files to fetch from a repository."""

_PUBLISHED_POOLINGS: dict[str, str] = {
    "mean": "mean",
    "first": "cls",
    "last": "lasttoken",
    "weighted": "weightedmean",
    "echo": "echo",
}
_POOLINGS = {published: ours for ours, published in _PUBLISHED_POOLINGS.items()}
_ENDINGS: tuple[tuple[str, ...], ...] = ((), ("Dense",), ("Normalize",), ("Dense", "Normalize"))
_ENDINGS += (("Dense", "Dense"), ("Dense", "Dense", "Normalize"))
_KNOWN = {
    *("word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"),
    *("bidirectional", "both_ways", "encoder_only"),
}
"""Settings of a pooling besides its switches; `both_ways` is an older name of `bidirectional`."""
_IDENTITY = "torch.nn.modules.linear.Identity"
# Before release 5.4 of sentence-transformers each pooling had a switch.
_SWITCHES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, kw_only=True)
class EncoderLayout:
    """Settings of an encoder, as saved in a model's directory."""

    pooling: Pooling = "mean"
    """How hidden states become a vector."""
    projection: Projection | None = None
    """A linear map of that vector."""
    normalize: bool = False
    """Whether vectors are scaled to length one."""
    max_length: int | None = None
    """Maximum tokens of a text; `None`: the maximum of model and tokenizer."""
    bidirectional: bool = False
    """Whether a causal model uses bidirectional attention."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Prompts by name; a prompt is prepended to a text."""
    default_prompt_name: str | None = None
    """Name of the prompt for texts encoded without one."""
    trained_dimensions: tuple[int, ...] = ()
    """Shorter widths the model was trained for (Matryoshka)."""
    published: bool = False
    """Whether it was published as an encoder, not derived from a language model; see
    `idiolect.search.hybrid_weight`."""

    @classmethod
    def read(cls, directory: Path) -> EncoderLayout | None:
        """Read the settings of a directory; return `None` for a plain model.

        Raises:
            CheckpointError: A file is missing or damaged.
            ConfigError: An unsupported module or setting that would change the vectors.
        """
        if not (directory / "modules.json").exists():
            return None
        steps = _read_steps(directory / "modules.json")
        kinds = [kind for kind, _ in steps]
        static = kinds[:1] == ["StaticEmbedding"]
        if static:
            # StaticEmbedding includes the pooling, so there is no Pooling module.
            steps, kinds = [steps[0], ("", ""), *steps[1:]], ["Transformer", "Pooling", *kinds[1:]]
        if kinds[:2] != ["Transformer", "Pooling"] or tuple(kinds[2:]) not in _ENDINGS:
            raise ConfigError(
                f"{directory}: the modules {' → '.join(kinds) or 'none'} are not supported",
                hint="supported: Transformer → Pooling, optionally → Dense and → Normalize",
            )
        if steps[0][1] not in ("", "."):
            raise ConfigError(
                f"{directory}: the model is in {steps[0][1]!r}", hint="load that directory"
            )
        pooling = {} if static else read_json(_inside(directory, steps[1][1]) / "config.json")
        transformer = _read_optional(directory / "sentence_bert_config.json")
        if transformer.get("do_lower_case"):
            raise ConfigError(
                f"{directory}: do_lower_case is not supported",
                hint="convert texts to lower case before encoding, and set it to false",
            )
        if not pooling.get("include_prompt", True):
            raise ConfigError(
                f"{directory}: pooling without the prompt is not supported",
                hint="set include_prompt to true, if that is how the model was trained",
            )
        unknown = sorted(pooling.keys() - _KNOWN - _SWITCHES.keys())
        if unknown:
            raise ConfigError(
                f"{directory}: the pooling's settings {', '.join(unknown)} are not supported",
                hint="remove them, if vectors do not depend on them",
            )
        prompts = _read_optional(directory / "config_sentence_transformers.json")
        return cls(
            pooling=_pooling_of(directory, pooling),
            projection=_projection_of(directory, steps),
            normalize=kinds[-1] == "Normalize",
            max_length=transformer.get("max_seq_length"),
            bidirectional=bool(pooling.get("bidirectional", pooling.get("both_ways", False))),
            prompts=dict(prompts.get("prompts") or {}),
            default_prompt_name=prompts.get("default_prompt_name"),
            trained_dimensions=tuple(prompts.get("matryoshka_dimensions") or ()),
            published=bool(prompts.get("published", True)),
        )

    def write(
        self,
        directory: Path,
        model: LanguageModel,
        *,
        split_special_tokens: bool = True,
    ) -> None:
        """Write the settings into a model's directory, in place of older ones.

        Args:
            directory: The directory of the saved model.
            model: The model. Of an encoder-decoder model only the encoder is used, where
                sentence-transformers may use both.
            split_special_tokens: Whether the names of special tokens in texts and prompts are text.
        """
        family, static = model.family, model.network.context_free
        filler = model.tokenizer.engine.id_to_token(0)  # pads; stays an ordinary token
        pooling: dict[str, Any] = {
            "word_embedding_dimension": model.network.config.hidden_size,
            "pooling_mode": _PUBLISHED_POOLINGS[self.pooling],
            "include_prompt": True,
        }
        if self.bidirectional:
            pooling["bidirectional"] = True
        if family.kind == "encoder-decoder" and not family.has_encoder_class:
            pooling["encoder_only"] = True
        _remove_modules(directory)
        prompts = _read_optional(directory / "config_sentence_transformers.json")
        prompts.setdefault("similarity_fn_name", "cosine" if self.normalize else "dot")
        prompts |= {"prompts": self.prompts, "default_prompt_name": self.default_prompt_name}
        prompts["published"] = self.published
        prompts.pop("matryoshka_dimensions", None)
        if self.trained_dimensions:
            prompts["matryoshka_dimensions"] = list(self.trained_dimensions)
        kinds = [] if static else ["Pooling"]
        kinds += ["Dense"] if self.projection else []
        kinds += ["Normalize"] if self.normalize else []
        folders = {kind: f"{number}_{kind}" for number, kind in enumerate(kinds, 1)}
        for folder in folders.values():
            (directory / folder).mkdir()
        first = "StaticEmbedding" if static else "Transformer"
        transformer = _read_optional(directory / "sentence_bert_config.json")
        transformer |= {"max_seq_length": self.max_length, "do_lower_case": False}
        # Padding on the left would shift the positions of tokens, and so change weighted pooling.
        tokenizer = _read_optional(directory / "tokenizer_config.json")
        tokenizer |= {"padding_side": "right", "truncation_side": "right"}
        tokenizer["split_special_tokens"] = split_special_tokens
        if tokenizer.get("pad_token") is None and split_special_tokens:
            tokenizer["pad_token"] = filler
        if "Pooling" in folders:
            _write(directory / folders["Pooling"] / "config.json", pooling)
        if self.projection:
            dense = {
                "in_features": self.projection.weight.shape[1],
                "out_features": self.projection.dimensions,
                "bias": True,
                "activation_function": _IDENTITY,
            }
            _write(directory / folders["Dense"] / "config.json", dense)
            self.projection.save(directory / folders["Dense"] / "model.safetensors")
        _write(directory / "tokenizer_config.json", tokenizer)
        _write(directory / "sentence_bert_config.json", transformer)
        _write(directory / "config_sentence_transformers.json", prompts)
        _write(directory / "modules.json", _module_list({first: ""} | folders))


def _module_list(folders: dict[str, str]) -> list[dict[str, Any]]:
    """Return the contents of modules.json for the modules and their folders."""
    return [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, (kind, path) in enumerate(folders.items())
    ]


def _pooling_of(directory: Path, settings: dict[str, Any]) -> Pooling:
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for switch, mode in _SWITCHES.items() if settings.get(switch)] or "mean"
    if isinstance(modes, list) and len(modes) == 1:
        modes = modes[0]
    if not isinstance(modes, str) or modes not in _POOLINGS:
        raise ConfigError(
            f"{directory}: the pooling {modes!r} is not supported",
            hint="one of " + ", ".join(_POOLINGS),
        )
    kind = _POOLINGS[modes]
    check_pooling(kind)
    return kind  # type: ignore[return-value]


def _projection_of(directory: Path, steps: list[tuple[str, str]]) -> Projection | None:
    """Return the dense modules as one map; EmbeddingGemma has two of them."""
    projection = None
    for kind, folder in steps:
        if kind == "Dense":
            projection = _dense_of(_inside(directory, folder)).after(projection)
    return projection


def _dense_of(folder: Path) -> Projection:
    settings = read_json(folder / "config.json")
    activation = settings.get("activation_function", "Tanh")
    if activation != _IDENTITY or settings.get("use_residual"):
        raise ConfigError(
            f"{folder}: a dense module with {activation} or a residual is not supported",
            hint="supported: a linear map",
        )
    return Projection.load(folder / "model.safetensors")


def _read_steps(path: Path) -> list[tuple[str, str]]:
    """Return type and directory of each module."""
    try:
        steps = json.loads(read_text(path))
        return [(str(step["type"]).rpartition(".")[2], str(step["path"])) for step in steps]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}", hint="fetch it again") from error


def _remove_modules(directory: Path) -> None:
    """Remove the folders of the modules that a published encoder had."""
    if (directory / "modules.json").exists():
        for _, name in _read_steps(directory / "modules.json"):
            folder = _inside(directory, name)
            if folder != directory:
                shutil.rmtree(folder, ignore_errors=True)


def _inside(directory: Path, name: str) -> Path:
    """Return a subdirectory; refuse one outside the model's directory."""
    path = Path(os.path.normpath(directory / name))
    if not path.is_relative_to(os.path.normpath(directory)):
        raise CheckpointError(
            f"{directory}: modules.json points outside it: {name!r}",
            hint="it may be malicious; use another checkpoint",
        )
    return path


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _write(path: Path, value: object) -> None:
    write_atomic(path, f"{json.dumps(value, ensure_ascii=False, indent=2)}\n".encode())


def encoder_repr(encoder: Any) -> str:
    """Describe an encoder in one line: its model, and what determines its vectors."""
    parts = [f"{encoder.pooling} pooling", f"{encoder.dimensions} dimensions", encoder.precision]
    if not encoder.model.network.context_free:  # a static encoder reads texts of any length
        parts.insert(2, f"max_length {encoder.max_length}")
    if encoder.bidirectional:
        parts.insert(1, "bidirectional")
    return f"<Encoder of {str(encoder.model).strip('<>')}: {', '.join(parts)}>"
