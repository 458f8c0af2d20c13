"""The five collections: items, queries and judgements, training pairs, and text of the domain.

No training pair names an item that a test query should find, except in SciFact, whose published
split is like that. There, queries with such an item are reported apart from the others.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from idiolect.pipeline.demo.demo import write_demo
from idiolect.ranking.evaluation.judged_collection import read_documents, read_qrels, read_queries
from idiolect.text.corpus import Corpus
from idiolect.text.records import read_records
from idiolect.text.skipped import Skipped
from layout import general, write

__all__ = ["COLLECTIONS", "Judged", "prepare", "read"]

COLLECTIONS = ("demo", "scifact", "icecat", "cranfield", "liveqa")
_HELD_OUT = 0.1
_MAX_HELD_OUT = 200
_LEAKS = ("scifact",)
"""Collections whose published training pairs name items of the test."""
_GRADES = {"1-Incorrect": 0, "2-Related": 1, "3-Incomplete": 2, "4-Excellent": 3}


@dataclass(frozen=True)
class Judged:
    """A collection with its training pairs."""

    name: str
    items: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, float]]
    pairs: list[tuple[str, str]]
    """Queries for training, each with the text of its document."""
    held_out: dict[str, set[str]]
    """Queries kept out of training, to choose the weights of hybrid search, and their documents."""
    documents: dict[str, str]
    """Documents to answer those queries from: the items, and documents of pairs that are none."""
    seen: set[str] = field(repr=False)
    """Items that a training pair names."""

    @property
    def unseen_queries(self) -> set[str]:
        """Queries none of whose relevant items was in training."""
        return {
            query
            for query, grades in self.qrels.items()
            if not any(grade > 0 and item in self.seen for item, grade in grades.items())
        }


def prepare(name: str, data: Path, out: Path) -> None:
    """Write items, corpus, general, pairs, queries and qrels of a collection."""
    out.mkdir(parents=True, exist_ok=True)
    if name == "demo":
        write_demo(out, base="smollm2", settings="# only the data is used\n")
        for path in (out / "data").iterdir():
            path.rename(out / path.name)
    elif name in ("icecat", "scifact"):
        script = {"icecat": "prepare_icecat.py", "scifact": "prepare_medicine.py"}[name]
        path = Path(__file__).parents[1] / script
        subprocess.run([sys.executable, str(path), str(data), str(out)], check=True)
    else:
        {"cranfield": _cranfield, "liveqa": _liveqa}[name](data, out)
        write(out / "general.jsonl", general(data))


def read(name: str, folder: Path, *, seed: int = 0) -> Judged:
    """Read what `prepare` wrote, and keep the documents of some pairs out of training.

    Documents are held out, not pairs, so no held-out query has an answer that training has seen.
    """
    items = {str(row["id"]): str(row["text"]) for row in _rows(folder / "items.jsonl")}
    queries = read_queries(folder / "queries.jsonl")
    qrels = {
        query: {item: grade for item, grade in grades.items() if item in items}
        for query, grades in read_qrels(folder / "qrels.tsv").items()
    }
    qrels = {query: grades for query, grades in qrels.items() if max(grades.values(), default=0)}
    relevant = {item for grades in qrels.values() for item, grade in grades.items() if grade > 0}
    others = folder / "answers.jsonl"
    texts = items | (
        {str(r["id"]): str(r["text"]) for r in _rows(others)} if others.exists() else {}
    )
    tested = {_plain(queries[query]) for query in qrels}
    pairs = [
        (query, document)
        for row in _rows(folder / "pairs.jsonl")
        if _plain(query := str(row["query"])) not in tested
        and ((document := str(row["document_id"])) not in relevant or name in _LEAKS)
    ]
    contents = set(items.values())
    askable = sorted({document for query, document in pairs if query not in contents})
    count = min(_MAX_HELD_OUT, int(len(askable) * _HELD_OUT))
    chosen = set(random.Random(seed).sample(askable, count))
    held_out: dict[str, set[str]] = {}
    for query, document in pairs:
        if document in chosen and query not in contents:
            held_out.setdefault(query, set()).add(document)
    training = [pair for pair in pairs if pair[1] not in chosen and pair[0] not in held_out]
    return Judged(
        name=name,
        items=items,
        queries={query: queries[query] for query in qrels},
        qrels=qrels,
        pairs=[(query, texts[document]) for query, document in training],
        held_out=held_out,
        documents=items | {document: texts[document] for document in chosen},
        seen={document for _, document in training} & items.keys(),
    )


def corpora(folder: Path) -> tuple[Corpus, Corpus, Corpus]:
    """Return domain text to learn from, domain text held out of training, and general text."""
    training, held_out = Corpus(folder / "corpus.jsonl", "text").split(_HELD_OUT)
    return training, held_out, Corpus(folder / "general.jsonl", "text")


def _rows(path: Path) -> Iterator[dict[str, object]]:
    return read_records(path, Skipped(), max_unreadable=0)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _cranfield(data: Path, out: Path) -> None:
    """Titles are the queries of training; the judged queries are questions of engineers."""
    folder = data / "cranfield"
    texts = read_documents(folder / "cran.all.1400.xml.gz")
    bodies = {name: _without_repeat(text) for name, text in texts.items() if text.strip()}
    write(out / "items.jsonl", ({"id": n, "text": f"{t}\n{b}"} for n, (t, b) in bodies.items()))
    write(out / "corpus.jsonl", ({"text": f"{title}\n{body}"} for title, body in bodies.values()))
    write(
        out / "pairs.jsonl",
        ({"query": t, "document_id": n} for n, (t, body) in bodies.items() if t and body),
    )
    # Without the title, so that a title is no excerpt of its document in training.
    write(out / "answers.jsonl", ({"id": n, "text": b} for n, (_, b) in bodies.items() if b))
    # Queries are numbered by their position in the file, not by their <num>.
    topics = re.findall(r"<title>(.*?)</title>", (folder / "cran.qry.xml").read_text(), re.DOTALL)
    write(
        out / "queries.jsonl",
        ({"id": str(n), "text": " ".join(text.split())} for n, text in enumerate(topics, 1)),
    )
    lines = (line.split() for line in (folder / "cranqrel.trec.txt").read_text().splitlines())
    _write_qrels(out, ((query, item, max(0, int(grade))) for query, _, item, grade in lines))


def _without_repeat(text: str) -> tuple[str, str]:
    """Split a document into its title and the rest; the text repeats the title."""
    words = text.split()
    for size in range(len(words) // 2, 0, -1):
        if words[:size] == words[size : 2 * size]:
            return " ".join(words[:size]), " ".join(words[2 * size :])
    return "", " ".join(words)


def _liveqa(data: Path, out: Path) -> None:
    """The judged answers are the items; questions of MedQuAD about other pages are the pairs."""
    folder = data / "medquad"
    with zipfile.ZipFile(folder / "QA-TestSet-LiveQA-Med-Qrels-2479-Answers.zip") as archive:
        names = {Path(name).suffix: name for name in archive.namelist() if "__MACOSX" not in name}
        judged = archive.read(names[".txt"]).decode().splitlines()
        table = list(
            csv.DictReader(io.StringIO(archive.read(names[".csv"]).decode("utf-8", "replace")))
        )
    answers = {
        row["AnswerID"]: " ".join(row["Answer"].partition("Answer:")[2].split()).removesuffix(")")
        for row in table
    }
    pages = {_page(row["Answer"].partition("URL:")[2].split()[0]) for row in table}
    write(out / "items.jsonl", ({"id": n, "text": text} for n, text in answers.items() if text))
    rows: dict[str, str] = {}
    pairs = []
    with tarfile.open(folder / "medquad-xml.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".xml") else None
            if file is None:
                continue
            document = ElementTree.parse(file).getroot()
            if _page(document.attrib["url"]) in pages:
                continue
            for pair in document.iter("QAPair"):
                question = (pair.findtext("Question") or "").strip()
                answer = " ".join((pair.findtext("Answer") or "").split())
                if question and answer:
                    name = rows.setdefault(answer, f"medquad-{len(rows) + 1}")
                    pairs.append({"query": question, "document_id": name})
    write(out / "answers.jsonl", ({"id": name, "text": answer} for answer, name in rows.items()))
    write(out / "corpus.jsonl", ({"text": text} for text in (*answers.values(), *rows) if text))
    write(out / "pairs.jsonl", pairs)
    with gzip.open(folder / "TREC-2017-LiveQA-Medical-Test-Questions-w-summaries.xml.gz") as f:
        asked = ElementTree.parse(f).iter("NLM-QUESTION")
        queries = {
            one.attrib["qid"].removeprefix("TQ"): " ".join(
                (one.findtext("NLM-Summary") or "").split()
            )
            for one in asked
        }
    write(out / "queries.jsonl", ({"id": n, "text": t} for n, t in queries.items() if t))
    grades: dict[tuple[str, str], int] = {}
    for line in judged:
        query, grade, item = line.split()
        # Some answers were judged twice; the better grade counts.
        grades[query, item] = max(_GRADES[grade], grades.get((query, item), 0))
    _write_qrels(out, ((*pair, grade) for pair, grade in grades.items()))


def _page(url: str) -> str:
    return url.strip().partition("://")[2].removesuffix("/").casefold()


def _write_qrels(out: Path, rows: Iterable[tuple[str, str, int]]) -> None:
    lines = [f"{query}\t{item}\t{grade}\n" for query, item, grade in rows]
    (out / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
