"""Self-consistency: majority vote over sampled answers (Wang et al. 2022, 2203.11171)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from idiolect.errors import ConfigError
from idiolect.generate.generator import Generator
from idiolect.tasks.harness.question_evaluation import final_answer

__all__ = ["Vote", "vote"]


@dataclass(frozen=True)
class Vote:
    """The majority vote over sampled texts."""

    answer: str | None
    """The most frequent answer (the first one if tied); None if no text has an answer."""
    share: float
    """Share of all texts with this answer: the model's confidence."""
    texts: tuple[str, ...]
    """The sampled texts."""


def vote(
    generator: Generator,
    prompts: str | Sequence[str],
    *,
    samples: int = 10,
    extract: Callable[[str], str | None] | None = None,
    temperature: float = 0.7,
    seed: int = 0,
    **options: Any,
) -> list[Vote]:
    """Sample several texts for each prompt, and return the most frequent answer.

    Args:
        generator: The model.
        prompts: The questions, for example with worked examples before them; a text is one.
        samples: Number of texts to sample for each prompt.
        extract: Returns the answer in a text, or None; by default `final_answer`.
        temperature: Sampling temperature, above zero.
        seed: Random seed; the same seed gives the same texts.
        options: Other arguments of `Generator.generate`, such as `max_new_tokens` and `stop`.

    Raises:
        ConfigError: Fewer than one sample.
    """
    if samples < 1:
        raise ConfigError(f"{samples} samples", hint="at least 1")
    found = generator.generate(
        prompts,  # not as a list, since a text alone is one prompt
        do_sample=True,
        temperature=temperature,
        num_return_sequences=samples,
        seed=seed,
        **options,
    )
    votes = []
    for start in range(0, len(found), samples):
        texts = tuple(one.text for one in found[start : start + samples])
        answers = [(extract or final_answer)(text) for text in texts]
        counts = Counter(answer for answer in answers if answer is not None)
        # `most_common` returns the first of tied answers.
        best, count = counts.most_common(1)[0] if counts else (None, 0)
        votes.append(Vote(best, count / samples, texts))
    return votes
