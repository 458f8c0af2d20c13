"""Settings of torch and OpenMP that the package chooses, unless a user has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import idiolect

NAMES = ("THP_MEM_ALLOC_ENABLE", "GOMP_SPINCOUNT")
PROGRAM = f"import idiolect, os; print([os.environ.get(n) for n in {NAMES}])"


def _settings(**chosen: str) -> str:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in (*NAMES, "OMP_WAIT_POLICY", "PYTHONPATH")
    }
    source = {"PYTHONPATH": str(Path(idiolect.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=inherited | source | chosen,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout


def test_settings_are_chosen_before_torch_reads_them() -> None:
    assert _settings().startswith("['1', '10000']")


def test_what_a_user_has_set_is_kept() -> None:
    chosen = {"THP_MEM_ALLOC_ENABLE": "0", "GOMP_SPINCOUNT": "5"}
    assert _settings(**chosen).startswith("['0', '5']")
    assert _settings(OMP_WAIT_POLICY="passive").startswith("['1', None]")
