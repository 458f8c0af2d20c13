"""The hidden token: the objective of BERT and RoBERTa, masked anew each time a text is read."""

from __future__ import annotations

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.transformer import Transformer
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.packed_documents import Batch, PackedRows, TextTemplate
from idiolect.training.objectives.causal import check_head, language_loss
from idiolect.training.seeds import derive_seed

__all__ = ["Masked"]


class Masked:
    """Predict hidden tokens from all others of their document.

    Of the tokens picked, 80% are replaced by the mask, 10% by a random token and 10% stay (Devlin
    et al. 2018, 1810.04805); which ones is drawn afresh for every row (dynamic masking, Liu et al.
    2019, 1907.11692), from the seed and the row's number in the run.

    Args:
        network: An encoder with a language-model head.
        tokenizer: Gives the mask, and the tokens that are never picked.
        share: How many of the tokens are picked.
        seed: Where chance begins.

    Raises:
        InputError: The network is no encoder or has no language-model head, or the tokenizer has
            no mask token.
    """

    predicts_text = False

    def __init__(
        self, network: Transformer, tokenizer: Tokenizer, *, share: float = 0.15, seed: int = 0
    ) -> None:
        if network.encoder is None or network.decoder is not None:
            raise InputError(
                "this network is no encoder, so it cannot fill in hidden tokens",
                hint='use objective="causal" for a decoder',
            )
        check_head(network)
        if tokenizer.mask_id is None:
            raise InputError("the tokenizer has no mask token", hint="add one, such as [MASK]")
        self.mask_id, self.share, self.seed = tokenizer.mask_id, share, seed
        self.vocabulary = len(tokenizer)
        frame = TextTemplate.of(tokenizer, causal=False)
        self.never = torch.tensor(sorted({*frame.before, *frame.after, self.mask_id}))

    def prepare(self, rows: PackedRows) -> Batch:
        """Hide tokens."""
        choice, kind, other = self._draw(rows)
        picked = (choice < self.share) & (rows.documents > 0) & ~torch.isin(rows.ids, self.never)
        targets = torch.where(picked, rows.ids, -1)
        ids = torch.where(picked & (kind < 0.8), self.mask_id, rows.ids)
        ids = torch.where(picked & (kind >= 0.9), other, ids)
        return Batch(ids, rows.documents, targets)

    def loss(self, network: Transformer, batch: Batch) -> Tensor:
        """Return the loss summed over the batch's targets."""
        return language_loss(network, batch)

    def _draw(self, rows: PackedRows) -> tuple[Tensor, Tensor, Tensor]:
        """Draw for each token whether it is picked, what becomes of it, and a random token."""
        length = rows.ids.shape[1]
        generator = torch.Generator()
        uniform, other = [], []
        for number in range(rows.first, rows.first + len(rows.ids)):
            generator.manual_seed(derive_seed(self.seed, number))
            uniform.append(torch.rand(2, length, generator=generator))
            other.append(torch.randint(self.vocabulary, (length,), generator=generator))
        choice, kind = torch.stack(uniform, dim=1)
        return choice, kind, torch.stack(other)
