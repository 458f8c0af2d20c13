"""Ids of languages: rows of a network's language embedding (XLM), or tokens (mBART)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from idiolect.errors import InputError
from idiolect.models.language_model import LanguageModel

__all__ = ["find_language_ids"]


def find_language_ids(
    model: LanguageModel,
    kind: Literal["tokens", "embeddings"] | None,
    languages: Sequence[str],
) -> Mapping[str, int] | None:
    """Return the id of each language, or `None` if the model does not distinguish languages.

    Args:
        model: The model. Ids of language embeddings are in its configuration's `lang2id`. The token
            of a language has its name (`de`) or a variant of it (`de_DE`, `[de]`).
        kind: What the objective needs: language `tokens` or `embeddings`.
        languages: Names of the languages of a text.

    Raises:
        InputError: A language has no id.
    """
    config: Any = model.network.config
    if kind == "embeddings" and hasattr(config, "num_languages") and config.num_languages:
        known = {str(k): int(v) for k, v in (model.settings.get("lang2id") or {}).items()}
        where, hint = "lang2id of the model's configuration", "lang2id = {en = 0, de = 1}"
        required = True
    elif kind == "tokens":
        known = _language_tokens(model, languages)
        where, hint = "the tokenizer's special tokens", "a special token such as de_DE or [de]"
        # A decoder that starts with the last token of its target needs the language there.
        required = bool(getattr(config, "shift_last", False))
    else:
        return None
    unknown = [name for name in languages if name not in known]
    if unknown and (required or len(unknown) < len(languages)):
        raise InputError(
            f"no id for the languages {', '.join(unknown)} in {where}",
            hint=f"known: {', '.join(known)}" if known else f"add {hint}",
        )
    return {name: known[name] for name in languages} if not unknown and languages else None


def _language_tokens(model: LanguageModel, languages: Sequence[str]) -> dict[str, int]:
    found = {}
    special = model.tokenizer.special_tokens
    for name in languages:
        for token, id_ in special.items():
            bare = token.strip("[]<>|_")
            if bare == name or bare.startswith(f"{name}_"):
                found[name] = id_
                break
    return found
