"""Where a run's base comes from, and under which licence: what a card of an adapted model names."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from idiolect.errors import IdiolectError
from idiolect.text.files import read_text
from idiolect.text.hub import is_known_model, locate
from idiolect.text.packaged_models import PACKAGED
from idiolect.text.tokenizers.gguf.gguf_header import read_gguf_header

__all__ = ["UNKNOWN", "PublishedBase", "read_base"]

UNKNOWN = "unknown"
"""The hub's own word for a licence that nobody stated."""


@dataclass(frozen=True)
class PublishedBase:
    """The base of a run, as others know it."""

    name: str
    """Its name, without the folders of this machine."""
    repository: str | None
    """Its repository on the hub."""
    license: str
    """The hub's identifier of its licence, such as `apache-2.0`, or `UNKNOWN`."""
    card: bytes | None
    """Its own card."""


def read_base(run: Path, model: Path) -> PublishedBase:
    """Find out what the base of a run was, and its licence.

    The licence is the one that the base's card states, which is kept beside every model that is
    trained from it; otherwise that of the package or of the GGUF file.

    Args:
        run: The folder of the run.
        model: A model that the run trained.
    """
    base = str(tomllib.loads(read_text(run / "idiolect.toml")).get("base", "idiolect-base"))
    known = is_known_model(base)
    # `me/model` is a repository, unless it is a folder beside the configuration.
    repository = base if base.count("/") == 1 and not base.startswith((".", "/", "~")) else None
    if known:
        repository = PACKAGED[base].repository if base in PACKAGED else None
    elif repository is not None and _beside_configuration(run, base).exists():
        repository = None
    path = model / "README.md"
    card = path.read_bytes() if path.is_file() else None
    found = _license_of_card(card) or (_license_of_source(run, base, known=known))
    return PublishedBase(Path(base).name, repository, found or UNKNOWN, card)


def _beside_configuration(run: Path, base: str) -> Path:
    """Return the path of a base that is not a known model; a run keeps where its paths started."""
    first = read_text(run / "idiolect.toml").partition("\n")[0]
    return Path(first.partition("paths are relative to ")[2].strip() or ".", base)


def _license_of_card(card: bytes | None) -> str:
    """Return the licence in the front matter of a card; empty if it has none."""
    from huggingface_hub import ModelCard

    if card is None:
        return ""
    try:
        stated = ModelCard(card.decode("utf-8", "replace"), ignore_metadata_errors=True)
    except Exception:  # front matter that is no YAML, or no mapping
        return ""
    return str(getattr(stated.data, "license", None) or "")


def _license_of_source(run: Path, base: str, *, known: bool) -> str:
    """Return the licence that the base itself states; empty if it has none or is gone."""
    path = _beside_configuration(run, base)
    try:
        if known:
            path = locate(base, ("README.md",))
        if path.is_dir():
            card = path / "README.md"
            return _license_of_card(card.read_bytes() if card.is_file() else None)
        return str(read_gguf_header(path).metadata.get("general.license", ""))
    except (IdiolectError, OSError):
        return ""
