"""Answers on XQuAD: `python benchmarks/answers_xquad.py DATA [--questions N]
[--written N] [--abstention N]`.

The index has the 240 English paragraphs, split into passages. Measured on a random sample of the
1,190 questions:

- sentences of the passages (no model): retrieval, whether the answer has the gold one, citations
  beside always citing the first passage, and abstention with and without the gold paragraph;
- exact match and F1 of a small model's short answer, from the gold paragraph and from the passages
  that are found, beside the model without any.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import tempfile
from pathlib import Path
from statistics import fmean

import numpy as np

from answers_support import area
from idiolect import Encoder, Generator, Index
from idiolect.search.answers.answer import Passage
from idiolect.search.answers.answer_evaluation import (
    GoldQuestion,
    evaluate_answers,
)
from idiolect.search.answers.answer_options import AnswerOptions
from idiolect.search.answers.answer_prompt import fitting_passages, messages_of
from idiolect.search.answers.passage_search import find_passages
from idiolect.search.answers.writers import LocalWriter
from idiolect.text.answer_match import answer_f1, exact_match

SHORT = "Answer the question from the text. Answer with a few words of the text only."


def read(data: Path) -> tuple[dict[str, str], list[GoldQuestion]]:
    articles = json.loads(gzip.decompress((data / "xquad" / "xquad.en.json.gz").read_bytes()))
    documents, questions = {}, []
    for a, article in enumerate(articles["data"]):
        for p, paragraph in enumerate(article["paragraphs"]):
            name = f"{a}-{p}"
            documents[name] = paragraph["context"]
            for one in paragraph["qas"]:
                answers = tuple(answer["text"] for answer in one["answers"])
                questions.append(GoldQuestion(one["question"], answers, (name,)))
    random.Random(0).shuffle(questions)
    return documents, questions


def quoted(index: Index, questions: list[GoldQuestion]) -> None:
    found = evaluate_answers(index, questions, 5, progress=True)
    print(f"sentences of the passages, {len(questions)} questions")
    for name, value in found.items():
        if isinstance(value, float):
            print(f"  {name:<24} {value:.3f}", flush=True)


def abstention(index: Index, questions: list[GoldQuestion], plot: Path | None) -> None:
    """Compare the confidence of answers with that of the same questions without their paragraph."""

    def confidence(gold: GoldQuestion, exclude: tuple[str, ...]) -> float:
        options = AnswerOptions(exclude=exclude)
        return find_passages(index, gold.question, 5, options, max_length=192).confidence

    there = np.array([confidence(gold, ()) for gold in questions])
    gone = np.array([confidence(gold, gold.documents) for gold in questions])
    count = len(there)
    found = area(np.concatenate([there, gone]), np.arange(2 * count) < count)
    print(f"confidence with and without the gold paragraph, {count} questions: AUC {found:.3f}")
    levels = np.linspace(0.3, 0.7, 9)
    for level in levels:
        answered, abstained = (there >= level).mean(), (gone < level).mean()
        print(
            f"  {level:.2f}  answers {answered:.3f}, abstains without {abstained:.3f}", flush=True
        )
    if plot is not None:
        draw(plot, there, gone)


def draw(plot: Path, there: np.ndarray, gone: np.ndarray) -> None:
    from matplotlib import pyplot

    levels = np.linspace(0, 1, 201)
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(
        levels, [(there >= level).mean() for level in levels], label="answers, paragraph there"
    )
    axes.plot(levels, [(gone < level).mean() for level in levels], label="abstains, paragraph gone")
    axes.axvline(AnswerOptions().min_confidence, color="gray", linestyle=":", label="default")
    axes.set(xlabel="min_confidence", ylabel="share of questions", xlim=(0.1, 0.9), ylim=(0, 1.02))
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(plot, dpi=150)


def written(
    index: Index, documents: dict[str, str], questions: list[GoldQuestion], model: str
) -> None:
    writer = LocalWriter(Generator(model))

    def reply(question: str, passages: list[Passage]) -> str:
        read = fitting_passages(question, passages, SHORT, room=700, count=writer.count)
        text = "".join(writer.write(messages_of(question, read, SHORT), 24))
        return text.strip().partition("\n")[0]

    scores: dict[str, list[tuple[float, float]]] = {}
    for gold in questions:
        text = documents[gold.documents[0]]
        whole = Passage(gold.documents[0], 0, len(text), text, 1.0)
        found = list(index.answer(gold.question, 3, min_confidence=0).passages)
        for name, passages in (("none", []), ("gold", [whole]), ("found", found)):
            said = reply(gold.question, passages)
            pair = exact_match(said, gold.answers), answer_f1(said, gold.answers)
            scores.setdefault(name, []).append(pair)
    print(f"{model} on {len(questions)} questions")
    for name, pairs in scores.items():
        exact, f1 = (fmean(values) for values in zip(*pairs, strict=True))
        print(f"  {name:<8} EM {exact:.3f}  F1 {f1:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--questions", type=int, default=1190)
    parser.add_argument("--written", type=int, default=1190)
    parser.add_argument("--abstention", type=int, default=1190)
    parser.add_argument("--plot", type=Path, help="draw the abstention to this file")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--index", type=Path, help="where to keep the index")
    arguments = parser.parse_args()
    documents, questions = read(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.index or Path(folder) / "index"
        items = ((name, text, {}) for name, text in documents.items())
        with Index.build(place, Encoder.load("minilm"), items) as index:
            print(f"{index.add_passages():,} passages of {len(index)} paragraphs")
            if arguments.abstention:
                abstention(index, questions[: arguments.abstention], arguments.plot)
            if arguments.questions:
                quoted(index, questions[: arguments.questions])
            if arguments.written:
                written(index, documents, questions[: arguments.written], arguments.model)


if __name__ == "__main__":
    main()
