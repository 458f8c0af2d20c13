"""`GenerationOptions`: validated options of text generation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, Self

from idiolect.errors import ConfigError
from idiolect.generate.token_sampling import Sampling

__all__ = ["GenerationOptions"]

_SAMPLING = tuple(field.name for field in fields(Sampling))


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Options of text generation.

    Raises:
        ConfigError: A value is out of range, or options contradict each other.
    """

    max_new_tokens: int = 64
    """Maximum number of new tokens."""
    min_new_tokens: int = 0
    """Minimum number of new tokens."""
    num_return_sequences: int = 1
    """Number of continuations per prompt: samples, or the best beams."""
    top_logprobs: int = 0
    """Return this many alternatives at each position, with their log-probabilities."""
    eos_token_id: Sequence[int] | int | None = None
    """Ids that end a text; by default those of the model."""
    stop: Sequence[str] | str = ()
    """Stop strings: texts that end a continuation, however they are tokenized. They are removed."""

    num_beams: int = 1
    """Number of beams; 1 turns beam search off."""
    length_penalty: float = 1.0
    """Beams are ranked by log-probability / length ** length_penalty."""
    coverage_penalty: float = 0.0
    """β of finished beams' β · Σ log(min(1, attention to a source token)), which is added to their
    rank (Wu et al. 2016, 1609.08144). For encoder-decoders; usual is 0.2."""
    early_stopping: bool | Literal["never"] = False
    """When a beam search ends. True: with `num_beams` finished beams. False: if the best open beam
    could not win at its current length. "never": if it cannot win at any length."""
    num_beam_groups: int = 1
    """Number of beam groups in diverse beam search (Vijayakumar et al. 2018, 1610.02424)."""
    diversity_penalty: float = 0.0
    """Subtracted from a token's score each time an earlier group chose it at this step."""

    do_sample: bool = False
    """Sample tokens instead of taking the most likely one."""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    mirostat_tau: float = 0.0
    """Target surprise of mirostat 2 in bits; 0 turns it off. Usual values are 3 to 5."""
    mirostat_eta: float = 0.1
    """Learning rate of mirostat."""
    seed: int = 0
    """Random seed. Each prompt has its own random numbers, independent of the batch."""

    penalty_alpha: float = 0.0
    """Contrastive search among the `top_k` most likely tokens: weight of the penalty for hidden
    states similar to earlier ones (Su et al. 2022, 2202.06417)."""
    dola_layers: Sequence[int] = ()
    """DoLa: contrast the last layer with the one of these layers that differs most from it (counted
    from 1; 0 is the embedding; Chuang et al. 2024, 2309.03883)."""

    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    """No n-gram of this many tokens occurs twice; 0 turns it off."""
    bad_words: Sequence[str] = ()
    """Texts whose token sequences are forbidden."""
    force_words: Sequence[str | Sequence[str]] = ()
    """Texts that each beam must contain; an entry may be a list of alternatives (Post & Vilar 2018,
    1804.06609)."""

    guidance_scale: float = 1.0
    """Scale of classifier-free guidance, away from the negative prompt (Sanchez et al. 2023,
    2306.17806)."""
    prompt_lookup_num_tokens: int = 0
    """Prompt lookup: draft this many tokens from repetitions in the text, and verify them in one
    step."""
    num_assistant_tokens: int = 5
    """Number of tokens that the assistant model drafts at a time."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Build options from keyword arguments.

        Raises:
            ConfigError: An unknown name; the message suggests a known one.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                near = get_close_matches(name, known, 1)
                raise ConfigError(
                    f"unknown option {name}",
                    hint=f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}",
                )
        try:
            return cls(**options)
        except TypeError as error:
            raise ConfigError(f"a generation option has the wrong type: {error}") from error

    def also_ending_at(self, tokens: Sequence[int]) -> Self:
        """Return options in which these ids end a text too, whatever `eos_token_id` is."""
        if self.eos_token_id is None:
            return self
        given = self.eos_token_id
        given = (given,) if isinstance(given, int) else tuple(given)
        return replace(self, eos_token_id=(*given, *tokens))

    def __post_init__(self) -> None:
        for name, low in (
            ("max_new_tokens", 0),
            ("min_new_tokens", 0),
            ("num_return_sequences", 1),
            ("top_logprobs", 0),
            ("num_beams", 1),
            ("num_beam_groups", 1),
            ("no_repeat_ngram_size", 0),
            ("prompt_lookup_num_tokens", 0),
            ("num_assistant_tokens", 1),
            ("top_k", 0),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if not _is_whole(value) or value < low:
                raise ConfigError(f"{name} is {value!r}", hint=f"it is a whole number from {low}")
        if not isinstance(self.do_sample, bool):
            raise ConfigError(f"do_sample is {self.do_sample!r}", hint="it is True or False")
        if not (isinstance(self.early_stopping, bool) or self.early_stopping == "never"):
            raise ConfigError(
                f"early_stopping is {self.early_stopping!r}", hint='it is True, False or "never"'
            )
        for name in ("coverage_penalty", "diversity_penalty", "mirostat_tau", "mirostat_eta"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", hint="it is a finite number from 0"
                )
        for name in ("length_penalty", "presence_penalty", "frequency_penalty", "guidance_scale"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="pass a finite number")
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(
                f"repetition_penalty is {self.repetition_penalty}", hint="1 changes nothing"
            )
        if not 0 <= self.penalty_alpha <= 1:
            raise ConfigError(f"penalty_alpha is {self.penalty_alpha}", hint="it is from 0 to 1")
        self._read_lists()
        _ = self.sampling
        self._check_combinations()
        self._check_strategies()

    def _read_lists(self) -> None:
        """Store texts, words and ids as tuples."""
        for name in ("stop", "bad_words"):
            texts = getattr(self, name)
            texts = (texts,) if isinstance(texts, str) else tuple(texts)
            if wrong := [text for text in texts if not isinstance(text, str)]:
                raise ConfigError(f"{wrong[0]!r} in {name}", hint="give texts")
            object.__setattr__(self, name, texts)
        for name in ("eos_token_id", "dola_layers"):
            numbers = getattr(self, name)
            numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers or ())
            if wrong := [one for one in numbers if not _is_whole(one) or one < 0]:
                raise ConfigError(f"{wrong[0]!r} in {name}", hint="give whole numbers from 0")
            if getattr(self, name) is not None:
                object.__setattr__(self, name, numbers)
        words = [self.force_words] if isinstance(self.force_words, str) else self.force_words
        alternatives = tuple((word,) if isinstance(word, str) else tuple(word) for word in words)
        object.__setattr__(self, "force_words", alternatives)
        if any(not forms or "" in forms for forms in alternatives):
            raise ConfigError("an empty text in force_words", hint="remove it")
        if wrong := [one for forms in alternatives for one in forms if not isinstance(one, str)]:
            raise ConfigError(f"{wrong[0]!r} in force_words", hint="give texts")
        for name in ("stop", "bad_words"):
            if "" in getattr(self, name):
                raise ConfigError(f"an empty text in {name}", hint="remove it")

    def _check_combinations(self) -> None:
        _refuse(
            (
                self.min_new_tokens > self.max_new_tokens,
                f"at least {self.min_new_tokens} and at most {self.max_new_tokens} new tokens",
                "raise max_new_tokens",
            ),
            (
                self.num_beams > 1 and self.do_sample,
                "num_beams and do_sample exclude each other",
                "set one of them",
            ),
            (
                self.num_return_sequences > self.num_beams and not self.do_sample,
                f"{self.num_return_sequences} sequences of {self.num_beams} beams",
                "set num_beams, or do_sample=True",
            ),
            (
                self.num_beams % self.num_beam_groups != 0,
                f"{self.num_beams} beams in {self.num_beam_groups} groups",
                "choose a divisor of num_beams",
            ),
            (
                self.num_beam_groups > 1 and self.diversity_penalty <= 0,
                "groups of beams without a diversity_penalty would all be equal",
                "set diversity_penalty above 0",
            ),
            (
                not self.do_sample and self._sampling_is_set,
                "temperature, top_k, top_p, … have no effect without do_sample",
                "set do_sample=True",
            ),
            (
                self.num_beams > 1 and self.top_logprobs > 0,
                "top_logprobs are not kept of beams",
                "set num_beams=1",
            ),
            (
                self.num_beams == 1 and bool(self.force_words),
                "force_words needs beam search",
                "set num_beams, such as 4",
            ),
            (
                self.num_beams == 1 and self.coverage_penalty > 0,
                "coverage_penalty needs beam search",
                "set num_beams, such as 4",
            ),
            (
                any(set(forms) <= {*self.bad_words, *self.stop} for forms in self.force_words),
                "a text is in force_words, and in bad_words or stop",
                "remove it from one of them",
            ),
            (
                set(self.bad_words) & set(self.stop) != set(),
                "a text is in bad_words and in stop",
                "remove it from one of them",
            ),
        )

    def _check_strategies(self) -> None:
        _refuse(
            (
                self.penalty_alpha > 0 and (self.num_beams > 1 or self.do_sample or self.top_k < 1),
                "contrastive search needs top_k, and neither beams nor do_sample",
                "set penalty_alpha=0.6, top_k=4",
            ),
            (
                self.prompt_lookup_num_tokens > 0 and self.num_beams > 1,
                "guesses from the prompt and beams exclude each other",
                "set num_beams=1",
            ),
            (
                self.prompt_lookup_num_tokens > 0 and self.penalty_alpha > 0,
                "guesses from the prompt and contrastive search exclude each other",
                "set one of them",
            ),
            (
                bool(self.dola_layers) and (self.guidance_scale != 1 or self.writes_alone),
                "dola_layers excludes guidance_scale, contrastive search and guesses",
                "set one of them",
            ),
            (
                self.guidance_scale != 1 and self.writes_alone,
                "guidance_scale excludes contrastive search and guesses",
                "set one of them",
            ),
            (
                self.prompt_lookup_num_tokens > 0 and self.mirostat_tau > 0,
                "mirostat follows the tokens that were drawn, and guesses from the prompt are not",
                "set one of them",
            ),
        )

    @property
    def writes_alone(self) -> bool:
        """Whether the strategy generates one text at a time."""
        return self.penalty_alpha > 0 or self.prompt_lookup_num_tokens > 0

    def check_models(self, *, amateur: bool, assistant: bool, negative_prompts: bool) -> None:
        """Check that the options fit the helper models and negative prompts.

        Raises:
            ConfigError: They contradict each other.
        """
        _refuse(
            (
                negative_prompts and self.guidance_scale == 1,
                "negative_prompts have no effect without guidance_scale",
                "set guidance_scale=1.5",
            ),
            (
                amateur and (self.guidance_scale != 1 or bool(self.dola_layers)),
                "an amateur excludes guidance_scale and dola_layers",
                "choose one of them",
            ),
            (
                amateur and (self.writes_alone or assistant),
                "an amateur excludes contrastive search, guesses from the prompt and an assistant",
                "choose one of them",
            ),
            (
                assistant and (self.num_beams > 1 or self.writes_alone),
                "an assistant excludes beams, contrastive search and guesses from the prompt",
                "choose one of them",
            ),
            (
                assistant and (self.guidance_scale != 1 or bool(self.dola_layers)),
                "an assistant excludes guidance_scale and dola_layers",
                "choose one of them",
            ),
            (
                assistant and self.mirostat_tau > 0,
                "mirostat follows the tokens that were drawn, and those of an assistant are not",
                "choose one of them",
            ),
        )

    @property
    def _sampling_is_set(self) -> bool:
        names = set(_SAMPLING) - ({"top_k"} if self.penalty_alpha else set())
        changed = any(getattr(self, name) != getattr(Sampling(), name) for name in names)
        return changed or self.mirostat_tau > 0

    @property
    def sampling(self) -> Sampling:
        """The sampling settings."""
        return Sampling(**{name: getattr(self, name) for name in _SAMPLING})


def _refuse(*contradictions: tuple[bool, str, str]) -> None:
    """Raise an error with the message and hint of the first contradiction that holds."""
    for wrong, message, hint in contradictions:
        if wrong:
            raise ConfigError(message, hint=hint)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
