"""Special tokens: which ones a tokenizer has, and an engine that never finds them in text.

A document that contains `<|endoftext|>` must not end there, so text is encoded by an engine that
reads a special token's name as plain text. Most engines need only their own switch for that
(`encode_special_tokens`). Some models would still produce the token, because its name is also an
entry of their vocabulary: Unigram finds `</s>`, a word-level model finds `[SEP]`. For these, a copy
of the engine is used in which the entry has a name that cannot occur in text.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import tokenizers

from idiolect.text.files import engine_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenizers import Tokenizer as Engine

__all__ = [
    "WHOLE_PIPELINE",
    "default_template",
    "find_role",
    "named_special",
    "plain_text_engine",
    "published_settings",
    "special_names",
]

_ROLES = {
    "pad": ("<pad>", "[PAD]", "<|padding|>", "<|pad|>"),
    "bos": ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>", "<|endoftext|>"),
    "eos": ("</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>"),
    "unk": ("<unk>", "[UNK]", "<|unk|>"),
    "mask": ("<mask>", "[MASK]", "<|mask|>"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
}
"""Roles of special tokens, and the names that are tried if the settings do not name any."""
_REBUILT = frozenset(
    {
        *("added_tokens_decoder", "add_bos_token", "add_eos_token"),
        *("auto_map", "fix_mistral_regex", "fast_tokenizer_files"),
    }
)
"""Settings that make transformers rebuild what `tokenizer.json` already defines: the class, the
post-processor, the added tokens and the pre-tokenizer's pattern."""
WHOLE_PIPELINE = {
    "trust_remote_code": True,
    **dict.fromkeys(("unk_token", "eos_token", "pad_token")),
}
"""Settings for model types, such as Qwen2, whose class in transformers rebuilds the pipeline from
vocabulary and merges, with its own pattern and special tokens. They make transformers trust the
directory and read `tokenizer.json` unchanged. No code is executed."""
_LISTS = ("additional_special_tokens", "extra_special_tokens")
"""Settings that hold several special tokens."""
_PADDING = ("unk", "eos", "sep", "mask", "bos", "cls")
"""Roles of tokens that can replace a padding token, best first; the first does not end a text."""


def named_special(settings: Mapping[str, Any]) -> list[str]:
    """List the special tokens that are named in the settings."""
    named = [value for key, value in settings.items() if key.endswith("_token")]
    for key in _LISTS:
        extra = settings.get(key) or []
        named += extra.values() if isinstance(extra, dict) else extra
    texts = [token.get("content") if isinstance(token, dict) else token for token in named]
    return [text for text in texts if isinstance(text, str)]


def _without_unknown(engine: Engine, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without the special tokens that the vocabulary lacks.

    transformers would add them, with ids beyond the rows of the network.
    """

    def is_known(token: Any) -> bool:
        return all(
            engine.token_to_id(name) is not None for name in named_special({"_token": token})
        )

    known: dict[str, Any] = {}
    for key, value in settings.items():
        if key in _LISTS and isinstance(value, list):
            known[key] = [token for token in value if is_known(token)]
        elif key in _LISTS and isinstance(value, dict):
            known[key] = {name: token for name, token in value.items() if is_known(token)}
        elif not key.endswith("_token") or is_known(value):
            known[key] = value
    return known


def special_names(engine: Engine, settings: Mapping[str, Any]) -> set[str]:
    """Return the added tokens that are special: by their own flag, or by the settings."""
    added = engine.get_added_tokens_decoder().values()
    named = set(named_special(settings))
    return {token.content for token in added if token.special or token.content in named}


def find_role(engine: Engine, settings: Mapping[str, Any], role: str) -> int | None:
    """Return the id of a special token by its role, such as `pad` or `eos`, or None.

    The settings (`pad_token`, …) are tried first, then the post-processor and the model, then the
    usual names of special tokens.
    """
    named = settings.get(f"{role}_token")
    if isinstance(named, dict):
        named = named.get("content")
    if isinstance(named, str):
        return engine.token_to_id(named)
    if role in ("cls", "sep"):
        processor = engine.post_processor
        processor = json.loads(processor.__getstate__()) if processor else {}
        if isinstance(processor.get(role), list):
            return int(processor[role][1])
    if role == "unk" and isinstance(getattr(engine.model, "unk_token", None), str):
        return engine.token_to_id(engine.model.unk_token)
    special = _flagged(engine)
    return next((special[name] for name in _ROLES[role] if name in special), None)


def default_template(settings: Mapping[str, Any]) -> str | None:
    """Return the chat template, or the default one if there are several; None without one."""
    template = settings.get("chat_template")
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, dict)]
        named = {entry.get("name"): entry.get("template") for entry in entries}
        template = named.get("default")
    return template if isinstance(template, str) else None


def published_settings(engine: Engine, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of a `tokenizer_config.json` that make transformers return our ids.

    Special tokens are named by their roles. Without a padding token, another special token is named
    as one, since readers pad batches with it.
    """
    written = {
        key: value
        for key, value in _without_unknown(engine, settings).items()
        if key not in _REBUILT
    }
    written["tokenizer_class"] = "PreTrainedTokenizerFast"
    named = ((name, engine.token_to_id(name)) for name in named_special(written))
    special = _flagged(engine) | {name: id_ for name, id_ in named if id_ is not None}
    ids = {role: find_role(engine, settings, role) for role in _ROLES}
    names: dict[int | None, str | None] = {id_: name for name, id_ in special.items()}
    if ids["unk"] is not None:  # the model may name it without it being a special token
        names[ids["unk"]] = engine.id_to_token(ids["unk"])
    if ids["pad"] is None:
        fitting = (ids[role] for role in _PADDING if ids[role] in names)
        ids["pad"] = next(fitting, min(special.values(), default=None))
    for role, id_ in ids.items():
        if id_ in names and written.get(f"{role}_token") is None:
            written[f"{role}_token"] = names[id_]
    return written


def _flagged(engine: Engine) -> dict[str, int]:
    added = engine.get_added_tokens_decoder()
    return {token.content: id_ for id_, token in added.items() if token.special}


def plain_text_engine(engine: Engine, special: set[str]) -> Engine:
    """Return an engine that encodes the names of special tokens as plain text.

    Args:
        engine: An engine with `encode_special_tokens` set. It is returned if that is enough.
        special: The names.
    """
    added = {token.content: token for token in engine.get_added_tokens_decoder().values()}
    unmarked = {name for name in special if not added[name].special}
    spelled = _spelled(engine, special - unmarked)
    if not unmarked and not spelled:
        return engine
    pipeline = json.loads(engine.to_str())
    for token in pipeline["added_tokens"]:
        token["special"] = token["special"] or token["content"] in unmarked
    plain = _build(pipeline)
    spelled = _spelled(plain, special)
    if spelled:
        _rename(pipeline, {name: f"{name}{secrets.token_hex(16)}" for name in spelled})
        plain = _build(pipeline)
    return plain


def _build(pipeline: dict[str, Any]) -> Engine:
    engine = tokenizers.Tokenizer.from_str(json.dumps(pipeline))
    engine.encode_special_tokens = True
    return engine


def _spelled(engine: Engine, names: set[str]) -> set[str]:
    """Return the names that the model encodes as the special token itself, alone or inside text.

    A name of one character is excluded, because ordinary text needs this token.
    """
    listed = [name for name in sorted(names) if len(name) > 1]
    texts = [text for name in listed for text in (name, f"a{name}", f" {name}")]
    with engine_errors("the tokenizer"):
        found = engine.encode_batch(texts, add_special_tokens=False)
    return {
        name
        for name, *encodings in zip(listed, found[::3], found[1::3], found[2::3], strict=True)
        if any(engine.token_to_id(name) in encoding.ids for encoding in encodings)
    }


def _rename(pipeline: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename entries of the vocabulary everywhere in an engine's JSON, in place."""
    model = pipeline["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    else:
        model["vocab"] = {names.get(piece, piece): id_ for piece, id_ in model["vocab"].items()}
    if model.get("merges"):
        model["merges"] = [
            pair for pair in model["merges"] if not names.keys() & {*pair, "".join(pair)}
        ]
    unknown = model.get("unk_token")
    if isinstance(unknown, str):
        model["unk_token"] = names.get(unknown, unknown)
    for token in pipeline["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
