"""`Generator`: continue texts with a language model, by every decoding strategy."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.generate.beam import beam_search
from idiolect.generate.chat_template import render_chat
from idiolect.generate.contrastive_search import contrastive_search
from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.guided_decoding import ContrastingDecoding, GuidedDecoding, LayerContrast
from idiolect.generate.logits_processors import (
    BadWords,
    ForcedStart,
    LogitsProcessor,
    MinimumLength,
    NoRepeatNgram,
    Penalties,
    WrittenRow,
)
from idiolect.generate.sampling import Mirostat
from idiolect.generate.speculative import AssistantGuesses, LookupGuesses, speculate
from idiolect.generate.transcript import Transcript, ends_with_stop
from idiolect.models.language_model import LanguageModel
from idiolect.text.arguments import load_if_named
from idiolect.training.seeds import derive_seed

__all__ = ["Generation", "Generator"]

_LIMITS = ("max_position_embeddings", "n_positions", "n_ctx")


@dataclass(frozen=True)
class Generation:
    """A text that a model wrote."""

    text: str
    """The new text, without special tokens and stop strings."""
    ids: list[int]
    """The new ids, with the end token if there is one."""
    logprob: float
    """Sum of `logprobs`."""
    logprobs: list[float]
    """The network's log-probability of each id, before processors and sampling."""
    finish_reason: str
    """`end` (an end token), `stop` (a stop string), `length` (max_new_tokens) or `context`."""
    score: float
    """What beams are ranked by; otherwise equal to `logprob`."""
    prompt: int
    """Number of the prompt."""
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    """The likeliest ids at each place, with their log-probabilities, if asked for."""


@dataclass(eq=False)
class _Row(WrittenRow):
    """A text that is being written."""

    number: int = 0
    source: list[int] = field(default_factory=list)
    limit: int = 0
    context: bool = False
    """Whether the limit is that of the model's context."""
    random: np.random.Generator = field(default_factory=np.random.default_rng)
    mirostat: Mirostat | None = None
    transcript: Transcript | None = None
    logprobs: list[float] = field(default_factory=list)
    tops: list[list[tuple[int, float]]] = field(default_factory=list)
    finish_reason: str = ""


class Generator:
    """Continue texts with a decoder, a recurrent network or an encoder-decoder.

    >>> generator = Generator("smollm2")                                   # doctest: +SKIP
    >>> generator.generate(["The capital of France is"], max_new_tokens=2)[0].text  # doctest: +SKIP
    ' Paris.'

    Args:
        model: The model, or its name.

    Raises:
        InputError: The model does not predict the next token.
    """

    def __init__(self, model: LanguageModel | str) -> None:
        self.model = load_if_named(model, LanguageModel, "model")
        network = self.model.network
        if network.kind == "bidirectional" or not network.has_language_head:
            raise InputError(
                "this model does not continue texts",
                hint="choose a causal or an encoder-decoder language model, such as smollm2",
            )
        self._config = self._generation_config()
        self.eos_token_id: tuple[int, ...] = self._ends()
        """Ids that end a text."""

    @property
    def context_length(self) -> int | None:
        """Most tokens that the model was made for; None if there is no limit."""
        named = (self.model.settings.get(name) for name in _LIMITS)
        return next((value for value in named if isinstance(value, int) and value > 0), None)

    def generate(
        self,
        prompts: str | Sequence[str | Sequence[int]],
        *,
        processors: Sequence[LogitsProcessor] = (),
        constraint: LogitsProcessor | None = None,
        negative_prompts: str | Sequence[str] | None = None,
        amateur: LanguageModel | None = None,
        assistant: LanguageModel | None = None,
        batch_size: int = 16,
        **options: Any,
    ) -> list[Generation]:
        """Continue prompts.

        The result for a prompt does not depend on the other ones, up to rounding.

        Args:
            prompts: Texts, or lists of ids.
            processors: Change the scores, in order, after those that the options set.
            constraint: A `Constraint`: what the text must match.
            negative_prompts: What classifier-free guidance moves away from, for each prompt or all;
                by default the prompt's last token alone. Needs `guidance_scale`.
            amateur: A weaker model with the same vocabulary, whose scores are subtracted
                (contrastive decoding, Li et al. 2023, 2210.15097).
            assistant: A faster model with the same vocabulary that guesses tokens, which this model
                checks in one step (Leviathan et al. 2023, 2211.17192).
            batch_size: Texts that are written at the same time; as one ends, the next begins.
            options: The fields of `GenerationOptions`, such as `max_new_tokens`, `num_beams`,
                `do_sample` and `temperature`.

        Returns:
            `num_return_sequences` for each prompt, one prompt after another.

        Raises:
            ConfigError: Unknown options, or ones that contradict each other.
            InputError: A prompt that is empty or does not fit into the model's context.
        """
        chosen = GenerationOptions.of(options)
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}", hint="it is a whole number from 1")
        rows = self._rows(prompts, chosen)
        helpers = _Helpers(amateur, assistant, negative_prompts)
        changes = [*self._processors(chosen), *processors]
        changes += [] if constraint is None else [constraint]
        if not chosen.max_new_tokens:
            return [self._finished(row) for row in rows]
        if chosen.num_beams > 1:
            return self._search_beams(rows, chosen, changes, helpers, batch_size)
        for _ in self._write(rows, chosen, changes, helpers, batch_size):
            pass
        return [self._finished(row) for row in rows]

    def stream(self, prompt: str | Sequence[int], **options: Any) -> Iterator[str]:
        """Continue one prompt, and return its text in pieces as soon as they are certain.

        Args:
            prompt: The text, or its ids.
            options: The arguments of `generate`, but no beams.

        Raises:
            ConfigError: As for `generate`, or several texts were asked for.
            InputError: As for `generate`.
        """
        names = ("processors", "constraint", "negative_prompts", "amateur", "assistant")
        extra = {name: options.pop(name) for name in names if name in options}
        chosen = GenerationOptions.of(options)
        if chosen.num_beams > 1 or chosen.num_return_sequences > 1:
            raise ConfigError("only one text can be streamed", hint="use generate")
        helpers = _Helpers(
            extra.get("amateur"), extra.get("assistant"), extra.get("negative_prompts")
        )
        changes = [*self._processors(chosen), *extra.get("processors", ())]
        changes += [extra["constraint"]] if extra.get("constraint") is not None else []
        rows = self._rows([prompt], chosen)
        rows[0].transcript = rows[0].transcript or Transcript(self.model.tokenizer)
        return self._stream(rows, chosen, changes, helpers)

    def chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the ids of a conversation in the form of the model's chat template.

        Raises:
            InputError: The model has no chat template.
            CheckpointError: The template raises, or tries to leave its sandbox.
        """
        text = render_chat(self.model.tokenizer, messages)
        return self.model.tokenizer.encode(
            text, add_special_tokens=False, parse_special_tokens=True
        )

    def _stream(
        self,
        rows: list[_Row],
        options: GenerationOptions,
        processors: Sequence[LogitsProcessor],
        helpers: _Helpers,
    ) -> Iterator[str]:
        if options.max_new_tokens:
            yield from (
                text for _, text in self._write(rows, options, processors, helpers, 1) if text
            )
        transcript = rows[0].transcript
        if transcript is not None and (rest := transcript.finish()):
            yield rest

    def _write(
        self,
        rows: Sequence[_Row],
        options: GenerationOptions,
        processors: Sequence[LogitsProcessor],
        helpers: _Helpers,
        batch_size: int,
    ) -> Iterator[tuple[_Row, str]]:
        """Write all rows; yield each row as it grows, with the text that became certain."""
        if options.penalty_alpha or options.prompt_lookup_num_tokens or helpers.assistant:
            for row in rows:
                for logs, token in self._alone(row, options, processors, helpers):
                    yield row, self._take(row, logs, token, options)
                    if row.finish_reason:
                        break
            return
        waiting, active = deque(rows), list[_Row]()
        decoding: Decoding | None = None
        tokens: list[int] = []
        while waiting or active:
            scores = None
            if decoding is not None and active:
                scores = decoding.step(torch.tensor(tokens, device=self.model.network.device))
            joins = decoding is not None and decoding.can_join and 2 * len(active) <= batch_size
            if waiting and (joins or not active):
                count = min(batch_size - len(active), len(waiting))
                fresh = [waiting.popleft() for _ in range(count)]
                opened = self._open(fresh, options, helpers)
                first = opened.start()
                if decoding is None or scores is None:
                    decoding, scores = opened, first
                else:
                    decoding.join(opened)
                    scores = torch.cat([scores, first])
                active += fresh
            assert decoding is not None and scores is not None
            tokens = self._choose(scores, active, options, processors)
            logs = scores.log_softmax(-1)
            for place, (row, token) in enumerate(zip(active, tokens, strict=True)):
                yield row, self._take(row, logs[place], token, options)
            open_rows = [place for place, row in enumerate(active) if not row.finish_reason]
            if len(open_rows) < len(active):
                active = [active[place] for place in open_rows]
                tokens = [tokens[place] for place in open_rows]
                if active:
                    decoding.select(torch.tensor(open_rows, device=scores.device))

    def _choose(
        self,
        scores: Tensor,
        rows: Sequence[_Row],
        options: GenerationOptions,
        processors: Sequence[LogitsProcessor],
    ) -> list[int]:
        processed = self._processed(scores, rows, processors)
        if not options.do_sample:
            return processed.argmax(-1).tolist()
        uniform = [row.random.random() for row in rows]
        if options.mirostat_tau:
            processed = options.sampling.filter(processed)
            return [
                row.mirostat.draw(processed[place], uniform[place])
                for place, row in enumerate(rows)
                if row.mirostat is not None
            ]
        drawn = options.sampling.draw(processed, torch.tensor(uniform, device=scores.device))
        return drawn.tolist()

    @staticmethod
    def _processed(
        scores: Tensor, rows: Sequence[WrittenRow], processors: Sequence[LogitsProcessor]
    ) -> Tensor:
        if not processors:
            return scores
        scores = scores.clone()
        for processor in processors:
            scores = processor(scores, rows)
        if bool((scores.amax(-1) == float("-inf")).any()):
            raise InputError(
                "no token is permitted: bad words, n-grams and constraints forbid all",
                hint="relax one of them",
            )
        return scores

    def _alone(
        self,
        row: _Row,
        options: GenerationOptions,
        processors: Sequence[LogitsProcessor],
        helpers: _Helpers,
    ) -> Iterator[tuple[Tensor, int]]:
        """Return the steps of a strategy that writes one text at a time."""

        def process(scores: Tensor, ids: list[int]) -> Tensor:
            return self._processed(scores[None], [WrittenRow(row.prompt, ids)], processors)[0]

        decoding = self._open([row], options, helpers)
        if options.penalty_alpha:
            return contrastive_search(decoding, options, process)
        guesses: LookupGuesses | AssistantGuesses
        if helpers.assistant is None:
            # An encoder-decoder finds its repetitions in the source text.
            guesses = LookupGuesses(row.source, options.prompt_lookup_num_tokens)
        else:
            self._check_vocabulary(helpers.assistant)
            faster = Generator(helpers.assistant)
            guesses = AssistantGuesses(faster._open([row], options, _Helpers()), options)
        return speculate(decoding, guesses, process, options, row.limit, row.random)

    def _take(self, row: _Row, logs: Tensor, token: int, options: GenerationOptions) -> str:
        """Add a token to a row, and note why it ends; return the text that became certain."""
        row.ids.append(token)
        row.logprobs.append(float(logs[token]))
        if options.top_logprobs:
            values, ids = logs.topk(min(options.top_logprobs, len(logs)))
            row.tops.append(list(zip(ids.tolist(), values.tolist(), strict=True)))
        text = "" if row.transcript is None else row.transcript.add(token)
        if token in self._stops(options):
            row.finish_reason = "end"
        elif row.transcript is not None and row.transcript.stopped:
            row.finish_reason = "stop"
        elif len(row.ids) >= row.limit:
            row.finish_reason = "context" if row.context else "length"
        return text

    def _finished(self, row: _Row) -> Generation:
        total = sum(row.logprobs)
        if row.finish_reason == "stop" and row.transcript is not None:
            text = row.transcript.text
        else:
            text = self.model.tokenizer.decode(row.ids)
        reason = row.finish_reason or "length"
        return Generation(text, row.ids, total, row.logprobs, reason, total, row.number, row.tops)

    def _search_beams(
        self,
        rows: Sequence[_Row],
        options: GenerationOptions,
        processors: Sequence[LogitsProcessor],
        helpers: _Helpers,
        batch_size: int,
    ) -> list[Generation]:
        count, tokenizer = options.num_return_sequences, self.model.tokenizer
        found, stop = [], options.stop_texts
        rows = rows[::count]
        size = max(1, batch_size // options.num_beams)
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            results = beam_search(
                self._open(batch, options, helpers),
                [row.prompt for row in batch],
                [row.limit for row in batch],
                options,
                eos_token_id=self._stops(options),
                processors=processors,
                stops=(lambda ids: ends_with_stop(tokenizer, ids, stop)) if stop else None,
            )
            for row, beams in zip(batch, results, strict=True):
                for beam in beams[:count]:
                    text, reason = tokenizer.decode(beam.ids), "length"
                    places = [place for s in stop if (place := text.find(s)) >= 0]
                    if places:
                        text, reason = text[: min(places)], "stop"
                    elif beam.ended:
                        reason = "end"
                    elif row.context:
                        reason = "context"
                    total = sum(beam.logprobs)
                    found.append(
                        Generation(
                            text, beam.ids, total, beam.logprobs, reason, beam.score, row.number
                        )
                    )
        return found

    def _open(
        self, rows: Sequence[_Row], options: GenerationOptions, helpers: _Helpers
    ) -> Decoding:
        """Return a batch of texts to continue, with what guides it."""
        decoding = self._decoding([row.source for row in rows], options)
        if options.guidance_scale != 1:
            other = helpers.negatives(self, rows)
            return GuidedDecoding(decoding, self._decoding(other, options), options.guidance_scale)
        if helpers.amateur is not None:
            self._check_vocabulary(helpers.amateur)
            weaker = Generator(helpers.amateur)._decoding([row.source for row in rows], options)
            return ContrastingDecoding(decoding, weaker)
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
        if options.dola_layers:
            return LayerContrast(self.model.network, ids, mask, layers=options.dola_layers)
        return Decoding(self.model.network, ids, mask)

    def _rows(
        self, prompts: str | Sequence[str | Sequence[int]], options: GenerationOptions
    ) -> list[_Row]:
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        rows: list[_Row] = []
        for number, prompt in enumerate(prompts):
            source = self._ids(prompt, number)
            limit, context = self._room(source, number, options)
            for copy in range(options.num_return_sequences):
                row = _Row(
                    prompt=[] if self.model.network.kind == "encoder-decoder" else source,
                    number=number,
                    source=source,
                    limit=limit,
                    context=context,
                    random=np.random.default_rng(derive_seed(options.seed, number, copy)),
                )
                if options.mirostat_tau:
                    row.mirostat = Mirostat(options.mirostat_tau, options.mirostat_eta)
                if options.stop_texts:
                    row.transcript = Transcript(self.model.tokenizer, options.stop_texts)
                rows.append(row)
        return rows

    def _ids(self, prompt: str | Sequence[int], number: int) -> list[int]:
        tokenizer = self.model.tokenizer
        ids = tokenizer.encode(prompt) if isinstance(prompt, str) else [int(i) for i in prompt]
        if ids:
            return ids
        for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):
            if start is not None:
                return [start]
        raise InputError(
            f"prompt {number} is empty, and the model has no token to begin a text with",
            hint="give it a text",
        )

    def _room(
        self, source: list[int], number: int, options: GenerationOptions
    ) -> tuple[int, bool]:
        """Return how many tokens fit, and whether the context sets that limit."""
        room, most = options.max_new_tokens, self.context_length
        if most is None:
            return room, False
        if len(source) > most or (
            len(source) == most and self.model.network.kind != "encoder-decoder"
        ):
            raise InputError(
                f"prompt {number} has {len(source)} tokens, but the model's context has {most}",
                hint="shorten it",
            )
        left = most - (len(source) if self.model.network.kind != "encoder-decoder" else 1)
        return min(room, left), left < room

    def _processors(self, options: GenerationOptions) -> list[LogitsProcessor]:
        found: list[LogitsProcessor] = []
        penalties = Penalties(
            options.repetition_penalty, options.presence_penalty, options.frequency_penalty
        )
        if penalties != Penalties():
            found.append(penalties)
        if options.no_repeat_ngram_size:
            found.append(NoRepeatNgram(options.no_repeat_ngram_size))
        if words := options._texts("bad_words"):
            found.append(BadWords(self._spellings(words)))
        if options.min_new_tokens and (ends := self._stops(options)):
            found.append(MinimumLength(options.min_new_tokens, ends))
        if isinstance(first := self._config.get("forced_bos_token_id"), int):
            found.append(ForcedStart(first))
        return found

    def _spellings(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Return the ids of words, at the start of a text and after a space."""
        forms = [form for word in words for form in (word, " " + word)]
        ids = self.model.tokenizer.encode_batch(forms, add_special_tokens=False)
        return tuple(sorted({tuple(row) for row in ids if row}))

    def _stops(self, options: GenerationOptions) -> tuple[int, ...]:
        ends = options.eos_token_id
        if ends is None:
            return self.eos_token_id
        return (ends,) if isinstance(ends, int) else tuple(ends)

    def _generation_config(self) -> dict[str, Any]:
        """Return what the model's files say about generation."""
        stored = self.model.companions.contents.get("generation_config.json", b"{}")
        try:
            config = json.loads(stored)
        except ValueError:
            config = {}
        settings = {k: v for k, v in self.model.settings.items() if v is not None}
        return settings | (config if isinstance(config, dict) else {})

    def _ends(self) -> tuple[int, ...]:
        ends = self._config.get("eos_token_id", self.model.tokenizer.eos_token_id)
        ends = [] if ends is None else ends
        return tuple(ends) if isinstance(ends, list) else (int(ends),)

    def _check_vocabulary(self, other: LanguageModel) -> None:
        if other.tokenizer.engine.get_vocab() != self.model.tokenizer.engine.get_vocab():
            raise InputError(
                "the second model has another vocabulary", hint="choose one of the same family"
            )


@dataclass(frozen=True)
class _Helpers:
    """What is read beside the prompts."""

    amateur: LanguageModel | None = None
    assistant: LanguageModel | None = None
    negative_prompts: str | Sequence[str] | None = None

    def negatives(self, generator: Generator, rows: Sequence[_Row]) -> list[list[int]]:
        """Return the ids that guidance moves away from, for each row."""
        if self.negative_prompts is None:
            return [row.source[-1:] for row in rows]
        one = isinstance(self.negative_prompts, str)
        try:
            return [
                generator._ids(
                    self.negative_prompts if one else self.negative_prompts[row.number], row.number
                )
                for row in rows
            ]
        except IndexError as error:
            raise InputError(
                f"{len(self.negative_prompts)} negative prompts, and more prompts",
                hint="give one for each, or one for all",
            ) from error
