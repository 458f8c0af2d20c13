"""Prompts for SmolLM2: calibration, the choice of demonstrations, and the search for a prompt.

    python benchmarks/prompting.py DATA calibration
    python benchmarks/prompting.py DATA nearest
    python benchmarks/prompting.py DATA search

calibration: ten random choices of four demonstrations, with and without contextual calibration, on
SST-2 and TREC-6. nearest: the four nearest demonstrations, by MiniLM, against random and diverse
ones, text by text. search: the optimised prompt against the hand-written one, on texts that the
search has not seen. Texts are a random part of the test files; a line says how many.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax

from idiolect.encoding.encoder import Encoder
from idiolect.generate.generator import Generator
from idiolect.prompting.demonstrations import (
    DiverseDemonstrations,
    NearestDemonstrations,
    RandomDemonstrations,
)
from idiolect.prompting.optimise_prompt import optimise_prompt
from idiolect.prompting.prompt_evaluation import evaluate_prompt
from idiolect.prompting.prompt_task import PromptTask
from idiolect.ranking.evaluation.significance import compare
from idiolect.tasks.classify.labelled_texts import labels_of
from prompt_data import TEMPLATES, read

INSTRUCTIONS = {
    "sst2": (
        "Decide whether each film review is negative or positive.",
        "Classify the sentiment of these movie reviews.",
        "Did the reviewer like the film? Positive if so, negative if not.",
        "These sentences are from reviews. Some praise a film, others criticise it.",
        "Read the review and name its sentiment.",
    ),
    "trec": (
        "Decide what each question asks for.",
        "What kind of thing would answer the question?",
        "Classify the questions by the type of their answer.",
        "Is it a description, an entity, an abbreviation, a person, a location or a number?",
    ),
}


def calibration(
    generator: Generator, data: Path, name: str, count: int, seeds: int, shots: int
) -> None:
    train, test = read(data, name, "train"), read(data, name, "test")[:count]
    task = PromptTask(TEMPLATES[name], labels_of(train))
    truth = np.array([task.labels.index(str(one.label)) for one in test])
    plain, calibrated = [], []
    for seed in range(seeds):
        choice = RandomDemonstrations(train, shots, seed=seed)
        classifier = replace(task, calibrated=True).classifier(generator, choice)
        # One reading serves both: calibration only subtracts.
        shift = classifier._shift(choice.examples)
        scores = classifier._scores(test, choice.examples)
        plain.append(float((scores.argmax(1) == truth).mean()))
        calibrated.append(float((log_softmax(scores - shift, 1).argmax(1) == truth).mean()))
        print(f"{name} seed {seed}: {plain[-1]:.3f}, calibrated {calibrated[-1]:.3f}", flush=True)
    for label, values in (("plain", plain), ("calibrated", calibrated)):
        print(
            f"{name}, {count} texts, {shots} demonstrations, {seeds} seeds, {label}: "
            f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}, worst {min(values):.3f}"
        )
    print(f"{name} gain by seed: {_paired(plain, calibrated)}", flush=True)


def nearest(
    generator: Generator, data: Path, name: str, count: int, seeds: int, shots: int
) -> None:
    train, test = read(data, name, "train")[:2000], read(data, name, "test")[:count]
    encoder = Encoder.load("minilm")
    task = PromptTask(TEMPLATES[name], labels_of(train))
    near = evaluate_prompt(
        generator, task, test, [NearestDemonstrations(train, shots, encoder=encoder)]
    )
    print(f"{name} nearest: {near.mean:.3f}", flush=True)
    for label, choices in (
        ("random", [RandomDemonstrations(train, shots, seed=seed) for seed in range(seeds)]),
        (
            "diverse",
            [
                DiverseDemonstrations(train, shots, encoder=encoder, seed=seed)
                for seed in range(seeds)
            ],
        ),
    ):
        other = evaluate_prompt(generator, task, test, choices)
        # Each text's mean over the choices, against the nearest ones for this text.
        gain = _paired(other.right.mean(0).tolist(), near.right[0].astype(float).tolist())
        print(
            f"{name}, {count} texts, {shots} demonstrations: {label} {other.mean:.3f} ± "
            f"{other.spread:.3f} ({seeds} seeds); nearest is better by {gain}",
            flush=True,
        )


def search(generator: Generator, data: Path, name: str, count: int, calls: int, shots: int) -> None:
    train = read(data, name, "train")
    test = read(data, name, "test")[:count]
    first, *others = INSTRUCTIONS[name]
    task = PromptTask(TEMPLATES[name].with_changes(instruction=first), labels_of(train))
    task = replace(task, calibrated=True)
    start = time.perf_counter()
    found = optimise_prompt(
        generator,
        task,
        train[:300],
        train[300:380],
        instructions=others,
        num_fewshot=shots,
        candidates=16,
        max_calls=calls,
    )
    print(
        f"{name}: {found.calls} calls, {len(found.trials)} prompts, "
        f"{time.perf_counter() - start:.0f} s; validation {found.start_accuracy:.3f} → "
        f"{found.accuracy:.3f}; instruction {found.best.template.instruction!r}, "
        f"{len(found.best.demonstrations)} demonstrations",
        flush=True,
    )
    by_hand = RandomDemonstrations(train[:300], shots, seed=0)
    after = evaluate_prompt(generator, found.best, test)
    for label, choice in (
        ("hand-written, calibrated", None),
        ("hand-written with random demonstrations, calibrated", by_hand),
    ):
        before = evaluate_prompt(generator, task, test, [choice])
        first_right, right = (one.right[0].astype(float).tolist() for one in (before, after))
        print(
            f"{name}, {count} untouched texts: {label} {before.mean:.3f}, "
            f"optimised {after.mean:.3f}; gain {_paired(first_right, right)}",
            flush=True,
        )


def _paired(first: list[float], second: list[float]) -> str:
    names = [str(number) for number in range(len(first))]
    found = compare(dict(zip(names, first, strict=True)), dict(zip(names, second, strict=True)))
    return (
        f"{found.difference:+.3f} (95 % {found.low:+.3f} to {found.high:+.3f}, "
        f"p = {found.p_value:.4f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("what", choices=("calibration", "nearest", "search"))
    parser.add_argument("--tasks", default="sst2,trec")
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--calls", type=int, default=800)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = Generator("smollm2")
    for name in arguments.tasks.split(","):
        if arguments.what == "search":
            search(
                generator, arguments.data, name, arguments.texts, arguments.calls, arguments.shots
            )
        else:
            run = calibration if arguments.what == "calibration" else nearest
            run(generator, arguments.data, name, arguments.texts, arguments.seeds, arguments.shots)


if __name__ == "__main__":
    main()
