"""Train WordPiece on a corpus, from scratch or from an existing vocabulary.

WordPiece takes the longest matching piece from the front of a word, and repeats. So an appended
piece also matches at the front of longer words ("Parisian" in "Parisians"). A few of these get more
pieces than before; most get fewer.

Schuster and Nakajima 2012; as used by BERT, Devlin et al. 2019 (arXiv:1810.04805).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from idiolect.errors import InputError
from idiolect.text.tokenizers.append import append_pieces, missing_ids
from idiolect.text.tokenizers.assembly import template
from idiolect.text.tokenizers.pair_merging import Words, learn_pieces
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.tokenizers.word_counts import count_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["SPECIAL_TOKENS", "extend", "train"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""These have the first ids, in this order."""


def train(texts: Iterable[str], size: int, *, lowercase: bool = True) -> Tokenizer:
    """Train WordPiece from scratch, with the library's trainer and BERT's pre-tokenizer.

    Args:
        texts: the corpus.
        size: number of ids, including special tokens; fewer if the corpus allows no more.
        lowercase: whether to lower-case text and strip accents.

    Raises:
        InputError: the size is too small for pieces.
    """
    if size <= len(SPECIAL_TOKENS):
        raise InputError(f"{size} ids are too few", hint="a few thousand or more are usual")
    engine = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    engine.train_from_iterator(
        iter(texts),
        trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=list(SPECIAL_TOKENS), show_progress=False
        ),
    )
    template(engine, ["[CLS]"], ["[SEP]"])
    return Tokenizer.from_engine(engine, {"do_lower_case": lowercase})


def extend(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    size: int,
    *,
    progress: Callable[[int], None] = lambda learned: None,
) -> Tokenizer:
    """Append pieces, each joining two pieces that are often adjacent in the corpus.

    Args:
        tokenizer: a WordPiece tokenizer; it stays unchanged.
        texts: the corpus.
        size: number of ids to reach; fewer if no pair is left.
        progress: called from time to time with the number of learned pieces.

    Returns:
        A tokenizer with new ids after all the old ones.

    Raises:
        InputError: the tokenizer is of another kind, or already has that many ids.
    """
    max_pieces = missing_ids(tokenizer, size, "wordpiece")
    pieces, _ = learn_pieces(
        Words(count_words(tokenizer.engine, texts)),
        tokenizer.engine.get_vocab(with_added_tokens=True),
        max_pieces,
        prefix=tokenizer.engine.model.continuing_subword_prefix,
        drop_unused=True,
        progress=progress,
    )
    return append_pieces(tokenizer, pieces)
