"""Prepare Icecat's products and the judgements of Chorus for a run.

    python examples/prepare_icecat.py DATA OUT

DATA holds `icecat-chorus/` with the products (`products_*.json.zip`) and the graded judgements
(`Broad_Query_Set_rated.csv`). The catalogue is every judged product and one in five of the others.
The judged queries are needed for the test, so training pairs are made from products alone: two
random sequences of one to three words of a title, each with the product. General text is one in
four modules of `openstax/text/`.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layout import general, write

OTHERS = 5
"""One in this many unjudged products is in the catalogue."""
EXCERPTS = 2
"""Excerpts per title."""


def products(data: Path) -> Iterator[dict[str, Any]]:
    """Yield all products."""
    for path in sorted((data / "icecat-chorus").glob("products_*.json.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield from json.loads(archive.read(name))


def details(product: dict[str, Any]) -> str:
    """Return a product's description and attributes."""
    attributes = [
        f"{name.removeprefix('attr_t_').replace('_', ' ')}: {value}"
        for name, value in product.items()
        if name.startswith("attr_t_") and isinstance(value, str)
    ]
    return "\n".join([product.get("short_description") or "", *attributes]).strip()


def excerpts(title: str) -> list[str]:
    """Draw a few words of a title, as a user might search for it; seeded by the title."""
    rng, words = random.Random(title), title.split()
    drawn = []
    for _ in range(EXCERPTS):
        start = rng.randrange(len(words))
        drawn.append(" ".join(words[start : start + rng.randint(1, 3)]))
    return list(dict.fromkeys(drawn))


def qrels(data: Path) -> list[dict[str, str]]:
    """Read the relevance judgements: query, docid, rating."""
    path = data / "icecat-chorus" / "Broad_Query_Set_rated.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Write the files that idiolect.toml names."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    judged = qrels(data)
    wanted = {row["docid"] for row in judged}
    every = list(products(data))
    kept = [
        product
        for number, product in enumerate(every)
        if product["id"] in wanted or number % OTHERS == 0
    ]
    write(
        out / "items.jsonl",
        (
            {
                "id": product["id"],
                "title": product["title"],
                "text": f"{product['title']}\n{details(product)}",
                "metadata": {"supplier": product.get("supplier") or ""},
            }
            for product in kept
        ),
    )
    write(
        out / "corpus.jsonl",
        ({"text": f"{product['title']}\n{details(product)}"} for product in every),
    )
    write(out / "general.jsonl", general(data))
    write(
        out / "pairs.jsonl",
        (
            {"query": words, "document_id": product["id"]}
            for product in kept
            for words in excerpts(product["title"])
        ),
    )
    queries = sorted({row["query"] for row in judged})
    names = {query: f"q{number}" for number, query in enumerate(queries, start=1)}
    write(out / "queries.jsonl", ({"id": name, "text": query} for query, name in names.items()))
    rows = [f"{names[row['query']]}\t{row['docid']}\t{row['rating']}\n" for row in judged]
    (out / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))


if __name__ == "__main__":
    main()
