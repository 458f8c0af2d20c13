"""Atomic writes of a model's directory.

A new directory is created by a single rename. In an existing one, files are replaced one by one,
since the directory may be mounted or in use. A marker file shows that a replacement was
interrupted, and `check_finished` refuses such a directory. Unrelated files are never changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError

from idiolect.errors import CheckpointError, InputError
from idiolect.text.arguments import check_path
from idiolect.text.files import flush, working_folder

__all__ = ["belongs_to_model", "check_finished", "replacing"]

_MARKER = ".unfinished"
_WRITTEN_LAST = "idiolect.json"
_PROMPT = "prompt"
"""The folder of a learnt prompt; that of the old model is removed with it."""
# Names of files that belong to a model. If the new model lacks one, that of the old model is
# removed, because it would be read as part of the new model.
_OWNED = (
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
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
    "tekken.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "extension.json",
    _WRITTEN_LAST,
)


def belongs_to_model(name: str) -> bool:
    """Return whether a file of this name in a directory would be read as part of its model."""
    return any(fnmatch(name, pattern) for pattern in _OWNED)


@contextmanager
def replacing(directory: str | Path) -> Iterator[Path]:
    """Yield an empty directory for a model's files, and move them to `directory` at the end.

    If the body fails, `directory` is unchanged.

    Raises:
        InputError: The path is not a directory, or cannot be written to.
    """
    target = Path(os.path.realpath(check_path(directory, "directory")))
    try:
        if target.exists() and not target.is_dir():
            raise InputError(f"{directory} is a file", hint="give a directory")
        parent = target if target.is_dir() else target.parent
        parent.mkdir(parents=True, exist_ok=True)
        with working_folder(parent, ".saving-") as fresh:
            yield fresh
            for path in fresh.rglob("*"):
                flush(path)
            if target.is_dir():
                _exchange(target, fresh)
            else:
                # The temporary folder is private; the model gets the permissions of its parent.
                fresh.chmod(parent.stat().st_mode & 0o777)
                fresh.rename(target)
                flush(parent)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write the model to {directory}: {getattr(error, 'strerror', None) or error}",
            hint="its files are unchanged unless it contains a file named .unfinished",
        ) from error


def check_finished(directory: Path) -> None:
    """Refuse a directory in which replacing a model was interrupted.

    Raises:
        CheckpointError: Its files may belong to two models.
    """
    if (directory / _MARKER).exists():
        raise CheckpointError(
            f"saving a model into {directory} was interrupted", hint="save or fetch it again"
        )


def _exchange(target: Path, fresh: Path) -> None:
    marker = target / _MARKER
    marker.touch()
    flush(target)
    names = sorted((path.name for path in fresh.iterdir()), key=lambda name: name == _WRITTEN_LAST)
    for name in names:
        if (fresh / name).is_dir():  # a rename replaces a file, and an empty folder
            shutil.rmtree(target / name, ignore_errors=True)
        os.replace(fresh / name, target / name)
    for path in target.iterdir():
        if belongs_to_model(path.name) and path.name not in names and not path.is_dir():
            path.unlink()
    if _PROMPT not in names and (target / _PROMPT / "adapter_config.json").exists():
        shutil.rmtree(target / _PROMPT)
    flush(target)
    marker.unlink()
    flush(target)
