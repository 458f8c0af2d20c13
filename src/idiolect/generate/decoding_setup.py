"""`DecodingSetup`: open a model for a batch of texts, with the second pass that guidance needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.generate.batching.running_batch import (
    PAGE_SIZE,
    GridBatch,
    PagedBatch,
    PairedBatch,
    RunningBatch,
)
from idiolect.generate.decoding import Decoding
from idiolect.generate.generation import TextRow
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.guided_decoding import (
    ContrastingDecoding,
    GuidedDecoding,
    LayerContrast,
    contrast_scores,
    guide_scores,
)
from idiolect.generate.helper_models import HelperModels
from idiolect.generate.prompts.prompt_ids import negative_ids
from idiolect.models.language_model import LanguageModel

__all__ = ["DecodingSetup"]

_Sources = Callable[[Sequence[TextRow]], list[list[int]]]


class DecodingSetup:
    """Opens a language model for texts: in a padded batch, or in one that texts join and leave.

    Args:
        model: The model.

    Raises:
        InputError: It does not predict the next token.
    """

    def __init__(self, model: LanguageModel) -> None:
        network = model.network
        if network.kind == "bidirectional" or not network.has_language_head:
            raise InputError(
                "this model does not continue texts",
                hint="choose a causal or an encoder-decoder language model, such as smollm2",
            )
        self.model = model

    def of_helper(self, other: LanguageModel) -> DecodingSetup:
        """Return the setup of a helper model, which must have the same vocabulary.

        Raises:
            InputError: It has another one, or does not predict the next token.
        """
        if other.tokenizer.engine.get_vocab() != self.model.tokenizer.engine.get_vocab():
            raise InputError(
                "the second model has another vocabulary", hint="choose one of the same family"
            )
        return DecodingSetup(other)

    def batch(self, texts: int, options: GenerationOptions, helpers: HelperModels) -> RunningBatch:
        """Return an empty batch for a number of texts."""
        # A single text has nothing to share, and a contiguous cache is faster than pages. DoLa
        # needs the hidden states of layers in a padded batch.
        grid = texts == 1 or bool(options.dola_layers)
        own, other = None if grid else self.paged(), None
        if options.guidance_scale != 1:
            other = self.paged(
                lambda rows: negative_ids(self.model, helpers.negative_prompts, rows)
            )
            combine: Callable[[Tensor, Tensor], Tensor] = partial(
                guide_scores, scale=options.guidance_scale
            )
        elif helpers.amateur is not None:
            other, combine = self.of_helper(helpers.amateur).paged(), contrast_scores
        elif own is not None:
            return own
        if own is None or other is None:
            return GridBatch(lambda rows: self.open(rows, options, helpers))
        return PairedBatch(own, other, combine)

    def paged(self, sources: _Sources | None = None, *, least_pages: int = 0) -> PagedBatch | None:
        """Return an empty batch with a paged KV cache, or None if the network has none.

        Args:
            sources: Returns the ids to read for rows that join; by default their prompts.
            least_pages: Pages that the cache keeps for texts to come.
        """
        network = self.model.network
        cache = network.new_paged_cache(PAGE_SIZE)
        if cache is None:
            return None
        return PagedBatch(
            network,
            cache,
            sources or _prompts,
            vocab_size=len(self.model.tokenizer),
            least_pages=least_pages,
        )

    def open(
        self, rows: Sequence[TextRow], options: GenerationOptions, helpers: HelperModels
    ) -> Decoding:
        """Return a batch of texts to continue, with its guidance, if any."""
        decoding = self._decoding([row.source for row in rows], options)
        if options.guidance_scale != 1:
            other = negative_ids(self.model, helpers.negative_prompts, rows)
            return GuidedDecoding(decoding, self._decoding(other, options), options.guidance_scale)
        if helpers.amateur is not None:
            weaker = self.of_helper(helpers.amateur)
            sources = [row.source for row in rows]
            return ContrastingDecoding(decoding, weaker._decoding(sources, options))
        return decoding

    def _decoding(self, sources: Sequence[list[int]], options: GenerationOptions) -> Decoding:
        longest = max(map(len, sources))
        pad = self.model.tokenizer.batch_pad_token_id
        padding = pad if pad is not None else 0
        device = self.model.network.device
        ids = torch.tensor(
            [[padding] * (longest - len(source)) + source for source in sources], device=device
        )
        lengths = torch.tensor([len(source) for source in sources], device=device)
        mask = (torch.arange(longest, device=device) >= longest - lengths[:, None]).long()
        network, size = self.model.network, len(self.model.tokenizer)
        if options.dola_layers:
            return LayerContrast(network, ids, mask, layers=options.dola_layers, vocab_size=size)
        return Decoding(network, ids, mask, vocab_size=size)


def _prompts(rows: Sequence[TextRow]) -> list[list[int]]:
    return [row.source for row in rows]
