"""The lock of the dependencies, their licences, and what an audit without a network says."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import ROOT
from dependencies import run

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def _declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = project["dependencies"] + project["optional-dependencies"]["serve"]
    return [Requirement(line) for line in lists]


def test_the_lock_has_every_dependency_with_a_hash() -> None:
    versions = run.locked()
    for one in _declared():
        if one.name not in ("torch", "idiolect"):
            version = versions[canonicalize_name(one.name)]
            assert one.specifier.contains(version), f"{one.name} {version}: run make lock"
    assert not [name for name in versions if name.startswith(("nvidia", "torch"))]


def test_a_package_without_a_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("a==1 \\\n    --hash=sha256:00\nb==2\nc==3 \\\n    --hash=sha256:00\n")
    with pytest.raises(ValueError, match="b has no hash"):
        run.locked(path)


def test_all_licences_are_suitable(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.licences(run.locked()) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("expression", "suitable"),
    [
        ("MIT", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("(BSD-3-Clause AND GPL-3.0-only)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("AGPL-3.0-only", False),
        ("", False),
    ],
)
def test_licence_expressions(expression: str, suitable: bool) -> None:
    assert run.is_suitable(expression) is suitable


def test_what_could_not_be_looked_up_is_not_called_free_of_vulnerabilities(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fine = {"name": "a", "version": "1", "vulns": []}
    bad = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
    lost = {"name": "c", "skip_reason": "not found"}
    for packages, status, words in (
        ([fine], 0, "1 packages looked up, 0 vulnerabilities"),
        ([fine, bad], 1, "b 2: CVE-1, mended in 3"),
        ([fine, lost], 2, "NOT LOOKED UP: 1 packages"),
    ):
        assert run.advisories(lambda p=packages: json.dumps({"dependencies": p})) == status
        assert words in capsys.readouterr().out
    assert run.advisories(lambda: "no route to host") == 2
    assert "NOT LOOKED UP: no route to host" in capsys.readouterr().out


def test_the_image_copies_what_exists_and_installs_the_lock() -> None:
    """No Docker is at hand where tests run."""
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert {"pyproject.toml", "src", "assets", "requirements.lock"} <= set(copied)
    assert all((ROOT / word).exists() for word in copied)
    assert "--require-hashes" in DOCKERFILE
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert re.search(r'ENTRYPOINT \["(\w+)"\]', DOCKERFILE)[1] in project["scripts"]  # type: ignore[index]
    torch = next(one for one in _declared() if one.name == "torch")
    pinned = re.search(r"torch==([\d.]+)", DOCKERFILE)
    assert pinned is not None
    assert torch.specifier.contains(pinned[1])
