"""Byte-pair encoding learnt from a corpus: from scratch, or going on from a vocabulary that exists.

Going on starts from what the tokenizer now makes of the corpus and keeps merging. The new merges
are appended, so they rank last: text is first cut as before, and then only ever merged further. No
text gets longer, and splitting each new token into its two parts, again and again, gives the old
ids back. Begun with an alphabet and no merges, the same routine is training from scratch.

Sennrich et al. 2016 (arXiv:1508.07909); byte level: Radford et al. 2019 (GPT-2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from idiolect.errors import InputError
from idiolect.text.tokenizers.append import append_pieces, room
from idiolect.text.tokenizers.pair_merging import Words, learn_pieces
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.tokenizers.word_counts import count_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["continue_training", "train"]


def train(
    texts: Iterable[str], size: int, *, special_tokens: Sequence[str] = ("<|endoftext|>",)
) -> Tokenizer:
    """Train byte-level BPE from scratch, with the library's trainer.

    Args:
        texts: the corpus.
        size: number of ids, the 256 bytes and the special tokens included; fewer where the corpus
            gives no more merges.
        special_tokens: take the first ids.

    Raises:
        InputError: the size leaves no room for merges.
    """
    smallest = 256 + len(special_tokens)
    if size < smallest:
        raise InputError(
            f"{size} ids are too few: bytes and special tokens take {smallest}",
            hint="a few thousand and more are usual",
        )
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    engine.post_processor = processors.ByteLevel(trim_offsets=False)
    engine.train_from_iterator(
        iter(texts),
        trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=list(special_tokens),
            show_progress=False,
        ),
    )
    return Tokenizer.from_engine(engine)


def continue_training(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    size: int,
    *,
    progress: Callable[[int], None] = lambda learnt: None,
) -> Tokenizer:
    """Go on merging from the present tokenisation of a corpus.

    Args:
        tokenizer: any BPE tokenizer; it stays as it is.
        texts: the corpus.
        size: number of ids to reach; fewer where no pair is left.
        progress: is told the number of ids learnt, now and then.

    Returns:
        A tokenizer whose new ids come after all the old ones.

    Raises:
        InputError: the tokenizer is of another kind, or has that many ids already.
    """
    wanted = room(tokenizer, size, "byte-bpe", "sentencepiece-bpe", "bpe")
    vocab = tokenizer.engine.get_vocab(with_added_tokens=True)
    pieces, merges = learn_pieces(
        Words(count_words(tokenizer, texts)),
        vocab,
        wanted,
        prefix=tokenizer.engine.model.continuing_subword_prefix or "",
        progress=progress,
    )
    return append_pieces(tokenizer, pieces, merges=merges)
