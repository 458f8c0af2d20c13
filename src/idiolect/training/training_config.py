"""How a run trains: sizes, rates and intervals, checked when they are given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, get_args

from idiolect.errors import ConfigError

__all__ = ["Schedule", "TrainingConfig"]

Schedule = Literal["cosine", "wsd"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything about a run that is a number.

    Raises:
        ConfigError: A value is out of its range.
    """

    length: int = 512
    """Tokens a row, and so the longest text the network sees."""
    batch: int = 16
    """Rows a step, over all processes together."""
    micro_batch: int | None = None
    """Rows a process reads at once; gradients of the others are accumulated (`None`: all)."""
    learning_rate: float | None = None
    """The highest rate. By default 3e-4; where nothing but new rows trains, a fiftieth of the size
    of the old rows' numbers, since a row has as far to go as it is long."""
    warmup: float = 0.05
    """Share of the steps over which the rate rises from zero."""
    schedule: Schedule = "cosine"
    """After it: `cosine` falls along half a wave (Loshchilov & Hutter 2017, 1608.03983); `wsd`
    stays, and falls linearly over the last fifth (warm-up, stable, decay: Hu et al. 2024,
    2404.06395)."""
    last_rate: float = 0.1
    """The rate at the end, as a share of the highest."""
    weight_decay: float = 0.1
    """AdamW's, on the weights of linear maps only (Loshchilov & Hutter 2019, 1711.05101)."""
    clip: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    save_every: int = 200
    """Steps between checkpoints."""
    seed: int = 0
    """Decides the order of documents, masks, dropout and adapters."""

    def __post_init__(self) -> None:
        for name in ("length", "batch", "micro_batch", "save_every", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="it must be positive")
        if self.learning_rate is not None and not 0 < self.learning_rate <= 1:
            raise ConfigError(
                f"a learning rate of {self.learning_rate}", hint="usual are 1e-5 to 1e-2"
            )
        for name in ("warmup", "last_rate", "weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="it is between 0 and 1")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}", hint="it is at least 0")
        if self.schedule not in get_args(Schedule):
            raise ConfigError(
                f"the schedule {self.schedule!r}", hint="one of " + ", ".join(get_args(Schedule))
            )
        if self.length < 2:
            raise ConfigError("rows of one token predict nothing", hint="length is at least 2")

    @property
    def highest_rate(self) -> float:
        """The learning rate, or the usual one."""
        return 3e-4 if self.learning_rate is None else self.learning_rate

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Make a plan of a table in a file.

        Raises:
            ConfigError: Unknown names, or values of another type or out of their range.
        """
        known = {field.name: field.type for field in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(
                f"unknown training settings: {', '.join(unknown)}",
                hint="known: " + ", ".join(known),
            )
        for name, value in values.items():
            wanted = str if name == "schedule" else int | float
            if isinstance(value, bool) or not isinstance(value, wanted):
                raise ConfigError(f"{name} is {value!r}", hint=f"it is a {known[name]}")
        return cls(**values)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, the first being 0."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return self.highest_rate * (step + 1) / warm
        if self.schedule == "cosine":
            done = (step - warm) / max(1, steps - warm)
            share = 0.5 * (1 + math.cos(math.pi * done))
        else:
            share = min(1.0, (steps - step) / max(1, round(0.2 * steps)))
        return self.highest_rate * (self.last_rate + (1 - self.last_rate) * share)
