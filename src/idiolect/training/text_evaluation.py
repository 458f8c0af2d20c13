"""How well a model predicts text, in numbers that compare across vocabularies.

What is notable:

- Bits per byte, −Σ log₂ p / UTF-8 bytes, and not perplexity a token: a larger vocabulary has fewer
  and harder tokens, and only the sum over the same text is fair.
- All models read the same windows of the same documents, cut by characters and not by tokens, and
  each window is predicted from the start token alone.
- What a model forgets is measured where no new term stands: there both read the same ids, and the
  divergence KL(base ‖ new) is taken over the ids they share, renormalised.
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
from idiolect.training.data.packed_documents import TextTemplate

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
"""Tokens a batch."""
_SCORES = 1 << 24
"""Vocabulary scores held at once: 64 MiB in float32."""


@dataclass(frozen=True)
class Score:
    """What a model made of a text."""

    nats: float
    """−Σ ln p over the text's tokens; start and end tokens are not counted."""
    tokens: int
    bytes: int
    """UTF-8 bytes of the text."""
    unknown: int = 0
    """Tokens that stand for text the tokenizer cannot spell; their bytes are counted, and what they
    hide is not predicted, so a score with many of them is too good."""

    @property
    def bits_per_byte(self) -> float:
        """Bits the model needs for a byte of the text; lower is better."""
        return self.nats / (math.log(2) * max(self.bytes, 1))

    @property
    def bytes_per_token(self) -> float:
        """How much text a token holds."""
        return self.bytes / max(self.tokens, 1)


@dataclass(frozen=True)
class Forgetting:
    """How far a model has moved from the one it came from, on text without new terms."""

    divergence: float
    """Mean KL(base ‖ new) a token, in bits, over the vocabulary of the base."""
    same_first: float
    """Share of tokens at which both rank the same token first."""
    tokens: int


@dataclass(frozen=True)
class TermUse:
    """What a model makes of its new tokens where they really come next."""

    occurrences: int
    """Places at which a new token is the next one."""
    first: int
    """Of these, places at which the model ranks it first."""
    top_ten: int
    """Of these, places at which it is among the first ten."""
    terms: int
    """Different new tokens that occur."""
    terms_first: int
    """Of these, tokens that are ranked first at least once."""


@dataclass(frozen=True)
class _Batch:
    """Texts behind their start token, and what is to be predicted where."""

    ids: Tensor
    mask: Tensor
    places: tuple[Tensor, Tensor]
    """Row and column of each token from which the next one is predicted. Two of (tokens,)."""
    targets: Tensor
    """The next ones. (tokens,)."""

    def only(self, wanted: Tensor) -> _Batch:
        """Keep some of the predictions. Shape: wanted (tokens,), boolean."""
        rows, columns = self.places
        return replace(self, places=(rows[wanted], columns[wanted]), targets=self.targets[wanted])


def windows(documents: Iterable[str], *, size: int = 1000) -> list[str]:
    """Cut documents into windows of at most `size` characters, at spaces where there are any.

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
def score(model: LanguageModel, texts: Sequence[str]) -> Score:
    """Predict each text from the start token.

    Raises:
        InputError: The model predicts no next token, or a text is longer than it can read.
    """
    nats, tokens, unknown = 0.0, 0, 0
    for batch in _batches(model, texts):
        for logits, targets in _scores(model, batch):
            chosen = logits.log_softmax(-1).gather(-1, targets[:, None])
            nats -= float(chosen.double().sum())
        tokens += len(batch.targets)
        if model.tokenizer.unk_id is not None:
            unknown += int((batch.targets == model.tokenizer.unk_id).sum())
    return Score(nats, tokens, sum(len(text.encode()) for text in texts), unknown)


@torch.inference_mode()
def forgetting(base: LanguageModel, model: LanguageModel, texts: Sequence[str]) -> Forgetting:
    """Compare a model with the one it came from, on the texts both read as the same ids.

    Raises:
        InputError: Every text holds a new term.
    """
    alike = _read_alike(base, model, texts)
    if not alike:
        raise InputError(
            "every text holds a new term, so there is none to compare the models on",
            hint="give general text",
        )
    size = len(base.tokenizer)
    divergence, same, tokens = 0.0, 0, 0
    # Both are scored in the same portions, though their vocabularies differ in size.
    rows = max(one.network.config.vocabulary for one in (base, model))
    for batch in _batches(base, alike):
        pairs = zip(_scores(base, batch, rows), _scores(model, batch, rows), strict=True)
        for (before, _), (after, _) in pairs:
            p, q = (x[:, :size].double().log_softmax(-1) for x in (before, after))
            divergence += float((p.exp() * (p - q)).sum())
            same += int((before[:, :size].argmax(-1) == after.argmax(-1)).sum())
        tokens += len(batch.targets)
    return Forgetting(max(divergence, 0.0) / tokens / math.log(2), same / tokens, tokens)


@torch.inference_mode()
def term_use(model: LanguageModel, texts: Sequence[str], *, first_id: int) -> TermUse:
    """Count how often new tokens (ids from `first_id` on) are ranked first where they stand."""
    occurrences = first = top_ten = 0
    seen: set[int] = set()
    hit: set[int] = set()
    for batch in _batches(model, texts):
        new = (batch.targets >= first_id) & (batch.targets < len(model.tokenizer))
        for logits, targets in _scores(model, batch.only(new)):
            rank = (logits > logits.gather(-1, targets[:, None])).sum(-1)
            first += int((rank == 0).sum())
            top_ten += int((rank < 10).sum())
            hit.update(targets[rank == 0].tolist())
            seen.update(targets.tolist())
            occurrences += len(targets)
    return TermUse(occurrences, first, top_ten, len(seen), len(hit))


def compare(
    base: LanguageModel,
    model: LanguageModel,
    *,
    domain: Iterable[str],
    general: Iterable[str] | None = None,
    size: int = 1000,
) -> dict[str, Any]:
    """Measure a model beside the one it came from, on the same windows.

    Args:
        base: The model before.
        model: The model after.
        domain: Documents of the domain, kept out of training.
        general: Other documents, to see what was forgotten.
        size: Characters a window; it is halved until every window fits both models.

    Returns:
        Plain numbers, ready for JSON: for `domain` and `general` the scores before and after, for
        `terms` their use, for `forgetting` the divergence.
    """
    sources: Mapping[str, Iterable[str]] = {"domain": list(domain), "general": list(general or ())}
    size = _fitting(size, (base, model), sources.values())
    result: dict[str, Any] = {"window": size}
    for name, documents in sources.items():
        texts = windows(documents, size=size)
        if not texts:
            continue
        result[name] = {
            side: asdict(found) | {"bits_per_byte": found.bits_per_byte}
            for side, found in (("before", score(base, texts)), ("after", score(model, texts)))
        }
        if name == "domain":
            use = term_use(model, texts, first_id=len(base.tokenizer))
            result["terms"] = asdict(use)
        if name == "general" and _read_alike(base, model, texts):
            result["forgetting"] = asdict(forgetting(base, model, texts))
    return result


def _read_alike(base: LanguageModel, model: LanguageModel, texts: Sequence[str]) -> list[str]:
    ours, theirs = (m.tokenizer.encode_batch(texts) for m in (model, base))
    return [text for text, one, other in zip(texts, ours, theirs, strict=True) if one == other]


def _fitting(size: int, models: Sequence[LanguageModel], sources: Iterable[Iterable[str]]) -> int:
    """Halve a window's size until no window is longer than what any model can read."""
    documents = [document for source in sources for document in source]
    while size > 1:
        texts = windows(documents, size=size)
        if all(_longest(model, texts) <= _limit(model) for model in models):
            break
        size //= 2
    return size


def _longest(model: LanguageModel, texts: Sequence[str]) -> int:
    # Room for what stands around a text.
    return 2 + max((len(ids) for ids in model.tokenizer.encode_batch(texts)), default=0)


def _limit(model: LanguageModel) -> float:
    return model.network.config.max_positions or math.inf


def _batches(model: LanguageModel, texts: Sequence[str]) -> Iterator[_Batch]:
    """Encode texts behind the start token, in batches of similar length, the longest first."""
    network = model.network
    if network.kind != "causal":
        raise InputError(
            f"{model.family.title} models do not predict the next token",
            hint="bits per byte need a model that reads from left to right",
        )
    before = list(TextTemplate.of(model.tokenizer, causal=True).before)
    if not before:
        raise InputError("the tokenizer has no token that a text could start from")
    encoded = [before + ids for ids in model.tokenizer.encode_batch(texts, special_tokens=False)]
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
    model: LanguageModel, batch: _Batch, rows: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Read a batch and score the vocabulary a few tokens at a time.

    Args:
        model: What reads.
        batch: What is read.
        rows: The size of vocabulary that decides how many tokens those are; by default its own.

    Yields:
        logits (some, vocabulary), and their targets (some,).
    """
    if not len(batch.targets):
        return
    network = model.network
    hidden = network(batch.ids, batch.mask, heads=False).hidden[batch.places]
    step = max(1, _SCORES // (rows or network.config.vocabulary))
    for start in range(0, len(hidden), step):
        part = slice(start, start + step)
        # Rows that no token stands for are padding; they are no part of the vocabulary.
        logits = network.score_vocabulary(hidden[part])[:, : len(model.tokenizer)]
        yield logits.float(), batch.targets[part]
