"""Build the tokenizer of a GGUF file from its metadata.

The metadata lists the pieces, their types and their scores or merges. For byte-level BPE it gives
only the name of the pre-tokenizer; `PATTERNS` maps these names to regular expressions. Names and
patterns are those of llama.cpp (`src/llama-vocab.cpp`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors

from idiolect.errors import CheckpointError, ConfigError
from idiolect.text.files import engine_errors
from idiolect.text.tokenizers import sentencepiece
from idiolect.text.tokenizers.assembly import build_wordpiece, mark_special, template
from idiolect.text.tokenizers.tiktoken import CL100K, GPT2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CONTROL", "NORMAL", "PATTERNS", "ROLES", "UNUSED", "USER", "WHOLE_WORDS", "read"]

NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5
"""Types of pieces, numbered as in SentencePiece."""
ROLES = {
    "bos": "bos",
    "eos": "eos",
    "unknown": "unk",
    "padding": "pad",
    "seperator": "sep",  # spelled so in the format
    "cls": "cls",
    "mask": "mask",
}
_QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
_DIGITS = (r"\p{N}", GPT2)
_FALCON = (r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]")
PATTERNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "phi-2", "roberta-bpe", "jina-v2-en"), (GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe"), (CL100K,)),
    **dict.fromkeys(("qwen2", "stablelm2"), (_QWEN2,)),
    "falcon": _FALCON,
}
"""Regular expressions by the name of a pre-tokenizer; each splits the pieces of those before it."""
WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3")
"""Pre-tokenizers with which a whole word in the vocabulary becomes one token, before merging."""


@dataclass(frozen=True)
class _Metadata:
    """The `tokenizer.ggml` fields, each with a type check."""

    values: Mapping[str, Any]

    def get(self, name: str, default: Any) -> Any:
        value = self.values.get(f"tokenizer.ggml.{name}", default)
        if default is not None and not isinstance(value, type(default)):
            raise CheckpointError(
                f"tokenizer.ggml.{name} is a {type(value).__name__}",
                hint=f"expected a {type(default).__name__}; fetch the file again",
            )
        return value

    def list_of(self, name: str, kind: type, length: int | None = None) -> list[Any]:
        values = self.get(name, [])
        if any(not isinstance(value, kind) for value in values):
            raise CheckpointError(f"tokenizer.ggml.{name} is no list of {kind.__name__}")
        if length is not None and len(values) != length:
            raise CheckpointError(
                f"tokenizer.ggml.{name} has {len(values)} entries for {length} tokens",
                hint="fetch the file again",
            )
        return list(values)


def read(metadata: Mapping[str, Any]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Build an engine and its settings from the metadata of a GGUF file.

    Args:
        metadata: The file's values by key; see `text.tokenizers.gguf.gguf_header`.

    Raises:
        CheckpointError: Values are missing, have the wrong type or contradict each other.
        ConfigError: The type of tokenizer, or the pre-tokenizer, is not supported.
    """
    fields = _Metadata(metadata)
    kind, tokens = fields.get("model", ""), fields.list_of("tokens", str)
    if kind not in _BUILDERS:
        raise ConfigError(
            f"tokenizers of the kind {kind!r} are not supported in GGUF files"
            if kind
            else "the GGUF file holds no tokenizer",
            hint=f"supported kinds: {', '.join(_BUILDERS)}",
        )
    if len(set(tokens)) < len(tokens) or not tokens:
        raise CheckpointError("a token occurs twice, or there are none", hint="fetch it again")
    tokens, fields = _without_padding(tokens, fields)
    special = _special(fields, tokens)
    settings = {f"{role}_token": token for role, token in special.items()}
    template_text = metadata.get("tokenizer.chat_template")
    if isinstance(template_text, str):
        settings["chat_template"] = template_text
    with engine_errors("the tokenizer in the GGUF file"):
        engine = _BUILDERS[kind](fields, tokens, special)
    return engine, settings


def _without_padding(tokens: list[str], fields: _Metadata) -> tuple[list[str], _Metadata]:
    """Leave out unused tokens at the end.

    They only name the rows that pad an embedding. As tokens they could be generated, and found in a
    text that contains their names.
    """
    types, count = fields.list_of("token_type", int), len(tokens)
    with_role = {fields.get(f"{name}_token_id", -1) for name in ROLES}
    if len(types) != len(tokens):
        return tokens, fields
    while count and types[count - 1] == UNUSED and count - 1 not in with_role:
        count -= 1
    names = [f"tokenizer.ggml.{name}" for name in ("tokens", "token_type", "scores")]
    cut = {name: fields.values[name][:count] for name in names if name in fields.values}
    return tokens[:count], _Metadata({**fields.values, **cut})


def _special(fields: _Metadata, tokens: list[str]) -> dict[str, str]:
    """Return the text of the special tokens by role."""
    special = {}
    for name, role in ROLES.items():
        id_ = fields.get(f"{name}_token_id", -1)
        if 0 <= id_ < len(tokens):
            special[role] = tokens[id_]
        elif id_ != -1:
            raise CheckpointError(
                f"tokenizer.ggml.{name}_token_id is {id_}, but there are {len(tokens)} tokens",
                hint="fetch the file again",
            )
    return special


def _byte_bpe(
    fields: _Metadata, tokens: list[str], special: Mapping[str, str]
) -> tokenizers.Tokenizer:
    name = fields.get("pre", "")
    if name not in PATTERNS:
        raise ConfigError(
            f"the pre-tokenizer {name!r} is not supported in GGUF files",
            hint=f"supported: {', '.join(PATTERNS)}; or use the model's tokenizer.json",
        )
    types = fields.list_of("token_type", int, len(tokens))
    merges = [tuple(merge.split(" ")) for merge in fields.list_of("merges", str)]
    if any(len(merge) != 2 for merge in merges):
        raise CheckpointError("a merge is not a pair of tokens", hint="fetch the file again")
    engine = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: id_ for id_, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=name in WHOLE_WORDS,
        )
    )
    prefix = fields.get("add_space_prefix", False)
    cuts: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[name]
    ]
    cuts.append(pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False))
    engine.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    engine.decoder = decoders.ByteLevel()
    engine.post_processor = processors.ByteLevel(trim_offsets=False)
    added = {
        kind: [token for token, type_ in zip(tokens, types, strict=True) if type_ == kind]
        for kind in (CONTROL, USER)
    }
    mark_special(engine, added[CONTROL])
    engine.add_tokens([AddedToken(token, normalized=False) for token in added[USER]])
    _surround(engine, fields, special, bos=name in WHOLE_WORDS)
    return engine


def _sentencepiece(
    fields: _Metadata, tokens: list[str], special: Mapping[str, str], *, algorithm: str = "bpe"
) -> tokenizers.Tokenizer:
    types = fields.list_of("token_type", int, len(tokens))
    scores = fields.list_of("scores", float, len(tokens))
    byte = {"bpe": True, "unigram": 6 in types}
    engine = sentencepiece.build(
        sentencepiece.SentencePieceModel(
            pieces=[
                sentencepiece.Piece(*piece) for piece in zip(tokens, scores, types, strict=True)
            ],
            algorithm=algorithm,
            byte_fallback=byte[algorithm],
            charsmap=bytes(v % 256 for v in fields.list_of("precompiled_charsmap", int)),
            dummy_prefix=fields.get("add_space_prefix", True),
            trim_spaces=fields.get("remove_extra_whitespaces", False),
            special=dict(special),
        )
    )
    _surround(engine, fields, special, bos=algorithm == "bpe", eos=algorithm == "unigram")
    return engine


def _unigram(
    fields: _Metadata, tokens: list[str], special: Mapping[str, str]
) -> tokenizers.Tokenizer:
    return _sentencepiece(fields, tokens, special, algorithm="unigram")


def _wordpiece(
    fields: _Metadata, tokens: list[str], special: Mapping[str, str]
) -> tokenizers.Tokenizer:
    """Build WordPiece: GGUF marks the beginning of a word, BERT marks continuations."""
    vocab = {
        token if token.startswith("[") and token.endswith("]")
        else token[1:] if token.startswith(sentencepiece.SPACE)
        else f"##{token}": id_
        for id_, token in enumerate(tokens)
    }  # fmt: skip
    if "[UNK]" not in vocab or len(vocab) < len(tokens):
        raise CheckpointError("the WordPiece vocabulary has no [UNK], or an entry occurs twice")
    return build_wordpiece(vocab, {}, special.values())


def _surround(
    engine: tokenizers.Tokenizer,
    fields: _Metadata,
    special: Mapping[str, str],
    *,
    bos: bool = False,
    eos: bool = False,
) -> None:
    """Add the special tokens around a text; the defaults depend on the type of tokenizer."""
    before = [special["bos"]] if fields.get("add_bos_token", bos) and "bos" in special else []
    after = [special["eos"]] if fields.get("add_eos_token", eos) and "eos" in special else []
    template(engine, before, after)


_BUILDERS: dict[str, Callable[[_Metadata, list[str], Mapping[str, str]], tokenizers.Tokenizer]] = {
    "gpt2": _byte_bpe,
    "llama": _sentencepiece,
    "t5": _unigram,
    "bert": _wordpiece,
}
