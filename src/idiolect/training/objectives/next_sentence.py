"""BERT's objective: masked-token prediction and next-sentence prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.network import Network, Output
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.batch import Batch
from idiolect.training.data.next_sentence_rows import NextSentenceRows
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.cross_entropy import cross_entropy, vocabulary_blocks
from idiolect.training.objectives.masked import Masked
from idiolect.training.training_config import TrainingConfig

__all__ = ["NextSentence", "NextSentenceBatch"]


@dataclass(frozen=True, kw_only=True)
class NextSentenceBatch(Batch):
    """Rows of two parts."""

    follows: Tensor
    """1 if the second part does not follow the first, else 0, as in BERT. (rows,), int64."""
    row_weight: float
    """Weight of a row's loss, in masked tokens, with which the step's loss is the mean over tokens
    plus the mean over rows, however the step is divided."""


class NextSentence(Masked):
    """Predict masked tokens, and whether the second part of a text follows the first.

    The loss is the sum of the mean losses of both tasks (Devlin et al. 2018, 1810.04805).

    Args:
        network: A bidirectional network with a language-model and a next-sentence head.
        tokenizer: As for `Masked`.
        settings: As for `Masked`, without `full_sentences`.

    Raises:
        ConfigError: As for `Masked`.
        InputError: As for `Masked`, or the network has no next-sentence head.
    """

    name = "masked+next_sentence"

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        mlm_probability: float = 0.15,
        whole_word: bool = False,
        duplicates: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network,
            tokenizer,
            mlm_probability=mlm_probability,
            whole_word=whole_word,
            duplicates=duplicates,
            seed=seed,
        )
        if "next_sentence" not in network.heads:
            raise InputError(
                "this network has no next-sentence head",
                hint="load a class that has one, such as BertForPreTraining, or choose masked",
            )
        self.needs_sentences = True
        self._has_types = bool(getattr(network.config, "type_vocab_size", 0) > 1)

    languages_are = None

    def make_source(
        self,
        tokens: TokenFile,
        tokenizer: Tokenizer,
        config: TrainingConfig,
        *,
        name: str = "the corpus",
        language: str | None = None,
    ) -> Any:
        """Return pairs of sentences; see `CorpusObjective.make_source`."""
        return NextSentenceRows(
            tokens,
            self.template(tokenizer),
            length=config.max_length,
            rows=config.batch_size,
            seed=config.seed,
            pad_id=tokenizer.pad_token_id,
            duplicates=self.duplicates,
            name=name,
            language=language,
        )

    def prepare(self, rows: PackedRows) -> NextSentenceBatch:
        """Mask tokens, and label them and the rows."""
        assert rows.follows is not None
        input_ids, labels = self.mask(rows)
        return NextSentenceBatch(
            input_ids=input_ids,
            attention_mask=rows.document_ids,
            token_type_ids=rows.segment_ids if self._has_types else None,
            labels=labels,
            follows=1 - rows.follows.long(),
            row_weight=float((labels >= 0).sum()) / len(rows),
        )

    def loss(self, network: Network, batch: NextSentenceBatch) -> Tensor:  # type: ignore[override]
        """Return the loss summed over the token labels, plus the weighted loss of the rows."""
        assert batch.labels is not None
        output: Output = network(**batch.inputs, return_logits=False)
        head, predicted = network.language_head, batch.predicted
        loss = cross_entropy(
            head.transform(output.hidden_states[predicted]),
            batch.labels[predicted],
            vocabulary_blocks(network),
            softcap=head.softcap,
        )
        pooler: Any = network.pooler
        pooled = pooler(output.hidden_states, batch.input_ids, batch.attention_mask)
        scores = network.heads["next_sentence"](pooled).float()
        return loss + batch.row_weight * F.cross_entropy(scores, batch.follows, reduction="sum")
