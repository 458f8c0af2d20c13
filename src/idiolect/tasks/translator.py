"""`Translator`: translate with an encoder-decoder, and show the alignment of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.generate.beam import beam_search
from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.strategies import greedy
from idiolect.models.language_model import LanguageModel
from idiolect.text.arguments import check_whole, list_of_texts, load_if_named
from idiolect.training.data.batch import pad_rows
from idiolect.training.progress import show_progress
from idiolect.training.translate import encode_texts, end_id, position_limit

__all__ = ["TokenAlignment", "Translator"]


@dataclass(frozen=True)
class TokenAlignment:
    """Attention weight of each target token on each source token."""

    source: list[str]
    target: list[str]
    weights: Tensor
    """(target, source); each row sums to at most 1."""


class Translator:
    """Translates with an encoder-decoder.

    Args:
        model: The model, or a name or path to load.
        num_beams: Beams of the search; 1 is greedy.
        length_penalty: See `GenerationOptions`.
        max_new_tokens: Maximum length of a translation; by default one and a half times the
            source's length plus ten.
        batch_size: Texts that are translated at once.

    Raises:
        InputError: The model is no encoder-decoder, or has no token that ends a text.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        num_beams: int = 5,
        length_penalty: float = 1.0,
        max_new_tokens: int | None = None,
        batch_size: int = 64,
    ) -> None:
        self.model = load_if_named(model, LanguageModel, "model")
        if self.model.network.kind != "encoder-decoder":
            raise InputError(
                f"{self.model.family.title} models are no encoder-decoders",
                hint="train one with idiolect translate train",
            )
        end = end_id(self.model)
        if end is None:
            raise InputError("the model has no token that ends a text", hint="set eos_token_id")
        self.end = end
        self.num_beams = check_whole(num_beams, "num_beams", 1)
        self.batch_size = check_whole(batch_size, "batch_size", 1)
        self.length_penalty = length_penalty
        self.max_new_tokens = max_new_tokens

    def translate(self, texts: Iterable[str], *, progress: bool = False) -> list[str]:
        """Translate texts; an empty text has an empty translation.

        Texts of similar length share a batch; results keep the input order.

        Args:
            texts: The texts.
            progress: Show the progress.

        Raises:
            InputError: A text exceeds the model's positions.
        """
        texts = list_of_texts(texts)
        rows = encode_texts(self.model, texts)
        order = sorted(
            (i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(rows[i])
        )
        limit = position_limit(self.model.network)
        if limit and order and len(rows[order[-1]]) > limit:
            raise InputError(
                f"text {order[-1] + 1:,} has {len(rows[order[-1]]):,} tokens, but the model has "
                f"{limit:,} positions",
                hint="divide it into sentences",
            )
        results = [""] * len(texts)
        with show_progress("translating", len(order), shown=progress) as activity:
            for start in range(0, len(order), self.batch_size):
                numbers = order[start : start + self.batch_size]
                found = self._translate_ids([rows[i] for i in numbers])
                for i, text in zip(numbers, self.model.tokenizer.decode_batch(found), strict=True):
                    results[i] = text
                activity.advance(len(numbers))
        return results

    def _translate_ids(self, rows: Sequence[list[int]]) -> list[list[int]]:
        network = self.model.network
        ids, mask = self._padded(rows)
        most = position_limit(network) or None
        limits = [
            min(most or wanted, wanted)
            for wanted in (self.max_new_tokens or len(row) * 3 // 2 + 10 for row in rows)
        ]
        if self.num_beams == 1:
            written = greedy(
                network, ids, mask, max_new_tokens=max(limits), eos_token_id={self.end}
            ).tolist()
            found = [row[:limit] for row, limit in zip(written, limits, strict=True)]
        else:
            options = GenerationOptions(
                num_beams=self.num_beams, length_penalty=self.length_penalty
            )
            decoding, prompts = Decoding(network, ids, mask), [list[int]()] * len(rows)
            beams = beam_search(decoding, prompts, limits, options, eos_token_id=[self.end])
            found = [texts[0].ids for texts in beams]
        return [row[: row.index(self.end)] if self.end in row else row for row in found]

    @torch.inference_mode()
    def align(self, source: str, target: str | None = None) -> TokenAlignment:
        """Return the attention weights of each target token, the end token included.

        Args:
            source: A text.
            target: Its translation; by default the model's own.

        Raises:
            InputError: The network has no single alignment: it has no attention, or several heads.
        """
        target = self.translate([source])[0] if target is None else target
        network = self.model.network
        ids, mask = self._padded(encode_texts(self.model, [source]))
        target_ids, _ = self._padded(encode_texts(self.model, [target]))
        output = network(
            ids, mask, decoder_input_ids=network.shift_right(target_ids), return_logits=False
        )
        if output.attentions is None:
            raise InputError(
                "this network has no alignment to show: no attention, or one for each head",
                hint="train a recurrent translator with attention, such as bahdanau",
            )
        return TokenAlignment(self._pieces(ids), self._pieces(target_ids), output.attentions[0])

    def _pieces(self, ids: Tensor) -> list[str]:
        """Return the text of each token; a special token keeps its name."""
        decode = self.model.tokenizer.decode_batch
        return [text.strip() or "␣" for text in decode(ids.mT.tolist(), skip_special_tokens=False)]

    def _padded(self, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        ids, mask = pad_rows(rows, self.model.tokenizer.batch_pad_token_id or 0)
        return ids.to(self.model.network.device), mask.to(self.model.network.device)
