"""List and validate the settings of objectives."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from idiolect.errors import ConfigError

__all__ = ["check_flag", "check_number", "check_settings", "check_share"]


def check_settings(objective: type[Any], name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an objective as arguments of its class.

    Raises:
        ConfigError: The objective has no such setting; the message lists the known ones.
    """
    parameters = inspect.signature(objective).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in _OF_THE_RUN]
    if unknown := sorted(set(settings) - set(known)):
        raise ConfigError(
            f"the objective {name!r} has no setting {unknown[0]!r}",
            hint=f"it has {', '.join(known)}" if known else "it has none",
        )
    return dict(settings)


_OF_THE_RUN = ("seed", "language_ids")
"""Arguments of objectives that the run supplies."""


def check_flag(value: object, name: str) -> bool:
    """Return a setting that is on or off.

    Raises:
        ConfigError: The value is not a bool. A text such as "False" would count as true.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r}", hint="true or false")
    return value


def check_share(
    value: object, name: str, *, above_zero: bool = False, below_one: bool = False
) -> float:
    """Return a probability or share.

    Raises:
        ConfigError: The value is not a number from 0 to 1.
    """
    number = check_number(value, name)
    low = number > 0 if above_zero else number >= 0
    high = number < 1 if below_one else number <= 1
    if not low or not high:
        ends = " without 0 and 1" if above_zero and below_one else ""
        ends = ends or (" without 0" if above_zero else " without 1" if below_one else "")
        raise ConfigError(f"{name} is {value}", hint=f"it is a share from 0 to 1{ends}")
    return number


def check_number(value: object, name: str, *, least: float = -math.inf) -> float:
    """Return a finite number.

    Raises:
        ConfigError: The value is not a finite number, or is below `least`.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value):  # type: ignore[arg-type]
        raise ConfigError(f"{name} is {value!r}", hint="it must be a number")
    if value < least:  # type: ignore[operator]
        raise ConfigError(f"{name} is {value}", hint=f"at least {least:g}")
    return float(value)  # type: ignore[arg-type]
