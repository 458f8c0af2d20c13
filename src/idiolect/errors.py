"""The exceptions a user can meet: one small tree, every error with a remedy.

>>> str(InputError("no such file: terms.txt", hint="check the path"))
'no such file: terms.txt (check the path)'
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigError",
    "IdiolectError",
    "InputError",
    "MissingDependencyError",
    "OfflineError",
    "TrainingError",
    "VerificationError",
]


class IdiolectError(Exception):
    """Anything this package raises on purpose: what is wrong, then what to do, in one line."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        """What is wrong."""
        self.hint = hint
        """What to do about it; empty where there is nothing to say."""

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(IdiolectError):
    """A file, a text, an id or an option that cannot be used as given."""


class ConfigError(IdiolectError):
    """A configuration with an unknown, unsupported or impossible value."""


class CheckpointError(IdiolectError):
    """Weights, tokenizer or record on disk that are missing, damaged or do not fit together."""


class OfflineError(IdiolectError):
    """Something would have to be fetched and cannot be reached."""


class MissingDependencyError(IdiolectError):
    """An optional package is needed and not installed; the hint is its install command."""


class TrainingError(IdiolectError):
    """A run whose loss is not a number any more, or explodes; its last good state is kept."""


class VerificationError(IdiolectError):
    """A promise this package makes was checked and does not hold; nothing is handed out."""
