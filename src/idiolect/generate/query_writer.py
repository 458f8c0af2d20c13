"""Generate search queries for texts with a language model and a few-shot prompt.

This is the first part of GPL (Wang et al. 2021, 2112.07577), with the few-shot prompt of InPars
(Bonifacio et al. 2022, 2202.05144) instead of a model trained for it. A model with a chat template
gets each example as a turn of a conversation, any other model as plain text.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from idiolect.errors import CheckpointError, InputError
from idiolect.generate.prompts.chat_template import find_chat_template, render_chat
from idiolect.generate.strategies import sample
from idiolect.generate.token_sampling import Sampling
from idiolect.models.language_model import LanguageModel
from idiolect.nn.cache import Cache
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.seeds import derive_seed

__all__ = ["EXAMPLES", "QueryWriter", "WrittenQueries"]

EXAMPLES = (
    (
        "We report the case of a 34-year-old man with acute chest pain after a long flight, who "
        "was found to have a clot in an artery of the lung.",
        "chest pain after flying caused by a blood clot",
    ),
    (
        "Returns the number of days between two dates. Both may be strings in ISO format. Weekends "
        "are counted unless business is true.",
        "count business days from one date to another",
    ),
    (
        "The cordless drill comes with two 18 V batteries, a charger and a case. Its keyless chuck "
        "takes bits of up to 13 mm.",
        "battery powered drill with carrying case",
    ),
)
"""Texts from several domains, each with a query in different words."""

_INSTRUCTION = "Write a short search query that this text answers.\n\n"
_PLACE = "\0"
"""Placeholder for the text in the prompt; no text contains it."""
_QUOTES = "\"'“”‘’`* "
_LEAD = re.compile(r"(?:\d+[.)]|[-*•]|(?:search )?query:|q:)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class WrittenQueries:
    """The generated queries of some texts, and their cost in tokens."""

    queries: list[list[str]]
    """The queries of each text; some may be empty or equal."""
    read_tokens: int
    """Number of tokens of the texts and prompts that were read."""
    new_tokens: int
    """Number of tokens that were generated."""


class QueryWriter:
    """Writes queries with a language model.

    Args:
        model: A causal language model.
        examples: Texts with a query each, shown to the model first.
        max_length: Maximum tokens of a text; longer texts are truncated.
        max_new_tokens: Maximum tokens of a query.
        sampling: The sampling settings; by default top-k with k = 25 as in doc2query, and top-p
            with p = 0.95.
        seed: Random seed.

    Raises:
        InputError: The model does not predict the next token.
        CheckpointError: Its chat template is damaged.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        examples: Sequence[tuple[str, str]] = EXAMPLES,
        max_length: int = 128,
        max_new_tokens: int = 24,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> None:
        if model.network.kind != "causal" or not model.network.has_language_head:
            raise InputError(
                "this model does not continue texts, so it cannot write queries",
                hint="choose a causal language model, such as smollm2",
            )
        self.model, self.seed, self.examples = model, seed, tuple(examples)
        self.max_length, self.max_new_tokens = max_length, max_new_tokens
        self.sampling = sampling or Sampling(top_k=25, top_p=0.95)
        tokenizer = model.tokenizer
        before, _, after = _prompt(tokenizer, examples).partition(_PLACE)
        self._before = tokenizer.encode(before, parse_special_tokens=True)
        self._after = tokenizer.encode(after, add_special_tokens=False, parse_special_tokens=True)
        if not self._before:
            raise InputError("the prompt is empty", hint="give at least one example")
        pieces = tokenizer.decode_batch([[i] for i in range(len(tokenizer))])
        self._stops = {i for i, piece in enumerate(pieces) if "\n" in piece}
        self._stops |= set(tokenizer.special_tokens.values())
        self._prompt_cache: Cache | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that determines the queries, apart from the weights and the texts."""
        return {
            "prompt": [self._before, self._after],
            "max_length": self.max_length,
            "max_new_tokens": self.max_new_tokens,
            "sampling": repr(self.sampling),
            "seed": self.seed,
        }

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text as the model reads them, after the prompt."""
        spaced = [" ".join(text.split()) for text in texts]
        rows = self.model.tokenizer.encode_batch(spaced, add_special_tokens=False)
        return [row[: self.max_length] + self._after for row in rows]

    @torch.inference_mode()
    def write(self, texts: Sequence[str], numbers: Sequence[int], count: int) -> WrittenQueries:
        """Write queries for a batch of texts.

        Args:
            texts: The texts.
            numbers: A number for each text; with the seed, it determines the random numbers.
            count: Number of queries per text.
        """
        device = self.model.network.device
        rows, size = self.read(texts), len(self._before)
        longest = max(map(len, rows))
        padding = self.model.tokenizer.batch_pad_token_id or 0
        ids = torch.tensor([[padding] * (longest - len(row)) + row for row in rows], device=device)
        mask = torch.tensor(
            [[1] * size + [0] * (longest - len(row)) + [1] * len(row) for row in rows],
            device=device,
        )
        found = sample(
            self.model.network,
            ids,
            mask,
            max_new_tokens=self.max_new_tokens,
            seeds=[derive_seed(self.seed, n, copy) for n in numbers for copy in range(count)],
            eos_token_id=self._stops,
            sampling=self.sampling,
            cache=self._cache(len(rows)),
            vocab_size=len(self.model.tokenizer),
        )
        written = [self._until_stop(row) for row in found.tolist()]
        queries = [_clean(text) for text in self.model.tokenizer.decode_batch(written)]
        return WrittenQueries(
            [queries[start : start + count] for start in range(0, len(queries), count)],
            read_tokens=sum(map(len, rows)),
            new_tokens=sum(map(len, written)),
        )

    def _until_stop(self, row: list[int]) -> list[int]:
        return row[: next((i for i, token in enumerate(row) if token in self._stops), len(row))]

    def _cache(self, rows: int) -> Cache:
        """Return the KV cache of the prompt, which is computed once, repeated for each row."""
        device = self.model.network.device
        if self._prompt_cache is None:
            self._prompt_cache = self.model.network.new_cache()
            ids = torch.tensor([self._before], device=device)
            self.model.network(ids, cache=self._prompt_cache, return_logits=False)
        cache: Cache = copy.deepcopy(self._prompt_cache)
        cache.select(torch.zeros(rows, dtype=torch.long, device=device))
        return cache


def _prompt(tokenizer: Tokenizer, examples: Sequence[tuple[str, str]]) -> str:
    """Return the prompt, with a placeholder for the text."""
    if find_chat_template(tokenizer) is None:
        shown = "".join(f"Text: {text}\nQuery: {query}\n\n" for text, query in examples)
        return f"{shown}Text: {_PLACE}\nQuery:"
    turns: list[Mapping[str, str]] = []
    for text, query in (*examples, (_PLACE, "")):
        turns.append({"role": "user", "content": _INSTRUCTION + text})
        if query:
            turns.append({"role": "assistant", "content": query})
    rendered = render_chat(tokenizer, turns)
    if rendered.count(_PLACE) != 1:
        raise CheckpointError(
            "the model's chat template leaves out what a user says", hint="choose another model"
        )
    return rendered


def _clean(text: str) -> str:
    """Remove quotation marks, numbers of a list and the like around a query.

    >>> _clean(' 1. "chest pain after flying" ')
    'chest pain after flying'
    """
    line = " ".join(text.split()).strip(_QUOTES)
    return _LEAD.sub("", line, count=1).strip(_QUOTES) if _LEAD.match(line) else line
