"""Write a tokenizer as GGUF metadata: the inverse of `gguf_vocabulary`.

GGUF contains the pieces and merges, but only the name of the pre-tokenizer's pattern. So a
tokenizer can be exported only if llama.cpp implements its pattern and tokenizes the same in all
other respects: llama.cpp looks up whole words before merging for a few patterns only, and matches
added tokens anywhere. New terms that were added as merges keep their ids in llama.cpp. Terms added
by other methods would be tokenized differently, and are refused.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from idiolect.errors import ConfigError
from idiolect.text.templates.text_template import TextTemplate
from idiolect.text.tokenizers.gguf.gguf_vocabulary import (
    CONTROL,
    NORMAL,
    PATTERNS,
    ROLES,
    UNUSED,
    USER,
    WHOLE_WORDS,
)
from idiolect.text.tokenizers.special_tokens import default_template

if TYPE_CHECKING:
    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["gguf_metadata"]


def gguf_metadata(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
    """Return the `tokenizer.ggml` fields and the chat template.

    Args:
        tokenizer: A byte-level BPE tokenizer.
        rows: Number of rows of the model's embedding; ids without a token become unused tokens.

    Raises:
        ConfigError: llama.cpp would not tokenize as this tokenizer does; the message says why.
    """
    pipeline = json.loads(tokenizer.engine.to_str())
    model = pipeline["model"]
    if model["type"] != "BPE" or tokenizer.kind != "byte-bpe":
        raise ConfigError(
            f"a {tokenizer.kind} tokenizer cannot be written to GGUF",
            hint="only byte-level BPE can; save the model in safetensors instead",
        )
    _check_extension(tokenizer)
    pattern, prefix = _pattern(pipeline)
    tokens = [f"[unused{id_}]" for id_ in range(rows)]
    types = [UNUSED] * rows
    for token, id_ in model["vocab"].items():
        tokens[id_], types[id_] = token, NORMAL
    for token in pipeline["added_tokens"]:
        tokens[token["id"]] = token["content"]
        types[token["id"]] = CONTROL if token["special"] else USER
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    fields: dict[str, Any] = {
        "model": "gpt2",
        "pre": pattern,
        "tokens": tokens,
        "token_type": types,
        "merges": merges,
        "add_space_prefix": prefix,
    }
    ids = {name: tokenizer.token_id(role) for name, role in ROLES.items()}
    fields |= {f"{name}_token_id": id_ for name, id_ in ids.items() if id_ is not None}
    template = TextTemplate.of(tokenizer, causal=False)
    for key, around, id_ in (
        ("add_bos_token", template.before, ids["bos"]),
        ("add_eos_token", template.after, ids["eos"]),
    ):
        if len(around) > 1 or (around and around[0] != id_):
            raise ConfigError(
                "GGUF can put one token before a text and one after it, not this template's",
                hint="save the model in safetensors instead",
            )
        fields[key] = bool(around)
    named = {f"tokenizer.ggml.{key}": value for key, value in fields.items()}
    chat = default_template(tokenizer.settings)
    return named | ({} if chat is None else {"tokenizer.chat_template": chat})


def _pattern(pipeline: dict[str, Any]) -> tuple[str, bool]:
    """Return llama.cpp's pre-tokenizer name, and whether a space is added before the text."""
    before = pipeline["pre_tokenizer"] or {}
    parts = before.get("pretokenizers", [before])
    cuts, prefix = [], False
    for part in parts:
        if part.get("type") == "Split" and part["behavior"] == "Isolated" and not part["invert"]:
            cuts.append(part["pattern"].get("Regex"))
        elif part.get("type") == "Digits" and part["individual_digits"]:
            cuts.append(r"\p{N}")
        elif part.get("type") == "ByteLevel":
            prefix = part["add_prefix_space"]
            cuts += [_GPT2] if part["use_regex"] else []
        else:
            cuts.append(None)
    whole = pipeline["model"].get("ignore_merges", False)
    names = [name for name, known in PATTERNS.items() if list(known) == cuts]
    fitting = [name for name in names if (name in WHOLE_WORDS) == whole]
    if not fitting or pipeline["normalizer"]:
        raise ConfigError(
            "llama.cpp has no name for how this tokenizer cuts texts",
            hint=f"it knows {', '.join(PATTERNS)}; save the model in safetensors instead",
        )
    return fitting[0], prefix


def _check_extension(tokenizer: Tokenizer) -> None:
    """Refuse new tokens that only whole-word lookup or a changed pre-tokenizer can produce."""
    extension = tokenizer.extension
    if extension is not None and extension.method != "merges":
        raise ConfigError(
            f"llama.cpp would not find the new tokens, which were added by {extension.method!r}",
            hint="extend the base again with --method merges, and export that model",
        )


_GPT2 = PATTERNS["gpt-2"][0]
