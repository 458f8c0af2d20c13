"""Span corruption, the objective of T5, and UL2's mixture of denoisers.

Each random span of a text is replaced by a sentinel token, and the target contains each sentinel
followed by its span (Raffel et al. 2019, 1910.10683). Lengths are exact: with 15 % of the tokens in
spans of three on average, 568 tokens become an input of 512 and a target of 114, including the end
tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.nn.network import Network
from idiolect.text.templates.text_template import TextTemplate
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.batch import Batch
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.data.source_targets import SourceTarget, pack_pairs, start_id
from idiolect.training.objectives.corpus_objective import CorpusObjective
from idiolect.training.objectives.objective_registry import check_kind, find_objective
from idiolect.training.objectives.objective_settings import (
    check_flag,
    check_number,
    check_share,
)
from idiolect.training.objectives.translation import target_loss

__all__ = ["UL2", "SpanCorruption", "SpanDenoiser", "raw_length", "sentinel_ids", "spans_of"]

_SENTINELS = ("<extra_id_{}>", "▁<extra_id_{}>")
_SUFFIX_SPAN = 0


@dataclass(frozen=True, kw_only=True)
class SpanDenoiser:
    """One way to corrupt a text.

    Raises:
        ConfigError: A number out of its range.
    """

    noise_density: float = 0.15
    """Share of the tokens that are in the target."""
    mean_noise_span_length: float = 3.0
    """Mean length of a span in tokens; 0 for one span at the end of the text (UL2's S-denoiser)."""
    mode_token: str | None = None
    """A token before the input that names the denoiser, such as [R]."""
    weight: float = 1.0
    """Sampling weight, relative to the other denoisers."""

    def __post_init__(self) -> None:
        check_share(self.noise_density, "noise_density", above_zero=True, below_one=True)
        if self.mean_noise_span_length != _SUFFIX_SPAN:
            check_number(self.mean_noise_span_length, "mean_noise_span_length", least=1)
        check_number(self.weight, "weight", least=0)
        if not isinstance(self.mode_token, str | None):
            raise ConfigError(f"mode_token is {self.mode_token!r}", hint="a token, such as [R]")

    def lengths(self, tokens: int) -> tuple[int, int]:
        """Return the number of noise tokens and of spans in a text, as T5 rounds them."""
        if tokens < 2:
            return 0, 0
        noise = min(max(round(tokens * self.noise_density), 1), tokens - 1)
        if self.mean_noise_span_length == _SUFFIX_SPAN:
            return noise, 1
        spans = max(round(noise / self.mean_noise_span_length), 1)
        return noise, min(spans, noise, tokens - noise)

    def target_length(self, tokens: int) -> int:
        """Return the length of the target made from a text, with sentinels and the end."""
        return sum(self.lengths(tokens)) + 1

    def input_length(self, tokens: int) -> int:
        """Return the length of the input made from a text, with sentinels, end and mode token."""
        noise, spans = self.lengths(tokens)
        return tokens - noise + spans + 1 + (self.mode_token is not None)


UL2 = (
    *(SpanDenoiser(mean_noise_span_length=n, noise_density=0.15, mode_token="[R]") for n in (3, 8)),
    SpanDenoiser(mean_noise_span_length=_SUFFIX_SPAN, noise_density=0.25, mode_token="[S]"),
    *(SpanDenoiser(mean_noise_span_length=n, noise_density=0.5, mode_token="[X]") for n in (3, 8)),
    SpanDenoiser(mean_noise_span_length=64, noise_density=0.15, mode_token="[X]"),
    SpanDenoiser(mean_noise_span_length=64, noise_density=0.5, mode_token="[X]"),
)
"""The seven denoisers of UL2, equally weighted (Tay et al. 2022, 2205.05131, table 1)."""


def raw_length(
    denoisers: Sequence[SpanDenoiser], max_length: int, max_target: int | None = None
) -> int:
    """Return the maximum length of a text whose input has at most `max_length` tokens; 0 if none.

    It is at most 64 · `max_length`, which only a noise density above 98 % exceeds.

    >>> raw_length([SpanDenoiser()], 512)
    568

    Args:
        denoisers: The denoisers that may corrupt the text.
        max_length: Maximum length of its input.
        max_target: Maximum length of its target, if the decoder has a limit.
    """

    def fits(length: int) -> bool:
        return all(
            one.input_length(length) <= max_length
            and (max_target is None or one.target_length(length) <= max_target)
            for one in denoisers
        )

    length = 0
    while length < 64 * max_length and fits(length + 1):
        length += 1
    return length


def sentinel_ids(tokenizer: Tokenizer) -> list[int]:
    """Return the ids of `<extra_id_0>`, `<extra_id_1>` and so on."""
    pattern, ids = _sentinel_pattern(tokenizer), list[int]()
    while (id_ := tokenizer.engine.token_to_id(pattern.format(len(ids)))) is not None:
        ids.append(id_)
    return ids


def _sentinel_pattern(tokenizer: Tokenizer) -> str:
    """Return how a tokenizer writes its sentinels: T5's way, unless it has mT5's."""
    first = (one for one in _SENTINELS if tokenizer.engine.token_to_id(one.format(0)) is not None)
    return next(first, _SENTINELS[0])


def spans_of(
    random: np.random.Generator, tokens: int, noise: int, spans: int, *, at_end: bool = False
) -> NDArray[np.int64]:
    """Sample the start and end of each noise span, in order. Shape: (spans, 2).

    Both the noise and the rest are divided at random into parts of at least one token.

    Args:
        random: The random generator.
        tokens: Number of tokens of the text.
        noise: Number of noise tokens.
        spans: Number of spans.
        at_end: Let the last span end the text, as in T5's own code. Otherwise the text may also
            begin with noise or end without.
    """
    lengths = _segments(random, noise, spans)
    if at_end:
        gaps = _segments(random, tokens - noise, spans)
    else:
        # One more gap than spans; the outer two may be empty.
        gaps = _segments(random, tokens - noise + 2, spans + 1)[:-1]
        gaps[0] -= 1
    starts = np.cumsum(gaps) + np.cumsum(lengths) - lengths
    return np.stack([starts, starts + lengths], axis=1)


def _segments(random: np.random.Generator, items: int, parts: int) -> NDArray[np.int64]:
    """Divide items into non-empty parts; all divisions are equally probable."""
    cuts = np.sort(random.choice(items - 1, parts - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=items)


class SpanCorruption(CorpusObjective):
    """Predict random spans of a text from the rest of it.

    Args:
        network: An encoder-decoder with a language-model head.
        tokenizer: Defines the sentinels `<extra_id_0>`, … and the token that ends a text.
        noise_density: Share of the tokens that are in the target.
        mean_noise_span_length: Mean length of a span in tokens.
        denoisers: A mixture instead of these two numbers: `ul2`, or a list of tables with the
            fields of `SpanDenoiser`. One is sampled for each text.
        at_end: Let each text end with noise, as T5's own code does; a text with one span is then
            always masked at its end. By default, noise may be anywhere.
        seed: Random seed.

    Raises:
        ConfigError: The network is not an encoder-decoder, or a number is out of range.
        InputError: It has no language-model head, or the tokenizer has no end or sentinel token.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        noise_density: float = 0.15,
        mean_noise_span_length: float = 3.0,
        denoisers: str | Sequence[Any] | None = None,
        at_end: bool = False,
        seed: int = 0,
    ) -> None:
        check_kind(find_objective("pretrain", "span_corruption"), network.kind)
        _ = network.language_head
        if tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no token that ends a text", hint="add </s>")
        self.denoisers = _denoisers(noise_density, mean_noise_span_length, denoisers)
        self.end_id, self.seed = tokenizer.eos_token_id, seed
        self.at_end = check_flag(at_end, "at_end")
        self.sentinels = np.array(sentinel_ids(tokenizer), np.int64)
        if not len(self.sentinels):
            raise InputError("the tokenizer has no sentinel tokens", hint="add <extra_id_0> and on")
        names = [one.mode_token for one in self.denoisers]
        self._modes = [_mode_id(tokenizer, name) for name in names]
        weights = np.array([one.weight for one in self.denoisers])
        self._shares = weights / weights.sum()
        self.pad_id, self.start = tokenizer.pad_token_id or 0, start_id(network)
        self._packed = network.packs_texts
        self._positions = network.config.max_position_embeddings or None

    @staticmethod
    def missing_tokens(
        tokenizer: Tokenizer,
        *,
        max_length: int,
        noise_density: float = 0.15,
        mean_noise_span_length: float = 3.0,
        denoisers: str | Sequence[Any] | None = None,
        **others: Any,
    ) -> list[str]:
        """Return the tokens that a run needs and the tokenizer lacks, in the order of new ids.

        As in T5, the ids of sentinels descend.
        """
        del others
        mixture = _denoisers(noise_density, mean_noise_span_length, denoisers)
        length = _text_length(mixture, max_length)
        most = max(one.lengths(size)[1] for one in mixture for size in (length, length - 1))
        have = sentinel_ids(tokenizer)
        pattern = _sentinel_pattern(tokenizer)
        names = [pattern.format(i) for i in reversed(range(len(have), most))]
        modes = dict.fromkeys(one.mode_token for one in mixture if one.mode_token)
        names += [name for name in modes if tokenizer.engine.token_to_id(name) is None]
        return names if tokenizer.eos_token_id is not None else ["</s>", *names]

    def template(self, tokenizer: Tokenizer, language: str | None = None) -> TextTemplate:
        """Return the special tokens around each text before corruption: none."""
        del tokenizer, language
        return TextTemplate((), (), ())

    def row_length(self, max_length: int) -> int:
        """Return the number of text tokens for an input of `max_length` tokens.

        Raises:
            ConfigError: No text is long enough for a span.
        """
        return _text_length(self.denoisers, max_length, self._positions)

    def prepare(self, rows: PackedRows) -> Batch:
        """Corrupt each text of the rows."""
        pairs: list[list[SourceTarget]] = [[] for _ in range(len(rows))]
        random = [np.random.default_rng([self.seed, rows.first + i]) for i in range(len(rows))]
        ids = rows.input_ids.numpy()
        for row, start, stop in rows.texts():
            pairs[row].append(self._corrupt(ids[row, start:stop], random[row]))
        return pack_pairs(pairs, pad_id=self.pad_id, start=self.start, packed=self._packed)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Return the loss summed over the target tokens."""
        return target_loss(network, batch)

    def _corrupt(self, text: NDArray[np.int64], random: np.random.Generator) -> SourceTarget:
        number = 0
        if len(self.denoisers) > 1:
            number = int(random.choice(len(self.denoisers), p=self._shares))
        one, mode = self.denoisers[number], self._modes[number]
        noise, spans = one.lengths(len(text))
        if spans > len(self.sentinels):
            raise InputError(
                f"a text of {len(text)} tokens has {spans} spans, and the tokenizer "
                f"{len(self.sentinels)} sentinels",
                hint="set a smaller max_length or longer spans, or add sentinels",
            )
        source, target = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
        source += [mode]
        done = 0
        if spans:
            suffix = self.at_end or one.mean_noise_span_length == _SUFFIX_SPAN
            places = spans_of(random, len(text), noise, spans, at_end=suffix)
            for sentinel, (first, last) in zip(self.sentinels, places.tolist(), strict=False):
                source += [text[done:first], np.array([sentinel])]
                target += [np.array([sentinel]), text[first:last]]
                done = last
        end = np.array([self.end_id])
        return SourceTarget(
            np.concatenate([*source, text[done:], end]), np.concatenate([*target, end])
        )


def _text_length(
    denoisers: Sequence[SpanDenoiser], max_length: int, max_target: int | None = None
) -> int:
    """Return `raw_length`, after checking that a text of that length has space for a span."""
    length = raw_length(denoisers, max_length, max_target)
    if length < 2:
        raise ConfigError(
            f"max_length {max_length} is too short for one span and its sentinel",
            hint="set a larger max_length",
        )
    return length


def _denoisers(
    noise_density: float, mean_noise_span_length: float, denoisers: str | Sequence[Any] | None
) -> tuple[SpanDenoiser, ...]:
    """Return the mixture of denoisers for a run's settings."""
    if denoisers is None:
        one = SpanDenoiser(
            noise_density=noise_density, mean_noise_span_length=mean_noise_span_length
        )
        return (one,)
    if denoisers == "ul2":
        return UL2
    known = [field.name for field in fields(SpanDenoiser)]
    hint = f"ul2, or a list of tables with {', '.join(known)}"
    if isinstance(denoisers, str) or not isinstance(denoisers, Sequence) or not denoisers:
        raise ConfigError(f"denoisers is {denoisers!r}", hint=hint)
    made = []
    for table in denoisers:
        if not isinstance(table, Mapping) or set(table) - set(known):
            raise ConfigError(f"a denoiser is {table!r}", hint=hint)
        made.append(SpanDenoiser(**table))
    if not sum(one.weight for one in made) > 0:
        raise ConfigError("all denoisers have the weight 0", hint="set one above 0")
    return tuple(made)


def _mode_id(tokenizer: Tokenizer, name: str | None) -> NDArray[np.int64]:
    if name is None:
        return np.zeros(0, np.int64)
    id_ = tokenizer.engine.token_to_id(name)
    if id_ is None:
        raise InputError(f"the tokenizer has no mode token {name}", hint="add it, or omit it")
    return np.array([id_])
