"""`Generator`: continue texts with a language model, by every decoding strategy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.generate.batching.running_batch import PAGE_SIZE, RunningBatch
from idiolect.generate.batching.shared_batch import SharedBatch
from idiolect.generate.batching.text_writing import process_scores, write_texts
from idiolect.generate.beam import beam_search
from idiolect.generate.contrastive_search import contrastive_search
from idiolect.generate.decoding_setup import DecodingSetup
from idiolect.generate.generation import Generation, TextRow
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.helper_models import HelperModels
from idiolect.generate.logits_processors import LogitsProcessor, WrittenRow
from idiolect.generate.model_defaults import (
    find_context_length,
    find_ends,
    option_processors,
    required_words,
)
from idiolect.generate.prompts.chat_template import render_chat
from idiolect.generate.prompts.prompt_ids import prompt_ids, room_for
from idiolect.generate.speculative import AssistantGuesses, LookupGuesses, speculate
from idiolect.generate.text_stream import TextStream
from idiolect.generate.token_sampling import Mirostat
from idiolect.generate.transcript import Transcript, ends_with_stop
from idiolect.models.language_model import LanguageModel
from idiolect.text.arguments import check_whole, load_if_named
from idiolect.training.seeds import derive_seed

__all__ = ["Generation", "Generator"]


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
        self._setup = DecodingSetup(self.model)
        self.eos_token_id: tuple[int, ...] = find_ends(self.model)
        """Ids that end a text."""
        self.context_length: int | None = find_context_length(self.model)
        """Context length: the maximum number of tokens; None if there is no limit."""
        self._shared: SharedBatch | None = None

    def share(self, *, batch_size: int = 32, tokens: int = 1 << 14) -> bool:
        """From now on, generate the texts of all calls, from any thread, in one running batch.

        Keys and values are cached across calls (prefix caching), so that only the new tokens of a
        conversation's next turn are computed. Beam search, guidance, speculative decoding,
        contrastive search and DoLa are not affected.

        Args:
            batch_size: Maximum number of texts at the same time; it replaces that of each call.
            tokens: Capacity of the cache in tokens; texts that may need more wait for others.

        Returns:
            Whether the network has a paged KV cache. If not, nothing changes.

        Raises:
            InputError: A number is not an integer of at least 1.
        """
        batch_size = check_whole(batch_size, "batch_size", 1)
        tokens = check_whole(tokens, "tokens", 1)
        pages = -(-tokens // PAGE_SIZE)
        if self._setup.paged() is None:
            return False

        def open() -> RunningBatch:
            batch = self._setup.paged(least_pages=pages)
            assert batch is not None
            return batch

        self._shared = SharedBatch(open, batch_size, tokens)
        return True

    def generate(
        self,
        prompts: str | Sequence[str | Sequence[int]],
        *,
        processors: Sequence[LogitsProcessor] = (),
        constraint: LogitsProcessor | None = None,
        negative_prompts: str | Sequence[str] | None = None,
        amateur: LanguageModel | None = None,
        assistant: LanguageModel | None = None,
        batch_size: int = 32,
        **options: Any,
    ) -> list[Generation]:
        """Continue prompts.

        The result for a prompt does not depend on the other prompts, up to rounding.

        Args:
            prompts: Texts, or lists of ids.
            processors: Change the scores, in order, after those that the options set.
            constraint: A `Constraint` that the text must match.
            negative_prompts: Negative prompts for classifier-free guidance: one for each prompt, or
                one for all; by default the prompt's last token alone. Needs `guidance_scale`.
            amateur: A weaker model with the same vocabulary, whose scores are subtracted
                (contrastive decoding, Li et al. 2023, 2210.15097).
            assistant: A faster draft model with the same vocabulary for speculative decoding; this
                model verifies its tokens in one step (Leviathan et al. 2023, 2211.17192).
            batch_size: Maximum number of texts at the same time; when one ends, the next starts.
            options: The fields of `GenerationOptions`, such as `max_new_tokens`, `num_beams`,
                `do_sample` and `temperature`.

        Returns:
            `num_return_sequences` texts for each prompt, in the order of prompts. Beam search may
            return fewer if processors and the constraint do not permit as many.

        Raises:
            ConfigError: Unknown options, or ones that contradict each other.
            InputError: A prompt that is empty or does not fit into the model's context.
        """
        chosen = GenerationOptions.of(options).also_ending_at(_ends_of(constraint))
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}", hint="it is a whole number from 1")
        helpers = HelperModels(amateur, assistant, negative_prompts)
        helpers.check(chosen)
        rows = self._rows(prompts, chosen)
        changes = [*option_processors(self.model, chosen, self._stops(chosen)), *processors]
        changes += [] if constraint is None else [constraint]
        if not chosen.max_new_tokens:
            return [row.finished(self.model.tokenizer) for row in rows]
        if chosen.num_beams > 1:
            return self._search_beams(rows, chosen, changes, helpers, batch_size)
        for _ in self._write(rows, chosen, changes, helpers, batch_size):
            pass
        return [row.finished(self.model.tokenizer) for row in rows]

    def stream(self, prompt: str | Sequence[int], **options: Any) -> TextStream:
        """Continue one prompt, and stream its text in pieces as soon as they are final.

        Args:
            prompt: The text, or its ids.
            options: The arguments of `generate`, except for beam search.

        Raises:
            ConfigError: As for `generate`, or several texts were requested.
            InputError: As for `generate`.
        """
        names = ("processors", "constraint", "amateur", "assistant", "negative_prompts")
        extra = {name: options.pop(name) for name in names if name in options}
        chosen = GenerationOptions.of(options).also_ending_at(_ends_of(extra.get("constraint")))
        if chosen.num_beams > 1 or chosen.num_return_sequences > 1:
            raise ConfigError("only one text can be streamed", hint="use generate")
        helpers = HelperModels(*(extra.get(name) for name in names[2:]))
        helpers.check(chosen)
        changes = [
            *option_processors(self.model, chosen, self._stops(chosen)),
            *extra.get("processors", ()),
        ]
        changes += [extra["constraint"]] if extra.get("constraint") is not None else []
        rows = self._rows([prompt], chosen)
        rows[0].transcript = rows[0].transcript or Transcript(self.model.tokenizer)
        pieces = self._stream(rows, chosen, changes, helpers)
        return TextStream(pieces, rows[0], self.model.tokenizer)

    def chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the ids of a conversation, formatted by the model's chat template.

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
        rows: list[TextRow],
        options: GenerationOptions,
        processors: Sequence[LogitsProcessor],
        helpers: HelperModels,
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
        rows: Sequence[TextRow],
        options: GenerationOptions,
        processors: Sequence[LogitsProcessor],
        helpers: HelperModels,
        batch_size: int,
    ) -> Iterator[tuple[TextRow, str]]:
        """Generate all rows; after each token, yield the row and its newly final text."""
        ends = self._stops(options)
        if options.writes_alone or helpers.assistant:
            for row in rows:
                for logs, token in self._alone(row, options, processors, helpers):
                    yield row, row.take(logs, token, ends, options.top_logprobs)
                    if row.finish_reason:
                        break
            return
        plain = options.guidance_scale == 1 and not options.dola_layers and not helpers.amateur
        if self._shared is not None and plain:
            yield from self._shared.write(rows, options, processors, ends)
            return
        batch = self._setup.batch(len(rows), options, helpers)
        yield from write_texts(batch, rows, options, processors, ends, batch_size)

    def _alone(
        self,
        row: TextRow,
        options: GenerationOptions,
        processors: Sequence[LogitsProcessor],
        helpers: HelperModels,
    ) -> Iterator[tuple[Tensor, int]]:
        """Return the steps of a strategy that generates one text at a time."""

        def process(scores: Tensor, ids: list[int]) -> Tensor:
            return process_scores(scores[None], [WrittenRow(row.prompt, ids)], processors)[0]

        decoding = self._setup.open([row], options, helpers)
        if options.penalty_alpha:
            return contrastive_search(decoding, options, process)
        guesses: LookupGuesses | AssistantGuesses
        if helpers.assistant is None:
            # For an encoder-decoder, look up repetitions in the source text.
            guesses = LookupGuesses(row.source, options.prompt_lookup_num_tokens)
        else:
            faster = self._setup.of_helper(helpers.assistant)
            guesses = AssistantGuesses(faster.open([row], options, HelperModels()), options)
        return speculate(decoding, guesses, process, options, row.limit, row.random)

    def _search_beams(
        self,
        rows: Sequence[TextRow],
        options: GenerationOptions,
        processors: Sequence[LogitsProcessor],
        helpers: HelperModels,
        batch_size: int,
    ) -> list[Generation]:
        count, tokenizer = options.num_return_sequences, self.model.tokenizer
        found, stop, required = [], tuple(options.stop), required_words(self.model, options)
        rows = rows[::count]
        size = max(1, batch_size // options.num_beams)
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            results = beam_search(
                self._setup.open(batch, options, helpers),
                [row.prompt for row in batch],
                [row.limit for row in batch],
                options,
                eos_token_id=self._stops(options),
                processors=processors,
                stops=(lambda ids: ends_with_stop(tokenizer, ids, stop)) if stop else None,
                required=required,
            )
            for row, beams in zip(batch, results, strict=True):
                found += [row.finished_beam(beam, tokenizer, stop) for beam in beams[:count]]
        return found

    def _rows(
        self, prompts: str | Sequence[str | Sequence[int]], options: GenerationOptions
    ) -> list[TextRow]:
        if not isinstance(prompts, Iterable):
            raise InputError(f"the prompts are {prompts!r}", hint="give a list of texts")
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        encoder_decoder = self.model.network.kind == "encoder-decoder"
        rows: list[TextRow] = []
        for number, prompt in enumerate(prompts):
            source = prompt_ids(self.model, prompt, number)
            limit, context = room_for(
                source,
                number,
                options.max_new_tokens,
                self.context_length,
                encoder_decoder=encoder_decoder,
            )
            for copy in range(options.num_return_sequences):
                row = TextRow(
                    prompt=[] if encoder_decoder else source,
                    number=number,
                    source=source,
                    limit=limit,
                    context=context,
                    random=np.random.default_rng(derive_seed(options.seed, number, copy)),
                )
                if options.mirostat_tau:
                    row.mirostat = Mirostat(options.mirostat_tau, options.mirostat_eta)
                if tuple(options.stop):
                    row.transcript = Transcript(self.model.tokenizer, tuple(options.stop))
                rows.append(row)
        return rows

    def _stops(self, options: GenerationOptions) -> tuple[int, ...]:
        ends = options.eos_token_id
        if ends is None:
            return self.eos_token_id
        ends = (ends,) if isinstance(ends, int) else tuple(ends)
        size = len(self.model.tokenizer)
        if wrong := [token for token in ends if token >= size]:
            raise ConfigError(
                f"{wrong[0]} in eos_token_id, and the model's ids are 0 to {size - 1}",
                hint="choose one of them",
            )
        return ends


def _ends_of(constraint: Any) -> Sequence[int]:
    """Return the only ids that a constraint permits after a complete text."""
    ends: Sequence[int] = getattr(constraint, "eos_token_id", ())
    return ends
