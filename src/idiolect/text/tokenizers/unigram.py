"""Unigram pieces learnt from a corpus: from scratch, or added to a vocabulary that exists.

A Unigram model cuts text so that the scores (log probabilities) of the pieces add up to the most.
An added piece gets the score of the best way to spell it with the pieces before it, and a little
more: just enough to be taken instead of that spelling, and too little to pull a border elsewhere.
So the rest of the text is cut as before, and each new piece stands for the old ones that spell it.

Kudo 2018 (arXiv:1804.10959).
"""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from idiolect.errors import InputError
from idiolect.text.tokenizers.append import append_pieces, room
from idiolect.text.tokenizers.formats import template
from idiolect.text.tokenizers.pair_merging import Words, learn_pieces
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.tokenizers.word_counts import count_words, fixed_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["MARGIN", "SPECIAL_TOKENS", "continue_training", "spelling_score", "train"]

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
"""Take the first ids, in this order."""
MARGIN = 1e-3
"""What a new piece scores above its best spelling. Scores of pieces lie some units apart."""


def train(texts: Iterable[str], size: int) -> Tokenizer:
    """Train Unigram from scratch, with the library's trainer; every text ends with `</s>`.

    Args:
        texts: the corpus.
        size: number of ids, special tokens included; fewer where the corpus gives no more.

    Raises:
        InputError: the size leaves no room for pieces.
    """
    if size <= len(SPECIAL_TOKENS):
        raise InputError(f"{size} ids are too few", hint="a few thousand and more are usual")
    engine = tokenizers.Tokenizer(models.Unigram())
    engine.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    engine.decoder = decoders.Metaspace()
    engine.train_from_iterator(
        iter(texts),
        trainers.UnigramTrainer(
            vocab_size=size,
            special_tokens=list(SPECIAL_TOKENS),
            unk_token="<unk>",
            show_progress=False,
        ),
    )
    template(engine, [], ["</s>"])
    return Tokenizer.from_engine(engine)


def continue_training(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    size: int,
    *,
    progress: Callable[[int], None] = lambda learnt: None,
) -> Tokenizer:
    """Add the pieces that most often stand side by side in a corpus, joined, with scores.

    Args:
        tokenizer: a Unigram tokenizer; it stays as it is.
        texts: the corpus.
        size: number of ids to reach; fewer where no pair is left.
        progress: is told the number of pieces learnt, now and then.

    Returns:
        A tokenizer whose new ids come after all the old ones.

    Raises:
        InputError: the tokenizer is of another kind, or has that many ids already.
    """
    wanted = room(tokenizer, size, "unigram")
    pieces, _ = learn_pieces(
        Words(count_words(tokenizer, texts)),
        tokenizer.engine.get_vocab(with_added_tokens=True),
        wanted,
        drop_unused=True,
        progress=progress,
    )
    fixed = fixed_ids(tokenizer.engine)
    vocab = json.loads(tokenizer.engine.model.__getstate__())["vocab"]
    known = {piece: score for id_, (piece, score) in enumerate(vocab) if id_ not in fixed}
    scores = []
    for piece in pieces:
        known[piece] = spelling_score(piece, known) + MARGIN
        scores.append(known[piece])
    return append_pieces(tokenizer, pieces, scores=scores)


def spelling_score(text: str, scores: Mapping[str, float]) -> float:
    """Score of the best way to spell a text with the given pieces; -inf where there is none."""
    best = [0.0] + [-inf] * len(text)
    for end in range(1, len(text) + 1):
        best[end] = max(best[start] + scores.get(text[start:end], -inf) for start in range(end))
    return best[-1]
