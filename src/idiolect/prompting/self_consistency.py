"""Self-consistency: several sampled answers vote (Wang et al. 2022, 2203.11171)."""

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
    """What several sampled texts answer together."""

    answer: str | None
    """The answer of most texts, of equals the one that came first; None if no text has one."""
    share: float
    """The share of all texts that give this answer: how sure the model is."""
    texts: tuple[str, ...]
    """The sampled texts."""


def vote(
    generator: Generator,
    prompts: Sequence[str],
    *,
    samples: int = 10,
    extract: Callable[[str], str | None] | None = None,
    temperature: float = 0.7,
    seed: int = 0,
    **options: Any,
) -> list[Vote]:
    """Sample several texts after each prompt, and return the answer of most of them.

    Args:
        generator: The model.
        prompts: The questions, such as with worked examples before them.
        samples: Texts to sample for each.
        extract: Finds the answer in a text, or None; by default `final_answer`.
        temperature: Sampling temperature, above zero.
        seed: Random seed; the same one gives the same texts.
        options: Other arguments of `Generator.generate`, such as `max_new_tokens` and `stop`.

    Raises:
        ConfigError: Fewer than one sample.
    """
    if samples < 1:
        raise ConfigError(f"{samples} samples", hint="at least 1")
    found = generator.generate(
        list(prompts),
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
        # Of equals, `most_common` returns the one that was met first.
        best, count = counts.most_common(1)[0] if counts else (None, 0)
        votes.append(Vote(best, count / samples, texts))
    return votes
