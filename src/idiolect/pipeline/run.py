"""The main road: which steps there are, what each depends on, and doing those that are not done.

    audit ─► extend ─► distill ─► adapt ─► tune ─► index ─► evaluate ─► report
                plain:            adapt ─► tune ──────────────▲
               random: extend ─► distill ─► adapt ─► tune ────┘

A step's fingerprint is a hash of the base, its settings, the files it reads and the fingerprints of
the steps before it. A step whose fingerprint its folder already holds is not done again, so
changing a value does again what depends on it, and nothing else.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from idiolect import __version__
from idiolect.errors import IdiolectError, InputError
from idiolect.pipeline import encoders, stages
from idiolect.pipeline.data import Data
from idiolect.pipeline.display import Display
from idiolect.pipeline.evaluation import evaluate
from idiolect.pipeline.report.page import write_report
from idiolect.pipeline.run_directory import RunDirectory
from idiolect.pipeline.settings import PipelineConfig, find_base
from idiolect.pipeline.stages import Stage, Work
from idiolect.text.files import read_text
from idiolect.training.progress import report_to

__all__ = ["Step", "road", "run"]

_ROAD = 2
"""Raised with every change of what a step does for the same settings, which is then done again."""
_BASE_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.bin")


@dataclass(frozen=True)
class Step:
    """One step of the road."""

    name: str
    do: Stage
    model: str | None = None
    """The step whose model it goes on with; the base, where there is none."""
    after: tuple[str, ...] = ()
    """Other steps whose results it reads."""
    settings: tuple[str, ...] = ()
    """The tables of the configuration it depends on."""
    reads: tuple[str, ...] = ()
    """The data it depends on."""

    @property
    def before(self) -> tuple[str, ...]:
        """All steps it depends on."""
        return self.after if self.model is None else (self.model, *self.after)


def road(config: PipelineConfig) -> list[Step]:
    """Return the steps of a configuration, each after those it depends on."""
    text = ("items", "corpus", "general")
    tests = ("queries", "judgements", "similar")
    extend = partial(Step, after=("audit",), settings=("extend",), reads=text)
    distill = partial(Step, do=stages.distill, settings=("distill",), reads=text)
    adapt = partial(Step, do=stages.adapt, settings=("adapt", "encoder"), reads=text)
    tune = partial(
        Step,
        do=encoders.tune,
        settings=("tune", "encoder"),
        reads=("items", "pairs", "queries", "similar"),
    )
    steps = [
        Step("audit", stages.audit, settings=("audit",), reads=(*text, "glossary")),
        extend("extend", stages.extend),
        distill("distill", model="extend"),
        adapt("adapt", model="distill"),
        tune("tune", model="adapt"),
        Step("index", encoders.index, model="tune", reads=("items",)),
    ]
    if config.evaluate.controls:
        steps += [
            adapt("plain.adapt", after=("distill",)),
            tune("plain.tune", model="plain.adapt"),
            extend("random.extend", partial(stages.extend, terms="random.json")),
            distill("random.distill", model="random.extend"),
            adapt("random.adapt", model="random.distill"),
            tune("random.tune", model="random.adapt"),
        ]
    done = tuple(step.name for step in steps)
    measured = ("items", "corpus", "general", *tests)
    steps.append(
        Step("evaluate", evaluate, after=done, settings=("evaluate", "encoder"), reads=measured)
    )
    return steps


def run(path: str | Path, *, out: str | Path | None = None) -> Path:
    """Do what a configuration says, as far as it is not done.

    Args:
        path: The configuration.
        out: The run's folder, instead of the one the configuration names.

    Returns:
        The run's folder.

    Raises:
        IdiolectError: What a step raised, with the step's name before it; or the configuration is
            wrong, or another process is at work in the folder.
        KeyboardInterrupt: It was stopped; the same call goes on.
    """
    path = Path(path)
    config = PipelineConfig.load(path)
    folder = RunDirectory(out if out is not None else path.parent / config.out)
    data = Data(config.data, path.parent)
    base = find_base(config.base, path.parent)
    steps = road(config)
    with folder.locked(_kept(path)):
        prints = _fingerprints(steps, config, data, base)
        display = Display([*prints, "report"], [*(folder.seconds(name) for name in prints), 5.0])
        with display.shown(), report_to(display.advance), _without_warnings():
            for step in steps:
                if folder.done(step.name, prints[step.name]):
                    display.skip(step.name)
                    continue
                work = Work(
                    config=config,
                    data=data,
                    base=base,
                    model=base if step.model is None else str(folder.step(step.model) / "model"),
                    done={name: folder.step(name) for name in step.before},
                    folder=folder.begin(step.name, prints[step.name]),
                    tell=display.advance,
                )
                with display.running(step.name), _named(step.name):
                    began = time.monotonic()
                    metrics = step.do(work)
                    folder.finish(step.name, metrics, time.monotonic() - began)
                folder.report_path.unlink(missing_ok=True)
            folder.summarise(prints)
            if folder.report_path.exists():
                display.skip("report")
            else:
                with display.running("report"), _named("report"):
                    write_report(folder.path)
    return folder.path


def _fingerprints(
    steps: list[Step], config: PipelineConfig, data: Data, base: str
) -> dict[str, str]:
    model = _base_fingerprint(base)
    prints: dict[str, str] = {}
    for step in steps:
        inputs = {
            "idiolect": [__version__, _ROAD],
            "step": step.name,
            "base": model,
            "seed": config.seed,
            "settings": {name: getattr(config, name).model_dump() for name in step.settings},
            "data": {name: data.fingerprint(name) for name in step.reads},
            "before": [prints[name] for name in step.before],
        }
        text = json.dumps(inputs, sort_keys=True)
        prints[step.name] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return prints


def _base_fingerprint(base: str) -> str:
    from idiolect.text.hub import locate

    digest = hashlib.blake2b(digest_size=16)
    folder = locate(base, _BASE_FILES)
    for path in sorted(path for pattern in _BASE_FILES for path in folder.rglob(pattern)):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _kept(path: Path) -> str:
    """Return a configuration's text as it is kept in the run's folder."""
    where = path.resolve().parent
    return f"# as it was used; paths are relative to {where}\n{read_text(path)}"


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep the encoder from saying of every batch what the index's figures say of all."""
    logger = logging.getLogger("idiolect.encoding")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _named(step: str) -> Iterator[None]:
    """Put a step's name before what it raises, and give a full disk a remedy."""
    try:
        yield
    except IdiolectError as error:
        raise type(error)(f"{step}: {error.message}", hint=error.hint) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InputError(
            f"{step}: {where}{error.strerror or error}",
            hint="make room, and start again to go on from here"
            if full
            else "start again to go on",
        ) from error
