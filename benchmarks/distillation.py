"""Compare initializations of new rows on a published model, before and after distillation.

    python benchmarks/distillation.py [path to the shared data folder] [--seeds 3]

stories260K gets 500 terms of biomedical abstracts. Each seed uses a different split of the
abstracts, initialization and training order. Bits per byte are measured on held-out abstracts, and
on children's stories, the original domain of the model. Rows are random, the mean of the sub-words,
mixed from neighbours (of contexts, or in skip-gram vectors of the abstracts), and distilled from
the last three of these starts.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import torch

from idiolect.models.language_model import LanguageModel
from idiolect.text.corpus import Corpus
from idiolect.training.text_evaluation import score, windows
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.rows.distill import distill, distillation_config
from idiolect.vocabulary.rows.grow import grow
from idiolect.vocabulary.rows.neighbours import word_rows
from idiolect.words.train_words import train_words

ROOT = Path(__file__).resolve().parents[1]
THREADS = 1  # more are not faster with such a small network
DOCUMENTS, ROWS, CONTEXTS = 6000, 500, 50
STARTS = ("subword mean", "neighbours", "word vectors")


def run(
    base: LanguageModel, abstracts: list[str], general: list[str], seed: int
) -> dict[str, tuple[float, float]]:
    """Return bits per byte on domain and general text for each variant."""
    training, held_out = Corpus.from_texts(abstracts).split(0.1, seed=seed)
    held = windows(islice(held_out, 150), size=400)
    terms = audit(base.tokenizer, training).choose(ROWS)
    larger = extend(base.tokenizer, terms)
    with tempfile.TemporaryDirectory() as folder:
        vectors = train_words(training, Path(folder) / "words.safetensors").vectors
    models = {
        "before": base,
        "random": grow(base, larger, init="normal", seed=seed),
        "subword mean": grow(base, larger, init="subword"),
        "neighbours": grow(base, larger, init="neighbours", corpus=training),
        "word vectors": grow(base, larger, init="vectors", vectors=vectors),
    }
    known = word_rows(larger, vectors).any(1)
    old = len(base.tokenizer)
    print(
        f"seed {seed}: {len(vectors):,} words have vectors, of the tokens {int(known[:old].sum())} "
        f"of {old} original and {int(known[old:].sum())} of {len(larger) - old} new ones"
    )
    for start in STARTS:
        student = models[f"{start}, distilled"] = copy.deepcopy(models[start])
        began = time.perf_counter()
        config = distillation_config(student, seed=seed)
        result = distill(student, base, training, contexts=CONTEXTS, config=config)
        print(
            f"seed {seed}, {start}: {len(terms.forms)} rows, {result.snippets} snippets, "
            f"{result.steps} steps in {time.perf_counter() - began:.0f} s; error of hidden states "
            f"{result.error_before:.3f} to {result.error_after:.3f}",
            flush=True,
        )
    return {
        variant: (score(model, held).bits_per_byte, score(model, general).bits_per_byte)
        for variant, model in models.items()
    }


def load(shared: Path, scratch: Path) -> LanguageModel:
    """Load the published files with the converter of the tests."""
    spec = importlib.util.spec_from_file_location("stories", ROOT / "tests/models/stories.py")
    assert spec is not None
    assert spec.loader is not None
    stories = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stories)
    model: LanguageModel = stories.load_stories(shared / "models" / "stories260k", scratch)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", nargs="?", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    shared = options.shared
    with tempfile.TemporaryDirectory() as scratch:
        base = load(shared, Path(scratch))
        source = Corpus(shared / "data" / "sumpubmed" / "abstracts.jsonl.gz", "abstract")
        abstracts = list(islice(source, DOCUMENTS))
        stories = Corpus(shared / "data" / "tinystories" / "tinystories_sample.txt.gz")
        general = windows(islice(stories, 300), size=400)
        runs = [run(base, abstracts, general, seed) for seed in range(options.seeds)]
    print(f"\n{'bits per byte':<26}{'domain, each seed':<26}{'mean':>7}{'general, mean':>15}")
    for variant in runs[0]:
        domain = [one[variant][0] for one in runs]
        other = statistics.mean(one[variant][1] for one in runs)
        each = "  ".join(f"{bits:.3f}" for bits in domain)
        print(f"{variant:<26}{each:<26}{statistics.mean(domain):>7.3f}{other:>15.3f}")


if __name__ == "__main__":
    main()
