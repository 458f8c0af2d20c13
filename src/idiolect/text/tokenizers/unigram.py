"""Train Unigram pieces on a corpus, from scratch or from an existing vocabulary.

A Unigram model chooses the segmentation with the largest sum of piece scores (log probabilities).
A new piece gets the score of its best segmentation into earlier pieces, plus a small margin. The
margin is large enough for the piece to replace that segmentation, and too small to move a boundary
elsewhere. So the rest of the text is segmented as before.

Kudo 2018 (arXiv:1804.10959).
"""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from idiolect.errors import InputError
from idiolect.text.tokenizers.append import append_pieces, missing_ids
from idiolect.text.tokenizers.assembly import template
from idiolect.text.tokenizers.pair_merging import Words, learn_pieces
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.tokenizers.word_counts import count_words, fixed_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["MARGIN", "SPECIAL_TOKENS", "extend", "segmentation_score", "train"]

SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
"""These have the first ids, in this order."""
MARGIN = 1e-3
"""Score of a new piece above its best segmentation. Scores of pieces differ by whole units."""


def train(texts: Iterable[str], size: int) -> Tokenizer:
    """Train Unigram from scratch, with the library's trainer; every text ends with `</s>`.

    Args:
        texts: the corpus.
        size: number of ids, including special tokens; fewer if the corpus allows no more.

    Raises:
        InputError: the size is too small for pieces.
    """
    if size <= len(SPECIAL_TOKENS):
        raise InputError(f"{size} ids are too few", hint="a few thousand or more are usual")
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


def extend(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    size: int,
    *,
    progress: Callable[[int], None] = lambda learned: None,
) -> Tokenizer:
    """Append pieces with scores, each joining two pieces that are often adjacent in the corpus.

    Args:
        tokenizer: a Unigram tokenizer; it stays unchanged.
        texts: the corpus.
        size: number of ids to reach; fewer if no pair is left.
        progress: called from time to time with the number of learned pieces.

    Returns:
        A tokenizer with new ids after all the old ones.

    Raises:
        InputError: the tokenizer is of another kind, or already has that many ids.
    """
    max_pieces = missing_ids(tokenizer, size, "unigram")
    pieces, _ = learn_pieces(
        Words(count_words(tokenizer.engine, texts)),
        tokenizer.engine.get_vocab(with_added_tokens=True),
        max_pieces,
        drop_unused=True,
        progress=progress,
    )
    fixed = fixed_ids(tokenizer.engine)
    vocab = json.loads(tokenizer.engine.model.__getstate__())["vocab"]
    known = {piece: score for id_, (piece, score) in enumerate(vocab) if id_ not in fixed}
    scores = []
    for piece in pieces:
        known[piece] = segmentation_score(piece, known) + MARGIN
        scores.append(known[piece])
    return append_pieces(tokenizer, pieces, scores=scores)


def segmentation_score(text: str, scores: Mapping[str, float]) -> float:
    """Return the score of the best segmentation into the given pieces; -inf if there is none."""
    best = [0.0] + [-inf] * len(text)
    for end in range(1, len(text) + 1):
        best[end] = max(best[start] + scores.get(text[start:end], -inf) for start in range(end))
    return best[-1]
