"""Read tiktoken rank files (`.tiktoken`) into an engine that returns the same ids.

A line is a token in base64 and its rank, which is also its id. The file contains neither the
pre-tokenizer's pattern nor the special tokens. These are known for each published encoding, found
by the file's name unless another name is passed.

tiktoken looks up a whole pre-token before merging; the engine calls this `ignore_merges`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors

from idiolect.errors import CheckpointError, InputError
from idiolect.text.files import read_bytes
from idiolect.text.tokenizers.assembly import check_highest
from idiolect.text.tokenizers.byte_level import to_characters
from idiolect.text.tokenizers.merges import merges_from_ranks

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CL100K", "ENCODINGS", "GPT2", "RankEncoding", "build", "read", "read_ranks"]


@dataclass(frozen=True)
class RankEncoding:
    """The parts of an encoding that a rank file does not contain."""

    pattern: str
    """Regular expression for a pre-token, in the syntax of Oniguruma."""
    special: dict[str, int] = field(default_factory=dict)
    """Special tokens and their ids."""


_END = "<|endoftext|>"
_FILL_IN = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL100K = (
    rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ENCODINGS = {
    "gpt2": RankEncoding(GPT2, {_END: 50256}),
    "r50k_base": RankEncoding(GPT2, {_END: 50256}),
    "p50k_base": RankEncoding(GPT2, {_END: 50256}),
    "p50k_edit": RankEncoding(
        GPT2, {_END: 50256, **{token: 50281 + i for i, token in enumerate(_FILL_IN)}}
    ),
    "cl100k_base": RankEncoding(
        CL100K,
        {
            _END: 100257,
            **{token: 100258 + i for i, token in enumerate(_FILL_IN)},
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": RankEncoding(_O200K, {_END: 199999, "<|endofprompt|>": 200018}),
}
"""Published encodings by name, as in https://github.com/openai/tiktoken"""


def read(path: Path, encoding: str | None = None) -> tokenizers.Tokenizer:
    """Read a rank file into an engine.

    Args:
        path: the file.
        encoding: the published name; by default the file's name without its ending.

    Raises:
        CheckpointError: the file is damaged.
        InputError: no encoding of that name is known.
    """
    name = encoding or path.stem
    if name not in ENCODINGS:
        raise InputError(
            f"{path.name} contains tiktoken ranks, but no encoding named {name} is known",
            hint=f"pass the name of its encoding; known: {', '.join(ENCODINGS)}",
        )
    return build(read_ranks(path), ENCODINGS[name])


def read_ranks(path: Path) -> dict[bytes, int]:
    """Read the tokens of a rank file and their ranks.

    Raises:
        CheckpointError: a line is not `base64 rank`, or a token or a rank occurs twice.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_bytes(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise CheckpointError(
                f"{path}, line {number}: not a token in base64 and its rank",
                hint="fetch the file again",
            ) from error
    if not ranks or len(set(ranks.values())) < len(ranks) or min(ranks.values()) < 0:
        raise CheckpointError(
            f"{path} is damaged: its ranks are not all different", hint="fetch the file again"
        )
    check_highest(ranks.values(), path)
    return ranks


def build(ranks: dict[bytes, int], encoding: RankEncoding) -> tokenizers.Tokenizer:
    """Build the engine that encodes as tiktoken does with these ranks.

    Unused ids between the ranks and the special tokens become reserved tokens, which no text
    encodes to, because a vocabulary with unused ids cannot be saved.
    """
    missing = sum(bytes([byte]) not in ranks for byte in range(256))
    if missing:
        raise CheckpointError(f"the ranks lack {missing} of the 256 single bytes")
    vocab = {to_characters(token): rank for token, rank in ranks.items()}
    vocab.update(encoding.special)
    used = set(vocab.values())
    vocab.update({f"<|reserved_{i}|>": i for i in range(max(used)) if i not in used})
    merges = [(to_characters(a), to_characters(b)) for a, b in merges_from_ranks(ranks)]
    engine = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(encoding.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    engine.decoder = decoders.ByteLevel()
    engine.post_processor = processors.ByteLevel(trim_offsets=False)
    engine.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in encoding.special]
    )
    return engine
