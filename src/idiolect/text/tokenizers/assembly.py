"""Build tokenizer components that several published formats share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from idiolect.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

__all__ = ["build_wordpiece", "check_highest", "mark_special", "template"]


def check_highest(ids: Collection[int], path: Path) -> None:
    """Check that the highest id is not far above the number of ids.

    Memory is allocated for every id up to the highest.

    Raises:
        CheckpointError: The highest id is too large.
    """
    highest = max(ids, default=0)
    if highest >= 2 * len(ids) + 1000:  # published files have few unused ids
        raise CheckpointError(
            f"{path} is damaged: {len(ids):,} tokens and an id of {highest}",
            hint="fetch the file again",
        )


def template(engine: tokenizers.Tokenizer, before: list[str], after: list[str]) -> None:
    """Add special tokens around every text; the last one also separates the texts of a pair.

    Tokens that are not in the vocabulary are omitted.
    """
    ids = {token: engine.token_to_id(token) for token in (*before, *after)}
    before = [token for token in before if ids[token] is not None]
    after = [token for token in after if ids[token] is not None]
    if not before and not after:
        return
    engine.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *(f"{token}:1" for token in ("$B", *after))],
        special_tokens=[(token, id_) for token, id_ in ids.items() if id_ is not None],
    )


def mark_special(engine: tokenizers.Tokenizer, tokens: Iterable[str]) -> None:
    """Mark vocabulary entries as special tokens; tokens that are not entries are ignored."""
    engine.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, lstrip=token == "<mask>")
            for token in tokens
            if engine.token_to_id(token) is not None
        ]
    )


def build_wordpiece(
    vocab: Mapping[str, int], settings: Mapping[str, Any], special: Iterable[str] = ()
) -> tokenizers.Tokenizer:
    """Build BERT's engine around a WordPiece vocabulary, which must hold `[UNK]`.

    Args:
        vocab: The pieces and their ids.
        settings: BERT's normalizer settings. If `do_lower_case` is missing, a vocabulary with
            capital letters is assumed to be cased.
        special: Special tokens besides BERT's own.
    """
    cased = any(token != token.lower() for token in vocab if not token.startswith("["))
    engine = tokenizers.Tokenizer(models.WordPiece(dict(vocab), unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", not cased),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    mark_special(engine, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *special))
    template(engine, ["[CLS]"], ["[SEP]"])
    return engine
