"""Compare initializations of new rows on a published model: random, subword, neighbours, distilled.

    python benchmarks/distillation.py [path to the shared data folder]

stories260K gets 500 terms of biomedical abstracts. Each of three seeds uses a different split of
the abstracts, initialization and training order. Bits per byte are measured on held-out abstracts,
and on children's stories, the original domain of the model.
"""

from __future__ import annotations

import copy
import importlib.util
import statistics
import sys
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

ROOT = Path(__file__).resolve().parents[1]
THREADS = 1  # more are not faster with such a small network
SEEDS = (0, 1, 2)
DOCUMENTS, ROWS, CONTEXTS = 6000, 500, 50
VARIANTS = ("before", "random", "subword mean", "neighbours", "distilled")


def run(
    base: LanguageModel, abstracts: list[str], general: list[str], seed: int
) -> dict[str, tuple[float, float]]:
    """Return bits per byte on domain and general text for each variant."""
    training, held_out = Corpus.from_texts(abstracts).split(0.1, seed=seed)
    held = windows(islice(held_out, 150), size=400)
    terms = audit(base.tokenizer, training).choose(ROWS)
    larger = extend(base.tokenizer, terms)
    models = {
        "before": base,
        "random": grow(base, larger, init="normal", seed=seed),
        "subword mean": grow(base, larger, init="subword"),
        "neighbours": grow(base, larger, init="neighbours", corpus=training),
    }
    student = models["distilled"] = copy.deepcopy(models["subword mean"])
    started = time.perf_counter()
    result = distill(
        student, base, training, contexts=CONTEXTS, config=distillation_config(student, seed=seed)
    )
    print(
        f"seed {seed}: {len(terms.forms)} rows, {result.snippets} snippets, {result.steps} steps "
        f"in {time.perf_counter() - started:.0f} s; error of hidden states "
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
    torch.set_num_threads(THREADS)
    shared = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared"
    with tempfile.TemporaryDirectory() as scratch:
        base = load(shared, Path(scratch))
        source = Corpus(shared / "data" / "sumpubmed" / "abstracts.jsonl.gz", "abstract")
        abstracts = list(islice(source, DOCUMENTS))
        stories = Corpus(shared / "data" / "tinystories" / "tinystories_sample.txt.gz")
        general = windows(islice(stories, 300), size=400)
        runs = [run(base, abstracts, general, seed) for seed in SEEDS]
    print(f"\n{'bits per byte':<16}{'domain, each seed':<26}{'mean':>7}{'general, mean':>15}")
    for variant in VARIANTS:
        domain = [one[variant][0] for one in runs]
        other = statistics.mean(one[variant][1] for one in runs)
        each = "  ".join(f"{bits:.3f}" for bits in domain)
        print(f"{variant:<16}{each:<26}{statistics.mean(domain):>7.3f}{other:>15.3f}")


if __name__ == "__main__":
    main()
