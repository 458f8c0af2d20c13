"""The settings of a training run: sizes, rates and intervals, validated on construction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, Self, get_args

from idiolect.errors import ConfigError
from idiolect.nn.matrix_precision import TrainingPrecision, check_precision

__all__ = ["OptimizerName", "Schedule", "TrainingConfig"]

Schedule = Literal["cosine", "wsd", "inverse_sqrt", "constant", "exponential", "slanted_triangular"]
"""The learning-rate schedules."""

OptimizerName = Literal["adamw", "sgd", "nt-asgd"]
"""The optimizers."""

_LARGEST = {"max_length": 2**30, "batch_size": 2**28, "micro_batch_size": 2**28}
"""An array of as many ids can be described, if not held. An encoder without a limit has a length of
2³⁰."""

_USUAL_RATES: dict[str, float] = {"adamw": 3e-4, "sgd": 20.0, "nt-asgd": 30.0}
"""The default rate of each optimizer. Recurrent networks train with SGD at such large rates,
because their gradients are clipped to a small norm."""

_TYPES: dict[str, Any] = {
    "Schedule": str,
    "OptimizerName": str,
    "TrainingPrecision": str,
    "Mapping[str, float]": Mapping,
    "bool": bool,
}
"""The types that a table in a file may have for a field's type; numbers for all others."""
_PARTS = ("rows", "prompt", "adapters", "heads", "attached", "body", "original")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Sizes, rates and intervals of a training run.

    Raises:
        ConfigError: A value is out of its range.
    """

    max_length: int = 512
    """Tokens per row, which is the maximum length of a text."""
    batch_size: int = 16
    """Rows per step, over all processes together."""
    micro_batch_size: int | None = None
    """Rows that a process computes at once; gradients are accumulated over the micro-batches of a
    step (`None`: all rows at once)."""
    optimizer: OptimizerName = "adamw"
    """`adamw` (Loshchilov & Hutter 2019, 1711.05101); `sgd`; or `nt-asgd`, SGD that averages its
    weights once the validation loss no longer improves (see `AveragedSGD`)."""
    learning_rate: float | None = None
    """The maximum rate. By default 3e-4 (20 for `sgd`, 30 for `nt-asgd`); if only new rows are
    trained with `adamw`, a fiftieth of the RMS of the original rows (see `row_rate`)."""
    learning_rates: Mapping[str, float] = field(default_factory=dict)
    """Maximum rates for single parts of the network: `rows`, `prompt`, `adapters`, `heads`,
    `attached` or `body`; for example `{"rows": 3e-3}`."""
    warmup_ratio: float = 0.05
    """Share of the steps in which the rate rises linearly from zero."""
    schedule: Schedule = "cosine"
    """The rate after warm-up: `cosine` decays along half a cosine wave (Loshchilov & Hutter
    2017, 1608.03983); `wsd` stays constant and decays linearly in the last fifth of the steps
    (warm-up, stable, decay: Hu et al. 2024, 2404.06395); `inverse_sqrt` decays with the square root
    of the step (Vaswani et al. 2017, 1706.03762), independent of the total; `constant` does not
    decay; `exponential` stays constant for 30 % of the steps, then decays by the same factor at
    each step, a smooth form of halving at each epoch (Zaremba et al. 2014, 1409.2329);
    `slanted_triangular` rises and falls linearly, from and to the final rate (ULMFiT, Howard &
    Ruder 2018, 1801.06146, with `warmup_ratio` 0.1 and `min_lr_ratio` 1/32)."""
    min_lr_ratio: float = 0.1
    """The final rate, as a share of the maximum (not for `inverse_sqrt`)."""
    layer_decay: float = 1.0
    """Factor on the rate from each layer to the one below it (discriminative fine-tuning); 1/2.6 in
    ULMFiT. The maximum rates above apply to the heads; see `layer_schedule`."""
    unfreeze_steps: int = 0
    """Number of steps after which one more layer is unfrozen, from the top down (gradual
    unfreezing, ULMFiT); 0: all layers train from the start."""
    weight_decay: float | None = None
    """Weight decay of linear and recurrent matrices only (Loshchilov & Hutter 2019, 1711.05101). By
    default 0.1 for `adamw`, and 0 for SGD, where 0.1 times a rate of 20 would reverse the sign of
    the weights at each step."""
    adam_beta2: float = 0.95
    """AdamW's decay of the mean squared gradient (0.98 in "Attention Is All You Need")."""
    max_grad_norm: float = 1.0
    """Gradients whose norm is larger are scaled down to this norm."""
    gradient_checkpointing: bool = False
    """Recompute the activations of each layer in the backward pass instead of storing them: less
    memory, about a third more computation, the same result."""
    precision: TrainingPrecision = "auto"
    """Precision of matrix products: `fp32`, `bf16` (autocast; weights and sums stay in float32), or
    `auto`, the faster one in a short measurement at the start. `run.json` records the choice, and a
    resumed run keeps it."""
    save_steps: int = 200
    """Steps between checkpoints."""
    eval_steps: int = 200
    """Steps between evaluations on the validation text, if there is one."""
    varied_length: bool = False
    """In a stream (see `SegmentStream`): sample the length of each segment around `max_length`."""
    seed: int = 0
    """Random seed of the order of documents, masks, dropout and adapters."""

    def __post_init__(self) -> None:
        self._check_types()
        for name in (
            "max_length",
            "batch_size",
            "micro_batch_size",
            "save_steps",
            "eval_steps",
            "max_grad_norm",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="it must be positive")
        for name, largest in _LARGEST.items():
            if (getattr(self, name) or 0) > largest:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", hint=f"it is at most {largest:,}"
                )
        if not isinstance(self.optimizer, str) or self.optimizer not in get_args(OptimizerName):
            raise ConfigError(
                f"the optimizer {self.optimizer!r}", hint="one of " + ", ".join(_USUAL_RATES)
            )
        adaptive = self.optimizer == "adamw"
        highest, usual = (1, "1e-5 to 1e-2") if adaptive else (1000, "0.1 to 30")
        if self.learning_rate is not None and not 0 < self.learning_rate <= highest:
            raise ConfigError(f"a learning rate of {self.learning_rate}", hint=f"usual are {usual}")
        unknown = sorted({*self.learning_rates} - {*_PARTS})
        if unknown:
            raise ConfigError(
                f"learning_rates names {unknown[0]!r}", hint="parts are " + ", ".join(_PARTS)
            )
        for name, rate in self.learning_rates.items():
            if not isinstance(rate, int | float) or not 0 < rate <= highest:
                raise ConfigError(
                    f"a learning rate of {rate} for {name}", hint=f"at most {highest}"
                )
        for name in ("warmup_ratio", "min_lr_ratio", "weight_decay", "adam_beta2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}", hint="it is between 0 and 1")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"layer_decay is {self.layer_decay}", hint="above 0, and at most 1")
        if self.unfreeze_steps < 0:
            raise ConfigError(f"unfreeze_steps is {self.unfreeze_steps}", hint="it is at least 0")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}", hint="it is at least 0")
        if not isinstance(self.schedule, str) or self.schedule not in get_args(Schedule):
            raise ConfigError(
                f"the schedule {self.schedule!r}", hint="one of " + ", ".join(get_args(Schedule))
            )
        check_precision(self.precision, training=True)
        if self.max_length < 2:
            raise ConfigError("rows of one token predict nothing", hint="max_length is at least 2")

    def _check_types(self) -> None:
        """Check that numeric fields are numbers, and counts are integers."""
        if not isinstance(self.learning_rates, Mapping):
            raise ConfigError(
                f"learning_rates is {self.learning_rates!r}", hint='such as {"rows": 3e-3}'
            )
        for name in ("gradient_checkpointing", "varied_length"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}", hint="true or false")
        for one in fields(self):
            value, kind = getattr(self, one.name), str(one.type)
            if not kind.startswith(("int", "float")) or (value is None and "None" in kind):
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or (kind.startswith("int") and not float(value).is_integer()):
                wanted = "a whole number" if kind.startswith("int") else "a number"
                raise ConfigError(f"{one.name} is {value!r}", hint=f"it must be {wanted}")

    @classmethod
    def of(cls, config: Any) -> Self:
        """Return the settings themselves, or settings made from a mapping.

        Raises:
            ConfigError: The argument is neither, or a value is invalid.
        """
        if isinstance(config, cls):
            return config
        if not isinstance(config, Mapping):
            raise ConfigError(
                f"config is a {type(config).__name__}",
                hint="pass a TrainingConfig or a dict of its fields",
            )
        return cls.from_dict(config)

    @property
    def max_learning_rate(self) -> float:
        """The learning rate, or its default."""
        return _USUAL_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """The weight decay, or its default."""
        if self.weight_decay is None:
            return 0.1 if self.optimizer == "adamw" else 0.0
        return self.weight_decay

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the settings from a mapping, such as a TOML table.

        Raises:
            ConfigError: Names are unknown, or values have the wrong type or are out of range.
        """
        known = {field.name: field.type for field in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            near = get_close_matches(unknown[0], known, n=1)
            raise ConfigError(
                f"unknown training settings: {', '.join(unknown)}",
                hint=f"did you mean {near[0]}?" if near else "see TrainingConfig",
            )
        for name, value in values.items():
            wanted: Any = _TYPES.get(str(known[name]), int | float)
            if isinstance(value, bool) != (wanted is bool) or not isinstance(value, wanted):
                raise ConfigError(f"{name} is {value!r}", hint=f"it is a {known[name]}")
        return cls(**values)

    def learning_rate_at(self, step: int, steps: int, *, maximum: float | None = None) -> float:
        """Return the learning rate of a step, counted from 0.

        Args:
            step: The step.
            steps: Number of steps of the whole run.
            maximum: The maximum rate, by default the run's.
        """
        maximum = self.max_learning_rate if maximum is None else maximum
        warm = max(1, round(self.warmup_ratio * steps))
        if self.schedule == "slanted_triangular":
            rising, falling = step / warm, (steps - step) / max(1, steps - warm)
            share = min(rising, falling)
            return maximum * (self.min_lr_ratio + (1 - self.min_lr_ratio) * share)
        if step < warm:
            return maximum * (step + 1) / warm
        if self.schedule == "constant":
            return maximum
        if self.schedule == "exponential":
            held = max(warm, round(0.3 * steps))
            done = max(0, step - held) / max(1, steps - held)
            return maximum * float(max(self.min_lr_ratio, 1e-6) ** done)
        if self.schedule == "inverse_sqrt":
            return maximum * math.sqrt(warm / (step + 1))
        if self.schedule == "cosine":
            done = (step - warm) / max(1, steps - warm)
            share = 0.5 * (1 + math.cos(math.pi * done))
        else:
            share = min(1.0, (steps - step) / max(1, round(0.2 * steps)))
        return maximum * (self.min_lr_ratio + (1 - self.min_lr_ratio) * share)
