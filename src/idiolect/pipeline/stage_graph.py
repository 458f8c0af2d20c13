"""Find the stages of the pipeline, and order them by their dependencies.

    audit ─► extend ─► distill ─► pretrain ─► tune ─► index ─► evaluate
                plain:            pretrain ─► tune ─────▲         ▲
               random: extend ─► distill ─► pretrain ─► tune ─────┘

With histories, `recommend` and `evaluate_recommend` follow `evaluate`; with a task,
`evaluate_task` does.

Every module of `idiolect.pipeline.stages` with a `STAGE` contributes it; there is no other list.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

from idiolect.errors import ConfigError
from idiolect.pipeline import stages
from idiolect.pipeline.settings import PipelineSettings
from idiolect.pipeline.stage import ALL, CONTROLS, Stage
from idiolect.pipeline.systems import MeasuredSystem

__all__ = ["all_stages", "in_order", "measured_systems", "stages_of"]


@cache
def all_stages() -> tuple[Stage[Any], ...]:
    """Return every stage, without controls, each after the stages it depends on."""
    names = (module.name for module in pkgutil.iter_modules(stages.__path__))
    modules = [import_module(f"{stages.__name__}.{name}") for name in names]
    return in_order([module.STAGE for module in modules if hasattr(module, "STAGE")])


def stages_of(config: PipelineSettings) -> tuple[Stage[Any], ...]:
    """Return the stages of a run in order, with the controls if a stage needs them.

    `ALL` is replaced by the names of the stages.
    """
    every = [one for one in all_stages() if not one.needs or getattr(config.data, one.needs)]
    if any(stage.wants_controls(config.table(stage.settings)) for stage in every):
        controls = [control for stage in every for control in stage.as_controls()]
        every += sorted(controls, key=lambda stage: list(CONTROLS).index(stage.control))
    resolved = _after(every)
    return tuple(replace(stage, after=resolved[stage.name]) for stage in in_order(every))


def measured_systems(run: Iterable[Stage[Any]]) -> tuple[MeasuredSystem, ...]:
    """Return the systems to evaluate: those without a stage first, and controls last."""
    found = [
        system if system.of_base else replace(system, stage=stage.name)
        for stage in run
        for system in stage.systems
    ]
    return tuple(sorted(found, key=lambda system: (system.control, not system.of_base)))


def in_order(found: Iterable[Stage[Any]]) -> tuple[Stage[Any], ...]:
    """Return stages in topological order, otherwise in the given order.

    Raises:
        ConfigError: The dependencies have a cycle, or name a stage that does not exist.
    """
    left = {stage.name: stage for stage in found}
    after = _after(left.values())
    before = {name: {*after[name], stage.model_from} - {None} for name, stage in left.items()}
    for name, needed in before.items():
        if unknown := needed - set(left):
            raise ConfigError(f"the stage {name} depends on {unknown.pop()}, which does not exist")
    done: dict[str, Stage[Any]] = {}
    while left:
        ready = next((name for name in left if before[name] <= set(done)), None)
        if ready is None:
            raise ConfigError(f"the stages {', '.join(left)} depend on one another in a circle")
        done[ready] = left.pop(ready)
    return tuple(done.values())


def _after(found: Iterable[Stage[Any]]) -> dict[str, tuple[str, ...]]:
    """Return the stages that each stage reads, with `ALL` replaced by names."""
    every = list(found)
    known = {stage.name for stage in every}
    resolved = {
        stage.name: (*stage.after, *(name for name in stage.after_if_run if name in known))
        for stage in every
    }
    for stage in every:
        if ALL in stage.after:
            later = _dependents(stage.name, every)
            names = [one.name for one in in_order([s for s in every if s.name not in later])]
            resolved[stage.name] = tuple(name for name in names if name != stage.model_from)
    return resolved


def _dependents(name: str, found: Iterable[Stage[Any]]) -> set[str]:
    """Return a stage and all stages that depend on it."""
    later = {name}
    every = list(found)
    while more := {stage.name for stage in every if later & set(stage.before)} - later:
        later |= more
    return later
