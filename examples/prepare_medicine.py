"""Prepare SumPubMed and SciFact for a run: abstracts to learn from, claims as queries.

    python examples/prepare_medicine.py DATA OUT

DATA holds `scifact/scifact.zip`, `sumpubmed/abstracts.jsonl.gz`, `openstax/text/*.txt.gz`, and, for
the two tasks, `scibert-tasks`: names of diseases in abstracts (NCBI-disease), and the purpose of
citations (SciCite). The catalogue is SciFact's 5,183 abstracts; the validation claims, which BEIR
calls the test, are the queries; the training claims are the pairs. SumPubMed is in lower case, so
all text is lowercased.
"""

from __future__ import annotations

import ast
import csv
import gzip
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from layout import EVERY, general, write

QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
MARKS = re.compile(
    r"<(?:dig|cit)>|\b(?:BACKGROUND|METHODS|RESULTS|CONCLUSIONS)\b"
    r"|(?:issue-)?copyright-statement© the author\S*(?: \d{4})?"
)


def table(data: Path, name: str) -> Iterator[dict[str, str]]:
    """Read a table of SciFact."""
    with zipfile.ZipFile(data / "scifact" / "scifact.zip") as archive, archive.open(name) as file:
        yield from csv.DictReader(io.TextIOWrapper(file, encoding="utf-8"))


def claims(data: Path, part: str) -> dict[str, tuple[str, list[str]]]:
    """Return each claim and the abstracts it cites; the table has a row per piece of evidence."""
    found: dict[str, tuple[str, list[str]]] = {}
    for row in table(data, f"claims_{part}.csv"):
        found[row["id"]] = (row["claim"].lower(), re.findall(r"\d+", row["cited_doc_ids"]))
    return found


def abstracts(data: Path) -> Iterator[dict[str, str]]:
    """Yield SciFact's abstracts; their sentences are a printed array of strings."""
    for row in table(data, "corpus_train.csv"):
        sentences = [ast.literal_eval(quoted) for quoted in QUOTED.findall(row["abstract"])]
        title = row["title"].strip()
        text = f"{title}\n{' '.join(sentences)}".lower()
        yield {"id": row["doc_id"], "title": title, "text": text}


def articles(data: Path) -> Iterator[str]:
    """Yield some of SumPubMed's abstracts, without placeholders for numbers."""
    with gzip.open(data / "sumpubmed" / "abstracts.jsonl.gz", "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number % EVERY == 0:
                yield " ".join(MARKS.sub(" ", json.loads(line)["abstract"]).split())


def tasks(data: Path, out: Path) -> None:
    """Write the training and test texts of both tasks."""
    folder = data / "scibert-tasks"
    for part in ("train", "test"):
        path = folder / "ner" / "NCBI-disease" / f"{part}.txt.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [line.split() for line in file]
        lines = (f"{row[0].lower()}\t{row[-1]}\n" if row else "\n" for row in rows)
        (out / f"diseases-{part}.conll").write_text("".join(lines), encoding="utf-8")
        path = folder / "text_classification" / "sci-cite" / f"{part}.txt.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            records = [json.loads(line) for line in file if line.strip()]
        labelled = ({"text": one["text"].lower(), "label": one["label"]} for one in records)
        write(out / f"citations-{part}.jsonl", labelled)


def main() -> None:
    """Write the files that idiolect.toml names."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    items = list(abstracts(data))
    write(out / "items.jsonl", items)
    texts = [item["text"] for item in items]
    write(out / "corpus.jsonl", ({"text": text} for text in (*articles(data), *texts)))
    write(out / "general.jsonl", general(data))
    test, train = claims(data, "validation"), claims(data, "train")
    write(out / "queries.jsonl", ({"id": name, "text": text} for name, (text, _) in test.items()))
    write(
        out / "pairs.jsonl",
        ({"query": text, "document_id": doc} for text, docs in train.values() for doc in docs),
    )
    rows = [f"{name}\t{doc}\t1\n" for name, (_, docs) in test.items() for doc in docs]
    (out / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    if (data / "scibert-tasks").is_dir():
        tasks(data, out)


if __name__ == "__main__":
    main()
