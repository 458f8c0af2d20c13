"""Run the pipeline: execute every stage that is missing or out of date.

A stage's fingerprint is a hash of the base, its settings, the files it reads and the fingerprints
of the stages it depends on. A stage is skipped if its folder holds the same fingerprint, so
changing a value repeats only the stages that depend on it. A stage with missing or damaged files is
repeated; the stages that read it are repeated only if its output differs.
"""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from idiolect import __version__
from idiolect.errors import IdiolectError, InputError
from idiolect.pipeline.data import Data
from idiolect.pipeline.display import Display
from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.report.page import write_report
from idiolect.pipeline.run_directory import RunDirectory
from idiolect.pipeline.settings import PipelineSettings, find_base
from idiolect.pipeline.stage import Stage, Work
from idiolect.pipeline.stage_graph import measured_systems, stages_of
from idiolect.text.files import read_text
from idiolect.training.progress import report_to

__all__ = ["base_fingerprint", "run"]

_VERSION = 5
"""Incremented when a stage's result for the same settings changes, so that all stages run again."""
_BASE_FILES = (
    *("*.json", "*.safetensors", "*.txt", "*.model", "*.bin", "*.tiktoken"),
    "chat_template.jinja",
)
_REPORT_SECONDS = 5.0


def run(path: str | Path, *, output_dir: str | Path | None = None) -> Path:
    """Run a configuration, or resume it.

    Args:
        path: The configuration.
        output_dir: The run's folder; by default the configured one.

    Returns:
        The run's folder.

    Raises:
        IdiolectError: A stage failed (the message begins with its name), the configuration is
            invalid, or another process is running in the folder.
        KeyboardInterrupt: The run was interrupted; the same call resumes it.
    """
    path = Path(path)
    config = PipelineConfig.load(path)
    folder = RunDirectory(output_dir if output_dir is not None else path.parent / config.out)
    data = Data(config.data, path.parent)
    base = find_base(config.base, path.parent)
    stages = stages_of(config)
    with folder.locked(_annotated(path)):
        prints = _fingerprints(stages, config, data, base)
        expected = [*(folder.seconds(name) for name in prints), _REPORT_SECONDS]
        display = Display([*prints, "report"], expected)
        with display.shown(), report_to(display.advance, display.say):
            for stage in stages:
                inputs = {
                    "fingerprint": prints[stage.name],
                    "before": {name: folder.digest(name) for name in stage.before},
                }
                if folder.done(stage.name, inputs, stage.shares):
                    display.skip(stage.name)
                    continue
                start = (
                    base if stage.model_from is None else folder.stage(stage.model_from) / "model"
                )
                with display.running(stage.name), _naming(stage.name):
                    work = Work(
                        config=config,
                        settings=config.table(stage.settings),
                        data=data,
                        base=base,
                        model=str(start),
                        done={name: folder.stage(name) for name in stage.before},
                        folder=folder.begin(stage.name, inputs),
                        systems=measured_systems(stages),
                    )
                    began = time.monotonic()
                    metrics = stage.run(work)
                    folder.finish(stage.name, metrics, time.monotonic() - began, stage.shares)
                folder.report_path.unlink(missing_ok=True)
            folder.summarize(prints)
            if folder.report_done():
                display.skip("report")
            else:
                with display.running("report"), _naming("report"):
                    write_report(folder.path)
                    folder.finish_report()
    return folder.path


def _fingerprints(
    stages: Sequence[Stage[Any]], config: PipelineSettings, data: Data, base: str
) -> dict[str, str]:
    model = base_fingerprint(base)
    prints: dict[str, str] = {}
    for stage in stages:
        tables = {stage.table: config.table(stage.settings)}
        tables |= {name: getattr(config, name) for name in stage.shared}
        inputs = {
            "idiolect": [__version__, _VERSION],
            "stage": stage.name,
            "base": model,
            "seed": config.seed,
            "settings": {name: table.model_dump() for name, table in tables.items()},
            "data": {name: data.fingerprint(name) for name in stage.inputs},
            "before": [prints[name] for name in stage.before],
        }
        text = json.dumps(inputs, sort_keys=True)
        prints[stage.name] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return prints


def base_fingerprint(base: str) -> str:
    """Return a hash of a base's files: those of its directory, or a single file."""
    from idiolect.text.hub import locate

    digest = hashlib.blake2b(digest_size=16)
    found = locate(base, _BASE_FILES)
    folder = found if found.is_dir() else found.parent
    files = {path for pattern in _BASE_FILES for path in found.rglob(pattern)}
    for path in sorted(files if found.is_dir() else {found}):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _annotated(path: Path) -> str:
    """Return a configuration's text for the run's folder."""
    where = path.resolve().parent
    return f"# as used; paths are relative to {where}\n{read_text(path)}"


@contextmanager
def _naming(stage: str) -> Iterator[None]:
    """Prefix errors with the stage's name, and turn disk errors into `InputError`."""
    try:
        yield
    except IdiolectError as error:
        raise type(error)(f"{stage}: {error.message}", hint=error.hint) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InputError(
            f"{stage}: {where}{error.strerror or error}",
            hint="free some space and run it again to resume" if full else "run it again to resume",
        ) from error
