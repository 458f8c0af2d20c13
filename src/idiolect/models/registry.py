"""The supported model families, by the `model_type` of `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from idiolect.errors import ConfigError
from idiolect.models.families import (
    bart,
    bert,
    gemma,
    gpt,
    gpt_neox,
    llama,
    llama_relatives,
    modernbert,
    opt,
    recurrent,
    seq2seq_family,
    static,
    t5,
    vaswani,
    xlm,
)
from idiolect.models.family import Family

__all__ = ["FAMILIES", "find_family"]

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for module in (
        bert,
        modernbert,
        xlm,
        gpt,
        opt,
        gpt_neox,
        llama,
        llama_relatives,
        gemma,
        t5,
        bart,
        recurrent,
        vaswani,
        seq2seq_family,
        static,
    )
    for family in module.FAMILIES
}


def find_family(settings: Mapping[str, Any]) -> Family:
    """Find the family of a `config.json`.

    Raises:
        ConfigError: The `model_type` is missing or unknown; the message lists the known ones.
    """
    model_type = settings.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        problem = "no model_type" if model_type is None else f"unknown model type {model_type!r}"
        hint = "known: " + ", ".join(sorted(FAMILIES))
        if settings.get("auto_map"):
            hint = f"its code is in its own repository, and is not run; {hint}"
        raise ConfigError(problem, hint=hint)
    return FAMILIES[model_type]
