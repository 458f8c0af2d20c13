"""Prefix language modelling: predict the rest of a text from its beginning.

In an encoder-decoder the encoder reads the beginning and the decoder predicts the rest (Raffel et
al. 2019, 1910.10683). In a decoder the beginning has bidirectional attention, and only the rest is
predicted (Liu et al. 2018, 1801.10198; Dong et al. 2019, 1905.03197).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from idiolect.errors import ConfigError
from idiolect.nn.network import Network
from idiolect.text.templates.text_template import TextTemplate
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.batch import IGNORE_INDEX, Batch
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.data.source_targets import SourceTarget, pack_pairs, start_id
from idiolect.training.objectives.causal import language_loss
from idiolect.training.objectives.corpus_objective import CorpusObjective
from idiolect.training.objectives.objective_registry import check_kind, find_objective
from idiolect.training.objectives.objective_settings import check_share
from idiolect.training.objectives.translation import target_loss

__all__ = ["Prefix"]


class Prefix(CorpusObjective):
    """Predict the rest of each text from a beginning of random length.

    Args:
        network: An encoder-decoder or a decoder with a language-model head.
        tokenizer: Defines the tokens around a text.
        min_prefix: Minimum share of a text that is its prefix.
        max_prefix: Maximum share; lengths in between are equally probable.
        seed: Random seed.

    Raises:
        ConfigError: The network is of another kind, or carries a state instead of attending to the
            prefix; or a share is out of range.
        InputError: It has no language-model head.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        min_prefix: float = 0.0,
        max_prefix: float = 1.0,
        seed: int = 0,
    ) -> None:
        check_kind(find_objective("pretrain", "prefix"), network.kind)
        _ = network.language_head
        if network.carries_state:
            raise ConfigError(
                "a recurrent network reads no prefix both ways", hint="choose the objective causal"
            )
        self.shares = check_share(min_prefix, "min_prefix"), check_share(max_prefix, "max_prefix")
        if self.shares[0] > self.shares[1]:
            raise ConfigError(
                f"min_prefix {min_prefix} is above max_prefix {max_prefix}", hint="swap them"
            )
        self.causal, self.seed = network.kind == "causal", seed
        self.pad_id = tokenizer.pad_token_id or 0
        self.start = None if self.causal else start_id(network)
        self._packed = network.packs_texts
        self._end = np.array(self.template(tokenizer).after, np.int64)

    def template(self, tokenizer: Tokenizer, language: str | None = None) -> TextTemplate:
        """Return the special tokens around each text; both sides of an encoder-decoder end."""
        del language
        if self.causal:
            return TextTemplate.of(tokenizer, causal=True)
        end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        return TextTemplate((), end, end)

    def prepare(self, rows: PackedRows) -> Batch:
        """Split each text of the rows into a prefix and the rest."""
        random = [np.random.default_rng([self.seed, rows.first + i]) for i in range(len(rows))]
        texts = rows.texts()
        cuts = [self._cut(stop - start, random[row]) for row, start, stop in texts]
        return self._marked(rows, cuts) if self.causal else self._divided(rows, cuts)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the labels."""
        return language_loss(network, batch) if self.causal else target_loss(network, batch)

    def _cut(self, length: int, random: np.random.Generator) -> int:
        """Sample the length of a text's prefix; prefix and rest have at least one token each."""
        if length < 2:
            return length
        low = min(max(1, round(self.shares[0] * length)), length - 1)
        high = min(max(low, round(self.shares[1] * length)), length - 1)
        return int(random.integers(low, high + 1))

    def _divided(self, rows: PackedRows, cuts: list[int]) -> Batch:
        """Return prefixes for the encoder, and the rest of each text for the decoder."""
        pairs: list[list[SourceTarget]] = [[] for _ in range(len(rows))]
        ids = rows.input_ids.numpy()
        for (row, start, stop), cut in zip(rows.texts(), cuts, strict=True):
            text = ids[row, start:stop]
            # The prefix ends as a whole text does. Without an end token it ends with nothing: the
            # last token of the text is one of those to predict.
            source = np.concatenate([text[:cut], self._end])
            pairs[row].append(SourceTarget(source, text[cut:] if cut < len(text) else text[-1:]))
        return pack_pairs(pairs, pad_id=self.pad_id, start=self.start, packed=self._packed)

    def _marked(self, rows: PackedRows, cuts: list[int]) -> Batch:
        """Return the texts with labels after each prefix, and a mask of the prefixes."""
        labels = torch.full_like(rows.input_ids, IGNORE_INDEX)
        prefixes = torch.zeros_like(rows.input_ids)
        for (row, start, stop), cut in zip(rows.texts(), cuts, strict=True):
            labels[row, start + cut - 1 : stop - 1] = rows.input_ids[row, start + cut : stop]
            prefixes[row, start : start + cut] = 1
        return Batch(
            input_ids=rows.input_ids,
            attention_mask=rows.document_ids,
            prefix_mask=prefixes,
            labels=labels,
        )
