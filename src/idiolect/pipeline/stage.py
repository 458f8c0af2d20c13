"""`Stage`: one step of the pipeline, with everything that the pipeline needs to know about it.

A stage lives in one file of `idiolect.pipeline.stages`, which assigns it to `STAGE`. Its table of
the configuration, its position in the order, its fingerprint, its controls and the systems it adds
to the evaluation are derived from that object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from idiolect.pipeline.settings import PipelineSettings, SettingsTable
from idiolect.pipeline.systems import MeasuredSystem

if TYPE_CHECKING:
    from idiolect.pipeline.data import Data

__all__ = ["ALL", "CONTROLS", "Control", "SharedOutput", "Stage", "Work"]

ALL = "*"
"""In `Stage.after`: every stage that does not depend on this one."""
CONTROLS = {"plain": "no new tokens", "random": "random tokens"}
"""The controls of a run, and their labels in charts."""

_Settings = TypeVar("_Settings", bound=SettingsTable)


@dataclass(frozen=True)
class Work(Generic[_Settings]):
    """The input of one execution of a stage."""

    config: PipelineSettings
    settings: _Settings
    """The stage's own table."""
    data: Data
    base: str
    """The base model, in the form that `LanguageModel.load` accepts."""
    model: str
    """The model to start from: the base, or the folder of an earlier stage's model."""
    done: Mapping[str, Path]
    """The folders of the stages it depends on, by name."""
    folder: Path
    """Output folder. It may contain files of an earlier process that was killed in this stage."""
    systems: tuple[MeasuredSystem, ...] = ()
    """The systems to evaluate in this run."""


@dataclass(frozen=True, kw_only=True)
class SharedOutput:
    """A part of a stage's output that users may change after the run, such as an index.

    The functions are called with its folder.
    """

    folder: str
    """Its name in the stage's folder."""
    find_damage: Callable[[Path], str]
    """Returns a description of the damage or an empty string; repairs as much as possible."""
    state: Callable[[Path], str]
    """Returns a text that changes with its content; empty if it cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Control(Generic[_Settings]):
    """A repetition of a stage from a different starting model, for comparison."""

    name: Literal["plain", "random"]
    """`plain`: the base without new tokens. `random`: tokens for terms chosen at random."""
    model_from: str | None = None
    """As `Stage.model_from`."""
    after: tuple[str, ...] = ()
    """As `Stage.after`."""
    run: Callable[[Work[_Settings]], Mapping[str, Any]] | None = None
    """By default the stage's own function."""
    systems: tuple[MeasuredSystem, ...] = ()
    """As `Stage.systems`."""


def _no_controls(_: Any) -> bool:
    """Return False: the stage needs no controls."""
    return False


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[_Settings]):
    """One step of the pipeline."""

    name: str
    """Its name, which is also the name of its table and its folder."""
    run: Callable[[Work[_Settings]], Mapping[str, Any]]
    """Does the work in `Work.folder`, and returns the metrics."""
    settings: type[_Settings]
    """Its table of the configuration; `SettingsTable` for a stage without settings."""
    metrics: type[Any]
    """The `TypedDict` of its metrics."""
    inputs: tuple[str, ...] = ()
    """Keys of `[data]` that the stage reads."""
    needs: str = ""
    """A key of `[data]`; the stage is only part of a run if the key is set."""
    shared: tuple[str, ...] = ()
    """Shared tables that the stage reads, such as `encoder`."""
    model_from: str | None = None
    """The stage with the model to start from; None starts from the base."""
    after: tuple[str, ...] = ()
    """Other stages whose results it reads; may be `ALL`."""
    after_if_run: tuple[str, ...] = ()
    """Stages whose results it reads if they are part of the run, such as controls."""
    shares: SharedOutput | None = None
    """The part of its output that users may change."""
    systems: tuple[MeasuredSystem, ...] = ()
    """Systems that it contributes to the evaluation."""
    controls: tuple[Control[_Settings], ...] = ()
    """Repetitions of the stage from other starting models."""
    wants_controls: Callable[[_Settings], bool] = _no_controls
    """Whether this stage, given its settings, needs the controls of all stages."""

    @property
    def table(self) -> str:
        """Name of its table, which its controls share."""
        return self.name.rpartition(".")[2]

    @property
    def control(self) -> str:
        """The control it belongs to, a key of `CONTROLS`; empty for the pipeline itself."""
        return self.name.rpartition(".")[0]

    @property
    def before(self) -> tuple[str, ...]:
        """All stages it depends on."""
        return self.after if self.model_from is None else (self.model_from, *self.after)

    def as_controls(self) -> Iterator[Stage[_Settings]]:
        """Yield its controls as stages, such as `plain.tune`."""
        for control in self.controls:
            yield replace(
                self,
                name=f"{control.name}.{self.name}",
                run=control.run or self.run,
                model_from=control.model_from,
                after=control.after,
                after_if_run=(),
                systems=control.systems,
                controls=(),
            )
