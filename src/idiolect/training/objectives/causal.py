"""Next-token prediction: the objective of GPT, Llama and recurrent language models.

Transformers read packed rows of documents. Recurrent networks read a stream: the state after a
segment is the initial state of the next segment in the same row, without gradients across the
boundary (truncated back-propagation through time, Werbos 1990; Mikolov et al. 2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from idiolect.errors import ConfigError
from idiolect.nn.network import Network, Output
from idiolect.nn.recurrent.recurrent_state import RecurrentCache
from idiolect.text.templates.text_template import TextTemplate
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.batch import IGNORE_INDEX, Batch
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.data.segment_stream import Segments, SegmentStream
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.corpus_objective import CorpusObjective
from idiolect.training.objectives.cross_entropy import cross_entropy, vocabulary_blocks
from idiolect.training.objectives.objective import StepContext
from idiolect.training.objectives.objective_registry import check_kind, find_objective
from idiolect.training.training_config import TrainingConfig

__all__ = ["Causal", "CausalStream", "StreamBatch", "language_loss"]


class Causal(CorpusObjective):
    """Predict each token from the preceding ones in its document (Radford et al. 2018).

    Args:
        network: A causal network with a language-model head.

    Raises:
        ConfigError: The network is not causal.
        InputError: It has no language-model head.
    """

    predicts_text = True

    def __init__(self, network: Network) -> None:
        check_kind(find_objective("pretrain", "causal"), network.kind)
        _ = network.language_head

    @classmethod
    def create(
        cls, network: Network, tokenizer: Tokenizer, *, seed: int, **settings: Any
    ) -> Causal:
        """Make the objective for a run; for a network that carries its state, on a stream."""
        del tokenizer, seed, settings
        return CausalStream(network) if network.carries_state else Causal(network)

    @staticmethod
    def template(tokenizer: Tokenizer, language: str | None = None) -> TextTemplate:
        """Return the special tokens around each text."""
        del language
        return TextTemplate.of(tokenizer, causal=True)

    def prepare(self, rows: PackedRows) -> Batch:
        """Label each token with the next one, unless it belongs to another document."""
        labels = torch.full_like(rows.input_ids, IGNORE_INDEX)
        together = (rows.document_ids[:, 1:] == rows.document_ids[:, :-1]) & (
            rows.document_ids[:, 1:] > 0
        )
        labels[:, :-1] = torch.where(together, rows.input_ids[:, 1:], IGNORE_INDEX)
        return Batch(input_ids=rows.input_ids, attention_mask=rows.document_ids, labels=labels)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the labels."""
        return language_loss(network, batch)


@dataclass(frozen=True, kw_only=True)
class StreamBatch(Batch):
    """Segments of a stream, each of which continues that of the previous step."""

    rows: Tensor
    """The number of each segment's row in the whole batch. (rows,), int64."""
    batch_size: int
    """Number of rows of the whole batch."""
    restarts: bool
    """Whether the rows start from a state of zeros."""
    rate_factor: float
    """Factor on the learning rate."""


class CausalStream(Causal):
    """Predict each token of a stream, with the state carried from segment to segment.

    Args:
        network: A network that carries its state, with a language-model head.

    Raises:
        ConfigError: As for `Causal`.
        InputError: It has no language-model head.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._carried: dict[str, Tensor] = {}

    def make_source(
        self,
        tokens: TokenFile,
        tokenizer: Tokenizer,
        config: TrainingConfig,
        *,
        name: str = "the corpus",
        language: str | None = None,
    ) -> SegmentStream:
        """Return one long text; see `CorpusObjective.make_source`."""
        return SegmentStream(
            tokens,
            self.template(tokenizer, language),
            length=config.max_length,
            rows=config.batch_size,
            seed=config.seed,
            varies=config.varied_length,
            name=name,
        )

    def prepare(self, rows: Segments) -> StreamBatch:  # type: ignore[override]
        """Make a batch of segments."""
        count = len(rows.input_ids)
        return StreamBatch(
            input_ids=rows.input_ids,
            attention_mask=torch.ones_like(rows.input_ids),
            labels=rows.labels,
            rows=torch.arange(count),
            batch_size=count,
            restarts=rows.restarts,
            rate_factor=rows.rate_factor,
        )

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the labels, and keep the states for the next segment."""
        assert isinstance(batch, StreamBatch)
        cache = network.new_cache()
        assert isinstance(cache, RecurrentCache)
        if self._carried and not batch.restarts:
            cache = RecurrentCache.from_tensors(self._carried)
            cache.select(batch.rows)
        total = language_loss(network, batch, cache)
        after = cache.detached().tensors()
        if len(batch) == batch.batch_size:
            self._carried = after
        else:  # a part of the rows
            for name, part in after.items():
                whole = self._carried.get(name, part.new_zeros(batch.batch_size, part.shape[1]))
                self._carried = self._carried | {name: whole.index_copy(0, batch.rows, part)}
        return total

    def accumulate(self, batch: StreamBatch, step: StepContext) -> float:  # type: ignore[override]
        """Add the gradients of the rows, one micro-batch after another.

        Raises:
            ConfigError: There are several processes.
        """
        if step.workers.count > 1:
            raise ConfigError(
                "a stream whose state is carried cannot be divided among processes yet",
                hint="train in one process",
            )
        return super().accumulate(batch, step)

    def rate_factor(self, batch: StreamBatch) -> float:
        """Return the factor on the learning rate for the length of the segments."""
        return batch.rate_factor

    def carried(self) -> dict[str, Tensor]:
        """Return the states after the last segments."""
        return dict(self._carried)

    def restore_carried(self, carried: Mapping[str, Tensor]) -> None:
        """Return to the states of a checkpoint."""
        self._carried = dict(carried)


def language_loss(network: Network, batch: Batch, cache: RecurrentCache | None = None) -> Tensor:
    """Return the cross-entropy summed over the tokens that have a label.

    Args:
        network: The network.
        batch: The tokens and their labels.
        cache: The states after the preceding text; updated in place.
    """
    given = {} if cache is None else {"cache": cache}
    output: Output = network(**batch.inputs, **given, return_logits=False)
    hidden, predicted = output.hidden_states, batch.predicted
    assert batch.labels is not None
    loss = cross_entropy(
        network.language_head.transform(hidden[predicted]),
        batch.labels[predicted],
        vocabulary_blocks(network),
        softcap=network.language_head.softcap,
    )
    if output.penalty is None:
        return loss
    return loss + output.penalty * predicted.sum()
