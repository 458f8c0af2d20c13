"""Masked-token prediction, the objective of BERT and RoBERTa."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.nn.network import Network
from idiolect.text.templates.text_template import TextTemplate
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.word_starts import WordStarts
from idiolect.training.data.batch import IGNORE_INDEX, Batch
from idiolect.training.data.packed_documents import PackedDocuments, PackedRows
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.causal import language_loss
from idiolect.training.objectives.corpus_objective import CorpusObjective
from idiolect.training.objectives.objective_registry import check_kind, find_objective
from idiolect.training.objectives.objective_settings import (
    check_flag,
    check_number,
    check_share,
)
from idiolect.training.training_config import TrainingConfig

__all__ = ["Masked", "choose_tokens"]

_Grid = NDArray[Any]


class Masked(CorpusObjective):
    """Predict masked tokens from all other tokens of their text.

    Of a text's n tokens (special ones count but are never selected), max(1, round(0.15·n)) are
    selected. Of these, 80% are replaced by the mask, 10% by a random token and 10% are unchanged
    (Devlin et al. 2018, 1810.04805). By default they are sampled anew for every row (dynamic
    masking, Liu et al. 2019, 1907.11692), from the seed and the row's number in the run.

    Args:
        network: A bidirectional network with a language-model head.
        tokenizer: Defines the mask, and the tokens that are never masked.
        mlm_probability: Share of the tokens that are selected.
        whole_word: Select whole words: a token that starts a word together with those that continue
            it. A new term is a word.
        duplicates: Static masking, as in BERT: the number of different maskings of a document,
            which are used in turn, one per epoch. `None` for dynamic masking.
        full_sentences: Rows contain whole sentences of consecutive documents as one text (RoBERTa).
        language_ids: The id of each language, for a network that has an embedding for it.
        seed: Random seed.

    Raises:
        ConfigError: The network is not bidirectional, or a number is out of range.
        InputError: It has no language-model head, or the tokenizer has no mask token.
    """

    name = "masked"
    languages_are: ClassVar[Literal["tokens", "embeddings"] | None] = "embeddings"

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        mlm_probability: float = 0.15,
        whole_word: bool = False,
        duplicates: int | None = None,
        full_sentences: bool = False,
        language_ids: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        check_kind(find_objective("pretrain", self.name), network.kind)
        _ = network.language_head
        if tokenizer.mask_token_id is None:
            raise InputError("the tokenizer has no mask token", hint="add one, such as [MASK]")
        self.mask_id, self.seed = tokenizer.mask_token_id, seed
        self.probability = check_share(mlm_probability, "mlm_probability", above_zero=True)
        if duplicates is not None and (
            check_number(duplicates, "duplicates", least=1) != int(duplicates)
        ):
            raise ConfigError(f"duplicates is {duplicates}", hint="a whole number, such as 10")
        self.duplicates = duplicates
        self.full_sentences = check_flag(full_sentences, "full_sentences")
        self.needs_sentences = self.full_sentences
        self.vocabulary = len(tokenizer)
        template = self.template(tokenizer)
        self._ahead = len(template.before)
        self._never = np.zeros(self.vocabulary, np.bool_)
        self._never[[*template.before, *template.after, self.mask_id]] = True
        self._starts = WordStarts(tokenizer) if check_flag(whole_word, "whole_word") else None
        self.language_ids = dict(language_ids or {})

    @staticmethod
    def missing_tokens(tokenizer: Tokenizer, **settings: Any) -> list[str]:
        """Return the tokens that a run needs and the tokenizer lacks: a mask."""
        del settings
        return ["<mask>"] if tokenizer.mask_token_id is None else []

    @staticmethod
    def template(tokenizer: Tokenizer, language: str | None = None) -> TextTemplate:
        """Return the special tokens around each text."""
        del language
        return TextTemplate.of(tokenizer, causal=False)

    def make_source(
        self,
        tokens: TokenFile,
        tokenizer: Tokenizer,
        config: TrainingConfig,
        *,
        name: str = "the corpus",
        language: str | None = None,
    ) -> Any:
        """Return packed documents; see `CorpusObjective.make_source`."""
        return PackedDocuments(
            tokens,
            self.template(tokenizer),
            length=config.max_length,
            rows=config.batch_size,
            seed=config.seed,
            pad_id=tokenizer.pad_token_id,
            name=name,
            language=language,
            whole_sentences=self.full_sentences,
        )

    def prepare(self, rows: PackedRows) -> Batch:
        """Mask tokens, and label them."""
        documents = rows.document_ids
        if self.full_sentences:
            documents = (documents > 0).long()
        input_ids, labels = self.mask(rows)
        return Batch(
            input_ids=input_ids,
            attention_mask=documents,
            labels=labels,
            language_ids=self._language_ids(rows),
        )

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the labels."""
        return language_loss(network, batch)

    def mask(self, rows: PackedRows) -> tuple[Tensor, Tensor]:
        """Return the masked ids of rows and their labels. Shape: (rows, length), both."""
        ids = rows.input_ids.numpy()
        documents = rows.texts()
        uniform, kind, other = self._draw(rows, documents)
        # Documents that share a row as one text also share its number of selected tokens.
        texts = _joined(documents) if self.full_sentences else documents
        number = np.full(ids.shape, -1)
        for i, (row, start, stop) in enumerate(texts):
            number[row, start:stop] = i
        candidates = (number >= 0) & ~self._never[ids]
        sizes = np.array([stop - start for _, start, stop in texts], np.int64)
        budgets = np.maximum(1, np.round(self.probability * sizes)).astype(np.int64)
        words = None
        if self._starts is not None:
            first = self._starts(ids) | ~candidates
            for row, start, _ in documents:
                ahead = 0 if self.full_sentences and start else self._ahead
                first[row, start : start + ahead + 1] = True
            words = np.cumsum(first.ravel()).reshape(ids.shape)
        selected = choose_tokens(uniform, number, candidates, budgets, words)
        labels = np.where(selected, ids, IGNORE_INDEX)
        masked = np.where(selected & (kind < 0.8), self.mask_id, ids)
        masked = np.where(selected & (kind >= 0.9), (other * self.vocabulary).astype(int), masked)
        return torch.from_numpy(masked), torch.from_numpy(labels)

    def _draw(self, rows: PackedRows, texts: Sequence[tuple[int, int, int]]) -> _Grid:
        """Sample three uniform numbers for each token. Shape: (3, rows, length)."""
        count, length = rows.input_ids.shape
        if self.duplicates is None:
            seeds = ([self.seed, rows.first + row] for row in range(count))
            drawn = [np.random.default_rng(seed).random((3, length)) for seed in seeds]
            return np.stack(drawn, axis=1)
        grid = np.zeros((3, count, length))
        for (row, start, stop), origin in zip(texts, rows.origins, strict=True):
            # By position in the document, so that a different split does not change the masks.
            seed = [self.seed, origin.document, origin.epoch % int(self.duplicates)]
            numbers = np.random.default_rng(seed).random((origin.offset + stop - start, 3))
            grid[:, row, start:stop] = numbers[origin.offset :].T
        return grid

    def _language_ids(self, rows: PackedRows) -> Tensor | None:
        """Return the language of each token, if the network has embeddings for languages."""
        if not self.language_ids:
            return None
        if None in rows.languages:
            raise InputError(
                "text whose language is not named, for a network that reads languages",
                hint='name it, as {"en": corpus}; replayed and validation text as well',
            )
        row_ids = [self.language_ids[language] for language in rows.languages]
        return torch.tensor(row_ids)[:, None].expand(rows.input_ids.shape).contiguous()


def _joined(texts: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Return the texts of each row as one."""
    found: list[tuple[int, int, int]] = []
    for row, start, stop in texts:
        if found and found[-1][0] == row:
            found[-1] = (row, found[-1][1], stop)
        else:
            found.append((row, start, stop))
    return found


def choose_tokens(
    uniform: _Grid, texts: _Grid, candidates: _Grid, budgets: _Grid, words: _Grid | None = None
) -> NDArray[np.bool_]:
    """Choose a number of tokens of each text at random.

    Args:
        uniform: A random number for each token. (rows, length).
        texts: The number of each token's text, from 0. (rows, length).
        candidates: Mask of the tokens that may be chosen. (rows, length), bool.
        budgets: Number of tokens to choose in each text, if it has that many. (texts,).
        words: The number of each token's word, ascending. If given, whole words are chosen in
            random order, skipping those that exceed the budget, as in BERT's code. (rows, length).

    Returns:
        Mask of the chosen tokens. (rows, length).
    """
    chosen = np.zeros(texts.size, np.bool_)
    places = candidates.ravel().nonzero()[0]
    own = texts.ravel()[places]
    if words is None:
        order = np.lexsort((uniform.ravel()[places], own))
        grouped = own[order]
        starts = np.searchsorted(grouped, np.arange(len(budgets)))
        rank = np.arange(len(order)) - starts[grouped]
        chosen[places[order[rank < budgets[grouped]]]] = True
        return chosen.reshape(texts.shape)
    _, first, sizes = np.unique(words.ravel()[places], return_index=True, return_counts=True)
    order = np.lexsort((uniform.ravel()[places[first]], own[first]))
    left = budgets.copy()
    for word in order.tolist():
        text, size = own[first[word]], sizes[word]
        if size <= left[text]:
            left[text] -= size
            chosen[places[first[word] : first[word] + size]] = True
    return chosen.reshape(texts.shape)
