"""WordPiece learnt from a corpus: from scratch, or appended to a vocabulary that exists.

WordPiece cuts a word from its front, each time by the longest piece that fits. So an appended piece
also fires at the front of longer words ("Parisian" in "Parisians"), which then may be cut into more
pieces than before; most are cut into fewer.

Schuster and Nakajima 2012; as used by BERT, Devlin et al. 2019 (arXiv:1810.04805).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from idiolect.errors import InputError
from idiolect.text.tokenizers.append import append_pieces, room
from idiolect.text.tokenizers.formats import template
from idiolect.text.tokenizers.pair_merging import Words, learn_pieces
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.tokenizers.word_counts import count_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["SPECIAL_TOKENS", "continue_training", "train"]

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Take the first ids, in this order."""


def train(texts: Iterable[str], size: int, *, lowercase: bool = True) -> Tokenizer:
    """Train WordPiece from scratch, with the library's trainer and BERT's way of cutting words.

    Args:
        texts: the corpus.
        size: number of ids, special tokens included; fewer where the corpus gives no more.
        lowercase: whether to lower-case text and strip accents.

    Raises:
        InputError: the size leaves no room for pieces.
    """
    if size <= len(SPECIAL_TOKENS):
        raise InputError(f"{size} ids are too few", hint="a few thousand and more are usual")
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


def continue_training(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    size: int,
    *,
    progress: Callable[[int], None] = lambda learnt: None,
) -> Tokenizer:
    """Append the pieces that most often stand side by side in a corpus, joined.

    Args:
        tokenizer: a WordPiece tokenizer; it stays as it is.
        texts: the corpus.
        size: number of ids to reach; fewer where no pair is left.
        progress: is told the number of pieces learnt, now and then.

    Returns:
        A tokenizer whose new ids come after all the old ones.

    Raises:
        InputError: the tokenizer is of another kind, or has that many ids already.
    """
    wanted = room(tokenizer, size, "wordpiece")
    pieces, _ = learn_pieces(
        Words(count_words(tokenizer, texts)),
        tokenizer.engine.get_vocab(with_added_tokens=True),
        wanted,
        prefix=tokenizer.engine.model.continuing_subword_prefix,
        drop_unused=True,
        progress=progress,
    )
    return append_pieces(tokenizer, pieces)
