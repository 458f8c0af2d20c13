"""`IndexEncoder`: locate the encoder of an index, load it when it is needed, and verify it.

An index stores the fingerprint of the encoder that computed its vectors, and the encoder's
location: a name, or a path, both absolute and relative to the index. So the index may be moved
alone or together with the encoder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idiolect.errors import ConfigError
from idiolect.text.arguments import load_if_named

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.query_encoder.query_encoder import QueryEncoder
    from idiolect.search.store.any_store import AnyStore

__all__ = ["RELATIVE_LOCATION", "IndexEncoder", "load_given", "remember_encoder"]

RELATIVE_LOCATION = "source_from_index"
"""The setting with the location of the encoder, relative to the index."""
_LOCATION, _PRECISION = "source", "precision"


def remember_encoder(store: AnyStore, location: str, precision: str) -> None:
    """Store the location of the encoder of an index, and its precision.

    Args:
        store: the store of the index.
        location: a path, the name of a model, or a hub id.
        precision: see `Encoder`.
    """
    from idiolect.text.hub import is_known_model

    settings = {_LOCATION: location, RELATIVE_LOCATION: "", _PRECISION: precision}
    path, folder = Path(location), getattr(store, "path", None)
    if path.is_absolute() or (path.exists() and not is_known_model(location)):
        settings[_LOCATION] = str(path.resolve())
        if folder is not None:
            settings[RELATIVE_LOCATION] = os.path.relpath(path.resolve(), Path(folder).resolve())
    store.remember(**settings)


class IndexEncoder:
    """The encoder of an index.

    Args:
        store: the store of the index.
        given: an encoder, its location, or None for the location that the index stores.

    Raises:
        ConfigError: another encoder computed the vectors.
    """

    def __init__(self, store: AnyStore, given: Encoder | str | Path | None) -> None:
        self._store = store
        self._loaded: Encoder | None = None
        self._for_queries: QueryEncoder | None = None
        self._given: str | Path | None = None
        if isinstance(given, str | os.PathLike):
            self._given = given
        elif given is not None:
            self._use(load_given(given))

    @property
    def is_known(self) -> bool:
        """Whether an encoder computed vectors of the index, or was given for it."""
        chosen = self._loaded is not None or self._given is not None
        return chosen or "encoder" in self._store.settings

    @property
    def is_located(self) -> bool:
        """Whether the encoder is loaded, or its location is known."""
        return self._loaded is not None or self.location is not None

    @property
    def location(self) -> str | None:
        """Where the encoder is expected: a path or a name; None if that is not known."""
        settings, folder = self._store.settings, getattr(self._store, "path", None)
        if self._given is not None:
            return str(self._given)
        if folder is not None and settings.get(RELATIVE_LOCATION):
            beside = Path(folder, settings[RELATIVE_LOCATION])
            if beside.exists():
                return str(beside.resolve())
        return settings.get(_LOCATION)

    @property
    def described(self) -> str:
        """The location of the encoder, or else the start of its fingerprint; `none` without one."""
        return self.location or self._store.settings.get("encoder", "none")[:12]

    def get(self) -> Encoder | None:
        """Return the encoder, loaded at the first call; None if none is known.

        Raises:
            ConfigError: it is no longer at its location, or another encoder computed the vectors.
        """
        if self._loaded is None and (location := self.location) is not None:
            if os.path.isabs(location) and not Path(location).exists():
                raise ConfigError(
                    f"the encoder of the index is not at {location} any more",
                    hint="pass encoder=PATH, where it is now",
                )
            from idiolect.encoding.encoder import Encoder  # imports torch

            # int8 changes the fingerprint, so it must match; bfloat16 would not speed up a query.
            precision = self._store.settings.get(_PRECISION)
            exact = {} if precision != "int8" else {"precision": precision}
            self._use(Encoder.load(location, **exact))
        return self._loaded

    def for_queries(self) -> Encoder | QueryEncoder | None:
        """Return the encoder for queries; None if no encoder is known.

        If torch is not imported yet and the user's cache has a copy of the encoder, return the copy
        (a `QueryEncoder`), which does not need torch.

        Raises:
            ConfigError: as in `get`.
        """
        if self._loaded is None and self._given is None and "torch" not in sys.modules:
            from idiolect.encoding.query_encoder.query_encoder import cached

            self._for_queries = self._for_queries or cached(self._store.settings.get("encoder"))
            if self._for_queries is not None:
                return self._for_queries
        return self.get()

    def keep_for_queries(self) -> None:
        """Write the encoder to the user's cache, if it is loaded; see `for_queries`."""
        if self._loaded is not None and "torch" in sys.modules:
            from idiolect.encoding.query_encoder.query_export import keep_query_encoder

            keep_query_encoder(self._loaded)

    def _use(self, encoder: Encoder) -> None:
        """Use an encoder, and store its fingerprint if it is the first."""
        store, own = self._store, encoder.fingerprint
        stored: str | None = store.settings.get("encoder")
        is_empty = stored != own and not any(store.namespaces().values())
        if stored is None and not is_empty:
            raise ConfigError(
                "the store has vectors, but does not say which encoder computed them",
                hint="search it by vectors, or build a new index with both vectors and encoder",
            )
        if stored is not None and stored != own and not is_empty:
            raise ConfigError(
                f"the index was built with encoder {stored[:12]}…, this is {own[:12]}…",
                hint="use that encoder, or build the index again in another folder",
            )
        if is_empty:
            published = int(getattr(encoder, "published", True))
            store.remember(encoder=own, published=published)
        self._loaded = encoder


def load_given(encoder: Any) -> Encoder:
    """Return the given encoder, or load it from a path or name.

    An object of another library counts as an encoder if it has `dimensions` and `fingerprint`.

    Raises:
        InputError: `encoder` is none of these.
    """
    if hasattr(encoder, "dimensions") and hasattr(encoder, "fingerprint"):
        given: Encoder = encoder
        return given
    from idiolect.encoding.encoder import Encoder

    return load_if_named(encoder, Encoder, "encoder")
