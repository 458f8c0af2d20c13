"""Fields of `config.json` that several families share: rotary positions and attention windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from idiolect.errors import ConfigError
from idiolect.models.family import Fields
from idiolect.nn.config import RotaryScaling

__all__ = ["layer_windows", "layered_rotary", "rotary"]

_SCALINGS = ("default", "linear", "yarn", "llama3")


def rotary(
    fields: Fields,
    rope: Fields | None = None,
    *,
    theta: float = 10_000.0,
    part: float | None = None,
) -> dict[str, Any]:
    """Translate rotary positions: rope_theta and rope_scaling, or the newer rope_parameters.

    Args:
        fields: The fields of `config.json`.
        rope: The rotary fields; by default `rope_parameters` or `rope_scaling`.
        theta: The default base.
        part: The default share of a head's dimensions that is rotated; `None` in a family that
            rotates all of them.

    Raises:
        ConfigError: The type of scaling is not supported, or a field that it needs is missing.
    """
    if rope is None:
        rope = Fields(fields.get("rope_parameters", {}) or fields.get("rope_scaling", {}))
    kind = rope.get("rope_type", rope.get("type", "default"))
    base = rope.get("rope_theta", fields.get("rope_theta", theta))
    if kind not in _SCALINGS:
        raise ConfigError(
            f"rotary scaling {kind!r} is not supported", hint="one of " + ", ".join(_SCALINGS)
        )
    turned = rope.get("partial_rotary_factor", fields.get("partial_rotary_factor", part or 1.0))
    if part is None and turned != 1.0:
        raise ConfigError(f"partial_rotary_factor = {turned} is not supported", hint="only 1.0 is")
    values: dict[str, Any] = {"rope_theta": base, "partial_rotary_factor": turned}
    if kind == "default":
        return values
    needed = ["factor", *(("low_freq_factor", "high_freq_factor") if kind == "llama3" else ())]
    for name in needed:
        if rope.get(name, None) is None:
            raise ConfigError(
                f"rotary scaling {kind!r} without {name}", hint="add it to config.json"
            )
    trained = fields.get(
        "original_max_position_embeddings",
        rope.get("original_max_position_embeddings", fields.get("max_position_embeddings", 2048)),
    )
    factor = rope.get("factor", 1.0)
    scaling: dict[str, Any] = {"kind": kind, "factor": factor, "trained_length": trained}
    if kind == "llama3":
        scaling |= {
            "fast": rope.get("high_freq_factor", 4.0),
            "slow": rope.get("low_freq_factor", 1.0),
        }
    if kind == "yarn":
        unsupported = [key for key in ("mscale", "mscale_all_dim") if rope.get(key, None)]
        if unsupported:
            raise ConfigError(f"rotary scaling with {unsupported[0]} is not supported")
        scaling |= {
            "fast": rope.get("beta_fast", 32.0),
            "slow": rope.get("beta_slow", 1.0),
            "attention_factor": rope.get("attention_factor", None),
            "rounded": rope.get("truncate", True),
        }
    return values | {"rope_scaling": RotaryScaling(**scaling)}


def layered_rotary(
    fields: Fields, *, theta: tuple[str, float], local_theta: tuple[str, float]
) -> dict[str, Any]:
    """Translate rotary positions that differ between full and windowed attention.

    Args:
        fields: The fields of `config.json`.
        theta: The older name of the field with the base for full-attention layers, and its default.
        local_theta: The same for layers with a window.

    Raises:
        ConfigError: As for `rotary`, or the positions of windowed layers are scaled.
    """
    kinds = Fields(fields.get("rope_parameters", {}))
    local = Fields(kinds.get("sliding_attention", {}))
    kind = local.get("rope_type", "default")
    if kind != "default":
        raise ConfigError(
            f"rotary scaling {kind!r} of windowed layers is not supported", hint="only default is"
        )
    rope = Fields(kinds.get("full_attention", {}) or fields.get("rope_scaling", {}))
    return rotary(fields, rope, theta=fields.get(*theta)) | {
        "local_rope_theta": local.get("rope_theta", fields.get(*local_theta))
    }


def layer_windows(fields: Fields, window: int | None, windowed: Sequence[bool]) -> dict[str, Any]:
    """Translate `layer_types`: which layers use sliding-window attention.

    Args:
        fields: The fields of `config.json`.
        window: The window size, counting the query itself; `None` for full attention.
        windowed: Whether each layer has a window if `layer_types` is missing.

    Raises:
        ConfigError: A type of attention is not supported, or the list does not have one per layer.
    """
    names = {False: "full_attention", True: "sliding_attention"}
    kinds = fields.get("layer_types", [names[one] for one in windowed])
    unknown = [kind for kind in kinds if kind not in names.values()]
    if unknown:
        raise ConfigError(f"layer_types with {unknown[0]!r} are not supported")
    if len(kinds) != len(windowed):
        raise ConfigError(
            f"layer_types names {len(kinds)} of {len(windowed)} layers",
            hint="name the kind of each layer",
        )
    if window is None or names[True] not in kinds:
        return {"windows": ()}
    return {"windows": tuple(window if kind == names[True] else None for kind in kinds)}
