"""Locate a model: a local path, a model in a Python package, or a Hugging Face repository.

A string that names a known model always means that model, even if the current folder contains one
of the same name. To load that folder, write `./name` or pass a `Path`.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from idiolect.errors import InputError, OfflineError
from idiolect.text.arguments import check_path
from idiolect.text.packaged_models import PACKAGED
from idiolect.text.suggestions import did_you_mean, similar_path

__all__ = ["is_known_model", "locate"]

_SHIPPED = Path(__file__).parents[1] / "assets"
_LOG = logging.getLogger(__name__)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_known_model(name: str) -> bool:
    """Return whether a name is that of a model in this or another Python package."""
    if name in PACKAGED:
        return True
    with contextlib.suppress(OSError):  # a name that is too long for a file
        return bool(_HUB_ID.fullmatch(name)) and (_SHIPPED / name).is_dir()
    return False


def locate(source: str | Path, files: Iterable[str]) -> Path:
    """Return the local path of a model, after downloading it if necessary.

    Args:
        source: A path, the name of a model in this package (`idiolect-base`) or in another one
            (`minilm`, `smollm2`), or the id of a repository on the Hugging Face hub.
        files: Glob patterns of the files to download.

    Raises:
        InputError: The source is none of these.
        MissingDependencyError: The model is in a package that is not installed.
        OfflineError: The source may be a repository, and the hub cannot be reached; or the package
            that contains the model cannot be downloaded.
    """
    path = check_path(source, "source")
    name = str(source)
    is_name = bool(_HUB_ID.fullmatch(name))
    is_known = is_known_model(name)
    with contextlib.suppress(OSError):  # a name that is too long for a file
        if path.exists():
            if not (is_known and isinstance(source, str)):
                return path
            _LOG.warning("%s is the known model, not what is called so here: ./%s", name, name)
    if is_known:
        return PACKAGED[name].locate() if name in PACKAGED else _SHIPPED / name
    if not is_name:
        hint = similar_path(path) or "check the path"
        raise InputError(f"no such file or directory: {source}", hint=hint)
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(files)))
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{source} is neither a local path nor a repository on the hub",
            hint=_similar(path) or "check the spelling; a private repository needs `hf auth login`",
        ) from error
    except errors.HFValidationError as error:
        raise InputError(f"no such file or directory: {source}", hint="check the path") from error
    except Exception as error:  # any error of a proxy, a resolver or a full disk
        raise OfflineError(
            f"{source} is not a local path, and the hub cannot be reached",
            hint=_similar(path) or "check the path, or download the repository and pass its folder",
        ) from error


def _similar(path: Path) -> str:
    """Return a hint with a similarly named path or known model; empty if there is none."""
    known = did_you_mean(str(path), [*PACKAGED, *(one.name for one in _SHIPPED.iterdir())])
    return similar_path(path) or (known if known.startswith("did") else "")
