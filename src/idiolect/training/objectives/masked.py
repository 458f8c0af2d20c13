"""Masked-token prediction, the objective of BERT and RoBERTa, with dynamic masks."""

from __future__ import annotations

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.network import Network
from idiolect.text.text_template import TextTemplate
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.batch import IGNORE_INDEX, Batch
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.objectives.causal import language_loss
from idiolect.training.objectives.corpus_objective import CorpusObjective
from idiolect.training.objectives.objective_registry import check_kind, find_objective
from idiolect.training.seeds import derive_seed

__all__ = ["Masked"]


class Masked(CorpusObjective):
    """Predict masked tokens from all others of their document.

    Of the selected tokens, 80% are replaced by the mask, 10% by a random token and 10% are kept
    (Devlin et al. 2018, 1810.04805). The selection is drawn anew for every row (dynamic masking,
    Liu et al. 2019, 1907.11692), from the seed and the row's number in the run.

    Args:
        network: A bidirectional network with a language-model head.
        tokenizer: Defines the mask, and the tokens that are never masked.
        share: Share of the tokens that are selected.
        seed: Random seed.

    Raises:
        ConfigError: The network does not read both ways.
        InputError: It has no language-model head, or the tokenizer has no mask token.
    """

    def __init__(
        self, network: Network, tokenizer: Tokenizer, *, share: float = 0.15, seed: int = 0
    ) -> None:
        check_kind(find_objective("pretrain", "masked"), network.kind)
        _ = network.language_head
        if tokenizer.mask_token_id is None:
            raise InputError("the tokenizer has no mask token", hint="add one, such as [MASK]")
        self.mask_id, self.share, self.seed = tokenizer.mask_token_id, share, seed
        self.vocabulary = len(tokenizer)
        template = self.template(tokenizer)
        self.never = torch.tensor(sorted({*template.before, *template.after, self.mask_id}))

    @staticmethod
    def template(tokenizer: Tokenizer, language: str | None = None) -> TextTemplate:
        """Return the special tokens around each text."""
        del language
        return TextTemplate.of(tokenizer, causal=False)

    def prepare(self, rows: PackedRows) -> Batch:
        """Mask tokens, and label them."""
        selection, kind, other = self._draw(rows)
        selected = (
            (selection < self.share)
            & (rows.document_ids > 0)
            & ~torch.isin(rows.input_ids, self.never)
        )
        labels = torch.where(selected, rows.input_ids, IGNORE_INDEX)
        ids = torch.where(selected & (kind < 0.8), self.mask_id, rows.input_ids)
        ids = torch.where(selected & (kind >= 0.9), other, ids)
        return Batch(input_ids=ids, attention_mask=rows.document_ids, labels=labels)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the labels."""
        return language_loss(network, batch)

    def _draw(self, rows: PackedRows) -> tuple[Tensor, Tensor, Tensor]:
        """Draw two uniform numbers and a random token for each token of the rows."""
        length = rows.input_ids.shape[1]
        generator = torch.Generator()
        uniform, other = [], []
        for number in range(rows.first, rows.first + len(rows.input_ids)):
            generator.manual_seed(derive_seed(self.seed, number))
            uniform.append(torch.rand(2, length, generator=generator))
            other.append(torch.randint(self.vocabulary, (length,), generator=generator))
        selection, kind = torch.stack(uniform, dim=1)
        return selection, kind, torch.stack(other)
