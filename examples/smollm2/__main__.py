"""Run SmolLM2 on five collections, and print the tables; see README.md for what it costs.

    PYTHONPATH=examples python -m smollm2 DATA OUT [--collections demo,scifact] [--quick]

Each step is saved when it is done. The same command resumes where a run was stopped, in any way.
The steps whose results say most come first. `python -m smollm2.summary OUT` writes `OUT/tables.md`
from what is there.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from idiolect import LanguageModel
from idiolect.models.shallow import first_layers
from idiolect.text.files import read_json
from smollm2 import rankings
from smollm2.adaptation import Budget, adapt
from smollm2.judged import COLLECTIONS, Judged, prepare, read
from smollm2.rankings import Words
from smollm2.summary import write_tables
from smollm2.vocabularies import VARIANTS, choose_terms, grown

__all__ = ["Study", "main"]

PARTS = ("static", "language", "layers", "minilm")
"""In this order; they may also run side by side, but for `layers`, which follows `language`."""

ADAPTED = ("icecat", "scifact", "demo")
"""Collections whose text the whole language model reads; in the others, new tokens keep their
initial rows: the sums of their pieces' rows without layers, and the means with two."""


@dataclass
class Study:
    """A run.

    Args:
        data: The folder with the published collections.
        out: The folder for the results.
        base: Name of the language model.
        encoder: Name of the published encoder to compare with.
        rows: New tokens.
        budget: What the whole language model reads.
        steps: Steps of tuning, by default those of each recipe.
        seeds: Seeds of tuning.
    """

    data: Path
    out: Path
    base: str = "smollm2"
    encoder: str | None = "minilm"
    rows: int = 1000
    budget: Budget = field(default_factory=Budget)
    steps: int | None = None
    seeds: int = 3
    _judged: dict[str, tuple[Judged, Words]] = field(default_factory=dict)
    _static: dict[tuple[str, str], LanguageModel] = field(default_factory=dict)

    @property
    def model(self) -> LanguageModel:
        """The language model as published, loaded anew: training changes a model in place."""
        return LanguageModel.load(self.base)

    def run(self, collections: Sequence[str], parts: Sequence[str] = PARTS) -> None:
        """Do what is missing."""
        for name in collections:
            self.prepare(name)
        for part in parts:
            {
                "static": self.static,
                "language": self.language,
                "layers": self.layers,
                "minilm": self.minilm,
            }[part](collections)
        write_tables(self.out)

    def static(self, collections: Sequence[str]) -> None:
        """Measure static encoders."""
        for seed in range(self.seeds):
            for name in collections:
                for variant in VARIANTS:
                    self.tuned(name, "static", variant, seed)
                    self.untuned(name, "static", variant, "vocabulary")

    def language(self, collections: Sequence[str]) -> None:
        """Teach the whole language model, and measure bits per byte."""
        for name in (name for name in ADAPTED if name in collections):
            for variant in ("new", "none", "random"):
                self.adapt(name, variant)

    def layers(self, collections: Sequence[str]) -> None:
        """Measure encoders of two layers, of the adapted models where there are some."""
        for seed in range(self.seeds):
            for name in collections:
                for variant in VARIANTS:
                    self.tuned(name, "two", variant, seed)
                    if variant == "none":
                        self.untuned(name, "two", variant, "base")
                    else:
                        self.untuned(name, "two", variant, "vocabulary")
                        if name in ADAPTED:
                            self.untuned(name, "two", variant, "pretraining")

    def minilm(self, collections: Sequence[str]) -> None:
        """Measure a published encoder."""
        for seed in range(self.seeds):
            for name in collections:
                self.untuned(name, "minilm", "none", "base")
                self.tuned(name, "minilm", "none", seed)

    def prepare(self, name: str) -> None:
        """Write the data of a collection, choose its terms, and rank with words."""
        folder = self.out / name
        partial = folder / "data.partial"

        def write() -> None:
            shutil.rmtree(partial, ignore_errors=True)
            prepare(name, self.data, partial)
            partial.rename(folder / "data")

        self._step(folder / "data", write)
        self._step(
            folder / "vocabulary.json",
            lambda: choose_terms(self.model.tokenizer, folder / "data", folder, self.rows),
        )
        path = folder / "words.json"
        self._step(path, lambda: rankings.measure_words(*self.judged(name), path))

    def judged(self, name: str) -> tuple[Judged, Words]:
        """Return a collection and its rankings by words."""
        if name not in self._judged:
            found = read(name, self.out / name / "data")
            self._judged[name] = found, Words.of(found)
        return self._judged[name]

    def untuned(self, name: str, kind: str, variant: str, step: str) -> None:
        """Measure an encoder of the language model as it is after a step."""
        recipe, path = rankings.RECIPES[kind], self.out / name / f"{kind}.{variant}.{step}.json"

        def work() -> None:
            encoder = rankings.make_encoder(self._model(name, kind, variant, step), recipe)
            rankings.measure(encoder, *self.judged(name), project=recipe.whiten, path=path)

        self._step(path, work)

    def tuned(self, name: str, kind: str, variant: str, seed: int) -> None:
        """Tune an encoder and measure it."""
        recipe = rankings.RECIPES[kind]
        path = self.out / name / f"{kind}.{variant}.tuning.{seed}.json"

        def work() -> None:
            encoder = rankings.make_encoder(self._model(name, kind, variant, "pretraining"), recipe)
            judged, words = self.judged(name)
            folder = self.out / name / "tuning" / path.stem
            rankings.train_encoder(encoder, recipe, judged, folder, seed, self.steps)
            rankings.measure(encoder, judged, words, project=False, path=path)
            shutil.rmtree(folder)

        self._step(path, work)

    def adapt(self, name: str, variant: str) -> None:
        """Teach the whole language model a domain."""
        folder, out = self.out / name, self.out / name / f"adapted.{variant}"
        distilled = self.out / name / "adapted.new" / "language.json"

        def work() -> None:
            more = read_json(distilled)["distillation"]["tokens"] if variant == "none" else 0
            wiki = self.data / "wikitext-2" / "test.txt.gz"
            paths = folder / "data", folder, out, wiki
            adapt(self.model, variant, *paths, self.budget, more)
            (out / "done").touch()

        self._step(out / "done", work)

    def _model(self, name: str, kind: str, variant: str, step: str) -> LanguageModel | str:
        """Return the model that an encoder is made of.

        A static encoder reads nothing but the original rows, which no step changes, and the sums
        of them for new tokens.
        """
        if kind == "minilm":
            assert self.encoder is not None
            return self.encoder
        if kind == "static":
            if (name, variant) not in self._static:
                whole = grown(self.model, self.out / name, variant)
                self._static[name, variant] = first_layers(whole, 0)
            return self._static[name, variant]
        if step == "base":
            return self.model
        if name not in ADAPTED:
            return grown(self.model, self.out / name, variant)
        folder = self.out / name / f"adapted.{variant}"
        return LanguageModel.load(folder / ("distilled" if step == "vocabulary" else "model"))

    def _step(self, path: Path, work: Callable[[], None]) -> None:
        """Do a step, unless its file exists."""
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        wall, processor = time.time(), time.process_time()
        work()
        spent = f"{time.process_time() - processor:.0f} s of processor, {time.time() - wall:.0f} s"
        line = f"{time.strftime('%H:%M:%S')} {path.relative_to(self.out)}: {spent}\n"
        print(line, end="", flush=True)
        with (self.out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(line)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m smollm2", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the published collections")
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--collections", default=",".join(COLLECTIONS), help="comma-separated")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of tuning")
    parser.add_argument("--snippet-length", type=int, default=50, help="tokens, in distillation")
    parser.add_argument("--pretraining-steps", type=int, default=10, help="of 1,024 tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="100 new tokens and a few steps")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(chosen.threads)
    budget = Budget(snippet_length=chosen.snippet_length, steps=chosen.pretraining_steps)
    study = Study(chosen.data, chosen.out, seeds=chosen.seeds, budget=budget)
    if chosen.quick:
        study = replace(study, rows=100, budget=Budget(steps=2, characters=3000), steps=3, seeds=1)
    study.run(chosen.collections.split(","), chosen.parts.split(","))


if __name__ == "__main__":
    main()
