"""A model's directory: written aside, then put in place, so that nobody takes half of it for whole.

A new directory appears by one rename. In one that exists, file after file is replaced, since other
programs may stand in it or have mounted it; a mark tells of a replacement that was cut short, and
`check_finished` refuses what it left. Files of other programs are never touched.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError

from idiolect.errors import CheckpointError, InputError
from idiolect.text.files import flush

__all__ = ["check_finished", "replacing"]

_MARK = ".unfinished"
_LAST = "idiolect.json"
# What a model's directory may hold of its model. A file of these names that the new model does not
# have belongs to the old one, and would be read as if it were the new one's.
_OWNED = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "adapter_config.json",
    "adapter_model.safetensors",
    "extension.json",
    _LAST,
)


@contextmanager
def replacing(directory: str | Path) -> Iterator[Path]:
    """Give an empty folder to write a model's files into; they are in `directory` afterwards.

    Where the body fails, `directory` stays as it was.

    Raises:
        InputError: The path is no directory, or cannot be written to.
    """
    target = Path(os.path.realpath(directory))
    fresh: Path | None = None
    try:
        if target.exists() and not target.is_dir():
            raise InputError(f"{directory} is a file", hint="give a directory")
        home = target if target.is_dir() else target.parent
        home.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".saving-", dir=home))
        yield fresh
        for path in fresh.iterdir():
            flush(path)
        if target.is_dir():
            _exchange(target, fresh)
        else:
            # mkdtemp is for its owner alone; a model is for whoever may read its neighbours.
            fresh.chmod(home.stat().st_mode & 0o777)
            fresh.rename(target)
            flush(home)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write the model to {directory}: {getattr(error, 'strerror', None) or error}",
            hint="what was there is there still, unless a file .unfinished says otherwise",
        ) from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def check_finished(directory: Path) -> None:
    """Refuse a directory in which a model was being replaced when something ended it.

    Raises:
        CheckpointError: Its files are of two models.
    """
    if (directory / _MARK).exists():
        raise CheckpointError(
            f"saving a model into {directory} was cut short", hint="save or fetch it again"
        )


def _exchange(target: Path, fresh: Path) -> None:
    mark = target / _MARK
    mark.touch()
    flush(target)
    names = sorted((path.name for path in fresh.iterdir()), key=lambda name: name == _LAST)
    for name in names:
        if (fresh / name).is_dir():  # a rename replaces a file, and an empty folder
            shutil.rmtree(target / name, ignore_errors=True)
        os.replace(fresh / name, target / name)
    for path in target.iterdir():
        owned = any(fnmatch(path.name, pattern) for pattern in _OWNED)
        if owned and path.name not in names and not path.is_dir():
            path.unlink()
    flush(target)
    mark.unlink()
    flush(target)
