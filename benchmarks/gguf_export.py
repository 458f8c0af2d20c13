"""Whether llama.cpp reads an exported model as we do: ids of texts, and a greedy continuation.

    pip install xllamacpp
    python benchmarks/gguf_export.py WIKITEXT.txt.gz [--rows 1000] [--precision f16]

SmolLM2 gets new tokens of the NumPy and SciPy API, added as merges, and is exported. Texts of the
API and lines of Wikipedia are tokenized by llama.cpp and by us.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idiolect import Corpus, Generator, LanguageModel, audit, extend
from idiolect.models.gguf.gguf_export import export_gguf
from idiolect.pipeline.demo.catalogue import Catalogue

TEXTS = 1000
PROMPT = "The capital of France is"


def post(address: str, route: str, body: dict[str, Any]) -> Any:
    """Send a request to llama.cpp's server."""
    request = urllib.request.Request(
        address + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def compare(address: str, model: LanguageModel, name: str, texts: Sequence[str]) -> None:
    """Print how many texts have the same ids, and how many of them hold a new token."""
    ours = model.tokenizer.encode_batch(texts, add_special_tokens=False)
    added = {token.id for token in model.extension.added} if model.extension else set()
    theirs = [
        post(address, "/tokenize", {"content": text, "add_special": False})["tokens"]
        for text in texts
    ]
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    new = sum(not added.isdisjoint(ids) for ids in ours)
    print(f"{name}: {same:,} of {len(texts):,} texts have the same ids; {new:,} hold new tokens")


def main() -> None:
    """Export, and compare."""
    import xllamacpp

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wikitext", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--precision", default="f16", choices=("f32", "f16", "q8_0"))
    chosen = parser.parse_args()
    texts = [entry.text for entry in Catalogue.read().entries.values()]
    base = LanguageModel.load("smollm2")
    terms = audit(base.tokenizer, Corpus.from_texts(texts)).choose(chosen.rows, method="merges")
    model = extend(base, terms, max_rows=chosen.rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        export_gguf(model, path, precision=chosen.precision)
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = 1024
        server = xllamacpp.Server(parameters)
        address = server.listening_address
        with gzip.open(chosen.wikitext, "rt", encoding="utf-8") as file:
            lines = [line for line in file.read().split("\n") if line.strip()]
        compare(address, model, "the API", texts[:TEXTS])
        compare(address, model, "Wikipedia", lines[:TEXTS])
        written = post(
            address, "/completion", {"prompt": PROMPT, "n_predict": 12, "temperature": 0}
        )
        (own,) = Generator(model).generate([PROMPT], max_new_tokens=12)
        print(f"llama.cpp writes {written['content']!r}, we write {own.text!r}")


if __name__ == "__main__":
    main()
