"""`PolicySettings`: sampling and update settings of a policy, validated on construction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from idiolect.errors import ConfigError

__all__ = ["Algorithm", "GroupLoss", "PolicySettings"]

Algorithm = Literal["ppo", "rloo", "grpo"]
GroupLoss = Literal["dapo", "grpo", "dr_grpo"]
"""How GRPO's loss is averaged. `dapo`: over all tokens of a step (DAPO, Yu et al. 2025,
2503.14476). `grpo`: over the tokens of each completion, then over completions (Shao et al. 2024,
2402.03300). `dr_grpo`: divided by completions times `max_new_tokens`, with rewards that are not
divided by their standard deviation (Dr. GRPO, Liu et al. 2025, 2503.20783)."""

_BETAS: dict[str, float] = {"ppo": 0.15, "rloo": 0.05, "grpo": 0.0}
_GROUPS: dict[str, int] = {"ppo": 1, "rloo": 4, "grpo": 8}
_UPDATES: dict[str, int] = {"ppo": 4, "rloo": 1, "grpo": 1}


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """Sampling and update settings of a policy.

    Raises:
        ConfigError: A value is out of its range, or two contradict each other.
    """

    algorithm: Algorithm = "grpo"
    num_generations: int | None = None
    """Completions sampled for each prompt; 8 for GRPO, 4 for RLOO, 1 for PPO by default."""
    max_new_tokens: int = 64
    """Maximum length of a completion."""
    temperature: float = 1.0
    """Temperature of sampling, and of the log-probabilities of policy and reference."""
    beta: float | None = None
    """Weight of the KL penalty: 0.15 for PPO, 0.05 for RLOO, 0 for GRPO by default."""
    kl_target: float | None = None
    """Adapt `beta` towards this KL, in nats per completion; by default `beta` is fixed."""
    kl_horizon: float = 10_000.0
    """Number of completions over which `beta` adapts."""
    updates: int | None = None
    """Passes over each set of rollouts; 4 for PPO, 1 for the others by default."""
    mini_batches: int = 1
    """Steps of each pass: a rollout has `mini_batches · batch_size` completions."""
    clip: float = 0.2
    """ε of the clipped objective: how far the probability ratio may differ from 1."""
    value_clip: float = 0.2
    """PPO: maximum change of a value in one rollout."""
    value_weight: float = 0.1
    """PPO: weight of the value loss."""
    gamma: float = 1.0
    """PPO: discount of later rewards."""
    gae_lambda: float = 0.95
    """PPO: decay of generalised advantage estimation (Schulman et al. 2015, 1506.02438)."""
    whiten_rewards: bool = True
    """PPO: divide rewards by their standard deviation, keeping their mean."""
    loss: GroupLoss = "dapo"
    """GRPO: how the loss is averaged."""
    missing_end_reward: float | None = None
    """Reward of a completion that reached `max_new_tokens` without an end token; by default the
    reward of its text."""

    def __post_init__(self) -> None:
        for name, choices in (("algorithm", Algorithm), ("loss", GroupLoss)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(
                    f"unknown {name} {getattr(self, name)!r}",
                    hint="one of " + ", ".join(get_args(choices)),
                )
        least = 1 if self.algorithm == "ppo" else 2
        if self.group < least:
            raise ConfigError(
                f"num_generations is {self.group}",
                hint=f"{self.algorithm} compares the completions of a prompt: at least {least}",
            )
        for name in ("max_new_tokens", "mini_batches", "temperature", "kl_horizon", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="it must be positive")
        if self.passes < 1:
            raise ConfigError(f"updates is {self.updates}", hint="choose at least 1")
        if self.kl_target is not None and not 0 < self.kl_target < math.inf:
            raise ConfigError(f"kl_target is {self.kl_target}", hint="it is positive; usual is 6")
        if self.kl_target is not None and self.kl_weight == 0:
            raise ConfigError(
                "kl_target adapts beta by factors, and beta is 0",
                hint="choose a first beta above 0, such as 0.05",
            )
        for name in ("kl_weight", "value_clip", "value_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="it is at least 0")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="from 0 to 1")

    @property
    def group(self) -> int:
        """`num_generations`, or its default."""
        chosen = self.num_generations
        return _GROUPS[self.algorithm] if chosen is None else chosen

    @property
    def kl_weight(self) -> float:
        """`beta`, or its default."""
        return _BETAS[self.algorithm] if self.beta is None else self.beta

    @property
    def passes(self) -> int:
        """`updates`, or its default."""
        return _UPDATES[self.algorithm] if self.updates is None else self.updates

    @property
    def steps_per_rollout(self) -> int:
        """Steps of the loop between two rollouts."""
        return self.passes * self.mini_batches
