"""Translation language modelling, XLM's objective on parallel text.

A text and its translation are read together. The positions of each start from 0 and its tokens have
the embedding of its language, so a masked token can be predicted from the other language (Conneau &
Lample 2019, 1901.07291).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.network import Network
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.batch import Batch
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.data.packed_pairs import PackedPairs
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.masked import Masked
from idiolect.training.objectives.objective_settings import check_share
from idiolect.training.training_config import TrainingConfig

__all__ = ["TranslationMasked"]


class TranslationMasked(Masked):
    """Predict masked tokens of a text and its translation from all others of both.

    Args:
        network: A bidirectional network with a language-model head.
        tokenizer: As for `Masked`.
        mlm_probability: As for `Masked`.
        whole_word: As for `Masked`.
        separate: Share of the pairs whose sides do not attend to each other, which is monolingual
            masked-token prediction. With 1 all pairs are separate, on the same tokens.
        language_ids: As for `Masked`.
        seed: Random seed.

    Raises:
        ConfigError: As for `Masked`.
        InputError: As for `Masked`.
    """

    name = "translation_masked"

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        mlm_probability: float = 0.15,
        whole_word: bool = False,
        separate: float = 0.0,
        language_ids: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network,
            tokenizer,
            mlm_probability=mlm_probability,
            whole_word=whole_word,
            language_ids=language_ids,
            seed=seed,
        )
        self.separate = check_share(separate, "separate")
        encoder = getattr(network, "encoder", None)
        self._has_distances = getattr(encoder, "score_bias", None) is not None

    def make_source(  # type: ignore[override]
        self,
        tokens: TokenFile,
        tokenizer: Tokenizer,
        config: TrainingConfig,
        *,
        name: str = "the corpus",
        languages: tuple[str | None, str | None] = (None, None),
    ) -> PackedPairs:
        """Return packed pairs; see `CorpusObjective.make_source`."""
        return PackedPairs(
            tokens,
            self.template(tokenizer),
            length=config.max_length,
            rows=config.batch_size,
            seed=config.seed,
            pad_id=tokenizer.pad_token_id,
            languages=languages,
            name=name,
        )

    def prepare(self, rows: PackedRows) -> Batch:
        """Mask tokens, label them, and let the positions of each side start from 0."""
        assert rows.segment_ids is not None
        input_ids, labels = self.mask(rows)
        segments, documents = rows.segment_ids.numpy(), rows.document_ids.numpy()
        # The sides of a pair are numbered 2i - 1 and 2i; together they share the first number.
        sides = 2 * documents - 1 + segments
        positions = np.arange(sides.shape[1]) - _starts(np.where(documents > 0, sides, 0))
        numbers = np.where(self._are_separate(rows), sides, 2 * documents - 1)
        return Batch(
            input_ids=input_ids,
            attention_mask=torch.from_numpy(np.where(documents > 0, numbers, 0)),
            labels=labels,
            language_ids=self._language_ids(rows),
            position_ids=None if self._has_distances else torch.from_numpy(positions),
        )

    def _are_separate(self, rows: PackedRows) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Sample which pairs are separate; return a mask of their tokens. Shape: (rows, length)."""
        documents = rows.document_ids.numpy()
        drawn = np.stack(
            [
                np.random.default_rng([self.seed, rows.first + row, 1]).random(documents.shape[1])
                for row in range(len(rows))
            ]
        )
        return np.take_along_axis(drawn, documents, axis=1) < self.separate

    def _language_ids(self, rows: PackedRows) -> Tensor | None:
        if not self.language_ids:
            return None
        unnamed = [pair for pair in rows.languages if None in pair]
        if unnamed:
            raise InputError("pairs of unknown languages", hint='name them, as {"en-de": pairs}')
        both = torch.tensor([[self.language_ids[one] for one in pair] for pair in rows.languages])
        assert rows.segment_ids is not None
        return both.gather(1, rows.segment_ids)


def _starts(numbers: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the first column with the same number as each token. Shape: (rows, length)."""
    changes = np.ones(numbers.shape, np.bool_)
    changes[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
    columns = np.where(changes, np.arange(numbers.shape[1]), 0)
    return np.maximum.accumulate(columns, axis=1)
