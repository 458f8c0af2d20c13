"""Read SentencePiece models (`.model`) into an engine that returns the same ids.

- `text.tokenizers.protobuf` parses the file, so the protobuf package is not needed.
- BPE pieces have scores and no merges; `merges_from_ranks` finds the merge that forms each piece.
- If no piece of the vocabulary crosses a word boundary, the engine cuts a text into words first.
  The ids are the same, and the time is linear in the length of the text.
- Control pieces (`<s>`) become special tokens. In a text they are plain text, as in SentencePiece;
  in a template they are found, as in the Hugging Face layout. The text between two of them is
  encoded separately, with its own leading space if the model adds one.
- The engine applies the character map to whole graphemes. If it replaces a character of a short
  grapheme, the other characters (a second combining mark, the line feed of CR LF) are lost. This
  happened in 1 of 24,000 paragraphs in about 300 languages.

Kudo and Richardson 2018, SentencePiece (arXiv:1808.06226). Field numbers:
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from idiolect.errors import CheckpointError, ConfigError
from idiolect.text.files import engine_errors, read_bytes
from idiolect.text.tokenizers import character_map, protobuf
from idiolect.text.tokenizers.merges import merges_from_ranks

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SPACE", "Piece", "SentencePieceModel", "build", "parse", "read"]

SPACE = "▁"
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)
_ALGORITHMS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_SPECIAL_IDS = {40: 0, 41: 1, 42: 2, 43: -1}
"""Fields of the trainer specification with the special ids, and their defaults."""


class Piece(NamedTuple):
    """One entry of the vocabulary."""

    text: str
    score: float
    type: int


@dataclass(frozen=True)
class SentencePieceModel:
    """The contents of a `.model` file that determine ids."""

    pieces: list[Piece]
    """The vocabulary; a piece's position is its id."""
    algorithm: str
    """`unigram` or `bpe`."""
    byte_fallback: bool
    """Whether an unknown character is encoded as bytes instead of as the unknown piece."""
    charsmap: bytes
    """The normalizer's compiled character map; may be empty."""
    dummy_prefix: bool
    """Whether a space is added before the text."""
    trim_spaces: bool
    """Whether spaces at the ends are removed and repeated spaces are collapsed."""
    special: dict[str, str]
    """The text of the unknown, beginning, end and padding pieces, by role."""


def read(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """Read a `.model` file into an engine and the settings that name its special tokens."""
    model = parse(read_bytes(path), str(path))
    return build(model), {f"{role}_token": text for role, text in model.special.items()}


def parse(data: bytes, name: str = "the model") -> SentencePieceModel:
    """Parse the bytes of a `.model` file.

    Raises:
        CheckpointError: the bytes are not a SentencePiece model.
        ConfigError: the model has a feature that the engine lacks.
    """
    try:
        model = _parse(data)
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{name} is not a SentencePiece model, or is damaged: {error}", hint="download it again"
        ) from error
    if model.algorithm not in ("unigram", "bpe"):
        raise ConfigError(
            f"{name} is a SentencePiece model of type {model.algorithm}",
            hint="known: unigram, bpe",
        )
    return model


def _parse(data: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer = normalizer = b""
    for number, value in protobuf.fields(data):
        if number == 1:
            text, score, type_ = _pick(_bytes(value), {1: b"", 2: 0.0, 3: _NORMAL})
            pieces.append(Piece(text.decode(), score, type_))
        elif number == 2:
            trainer += _bytes(value)
        elif number == 3:
            normalizer += _bytes(value)
    if len({piece.text for piece in pieces}) < len(pieces) or not pieces:
        raise ValueError("it has no pieces" if not pieces else "a piece occurs twice")
    algorithm, suffix, byte_fallback = _pick(trainer, {3: 1, 24: 0, 35: 0})
    ids = dict(zip(("unk", "bos", "eos", "pad"), _pick(trainer, _SPECIAL_IDS), strict=True))
    charsmap, prefix, trim, escape = _pick(normalizer, {2: b"", 3: 1, 4: 1, 5: 1})
    if suffix or not escape:
        raise ConfigError(
            "SentencePiece models with the space after a word, or with unescaped spaces, "
            "are not supported"
        )
    character_map.check(charsmap)
    return SentencePieceModel(
        pieces=pieces,
        algorithm=_ALGORITHMS.get(algorithm, str(algorithm)),
        byte_fallback=bool(byte_fallback),
        charsmap=charsmap,
        dummy_prefix=bool(prefix),
        trim_spaces=bool(trim),
        special={
            role: pieces[id_].text
            for role, id_ in ids.items()
            if 0 <= id_ < len(pieces) and pieces[id_].type in (_UNKNOWN, _CONTROL)
        },
    )


def build(model: SentencePieceModel) -> tokenizers.Tokenizer:
    """Build the engine that encodes as the model does.

    Raises:
        CheckpointError: the model's parts are inconsistent.
    """
    unknown = next((i for i, piece in enumerate(model.pieces) if piece.type == _UNKNOWN), None)
    if unknown is None:
        raise CheckpointError("the SentencePiece model has no unknown piece")
    with engine_errors("the SentencePiece model"):
        build_model = _unigram if model.algorithm == "unigram" else _bpe
        engine = tokenizers.Tokenizer(build_model(model, unknown))
        engine.normalizer = _normalizer(model)
    engine.pre_tokenizer = _pre_tokenizer(model)
    engine.decoder = _decoder(model)
    engine.add_tokens(
        [AddedToken(text, normalized=True, special=False) for text in _of_type(model, _USER)]
    )
    engine.add_special_tokens(
        [
            AddedToken(piece.text, normalized=False, special=True)
            for piece in model.pieces
            if piece.type in (_UNKNOWN, _CONTROL)
        ]
    )
    return engine


def _unigram(model: SentencePieceModel, unknown: int) -> models.Unigram:
    # The engine matches every entry, SentencePiece only normal pieces. Other pieces get the lowest
    # score and not a lower one, because the unknown character's score depends on the lowest.
    lowest = min((p.score for p in model.pieces if p.type == _NORMAL), default=0.0)
    vocab = [
        (piece.text, piece.score if piece.type in (_NORMAL, _USER) else lowest)
        for piece in model.pieces
    ]
    return models.Unigram(vocab, unk_id=unknown, byte_fallback=model.byte_fallback)


def _bpe(model: SentencePieceModel, unknown: int) -> models.BPE:
    if any(piece.type == _UNUSED for piece in model.pieces):
        raise ConfigError(
            "SentencePiece BPE models with unused pieces cannot be expressed as merges"
        )
    ranks = {piece.text: -piece.score for piece in model.pieces if piece.type == _NORMAL}
    return models.BPE(
        vocab={piece.text: id_ for id_, piece in enumerate(model.pieces)},
        merges=merges_from_ranks(ranks),
        unk_token=model.pieces[unknown].text,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def _normalizer(model: SentencePieceModel) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.trim_spaces:
        steps.append(normalizers.Replace(Regex(rf"\A +|[ {SPACE}]+\z|(?<= ) +"), ""))
    if model.dummy_prefix:
        user = "|".join(re.escape(text) for text in _of_type(model, _USER))
        # The engine also normalizes user-defined pieces, to find them in normalized text. They
        # must stay unchanged.
        steps.append(
            normalizers.Replace(Regex(rf"\A(?!(?:{user})\z)"), SPACE)
            if user
            else normalizers.Prepend(SPACE)
        )
    steps.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(steps)


def _pre_tokenizer(model: SentencePieceModel) -> pre_tokenizers.PreTokenizer | None:
    """Cut before spaces where no piece crosses the cut."""
    steps: list[pre_tokenizers.PreTokenizer] = []
    pieces = [piece.text for piece in model.pieces if piece.type in (_NORMAL, _UNUSED)]
    if not any(SPACE in text[1:] for text in pieces):
        steps.append(pre_tokenizers.Split(SPACE, "merged_with_next"))
    elif not any(SPACE in text.lstrip(SPACE) for text in pieces):
        words = Regex(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
        steps.append(pre_tokenizers.Split(words, "isolated"))
    if model.byte_fallback and model.algorithm == "unigram":
        # Cut text such as "<0x41>" inside, because it must not be encoded as a byte piece.
        digits = Regex("(?<=<0x)[0-9A-F](?=[0-9A-F]>)")
        steps.append(pre_tokenizers.Split(digits, "merged_with_previous"))
    return pre_tokenizers.Sequence(steps) if steps else None


def _decoder(model: SentencePieceModel) -> decoders.Decoder:
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " ")]
    if model.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if model.dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def _of_type(model: SentencePieceModel, type_: int) -> list[str]:
    return [piece.text for piece in model.pieces if piece.type == type_]


def _bytes(value: protobuf.Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where a message is expected")
    return value


def _pick(message: bytes, defaults: dict[int, Any]) -> list[Any]:
    """Return the values of some fields, each of the type of its default."""
    found = protobuf.last(message)
    values = []
    for number, default in defaults.items():
        value = found.get(number, default)
        if type(value) is not type(default):
            raise ValueError(f"field {number} is a {type(value).__name__}")
        values.append(value)
    return values
