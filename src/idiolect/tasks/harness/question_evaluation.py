"""Evaluate a language model on question files: few-shot accuracy with intervals.

The likeliest ending is the answer (`acc`); the log-likelihood may also be divided by the ending's
characters (`acc_norm`) or bytes (`acc_bytes`). A generated answer is compared with the right ones
after SQuAD's normalisation: by equality (`exact_match`) and by shared words (`f1`). If an answer
contains reasoning, the text after "####" is compared, or else the last number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from idiolect.errors import InputError
from idiolect.generate.generator import Generator
from idiolect.tasks.harness.likelihood import score_endings
from idiolect.tasks.harness.questions import FINAL, Question
from idiolect.text.answer_match import answer_f1, exact_match
from idiolect.training.progress import notice
from idiolect.training.seeds import derive_seed

__all__ = ["evaluate_questions", "final_answer"]

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_SAMPLES = 1000
_BETWEEN = "\n\n"


def evaluate_questions(
    generator: Generator,
    questions: Sequence[Question],
    *,
    num_fewshot: int = 0,
    pool: Sequence[Question] | None = None,
    max_new_tokens: int = 32,
    seed: int = 0,
    keep: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[dict[str, float] | None]:
    """Evaluate a model. Questions that exceed its context are truncated on the left, and counted.

    Args:
        generator: The model.
        questions: The questions, all of one form.
        num_fewshot: Solved examples before each question.
        pool: Questions that examples are drawn from; by default the other ones of `questions`.
        max_new_tokens: Length of a generated answer.
        seed: Random seed of the examples and intervals.
        keep: Called with the model's answer to each question.

    Yields:
        None after each question, and finally the metrics: the number of questions `n`, the means,
        and for each `NAME_low` and `NAME_high`, the ends of its 95 % bootstrap interval.

    Raises:
        InputError: There are not enough examples.
    """
    source = questions if pool is None else pool
    if num_fewshot > len(source) - (pool is None):
        raise _too_few(num_fewshot, len(source))
    rows: list[dict[str, float]] = []
    cut = 0
    for number, question in enumerate(questions):
        examples = _examples(source, num_fewshot, derive_seed(seed, number), question)
        before = "".join(context + _apart(ending) + _BETWEEN for context, ending in examples)
        scores, answer = (
            _generate(generator, question, before, max_new_tokens)
            if question.answers
            else _rank(generator, question, before)
        )
        rows.append(scores)
        cut += answer.get("cut", False)
        if keep is not None:
            keep({"question": number, **answer, **scores})
        yield None
    if cut:
        notice(
            f"{cut:,} of {len(rows):,} questions do not fit into the model's context; "
            "they are cut at the start"
        )
    yield _summary(rows, seed)


def final_answer(text: str) -> str | None:
    """Return the text after "####", or else the last number, without separators and currency.

    >>> final_answer("3 boxes are 12. #### 12 pens"), final_answer("it is 1,200 or $1,250.00.")
    ('12', '1250')
    """
    _, mark, rest = text.partition(FINAL)
    line = rest.strip().partition("\n")[0]
    numbers = _NUMBER.findall(line if mark else text)
    if not numbers:
        return line or None
    plain: str = numbers[0 if mark else -1].replace(",", "")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _examples(
    source: Sequence[Question], count: int, seed: int, question: Question
) -> list[tuple[str, str]]:
    if not count:
        return []
    order = np.random.default_rng(seed).permutation(len(source))
    others = (source[int(number)] for number in order)
    # Leave out equal questions too: the pool or the file may contain a question twice.
    found = [one.solved for one in others if one.pairs != question.pairs][:count]
    if len(found) < count:
        raise _too_few(count, len(source))
    return found


def _too_few(count: int, given: int) -> InputError:
    return InputError(f"{count} examples from {given} questions", hint="lower num_fewshot")


def _apart(ending: str) -> str:
    """Return an ending with a leading space, unless it begins with white space."""
    return ending if ending[0].isspace() else f" {ending}"


def _rank(
    generator: Generator, question: Question, before: str
) -> tuple[dict[str, float], dict[str, Any]]:
    found = score_endings(
        generator, [(before + context, _apart(ending)) for context, ending in question.pairs]
    )
    totals = np.array([one.total for one in found])
    answer: dict[str, Any] = {"loglikelihood": totals.tolist()}
    most = generator.context_length
    texts = [before + context + _apart(ending) for context, ending in question.pairs]
    if most is not None and any(
        len(ids) > most + 1 for ids in generator.model.tokenizer.encode_batch(texts)
    ):
        answer["cut"] = True
    if not question.is_choice:
        return {"acc": float(found[0].is_greedy), "loglikelihood_mean": totals[0]}, answer
    characters = np.array([len(ending) for _, ending in question.pairs])
    sizes = np.array([len(ending.encode()) for _, ending in question.pairs])
    gold = question.gold
    return {
        "acc": float(totals.argmax() == gold),
        "acc_norm": float((totals / characters).argmax() == gold),
        "acc_bytes": float((totals / sizes).argmax() == gold),
    }, answer


def _generate(
    generator: Generator, question: Question, before: str, max_new_tokens: int
) -> tuple[dict[str, float], dict[str, Any]]:
    text = before + question.pairs[0][0]
    prompt: str | list[int] = text
    answer: dict[str, Any] = {}
    if generator.context_length is not None:
        # Truncate on the left, as for scored endings.
        most = max(1, generator.context_length - max_new_tokens)
        ids = generator.model.tokenizer.encode(text)
        if len(ids) > most:
            prompt, answer = ids[-most:], {"cut": True}
    # Reasoning has several lines; an empty line would start the next question.
    stop = [_BETWEEN] if question.reasoning else ["\n"]
    text = generator.generate([prompt], max_new_tokens=max_new_tokens, stop=stop)[0].text.strip()
    if question.reasoning:
        # Without normalisation, which would remove the sign of a number.
        right = {final_answer(f"{FINAL} {answer}") for answer in question.answers}
        hit = float(final_answer(text) in right)
        return {"exact_match": hit, "f1": hit}, {"answer": text, **answer}
    return {
        "exact_match": exact_match(text, question.answers),
        "f1": answer_f1(text, question.answers),
    }, {"answer": text, **answer}


def _summary(rows: Sequence[dict[str, float]], seed: int) -> dict[str, float]:
    random = np.random.default_rng(derive_seed(seed, len(rows)))
    drawn = random.integers(0, len(rows), (_SAMPLES, len(rows)))
    summary: dict[str, float] = {"n": len(rows)}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        low, high = np.quantile(values[drawn].mean(1), [0.025, 0.975])
        summary |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
    return {name: float(value) if name != "n" else value for name, value in summary.items()}
