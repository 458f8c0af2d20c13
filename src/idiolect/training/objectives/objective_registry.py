"""Training objectives by name: one table for Python, the command line and configuration files.

Nothing here imports torch, so that `--help` can list the names. An objective's module is imported
when the objective is first used.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from idiolect.errors import ConfigError

__all__ = [
    "ObjectiveEntry",
    "Verb",
    "check_kind",
    "default_objective",
    "find_objective",
    "objectives",
    "objectives_for",
    "register",
]

Verb = Literal["pretrain", "tune", "translate", "align"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveEntry:
    """An entry of the registry."""

    name: str
    """The name that users pass."""
    verb: Verb
    """The verb that trains with it."""
    summary: str
    """One line for `--help`."""
    home: str
    """Location of its class: `package.module:Class`."""
    network_kinds: tuple[str, ...]
    """The kinds of network it can train; see `idiolect.nn.network.NetworkKind`."""
    data: Literal["text", "pairs", "conversations", "preferences", "prompts"] = "text"
    """The type of data it trains on."""
    head: str = "language"
    """The task head that the network must have."""
    carries_state: bool = False
    """Whether it trains networks that carry a state from segment to segment."""

    def load(self) -> Any:
        """Import and return its class."""
        module, _, name = self.home.partition(":")
        return getattr(import_module(module), name)


_ENTRIES: dict[tuple[str, str], ObjectiveEntry] = {}


def register(*entries: ObjectiveEntry) -> None:
    """Add objectives to the table."""
    for entry in entries:
        _ENTRIES[entry.verb, entry.name] = entry


def objectives(verb: Verb) -> list[ObjectiveEntry]:
    """Return the objectives of a verb, in the order they were registered."""
    return [entry for entry in _ENTRIES.values() if entry.verb == verb]


def objectives_for(
    kind: str, heads: Container[str] = ("language",), *, carries_state: bool = False
) -> tuple[str, ...]:
    """Return the names of the pre-training objectives that can train a network.

    Args:
        kind: Its `kind`.
        heads: Its task heads.
        carries_state: Whether it carries a state instead of attending to earlier tokens.
    """
    return tuple(
        entry.name
        for entry in objectives("pretrain")
        if kind in entry.network_kinds
        and entry.head in heads
        and (entry.carries_state or not carries_state)
    )


def find_objective(verb: Verb, name: str) -> ObjectiveEntry:
    """Return an objective by name.

    Raises:
        ConfigError: There is no such objective; the message lists the known ones.
    """
    if (verb, name) not in _ENTRIES:
        raise ConfigError(
            f"unknown objective {name!r}",
            hint="one of " + ", ".join(entry.name for entry in objectives(verb)),
        )
    return _ENTRIES[verb, name]


def default_objective(kind: str, *, model: str = "this model", tokenizer: Any | None = None) -> str:
    """Return the pre-training objective of a kind of network.

    Args:
        kind: The network's `kind`.
        model: Name of the model in an error message.
        tokenizer: The model's tokenizer; if it has a mask token, `denoising` is chosen for an
            encoder-decoder.

    Raises:
        ConfigError: No objective trains such networks yet.
    """
    fitting = objectives_for(kind)
    if "denoising" in fitting and tokenizer is not None and tokenizer.mask_token_id is not None:
        return "denoising"
    if fitting:
        return fitting[0]
    raise ConfigError(
        f"{model}: no pre-training objective for {kind} networks yet",
        hint="distill, tune and encode work for it",
    )


def check_kind(entry: ObjectiveEntry, kind: str) -> None:
    """Check that an objective can train a kind of network.

    Raises:
        ConfigError: It cannot; the message names the objectives that can.
    """
    if kind in entry.network_kinds:
        return
    fitting = [
        repr(other.name)
        for other in objectives(entry.verb)
        if kind in other.network_kinds and (entry.verb == "pretrain" or other.data == entry.data)
    ]
    raise ConfigError(
        f"the objective {entry.name!r} trains {' and '.join(entry.network_kinds)} networks, "
        f"and this one is {kind}",
        hint="choose " + " or ".join(fitting)
        if fitting
        else "no objective trains it yet; distill, tune and encode work for it",
    )


register(
    ObjectiveEntry(
        name="causal",
        verb="pretrain",
        summary="predict each token from those before it (GPT, Llama)",
        home="idiolect.training.objectives.causal:Causal",
        network_kinds=("causal",),
        carries_state=True,
    ),
    ObjectiveEntry(
        name="masked",
        verb="pretrain",
        summary="predict hidden tokens from all others (BERT, RoBERTa)",
        home="idiolect.training.objectives.masked:Masked",
        network_kinds=("bidirectional",),
    ),
    ObjectiveEntry(
        name="masked+next_sentence",
        verb="pretrain",
        summary="masked, and whether the second of two parts follows the first (BERT)",
        home="idiolect.training.objectives.next_sentence:NextSentence",
        network_kinds=("bidirectional",),
        head="next_sentence",
    ),
    ObjectiveEntry(
        name="translation_masked",
        verb="pretrain",
        summary="masked, with the translation visible (XLM; SOURCES are pairs of files)",
        home="idiolect.training.objectives.translation_masked:TranslationMasked",
        network_kinds=("bidirectional",),
        data="pairs",
    ),
    ObjectiveEntry(
        name="span_corruption",
        verb="pretrain",
        summary="predict spans that were replaced by sentinels (T5; UL2's mixture)",
        home="idiolect.training.objectives.span_corruption:SpanCorruption",
        network_kinds=("encoder-decoder",),
    ),
    ObjectiveEntry(
        name="denoising",
        verb="pretrain",
        summary="restore a text with masked, deleted and permuted parts (BART, mBART)",
        home="idiolect.training.objectives.denoising:Denoising",
        network_kinds=("encoder-decoder",),
    ),
    ObjectiveEntry(
        name="prefix",
        verb="pretrain",
        summary="predict the rest of a text from its beginning, read both ways (T5, UniLM)",
        home="idiolect.training.objectives.prefix:Prefix",
        network_kinds=("encoder-decoder", "causal"),
    ),
    ObjectiveEntry(
        name="translation",
        verb="translate",
        summary="predict a target text from its source (Transformer, RNN with attention, T5, BART)",
        home="idiolect.training.objectives.translation:Translation",
        network_kinds=("encoder-decoder",),
        data="pairs",
    ),
)
