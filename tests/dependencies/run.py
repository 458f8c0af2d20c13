"""`make audit`: the licences of all locked dependencies, and known vulnerabilities in them.

Exits with 1 for an unknown or unsuitable licence or a vulnerability, and with 2 if some packages
could not be looked up: `pip-audit` itself would report these as free of vulnerabilities.

    python tests/dependencies/run.py             both
    python tests/dependencies/run.py --licences  only the licences, which needs no network
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

LOCK = Path(__file__).resolve().parents[2] / "requirements.lock"
SUITABLE = {
    "0BSD", "Apache", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CNRI-Python", "ISC", "LLVM-exception", "MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib",
}  # fmt: skip
"""Licences beside which an MIT program may be given on. MPL-2.0 covers only its own files."""
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_LONGEST = 60
"""Characters of a field `License` that is a name, and not a whole text."""


def locked(path: Path = LOCK) -> dict[str, str]:
    """Return the version of each package in a file of requirements with hashes.

    Raises:
        ValueError: A package has no hash.
    """
    blocks = re.split(r"\n(?=\w)", path.read_text(encoding="utf-8"))
    versions = {}
    for block in blocks:
        if found := re.match(r"([\w.-]+)==(\S+)", block):
            if "--hash=sha256:" not in block:
                raise ValueError(f"{found[1]} has no hash")
            versions[found[1]] = found[2]
    return versions


def licence(name: str) -> str:
    """Return the licence that an installed package declares; empty if it declares none."""
    found = metadata.metadata(name)
    if expression := found.get("License-Expression"):
        return str(expression)
    named = [c.rpartition(" :: ")[2] for c in found.get_all("Classifier") or [] if "License" in c]
    if named:
        return " AND ".join(_CLASSIFIERS.get(one, one) for one in named)
    text = found.get("License") or ""
    return text if len(text) <= _LONGEST else ""


def is_suitable(expression: str) -> bool:
    """Whether all parts of a licence expression are suitable, or one of its alternatives is."""
    alternatives = re.split(r"\s+OR\s+", expression.strip("() "))
    return any(
        all(part.strip("() ") in SUITABLE for part in re.split(r"\s+(?:AND|WITH)\s+", one))
        for one in alternatives
    )


def licences(versions: dict[str, str]) -> int:
    """Print a line for each package; return how many are not suitable or not known."""
    wrong = 0
    for name, version in versions.items():
        try:
            found = licence(name)
        except metadata.PackageNotFoundError:
            found = "not installed: install requirements.lock first"
        suitable = is_suitable(found)
        wrong += not suitable
        print(f"{name:<24} {version:<18} {found or 'unknown'}{'' if suitable else '   UNSUITABLE'}")
    print(f"{len(versions)} packages, {wrong} of them with an unsuitable or unknown licence")
    return wrong


def _pip_audit() -> str:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes"]
    options = ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    found = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    return found.stdout or found.stderr


def advisories(read: Callable[[], str] = _pip_audit) -> int:
    """Print known vulnerabilities; return 1 if there are some, 2 if not all could be looked up."""
    answer = read()
    try:
        packages = json.loads(answer)["dependencies"]
    except ValueError:
        print(f"vulnerabilities: NOT LOOKED UP: {' '.join(answer.split())[-200:]}")
        return 2
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    found = [(p["name"], p["version"], v) for p in packages for v in p.get("vulns", ())]
    for name, version, one in found:
        print(
            f"{name} {version}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'none'}"
        )
    print(f"{len(packages) - len(unknown)} packages looked up, {len(found)} vulnerabilities")
    if unknown:
        print(f"NOT LOOKED UP: {len(unknown)} packages; is the network there? {', '.join(unknown)}")
    return 1 if found else 2 if unknown else 0


def main(arguments: Sequence[str]) -> int:
    """Run the audit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--licences", action="store_true", help="only the licences")
    given = parser.parse_args(arguments)
    wrong = licences(locked() | {"torch": metadata.version("torch")})  # pinned by the image
    status = 0 if given.licences else advisories()
    return 1 if wrong else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
