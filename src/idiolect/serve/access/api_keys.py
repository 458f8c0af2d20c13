"""`ApiKeys`: API keys with scopes.

Keys are random; only their salted hashes are stored, in a JSON file:

    {"keys": [{"name": "web", "hash": "9f1c…:5e88…", "scopes": ["search"], "expires": null}]}

The file is read again when it changes, so keys are added and revoked while the server runs.

The key of a request is compared with all stored ones in constant time, so response times reveal
nothing about them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from idiolect.errors import CheckpointError, InputError
from idiolect.text.files import read_json, replacing_file
from idiolect.text.format_version import check_format, with_format

__all__ = ["SCOPES", "ApiKey", "ApiKeys", "add_key", "hash_key", "read_keys", "revoke_key"]

SCOPES = ("search", "encode", "generate", "write", "metrics")
"""The possible scopes of a key."""
_PREFIX = "idk-"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ApiKey:
    """The record of a key, without the key itself."""

    name: str
    """Name of the key, for logs."""
    hash: str
    """The salt and the hash, in hexadecimal."""
    scopes: tuple[str, ...] = SCOPES
    expires: str | None = None
    """Time of expiry in ISO 8601, or None."""

    def is_expired(self, now: datetime) -> bool:
        """Return whether the key has expired."""
        return self.expires is not None and datetime.fromisoformat(self.expires) <= now


class ApiKeys:
    """The keys of a server.

    Args:
        hashes: Hashes of keys with all scopes; see `hash_key`.
        path: A file of keys.

    Raises:
        CheckpointError: The file cannot be read.
    """

    def __init__(self, hashes: Iterable[str] = (), path: str | Path | None = None) -> None:
        self._fixed = tuple(ApiKey(f"key-{number}", one) for number, one in enumerate(hashes, 1))
        self._path = None if path is None else Path(path)
        self._stamp: tuple[int, int, int] | None = None
        self._checked = 0.0
        self._lock = threading.Lock()
        self._stored: tuple[ApiKey, ...] = ()
        if self._path is not None:
            self._stored = read_keys(self._path)
            self._stamp = _stamp(self._path)

    @property
    def required(self) -> bool:
        """Whether requests need a key."""
        return self._path is not None or bool(self._fixed)

    def find(self, sent: str) -> ApiKey | None:
        """Return the record of the sent key; None if it is unknown or expired."""
        self._refresh()
        now, found = datetime.now(UTC), None
        for key in (*self._fixed, *self._stored):  # constant time: compare all
            if _matches(sent, key.hash) and not key.is_expired(now):
                found = key
        return found

    def _refresh(self) -> None:
        """Read the file again if it has changed; if it cannot be read, keep the current keys."""
        if self._path is None or time.monotonic() - self._checked < 0.2:
            return
        with self._lock:
            self._checked = time.monotonic()
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._stored = read_keys(self._path)
            except (CheckpointError, InputError) as error:
                _LOG.warning("keys are unchanged, since their file cannot be read: %s", error)


def hash_key(key: str, salt: str | None = None) -> str:
    """Return the salted hash of a key (BLAKE2b): `salt:hash`, in hexadecimal."""
    salt = secrets.token_hex(16) if salt is None else salt
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), key=bytes.fromhex(salt))
    return f"{salt}:{digest.hexdigest()}"


def _matches(sent: str, stored: str) -> bool:
    salt, _, _ = stored.partition(":")
    return secrets.compare_digest(hash_key(sent, salt), stored)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a file of keys.

    Raises:
        CheckpointError: It is missing or damaged; the message names the key.
    """
    keys = []
    records = check_format(read_json(path), path).get("keys", [])
    if not isinstance(records, list):
        raise CheckpointError(
            f"{path}: its keys are no list", hint="check that it is the right file"
        )
    for number, record in enumerate(records):
        try:
            key = ApiKey(**{**record, "scopes": tuple(record["scopes"])})
            bytes.fromhex(key.hash.partition(":")[0])
            key.is_expired(datetime.now(UTC))
            _check_scopes(key.scopes)
        except (TypeError, KeyError, ValueError, AttributeError, InputError) as error:
            raise CheckpointError(
                f"{path}: key {number} is damaged: {error}", hint="remove it, or restore the file"
            ) from None
        keys.append(key)
    return tuple(keys)


def add_key(
    path: Path, name: str, scopes: Sequence[str] = SCOPES, days: float | None = None
) -> str:
    """Create a key, store its hash in a file, and return the key.

    Args:
        path: The file, which is created if it is missing.
        name: The name of the key.
        scopes: The scopes of the key.
        days: Days until it expires; by default never.

    Raises:
        InputError: The name is taken, a scope is unknown, or the file cannot be written.
        CheckpointError: The file is damaged.
    """
    _check_scopes(scopes)
    expires = None
    if days is not None:
        expires = (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
    made = _PREFIX + secrets.token_urlsafe(32)
    with _locked_folder(path):
        known = read_keys(path) if path.exists() else ()
        if any(key.name == name for key in known):
            raise InputError(f"there is a key {name!r}", hint="revoke it, or choose another name")
        _write(path, (*known, ApiKey(name, hash_key(made), tuple(scopes), expires)))
    return made


def revoke_key(path: Path, name: str) -> None:
    """Remove a key from a file.

    Raises:
        InputError: There is no such key, or the file cannot be written.
        CheckpointError: The file is missing or damaged.
    """
    with _locked_folder(path):
        known = read_keys(path)
        if all(key.name != name for key in known):
            names = ", ".join(key.name for key in known) or "none"
            raise InputError(f"there is no key {name!r}", hint=f"known: {names}")
        _write(path, tuple(key for key in known if key.name != name))


@contextlib.contextmanager
def _locked_folder(path: Path) -> Iterator[None]:
    """Hold the lock of a file's folder, so that no other process changes the keys meanwhile."""
    try:
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # reading or writing the file says what is wrong
        yield
        return
    try:
        with contextlib.suppress(OSError):  # this file system has no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    """Write a file of keys, readable by whom the one that it replaces was, such as the server."""
    records = with_format({"keys": [asdict(key) for key in keys]})
    try:
        with replacing_file(path) as fresh:
            fresh.chmod(0o600)
            fresh.write_bytes(f"{json.dumps(records, indent=1)}\n".encode())
            if path.exists():
                old = path.stat()
                with contextlib.suppress(PermissionError):  # only the superuser may
                    os.chown(fresh, old.st_uid, old.st_gid)
                fresh.chmod(old.st_mode & 0o777)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", hint="check the folder and its space"
        ) from error


def _check_scopes(scopes: Sequence[str]) -> None:
    for scope in scopes:
        if scope not in SCOPES:
            raise InputError(f"unknown scope {scope!r}", hint=f"known: {', '.join(SCOPES)}")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
