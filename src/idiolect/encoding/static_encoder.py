"""Whether a static encoder should be whitened."""

from __future__ import annotations

from idiolect.encoding.encoder import Encoder
from idiolect.models.shallow import WHITENED

__all__ = ["should_whiten"]


def should_whiten(encoder: Encoder) -> bool:
    """Return whether an encoder is static and its rows are still those of a language model.

    The rows of a language model share a dominant direction, which makes all texts similar until it
    is removed.
    """
    model = encoder.model
    is_plain = encoder.projection is None and not model.settings.get(WHITENED, False)
    return model.network.context_free and is_plain
