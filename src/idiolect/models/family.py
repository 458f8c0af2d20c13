"""What a family of published models is: data that maps its configuration and weights to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from idiolect.errors import ConfigError
from idiolect.models.weight_names import NameTable, Rule
from idiolect.nn.config import Activation, Task, TransformerConfig

__all__ = ["Architecture", "Family", "Fields", "activation"]

_Kind = Literal["causal", "bidirectional", "encoder-decoder"]
_OBJECTIVES: dict[_Kind, tuple[str, ...]] = {
    "causal": ("causal",),
    "bidirectional": ("masked",),
    "encoder-decoder": (),
}
"""The pre-training objectives for each kind of network."""


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
"""What may stand where a default of a type stands."""


def _all(kinds: Any) -> tuple[type, ...]:
    return kinds if isinstance(kinds, tuple) else (kinds,)


def activation(name: str) -> Activation:
    """Translate the name of an activation.

    Raises:
        ConfigError: We do not have it; the message lists those we have.
    """
    if name not in _ACTIVATIONS:
        raise ConfigError(
            f"the activation {name!r} is not supported", hint="one of " + ", ".join(_ACTIVATIONS)
        )
    return _ACTIVATIONS[name]


class Fields:
    """The fields of a `config.json`, with the family's defaults for those that are not there.

    A field that is there and null counts as not there, as the files themselves use it.

    Args:
        values: The fields.
        defaults: Defaults of this family that differ from those its `configure` function gives.
    """

    def __init__(
        self, values: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.values = values
        self.defaults = defaults

    def get(self, name: str, default: Any) -> Any:
        """Return a field's value, or the default where it is missing or null.

        Raises:
            ConfigError: The value is of another type than the default.
        """
        default = self.defaults.get(name, default)
        value = self.values.get(name)
        if value is None:
            return default
        kinds = _KINDS.get(type(default), object)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in _all(kinds)):
            raise ConfigError(f"{name} is {value!r}", hint=f"it must be like {default!r}")
        return value

    def number(self, name: str) -> int | None:
        """Return a whole number, or none where there is none; of a list of ids the first.

        Raises:
            ConfigError: It is something else.
        """
        value = self.values.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ConfigError(f"{name} is {value!r}", hint="it must be a whole number")
        return value

    def given(self, name: str, default: Any) -> Any:
        """Return a field's value, null where it says so, or the default where it is missing."""
        return self.get(name, default) if self.values.get(name, default) is not None else None

    def same(self, first: str, second: str, default: Any) -> Any:
        """Return the value two fields share.

        Raises:
            ConfigError: They differ; the one Transformer gives both sides the same shape.
        """
        value, other = self.get(first, default), self.get(second, default)
        if value != other:
            raise ConfigError(
                f"{first} is {value} and {second} is {other}", hint="only equal sides are supported"
            )
        return value


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One class of a family: which heads it has, and how its weights are named."""

    tasks: tuple[Task, ...] = ()
    """The heads on top."""
    prefix: str = ""
    """Before the names of the body."""
    rules: tuple[Rule, ...] = ()
    """The names of its heads."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What it changes in the `TransformerConfig`."""
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Fields that are supported at these values only, where this head is used."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models: everything that distinguishes it from the others, as data."""

    model_type: str
    """What `config.json` calls it."""
    title: str
    """Its name, for people."""
    paper: str
    """Where it was described."""
    configure: Callable[[Fields], dict[str, Any]]
    """From the fields of `config.json` to the arguments of `TransformerConfig`."""
    rules: tuple[Rule, ...]
    """The names of the body's weights."""
    architectures: Mapping[str, Architecture]
    """Its classes; the first is taken where `config.json` names none."""
    synonyms: Mapping[str, str] = field(default_factory=dict)
    """Other names that `config.json` may use for a field, and the field's own."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Names of tied copies in a checkpoint, and which of our weights they copy."""
    ignored: tuple[str, ...] = ()
    """Names of buffers that some checkpoints hold and no network reads, as regular expressions."""
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Fields that would change the result, and the values at which they are supported."""
    head_may_be_absent: bool = False
    """An untied head that a checkpoint lacks is tied (T5: its files say "untied" and are not)."""

    @property
    def kind(self) -> _Kind:
        """What a token attends to: those before it, all, or those of two texts.

        Taken from the family's first class at its default configuration.
        """
        config = self.config({"vocab_size": 1000})
        if not config.encoder_layers:
            return "causal"
        return "encoder-decoder" if config.decoder_layers else "bidirectional"

    @property
    def objectives(self) -> tuple[str, ...]:
        """The pre-training objectives that can train a network with a language-model head.

        None yet for encoder-decoder networks, which can be extended, distilled, tuned and used
        for encoding.
        """
        return _OBJECTIVES[self.kind]

    def canonical(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a `config.json` under their own names."""
        own = {k: v for k, v in settings.items() if k not in self.synonyms}
        renamed = {self.synonyms[k]: v for k, v in settings.items() if k in self.synonyms}
        return renamed | own

    def architecture(self, settings: Mapping[str, Any]) -> tuple[str, Architecture]:
        """Find the class a `config.json` names.

        Raises:
            ConfigError: It names a class we do not have; the message lists those we have.
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
        """Return the table of weight names for the class that a `config.json` names."""
        _, architecture = self.architecture(settings)
        rules = (*self.rules, *architecture.rules)
        return NameTable(rules, prefix=architecture.prefix, gated=self.config(settings).gated)

    def config(self, settings: Mapping[str, Any]) -> TransformerConfig:
        """Build the network's configuration from the fields of a `config.json`.

        Raises:
            ConfigError: Fields with values that would change the result and are not supported, all
                of them named; or values that do not fit together.
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
            "vocabulary": fields.get("vocab_size", 0),
            "tied": bool(fields.get("tie_word_embeddings", True)),
            "pad_id": fields.number("pad_token_id"),
            "tasks": architecture.tasks,
            "labels": _labels(fields),
        }
        values |= self.configure(fields) | dict(architecture.config)
        if values["pad_id"] is not None and not 0 <= values["pad_id"] < values["vocabulary"]:
            # Llama's published "-1" means that there is none.
            values["pad_id"] = None
        return TransformerConfig(**values)


def _labels(fields: Fields) -> int:
    names = fields.get("id2label", None)
    if names is None:
        return int(fields.get("num_labels", 2))
    if not isinstance(names, dict):
        raise ConfigError(f"id2label is {names!r}", hint="it must map numbers to names")
    return len(names)
