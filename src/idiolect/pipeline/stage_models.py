"""Load the models that stages exchange."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idiolect.pipeline.stage import Work
from idiolect.pipeline.systems import MeasuredSystem
from idiolect.text.files import read_json
from idiolect.text.hub import locate

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder
    from idiolect.models.language_model import LanguageModel

__all__ = [
    "is_encoder",
    "load_encoder",
    "load_model",
    "load_system",
    "load_untuned",
    "needs_whitening",
]


def load_model(path: str | Path) -> LanguageModel:
    """Load a model onto a GPU if there is one, and onto the CPU otherwise."""
    import torch

    from idiolect.models.language_model import LanguageModel

    return LanguageModel.load(path, device="cuda" if torch.cuda.is_available() else "cpu")


def load_encoder(work: Work[Any], path: str | Path, *, whole: bool = False) -> Encoder:
    """Load a model as an encoder, with the settings of `[encoder]`, or else those of the base.

    Of the base, only small configuration files are read, not the weights.

    Args:
        work: The input of a stage.
        path: The model.
        whole: Use all layers, regardless of `[encoder]`.
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.encoder_layout import LAYOUT_FILES, EncoderLayout

    settings = work.config.encoder
    base = EncoderLayout.read(locate(work.base, LAYOUT_FILES)) or EncoderLayout()
    layout = replace(
        base,
        pooling=settings.pooling or base.pooling,
        normalize=True,  # all comparisons are by cosine
        max_length=settings.max_length or base.max_length,
    )
    model = load_model(path)
    layers: int | str | None = settings.layers
    if layers is None and model.network.kind == "causal" and layout.pooling == "mean":
        layers = None if is_encoder(work.base) else 0
    if layers == "auto" and not whole:
        layers = int(read_json(work.done["tune"] / "depths.json")["layers"])
    return Encoder(model, **vars(layout), layers=None if whole or layers == "all" else layers)


def load_untuned(work: Work[Any], path: str | Path) -> Encoder:
    """Load a model as an untuned encoder, whitened with the items' texts if necessary."""
    encoder = load_encoder(work, path)
    if needs_whitening(work):
        encoder.project(list(work.data.texts.values()), whiten=True)
    return encoder


def load_system(work: Work[Any], system: MeasuredSystem) -> Encoder:
    """Load the encoder of a system that ranks by vectors."""
    from idiolect.encoding.encoder import Encoder

    model = str(work.done[system.stage] / "model") if system.stage else work.base
    return Encoder.load(model) if system.finished else load_untuned(work, model)


def needs_whitening(work: Work[Any]) -> bool:
    """Return whether untuned vectors hardly discriminate between texts and need whitening.

    They do unless the base was published as an encoder and is used with all its layers.
    """
    return work.config.encoder.layers not in (None, "all") or not is_encoder(work.base)


def is_encoder(base: str) -> bool:
    """Return whether a model was published as an encoder."""
    return (locate(base, ("modules.json",)) / "modules.json").exists()
