"""Describe published model families as data: how their configurations and weights map to ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from idiolect.errors import ConfigError
from idiolect.models.weight_names import NameTable, Rule
from idiolect.nn.config import Activation, Task, TransformerConfig
from idiolect.nn.network import Network, NetworkKind
from idiolect.nn.transformer import Transformer
from idiolect.text.suggestions import did_you_mean

__all__ = ["Architecture", "Family", "Fields", "activation"]


_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


_KINDS: dict[type, Any] = {
    bool: bool,
    int: int,
    float: (int, float),
    str: str,
    dict: dict,
    list: list,
}
"""The types a field may have, by the type of its default."""
_DESCRIPTIVE = {"architectures", "dtype", "model_type", "torch_dtype", "transformers_version"}
"""Fields that describe the file and do not affect the network."""


def _all(kinds: Any) -> tuple[type, ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


def activation(name: str) -> Activation:
    """Translate a published name of an activation.

    Raises:
        ConfigError: The activation is not supported; the message lists the supported ones.
    """
    if name not in _ACTIVATIONS:
        raise ConfigError(
            f"the activation {name!r} is not supported", hint="one of " + ", ".join(_ACTIVATIONS)
        )
    return _ACTIVATIONS[name]


class Fields:
    """The fields of a `config.json`, with the family's defaults for missing ones.

    A null field counts as missing.

    Args:
        values: The fields.
        defaults: Defaults that replace those passed to `get`.
    """

    def __init__(
        self, values: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.values = values
        self.defaults = defaults
        self.asked: set[str] = set()
        """Names of the fields that were read."""

    def get(self, name: str, default: Any) -> Any:
        """Return a field's value, or the default if it is missing or null.

        Raises:
            ConfigError: The value does not have the type of the default.
        """
        self.asked.add(name)
        default = self.defaults.get(name, default)
        value = self.values.get(name)
        if value is None:
            return default
        kinds = _KINDS.get(type(default), object)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in _all(kinds)):
            raise ConfigError(f"{name} is {value!r}", hint=f"expected a value like {default!r}")
        return value

    def get_int(self, name: str) -> int | None:
        """Return an integer, the first element of a list of ids, or `None` if missing or null.

        Raises:
            ConfigError: The value is not an integer.
        """
        self.asked.add(name)
        value = self.values.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ConfigError(f"{name} is {value!r}", hint="it must be an integer")
        return value

    def get_nullable(self, name: str, default: Any) -> Any:
        """Return a field's value, `None` if it is null, or the default if it is missing."""
        return self.get(name, default) if self.values.get(name, default) is not None else None

    def get_one_of(self, name: str, default: str, choices: Iterable[str]) -> str:
        """Return a field's value, which must be one of the choices.

        Raises:
            ConfigError: The value is not one of the choices.
        """
        value = self.get(name, default)
        if value not in choices:
            raise ConfigError(f"{name} is {value!r}", hint="one of " + ", ".join(choices))
        return str(value)

    def get_equal(self, first: str, second: str, default: Any) -> Any:
        """Return the value of two fields that must be equal.

        Raises:
            ConfigError: The values differ; our encoder and decoder have the same shape.
        """
        value, other = self.get(first, default), self.get(second, default)
        if value != other:
            raise ConfigError(
                f"{first} is {value} and {second} is {other}",
                hint="only equal values are supported",
            )
        return value


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One model class of a family: its task heads, and how its weights are named."""

    tasks: tuple[Task, ...] = ()
    """The task heads."""
    prefix: str = ""
    """Prefix of the body's weight names."""
    rules: tuple[Rule, ...] = ()
    """Names of the task heads' weights."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Values of `TransformerConfig` that are specific to this class."""
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Fields supported only at these values in this class."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family, described by data alone."""

    model_type: str
    """Its `model_type` in `config.json`."""
    title: str
    """Its display name."""
    paper: str
    """Reference."""
    configure: Callable[[Fields], dict[str, Any]]
    """Maps the fields of `config.json` to arguments of `TransformerConfig`."""
    rules: tuple[Rule, ...]
    """Names of the body's weights."""
    architectures: Mapping[str, Architecture]
    """Its model classes; the first is the default."""
    synonyms: Mapping[str, str] = field(default_factory=dict)
    """Alternative field names in `config.json`, and the canonical name of each."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Names of tied copies in a checkpoint, each with the weight of ours that it copies."""
    ignored: tuple[str, ...] = ()
    """Regular expressions for buffers in some checkpoints that no network needs."""
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Fields that would change the result, and the values at which they are supported."""
    network: type[Network] = Transformer
    """Builds the network from its configuration."""
    make_config: Callable[..., Any] = TransformerConfig
    """Builds the configuration from its arguments."""
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)
    """Entries of `tokenizer_config.json` that make transformers read `tokenizer.json` unchanged."""
    has_own_layout: bool = False
    """Whether the layout of `config.json` is our own. An unknown field is then an error."""
    head_may_be_absent: bool = False
    """Tie an untied head that the checkpoint lacks (some T5 files wrongly say untied)."""

    @property
    def kind(self) -> NetworkKind:
        """Whether the family's networks are causal, bidirectional or encoder-decoders.

        This is read from the family's first class with its default configuration.
        """
        config = self.config({"vocab_size": 1000})
        if not config.num_encoder_layers:
            return "causal"
        return "encoder-decoder" if config.num_decoder_layers else "bidirectional"

    @property
    def has_encoder_class(self) -> bool:
        """Whether there is a published class of the encoder alone, such as `T5EncoderModel`."""
        alone = (a for a in self.architectures.values() if not a.tasks)
        return any(a.config.get("num_decoder_layers") == 0 for a in alone)

    def canonical(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a `config.json` with their canonical names."""
        canonical = {k: v for k, v in settings.items() if k not in self.synonyms}
        renamed = {self.synonyms[k]: v for k, v in settings.items() if k in self.synonyms}
        return renamed | canonical

    def architecture(self, settings: Mapping[str, Any]) -> tuple[str, Architecture]:
        """Find the model class that a `config.json` names.

        Raises:
            ConfigError: The class is not supported; the message lists the supported ones.
        """
        named = settings.get("architectures") or [next(iter(self.architectures))]
        if not isinstance(named, list):
            raise ConfigError(f"architectures is {named!r}", hint="it must be a list of names")
        for name in named:
            if isinstance(name, str) and name in self.architectures:
                return name, self.architectures[name]
        raise ConfigError(
            f"{self.model_type} models of the class {named[0]!r} are not supported",
            hint="one of " + ", ".join(self.architectures),
        )

    def names(self, settings: Mapping[str, Any]) -> NameTable:
        """Return the weight names of the class that a `config.json` names."""
        _, architecture = self.architecture(settings)
        config = self.config(settings)
        return NameTable(
            (*self.rules, *architecture.rules),
            prefix=architecture.prefix,
            gated=config.gated,
            heads=config.num_attention_heads,
        )

    def config(self, settings: Mapping[str, Any]) -> Any:
        """Build the network's configuration from the fields of a `config.json`.

        Raises:
            ConfigError: Unsupported values that would change the result (the message lists all), or
                values that contradict each other.
        """
        settings = self.canonical(settings)
        name, architecture = self.architecture(settings)
        fixed = {**self.fixed, **architecture.fixed}
        refused = [
            f"{key} = {settings[key]!r} (supported: {', '.join(map(repr, values))})"
            for key, values in fixed.items()
            if settings.get(key) is not None and settings[key] not in values
        ]
        if refused:
            raise ConfigError(f"{name}: not supported: " + "; ".join(refused))
        fields = Fields(settings)
        values = {
            "vocab_size": fields.get("vocab_size", 0),
            "tie_word_embeddings": bool(fields.get("tie_word_embeddings", True)),
            "pad_token_id": fields.get_int("pad_token_id"),
            "tasks": architecture.tasks,
            "num_labels": _labels(fields),
        }
        values |= self.configure(fields) | dict(architecture.config)
        if self.has_own_layout:
            _refuse_unread(fields, self.model_type)
        if (
            values["pad_token_id"] is not None
            and not 0 <= values["pad_token_id"] < values["vocab_size"]
        ):
            # Llama's published files use -1 for "no padding token".
            values["pad_token_id"] = None
        return self.make_config(**values)


def _refuse_unread(fields: Fields, model_type: str) -> None:
    unread = set(fields.values) - fields.asked - _DESCRIPTIVE
    unread = {name for name in unread if not name.endswith("_token_id")}
    if unread:
        name = min(unread)
        raise ConfigError(
            f"{model_type} has no field {name!r}", hint=did_you_mean(name, sorted(fields.asked))
        )


def _labels(fields: Fields) -> int:
    names = fields.get("id2label", None)
    if names is None:
        return int(fields.get("num_labels", 2))
    if not isinstance(names, dict):
        raise ConfigError(f"id2label is {names!r}", hint="it must map class numbers to names")
    return len(names)
