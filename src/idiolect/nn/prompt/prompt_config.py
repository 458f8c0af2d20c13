"""`PromptConfig`: the kind, number and initialization of virtual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from idiolect.errors import ConfigError

__all__ = ["PromptConfig", "PromptMethod"]

PromptMethod = Literal["prompt", "prefix"]
"""`prompt`: virtual tokens are embeddings before the first layer (prompt tuning, Lester et al.
2021, 2104.08691). `prefix`: they are keys and values of every layer (prefix tuning, Li & Liang
2021, 2101.00190; P-tuning v2, Liu et al. 2022, 2110.07602)."""

_MOST = 100_000


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """The kind, number and initialization of virtual tokens."""

    method: PromptMethod = "prompt"
    """Kind of virtual tokens."""
    num_virtual_tokens: int = 20
    """Number of virtual tokens."""
    init: Literal["tokens", "random"] = "tokens"
    """Initialization. `tokens`: the embeddings of real tokens or, for a prefix, their keys and
    values. `random`: standard normal numbers, the default of `peft`."""
    init_ids: tuple[int, ...] = ()
    """The ids of these tokens, repeated or truncated to the number of virtual tokens; by default
    random ids of the vocabulary."""
    prefix_projection: bool = False
    """Learn a prefix as the output of a randomly initialized two-layer network
    (reparameterisation). Only the output is saved."""
    encoder_hidden_size: int | None = None
    """The width of this network's hidden layer; by default the keys' width."""

    def __post_init__(self) -> None:
        if self.method not in get_args(PromptMethod):
            raise ConfigError(f"method is {self.method!r}", hint="prompt or prefix")
        if not 1 <= self.num_virtual_tokens <= _MOST:
            raise ConfigError(
                f"{self.num_virtual_tokens} virtual tokens", hint=f"from 1 to {_MOST:,}"
            )
        if self.init not in ("tokens", "random"):
            raise ConfigError(f"init is {self.init!r}", hint="tokens or random")
        if self.prefix_projection and self.method != "prefix":
            raise ConfigError("prefix_projection without a prefix", hint="use method='prefix'")
        if self.encoder_hidden_size is not None and self.encoder_hidden_size < 1:
            raise ConfigError(
                f"encoder_hidden_size is {self.encoder_hidden_size}", hint="it is at least 1"
            )
