"""`idiolect models` and `idiolect doctor`: what the package knows and what this machine has."""

from __future__ import annotations

__all__ = ["doctor", "models"]


def models() -> None:
    """List the model families that can be loaded, with what each supports."""


def doctor() -> None:
    """Check this machine: versions, devices, number formats that run fast, optional packages."""
