"""The exceptions of this package. Each message states the problem and, in brackets, a remedy.

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
    """Base class of all exceptions that this package raises, with a one-line message."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        message = " ".join(message.split("\n"))  # a value inside it may span several lines
        super().__init__(message)
        self.message = message
        """The problem."""
        self.hint = hint
        """How to fix it, or an empty string."""

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(IdiolectError):
    """An invalid file, text, id or option."""


class ConfigError(IdiolectError):
    """A configuration with an unknown, unsupported or inconsistent value."""


class CheckpointError(IdiolectError):
    """Weights, a tokenizer or a record on disk that is missing, damaged or inconsistent."""


class OfflineError(IdiolectError):
    """A download is needed, but the network or server cannot be reached."""


class MissingDependencyError(IdiolectError):
    """An optional package is not installed. The hint is its install command."""


class TrainingError(IdiolectError):
    """The training loss became NaN or diverged. The last good checkpoint is kept."""


class VerificationError(IdiolectError):
    """A guarantee of this package was checked and failed, so no result is returned or saved."""
