"""`FineTuning`: the fine-tuning methods that all tasks share, as settings.

plain    one learning rate for all layers, which all train from the start
ulmfit   discriminative rates, slanted triangular schedule, gradual unfreezing, concat pooling
(Howard & Ruder 2018, 1801.06146)
gpt1     the language-model loss as an auxiliary loss (Radford et al. 2018)
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from idiolect.errors import ConfigError
from idiolect.text.files import read_text
from idiolect.training.training_config import TrainingConfig

__all__ = ["RECIPES", "FineTuning", "read_transfer"]


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How a network is fine-tuned for a task.

    Raises:
        ConfigError: A value is of another type or out of its range.
    """

    concat_pooling: bool = False
    """Represent a text by its last state and the element-wise maximum and mean of its states."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the layer below (discriminative rates)."""
    slanted_triangular: bool = False
    """Raise the learning rate over a tenth of the steps, then lower it to 1/32 of its peak."""
    gradual_unfreezing: bool = False
    """Train only the head in the first epoch, and one more layer in each further epoch."""
    lm_loss_weight: float = 0.0
    """Weight λ of the auxiliary language-model loss on the task's texts."""
    unfreeze_original_rows: bool = False
    """Train the original rows of the vocabulary as well."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value, wanted = getattr(self, one.name), (bool if one.type == "bool" else int | float)
            if not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool)):
                raise ConfigError(f"{one.name} is {value!r}", hint=f"it is a {one.type}")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"layer_decay is {self.layer_decay}", hint="above 0, and at most 1")
        if not 0 <= self.lm_loss_weight < math.inf:
            raise ConfigError(f"lm_loss_weight is {self.lm_loss_weight}", hint="0.5 in GPT-1")

    @classmethod
    def of(cls, recipe: str, **changes: Any) -> Self:
        """Return a recipe, with some fields changed.

        Raises:
            ConfigError: The recipe or a field is unknown, or a value is out of its range.
        """
        if recipe not in RECIPES:
            raise ConfigError(
                f"unknown recipe {recipe!r}", hint=f"one of {', '.join(RECIPES)}, or a .toml file"
            )
        known = [one.name for one in fields(cls)]
        if unknown := sorted(set(changes) - set(known)):
            raise ConfigError(
                f"unknown fine-tuning setting {unknown[0]!r}", hint=f"known: {', '.join(known)}"
            )
        return cls(**dict(RECIPES[recipe]) | changes)

    def training_config(self, config: TrainingConfig, steps_per_epoch: int) -> TrainingConfig:
        """Return training settings with these methods applied.

        Args:
            config: The settings without them.
            steps_per_epoch: Gradual unfreezing trains one more layer after this many steps.
        """
        changes: dict[str, Any] = {}
        if self.layer_decay != 1:
            changes["layer_decay"] = self.layer_decay
        if self.slanted_triangular:
            changes |= {
                "schedule": "slanted_triangular",
                "warmup_ratio": 0.1,
                "min_lr_ratio": 1 / 32,
            }
        if self.gradual_unfreezing:
            changes["unfreeze_steps"] = steps_per_epoch
        return replace(config, **changes)


RECIPES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "ulmfit": {
        "concat_pooling": True,
        "layer_decay": 1 / 2.6,
        "slanted_triangular": True,
        "gradual_unfreezing": True,
    },
    "gpt1": {"lm_loss_weight": 0.5},
}
"""Fields of `FineTuning` by the name of the recipe."""


def read_transfer(source: str) -> tuple[FineTuning, dict[str, Any]]:
    """Read fine-tuning settings: the name of a recipe, or a TOML file with two tables.

    `fine_tuning` holds `recipe` and fields of `FineTuning`; `adaptation`, the arguments of
    `adapt_to_domain`: `texts`, `steps` and settings of `TrainingConfig`. Paths of texts are
    relative to the file.

    Raises:
        ConfigError: An unknown recipe, table or setting, or a value out of its range.
        InputError: The file cannot be read.
    """
    if not source.endswith(".toml"):
        return FineTuning.of(source), {}
    path = Path(source)
    try:
        tables = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", hint="see toml.io for the syntax") from error
    unknown = sorted(set(tables) - {"fine_tuning", "adaptation"})
    if unknown or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(
            f"{path} has {unknown[0] if unknown else 'a value'} beside its tables",
            hint="known are [adaptation] and [fine_tuning]",
        )
    settings = dict(tables.get("fine_tuning", {}))
    adaptation = dict(tables.get("adaptation", {}))
    if "adaptation" in tables and "steps" not in adaptation:
        raise ConfigError(f"{path}: [adaptation] has no steps", hint="add a line: steps = 300")
    if fixed := sorted({"encoder", "own_texts", "output_dir"} & set(adaptation)):
        raise ConfigError(
            f"{path}: [adaptation] cannot set {fixed[0]}", hint="the command sets it; remove it"
        )
    texts = adaptation.get("texts", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{path}: texts is {texts!r}", hint='a list such as ["books.txt"]')
    if texts:
        adaptation["texts"] = [str(path.parent / text) for text in texts]
    return FineTuning.of(str(settings.pop("recipe", "plain")), **settings), adaptation
