"""Evaluate how well a model predicts text, with metrics comparable across vocabularies.

- Bits per byte is −Σ log₂ p / UTF-8 bytes. Perplexity per token is not comparable: a larger
  vocabulary splits the same text into fewer tokens, each of which is harder to predict.
- All models read the same windows of the same documents. Windows are measured in characters, not
  tokens, and each is predicted from the start token alone.
- Forgetting is measured on windows without new terms, which both models read as the same ids. It is
  the divergence KL(base ‖ new) over the base's vocabulary, renormalised.
- The layers may compute in bfloat16 where that is faster (`precision`); the scores of the
  vocabulary stay in float32, since bfloat16 would make many of them equal. SmolLM2's bits per byte
  then differ by less than a ten-thousandth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from idiolect.errors import InputError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.matrix_precision import (
    MatrixPrecision,
    autocast,
    check_precision,
    choose_precision,
)
from idiolect.text.templates.text_template import TextTemplate

__all__ = [
    "Forgetting",
    "Score",
    "TermUse",
    "compare",
    "forgetting",
    "score",
    "term_use",
    "windows",
]

_TOKENS = 4096
"""Tokens per batch."""
_MAX_LOGITS = 1 << 24
"""Maximum number of logits in memory: 64 MiB in float32."""


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text."""

    nll: float
    """Negative log-likelihood in nats: −Σ ln p over the tokens, without start and end tokens."""
    tokens: int
    bytes: int
    """UTF-8 bytes of the text."""
    unknown: int = 0
    """Number of unknown tokens, for text that the tokenizer cannot encode. Its bytes are counted
    although it is not predicted, so many unknown tokens make the score look too good."""

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of the text; lower is better."""
        return self.nll / (math.log(2) * max(self.bytes, 1))

    @property
    def bytes_per_token(self) -> float:
        """Mean number of UTF-8 bytes per token."""
        return self.bytes / max(self.tokens, 1)


@dataclass(frozen=True)
class Forgetting:
    """How much a model differs from its base, on text without new terms."""

    divergence: float
    """Mean KL(base ‖ new) per token, in bits, over the vocabulary of the base."""
    same_first: float
    """Share of positions at which both models rank the same token first."""
    tokens: int


@dataclass(frozen=True)
class TermUse:
    """How well a model predicts its new tokens where they occur."""

    occurrences: int
    """Positions at which the next token is a new one."""
    first: int
    """Of these, positions at which the model ranks it first."""
    top_ten: int
    """Of these, positions at which the model ranks it among the first ten."""
    terms: int
    """Distinct new tokens that occur."""
    terms_first: int
    """Of these, tokens that are ranked first at least once."""


@dataclass(frozen=True)
class _Batch:
    """Texts after their start tokens, and the tokens to predict."""

    ids: Tensor
    """(texts, length), int64."""
    mask: Tensor
    """(texts, length), int64."""
    positions: tuple[Tensor, Tensor]
    """Row and column of each token whose next token is predicted. Two of (tokens,)."""
    targets: Tensor
    """The next tokens. (tokens,)."""

    def select(self, chosen: Tensor) -> _Batch:
        """Return the batch with some of its predictions. Shape: chosen (tokens,), bool."""
        rows, columns = self.positions
        return replace(
            self, positions=(rows[chosen], columns[chosen]), targets=self.targets[chosen]
        )


def windows(documents: Iterable[str], *, size: int = 1000) -> list[str]:
    """Split documents into windows of at most `size` characters, at spaces if possible.

    >>> windows(["one two three"], size=8)
    ['one two', ' three']
    """
    found = []
    for document in documents:
        start = 0
        while start < len(document):
            end = start + size
            if end < len(document):
                space = document.rfind(" ", start + 1, end)
                end = space if space > start + size // 2 else end
            found.append(document[start:end])
            start = end
    return [window for window in found if window.strip()]


@torch.inference_mode()
def score(
    model: LanguageModel, texts: Sequence[str], *, precision: MatrixPrecision = "auto"
) -> Score:
    """Predict each text from the start token.

    Args:
        model: The model.
        texts: The texts.
        precision: Format of the layers' matrix products: `fp32`, `bf16`, or `auto`; see
            `idiolect.nn.matrix_precision`.

    Raises:
        InputError: The model does not predict the next token, or a text exceeds its positions.
    """
    nll, tokens, unknown = 0.0, 0, 0
    for batch in _batches(model, texts):
        for logits, targets in _scores(model, batch, precision):
            chosen = logits.log_softmax(-1).gather(-1, targets[:, None])
            nll -= float(chosen.double().sum())
        tokens += len(batch.targets)
        if model.tokenizer.unk_token_id is not None:
            unknown += int((batch.targets == model.tokenizer.unk_token_id).sum())
    return Score(nll, tokens, sum(len(text.encode()) for text in texts), unknown)


@torch.inference_mode()
def forgetting(base: LanguageModel, model: LanguageModel, texts: Sequence[str]) -> Forgetting:
    """Compare a model with its base, on the texts that both read as the same ids.

    Always computed in float32: bfloat16 rounding alone causes a divergence of half a thousandth of
    a bit, and ranks another token first at one position in a hundred.

    Raises:
        InputError: Every text contains a new term.
    """
    shared = _texts_with_same_ids(base, model, texts)
    if not shared:
        raise InputError(
            "every text contains a new term, so the models cannot be compared",
            hint="add general text",
        )
    size = len(base.tokenizer)
    divergence, same, tokens = 0.0, 0, 0
    # Both are scored in chunks of equal size, although their vocabularies differ in size.
    rows = max(one.network.config.vocab_size for one in (base, model))
    for batch in _batches(base, shared):
        sides = (_scores(one, batch, "fp32", rows) for one in (base, model))
        for (before, _), (after, _) in zip(*sides, strict=True):
            p, q = (x[:, :size].double().log_softmax(-1) for x in (before, after))
            divergence += float((p.exp() * (p - q)).sum())
            same += int((before[:, :size].argmax(-1) == after.argmax(-1)).sum())
        tokens += len(batch.targets)
    return Forgetting(max(divergence, 0.0) / tokens / math.log(2), same / tokens, tokens)


@torch.inference_mode()
def term_use(
    model: LanguageModel,
    texts: Sequence[str],
    *,
    first_id: int,
    precision: MatrixPrecision = "auto",
) -> TermUse:
    """Count how often new tokens (ids from `first_id` on) are ranked first where they occur."""
    occurrences = first = top_ten = 0
    seen: set[int] = set()
    ranked_first: set[int] = set()
    for batch in _batches(model, texts):
        new = (batch.targets >= first_id) & (batch.targets < len(model.tokenizer))
        for logits, targets in _scores(model, batch.select(new), precision):
            rank = (logits > logits.gather(-1, targets[:, None])).sum(-1)
            first += int((rank == 0).sum())
            top_ten += int((rank < 10).sum())
            ranked_first.update(targets[rank == 0].tolist())
            seen.update(targets.tolist())
            occurrences += len(targets)
    return TermUse(occurrences, first, top_ten, len(seen), len(ranked_first))


def compare(
    base: LanguageModel,
    model: LanguageModel,
    *,
    domain: Iterable[str],
    general: Iterable[str] | None = None,
    size: int = 1000,
    precision: MatrixPrecision = "auto",
) -> dict[str, Any]:
    """Evaluate a model and its base on the same windows.

    Args:
        base: The model before adaptation.
        model: The model after adaptation.
        domain: Held-out documents of the domain.
        general: Documents of other domains, to measure forgetting.
        size: Characters per window; halved until every window fits both models.
        precision: As for `score`.

    Returns:
        Values that can be written as JSON: `domain` and `general` contain the `Score` before and
        after, `terms` the `TermUse`, `forgetting` the `Forgetting`, and `window` and `precision`
        the settings used.
    """
    sources: Mapping[str, Iterable[str]] = {"domain": list(domain), "general": list(general or ())}
    size = _largest_window(size, (base, model), sources.values())
    check_precision(precision, training=True)
    chosen = choose_precision(model.network, precision)
    result: dict[str, Any] = {"window": size, "precision": chosen}
    for name, documents in sources.items():
        texts = windows(documents, size=size)
        if not texts:
            continue
        result[name] = {
            side: asdict(found) | {"bits_per_byte": found.bits_per_byte}
            for side, one in (("before", base), ("after", model))
            for found in [score(one, texts, precision=chosen)]
        }
        if name == "domain":
            use = term_use(model, texts, first_id=len(base.tokenizer), precision=chosen)
            result["terms"] = asdict(use)
        if name == "general" and _texts_with_same_ids(base, model, texts):
            result["forgetting"] = asdict(forgetting(base, model, texts))
    return result


def _texts_with_same_ids(
    base: LanguageModel, model: LanguageModel, texts: Sequence[str]
) -> list[str]:
    ours, theirs = (m.tokenizer.encode_batch(texts) for m in (model, base))
    return [text for text, one, other in zip(texts, ours, theirs, strict=True) if one == other]


def _largest_window(
    size: int, models: Sequence[LanguageModel], sources: Iterable[Iterable[str]]
) -> int:
    """Halve a window's size until every window fits the positions of all models."""
    documents = [document for source in sources for document in source]
    while size > 1:
        texts = windows(documents, size=size)
        if all(_longest(model, texts) <= _limit(model) for model in models):
            break
        size //= 2
    return size


def _longest(model: LanguageModel, texts: Sequence[str]) -> int:
    # Two more for start and end tokens.
    return 2 + max((len(ids) for ids in model.tokenizer.encode_batch(texts)), default=0)


def _limit(model: LanguageModel) -> float:
    return model.network.config.max_position_embeddings or math.inf


def _batches(model: LanguageModel, texts: Sequence[str]) -> Iterator[_Batch]:
    """Encode texts after the start token, in batches of similar length, the longest first."""
    network = model.network
    if network.kind != "causal":
        raise InputError(
            f"{model.family.title} models do not predict the next token",
            hint="bits per byte need a model that reads from left to right",
        )
    before = list(TextTemplate.of(model.tokenizer, causal=True).before)
    if not before:
        raise InputError(
            "the tokenizer has no start token to predict a text from",
            hint="set its bos_token or eos_token",
        )
    encoded = [
        before + ids for ids in model.tokenizer.encode_batch(texts, add_special_tokens=False)
    ]
    encoded.sort(key=len, reverse=True)
    while encoded:
        count = max(1, _TOKENS // len(encoded[0]))
        rows, encoded = encoded[:count], encoded[count:]
        ids = torch.zeros(len(rows), len(rows[0]), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        ids, mask = ids.to(network.device), mask.to(network.device)
        predicted = mask[:, 1:].bool()
        predicted[:, : len(before) - 1] = False
        row_of, column_of = predicted.nonzero(as_tuple=True)
        yield _Batch(ids, mask, (row_of, column_of), ids[row_of, column_of + 1])


def _scores(
    model: LanguageModel, batch: _Batch, precision: MatrixPrecision, rows: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the model on a batch, and compute the logits of one chunk of tokens at a time.

    Args:
        model: The model.
        batch: The texts.
        precision: Format of the layers' matrix products.
        rows: The vocabulary size that determines the chunk size; by default the model's own.

    Yields:
        Logits (chunk, vocabulary) and targets (chunk,).
    """
    if not len(batch.targets):
        return
    network = model.network
    check_precision(precision, training=True)
    with autocast(choose_precision(network, precision), network.device):
        states = network(batch.ids, batch.mask, return_logits=False).hidden_states
    hidden = states[batch.positions]
    step = max(1, _MAX_LOGITS // (rows or network.config.vocab_size))
    for start in range(0, len(hidden), step):
        part = slice(start, start + step)
        # Rows beyond the tokenizer's last id are padding.
        logits = network.score_vocabulary(hidden[part])[:, : len(model.tokenizer)]
        yield logits.float(), batch.targets[part]
