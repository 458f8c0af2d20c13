"""Denoising, the objective of BART and mBART: restore a text that was corrupted in several ways.

A text is corrupted in this order, as in fairseq (Lewis et al. 2019, 1910.13461):

    permutation   sentences are shuffled
    infilling     each span of words is replaced by one mask token; an empty span inserts a mask
    deletion      random words are deleted
    rotation      the text is rotated to begin at a random token
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.nn.network import Network
from idiolect.text.templates.text_template import TextTemplate
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.word_starts import WordStarts
from idiolect.training.data.batch import Batch
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.data.source_targets import SourceTarget, pack_pairs, start_id
from idiolect.training.objectives.corpus_objective import CorpusObjective
from idiolect.training.objectives.objective_registry import check_kind, find_objective
from idiolect.training.objectives.objective_settings import check_number, check_share
from idiolect.training.objectives.translation import target_loss

__all__ = ["Denoising", "infilling_lengths", "mask_spans", "permute_sentences"]

_Ids = NDArray[np.int64]
_LARGEST_MEAN = 1000
"""A mean length of spans, in words, above which every text has one span anyway."""


def infilling_lengths(random: np.random.Generator, budget: int, mean: float) -> _Ids:
    """Sample lengths of spans, in words, until they sum to the budget; the last is truncated.

    Lengths follow a Poisson distribution, so some are zero.
    """
    lengths = random.poisson(mean, budget)
    while lengths.sum() < budget:
        lengths = np.concatenate([lengths, random.poisson(mean, budget)])
    sums = np.cumsum(lengths)
    count = int(np.searchsorted(sums, budget)) + 1
    lengths = lengths[:count]
    lengths[-1] -= sums[count - 1] - budget
    return lengths.astype(np.int64)


def mask_spans(
    random: np.random.Generator, starts: NDArray[np.bool_], *, mask_ratio: float, mean: float
) -> tuple[_Ids, _Ids]:
    """Sample the spans of tokens to replace by masks.

    Spans do not overlap, so exactly ⌈mask_ratio · words⌉ words are masked; each arrangement of
    spans and other words is equally probable.

    Args:
        random: The random generator.
        starts: Mask of the tokens that start a word; the first token always does.
        mask_ratio: Share of the words that are masked.
        mean: Mean of the spans' Poisson distribution.

    Returns:
        Start and end (exclusive) of each span, in order; they are equal where a mask is inserted.
        Shape: two of (spans,).
    """
    words = np.append(starts.nonzero()[0], len(starts))
    count = len(words) - 1
    budget = math.ceil(mask_ratio * count)
    if not budget:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    lengths = infilling_lengths(random, budget, mean)
    slots = count - budget + len(lengths)
    chosen = np.sort(random.choice(slots, len(lengths), replace=False))
    # A span is preceded by the kept words in the slots before it and by the earlier spans.
    first = chosen - np.arange(len(lengths)) + np.cumsum(lengths) - lengths
    return words[first], words[first + lengths]


def permute_sentences(random: np.random.Generator, ends: NDArray[np.bool_], share: float) -> _Ids:
    """Return an order of tokens in which a share of the sentences is permuted.

    Args:
        random: The random generator.
        ends: Mask of the tokens that end a sentence, except the last sentence.
        share: Share of the sentences that are permuted.
    """
    parts = np.split(np.arange(len(ends)), ends[:-1].nonzero()[0] + 1)
    moved = random.permutation(len(parts))[: math.ceil(len(parts) * share)]
    order = np.arange(len(parts))
    order[moved] = moved[random.permutation(len(moved))]
    return np.concatenate([parts[i] for i in order])


class Denoising(CorpusObjective):
    """Restore whole texts from corrupted ones.

    Args:
        network: An encoder-decoder with a language-model head.
        tokenizer: Defines the mask, and the tokens around a text.
        mask_ratio: Share of the words that are masked (0.3; mBART 0.35).
        poisson_lambda: Mean number of words that one mask replaces (3; 3.5 in fairseq's command for
            BART and in mBART), at least 1.
        permute_sentences: Share of the sentences that are permuted.
        delete_ratio: Share of the words that are deleted.
        rotate: Probability that a text is rotated.
        language_ids: The token id of each language. If given, this token ends each text and begins
            the decoder's input (mBART, Liu et al. 2020, 2001.08210).
        seed: Random seed.

    Raises:
        ConfigError: The network is not an encoder-decoder, or a number is out of range.
        InputError: It has no language-model head, or the tokenizer has no mask or end token.
    """

    languages_are = "tokens"

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        mask_ratio: float = 0.3,
        poisson_lambda: float = 3.0,
        permute_sentences: float = 1.0,
        delete_ratio: float = 0.0,
        rotate: float = 0.0,
        language_ids: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        check_kind(find_objective("pretrain", "denoising"), network.kind)
        _ = network.language_head
        self.mask_ratio = check_share(mask_ratio, "mask_ratio")
        self.poisson_lambda = check_number(poisson_lambda, "poisson_lambda")
        if self.mask_ratio and not 1 <= self.poisson_lambda <= _LARGEST_MEAN:
            raise ConfigError(
                f"poisson_lambda is {poisson_lambda}",
                hint=f"from 1 to {_LARGEST_MEAN}; with a smaller mean, a text would grow by more "
                "masks than it loses words",
            )
        self.permuted = check_share(permute_sentences, "permute_sentences")
        self.needs_sentences = self.permuted > 0
        self.delete_ratio = check_share(delete_ratio, "delete_ratio", below_one=True)
        self.rotate = check_share(rotate, "rotate")
        if tokenizer.mask_token_id is None:
            raise InputError("the tokenizer has no mask token", hint="add one, such as <mask>")
        self.mask_id, self.seed = tokenizer.mask_token_id, seed
        self.language_ids = dict(language_ids or {})
        self._starts = WordStarts(tokenizer)
        self._templates = {
            language: self.template(tokenizer, language) for language in (None, *self.language_ids)
        }
        self.pad_id, self.start = tokenizer.pad_token_id or 0, start_id(network)
        self._packed = network.packs_texts
        self._longest: int = network.config.max_position_embeddings

    @staticmethod
    def missing_tokens(tokenizer: Tokenizer, **settings: Any) -> list[str]:
        """Return the tokens that a run needs and the tokenizer lacks, in the order of new ids."""
        del settings
        needed = {"</s>": tokenizer.eos_token_id, "<mask>": tokenizer.mask_token_id}
        return [name for name, id_ in needed.items() if id_ is None]

    def template(self, tokenizer: Tokenizer, language: str | None = None) -> TextTemplate:
        """Return the special tokens around each text."""
        end = tokenizer.eos_token_id
        if language is not None and language in self.language_ids:
            tail = (*(() if end is None else (end,)), self.language_ids[language])
            return TextTemplate((), tail, tail)
        own = TextTemplate.of(tokenizer, causal=False)
        if own.after or end is None:
            return own
        return TextTemplate(own.before, (end,), (end,))

    def prepare(self, rows: PackedRows) -> Batch:
        """Corrupt each text of the rows."""
        pairs: list[list[SourceTarget]] = [[] for _ in range(len(rows))]
        random = [np.random.default_rng([self.seed, rows.first + i]) for i in range(len(rows))]
        ids = rows.input_ids.numpy()
        marks = None if rows.sentence_ends is None else rows.sentence_ends.numpy()
        for row, start, stop in rows.texts():
            language = rows.languages[row] if rows.languages else None
            template = self._templates.get(language, self._templates[None])
            text = ids[row, start:stop]
            first, last = start + len(template.before), stop - len(template.after)
            corrupted = self.corrupt(
                ids[row, first:last],
                random[row],
                None if marks is None else marks[row, first:last],
                room=self._longest - (stop - start) + (last - first) if self._longest else None,
            )
            source = np.concatenate([text[: first - start], corrupted, text[last - start :]])
            pairs[row].append(SourceTarget(source, text))
        return pack_pairs(pairs, pad_id=self.pad_id, start=self.start, packed=self._packed)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the target tokens."""
        return target_loss(network, batch)

    def corrupt(
        self,
        text: _Ids,
        random: np.random.Generator,
        sentence_ends: NDArray[np.bool_] | None = None,
        *,
        room: int | None = None,
    ) -> _Ids:
        """Return a corrupted text. Shape: (tokens,) to (other tokens,).

        Args:
            text: The ids.
            random: The random generator.
            sentence_ends: Mask of the tokens that end a sentence.
            room: Maximum length of the result, at least that of the text; by default unlimited.
        """
        if not len(text):
            return text
        starts = self._starts(text)
        starts[0] = True
        if self.permuted and sentence_ends is not None:
            order = permute_sentences(random, sentence_ends, self.permuted)
            text, starts = text[order], starts[order]
            starts[0] = True
        if self.mask_ratio:
            first, last = mask_spans(
                random, starts, mask_ratio=self.mask_ratio, mean=self.poisson_lambda
            )
            grown = len(text) + len(first) - int((last - first).sum())
            if room is not None and grown > room:
                # Inserted masks alone make a text longer, so enough of them can be left out.
                empty = (first == last).nonzero()[0]
                left_out = random.choice(empty, min(grown - room, len(empty)), replace=False)
                first, last = np.delete(first, left_out), np.delete(last, left_out)
            text, starts = self._mask(text, starts, first, last)
        if self.delete_ratio:
            words = np.cumsum(starts) - 1
            count = int(words[-1]) + 1
            number = min(math.ceil(self.delete_ratio * count), count - 1)
            deleted = random.permutation(count)[:number]
            text = text[~np.isin(words, deleted)]
        if self.rotate and random.random() < self.rotate:
            text = np.roll(text, -int(random.integers(len(text))))
        return text

    def _mask(
        self, text: _Ids, starts: NDArray[np.bool_], first: _Ids, last: _Ids
    ) -> tuple[_Ids, NDArray[np.bool_]]:
        """Replace each span by a mask token, which counts as one word."""
        pieces, heads, done = list[_Ids](), list[NDArray[np.bool_]](), 0
        mask, head = np.array([self.mask_id]), np.ones(1, np.bool_)
        for begin, end in zip(first.tolist(), last.tolist(), strict=True):
            pieces += [text[done:begin], mask]
            heads += [starts[done:begin], head]
            done = end
        return np.concatenate([*pieces, text[done:]]), np.concatenate([*heads, starts[done:]])
