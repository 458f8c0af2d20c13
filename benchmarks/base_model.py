"""Bits per byte of small models, next to another model and general-purpose compressors.

    python benchmarks/base_model.py TEXTS SHARED MODEL [MODEL…]

TEXTS is the output folder of assets/idiolect-base/text.py, SHARED the folder of data and models.
Each model reads the same windows of 1,000 characters after its start token. The compressors read
all windows as one stream, so they have a longer context. Lower is better.
"""

from __future__ import annotations

import gzip
import importlib.util
import lzma
import random
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from idiolect.models.language_model import LanguageModel
from idiolect.text.corpus import Corpus
from idiolect.training.text_evaluation import score, windows

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = 500  # windows a text


def sample(documents: Iterable[str]) -> list[str]:
    """Return a fixed sample of text windows, in order."""
    found = windows(documents, size=1000)
    chosen = sorted(random.Random(0).sample(range(len(found)), min(SAMPLE, len(found))))
    return [found[place] for place in chosen]


def compressors(texts: list[str]) -> dict[str, float]:
    """Return the bits per byte of compressors at their highest level."""
    data = "".join(texts).encode()
    zstd = pa.Codec("zstd", compression_level=19)
    sizes = {
        "gzip -9": len(gzip.compress(data, 9)),
        "zstd -19": len(zstd.compress(data, asbytes=True)),
        "xz -9e": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
    }
    return {name: 8 * size / len(data) for name, size in sizes.items()}


def stories(shared: Path, scratch: Path) -> LanguageModel:
    """Load the published model of 260K parameters, as the tests do."""
    spec = importlib.util.spec_from_file_location("stories", ROOT / "tests/models/stories.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: LanguageModel = module.load_stories(shared / "models" / "stories260k", scratch)
    return model


def main() -> None:
    texts, shared, *sources = map(Path, sys.argv[1:])
    wiki = shared / "data" / "wikitext-2"
    held = {
        "OpenStax, held out": Corpus(texts / "held-out" / "openstax.jsonl"),
        "ELTeC, held out": Corpus(texts / "held-out" / "eltec.jsonl"),
        "WikiText-2, valid": Corpus(wiki / "valid.txt.gz", per="file"),
        "WikiText-2, test": Corpus(wiki / "test.txt.gz", per="file"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        models = {str(source): LanguageModel.load(str(source)) for source in sources}
        models["stories260K"] = stories(shared, Path(scratch))
        table = Table(title=f"bits per byte, {SAMPLE} windows of 1,000 characters a text")
        table.add_column("text")
        rows = {}
        for name, corpus in held.items():
            chosen = sample(corpus)
            scores = {label: score(model, chosen) for label, model in models.items()}
            rows[name] = {label: one.bits_per_byte for label, one in scores.items()}
            rows[name] |= compressors(chosen)
    for label in next(iter(rows.values())):
        table.add_column(label, justify="right")
    for name, figures in rows.items():
        table.add_row(name, *(f"{figure:.3f}" for figure in figures.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
