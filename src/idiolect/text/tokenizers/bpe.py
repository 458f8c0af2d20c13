"""Train byte-pair encoding on a corpus, from scratch or from an existing vocabulary.

Extending starts from the tokenizer's current encoding of the corpus and continues merging. The new
merges rank last, so a text is first encoded as before and then only merged further. No text gets
longer, and splitting each new token recursively into its two parts restores the old ids. The same
routine, started from an alphabet without merges, trains from scratch.

Sennrich et al. 2016 (arXiv:1508.07909); byte level: Radford et al. 2019 (GPT-2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from idiolect.errors import InputError
from idiolect.text.tokenizers.append import append_pieces, missing_ids
from idiolect.text.tokenizers.pair_merging import Words, learn_pieces
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.tokenizers.word_counts import count_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["extend", "train"]


def train(
    texts: Iterable[str], size: int, *, special_tokens: Sequence[str] = ("<|endoftext|>",)
) -> Tokenizer:
    """Train byte-level BPE from scratch, with the library's trainer.

    Args:
        texts: the corpus.
        size: number of ids, including the 256 bytes and the special tokens; fewer if the corpus
            allows no more merges.
        special_tokens: special tokens, which get the first ids.

    Raises:
        InputError: the size is too small for merges.
    """
    smallest = 256 + len(special_tokens)
    if size < smallest:
        raise InputError(
            f"{size} ids are too few: bytes and special tokens take {smallest}",
            hint="a few thousand or more are usual",
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


def extend(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    size: int,
    *,
    progress: Callable[[int], None] = lambda learned: None,
) -> Tokenizer:
    """Learn more merges, from the current encoding of a corpus.

    Args:
        tokenizer: any BPE tokenizer; it stays unchanged.
        texts: the corpus.
        size: number of ids to reach; fewer if no pair is left.
        progress: called from time to time with the number of learned ids.

    Returns:
        A tokenizer with new ids after all the old ones.

    Raises:
        InputError: the tokenizer is of another kind, or already has that many ids.
    """
    max_pieces = missing_ids(tokenizer, size, "byte-bpe", "sentencepiece-bpe", "bpe")
    vocab = tokenizer.engine.get_vocab(with_added_tokens=True)
    pieces, merges = learn_pieces(
        Words(count_words(tokenizer.engine, texts)),
        vocab,
        max_pieces,
        prefix=tokenizer.engine.model.continuing_subword_prefix or "",
        progress=progress,
    )
    return append_pieces(tokenizer, pieces, merges=merges)
