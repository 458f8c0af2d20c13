"""The source and the licence of a run's base model, for the model card."""

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
"""The hub's value for a licence that is not stated."""


@dataclass(frozen=True)
class PublishedBase:
    """The base model of a run, as published."""

    name: str
    """Its name, without local folders."""
    repository: str | None
    """Its repository on the hub."""
    license: str
    """The hub's identifier of its licence, such as `apache-2.0`, or `UNKNOWN`."""
    card: bytes | None
    """Its own model card."""


def read_base(run: Path, model: Path) -> PublishedBase:
    """Find the base model of a run, and its licence.

    The licence is taken from the base's model card, which is kept with every model trained from it;
    otherwise from the package or the GGUF file.

    Args:
        run: The folder of the run.
        model: A model that the run trained.
    """
    base = str(tomllib.loads(read_text(run / "idiolect.toml")).get("base", "idiolect-base"))
    known = is_known_model(base)
    # `me/model` is a repository, unless such a folder exists beside the configuration.
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
    """Return the path of a base that is not a known model, by the original configuration."""
    first = read_text(run / "idiolect.toml").partition("\n")[0]
    return Path(first.partition("paths are relative to ")[2].strip() or ".", base)


def _license_of_card(card: bytes | None) -> str:
    """Return the licence in the front matter of a model card; empty if there is none."""
    from huggingface_hub import ModelCard

    if card is None:
        return ""
    try:
        stated = ModelCard(card.decode("utf-8", "replace"), ignore_metadata_errors=True)
    except Exception:  # front matter that is not YAML, or not a mapping
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
