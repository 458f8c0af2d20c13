"""Published data sets of tasks, written in the files that `idiolect tasks` reads."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["CLASSIFY", "TAG", "draw", "joined", "lower", "write_set"]

DATA = Path(os.environ.get("IDIOLECT_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
Rows = list[dict[str, Any]]


def text_of(name: str, encoding: str = "utf-8") -> str:
    path = DATA / name
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode(encoding)


def labelled(name: str) -> Rows:
    """`label text` a line; some files are in Latin-1."""
    try:
        text = text_of(f"sentence-classification/{name}")
    except UnicodeDecodeError:
        text = text_of(f"sentence-classification/{name}", "latin-1")
    # Not `splitlines`: in Latin-1, some letters of these files are line ends to it.
    cells = (line.split(" ", 1) for line in text.split("\n") if line.strip())
    return [{"label": label, "text": rest} for label, rest in cells]


def scibert(name: str, split: str) -> Rows:
    text = text_of(f"scibert-tasks/text_classification/{name}/{split}.txt.gz")
    records = (json.loads(line) for line in text.splitlines() if line.strip())
    return [{"label": one["label"], "text": one["text"]} for one in records]


def tenth(rows: Rows) -> tuple[Rows, Rows]:
    random.Random(0).shuffle(rows)
    return rows[len(rows) // 10 :], rows[: len(rows) // 10]


def pubmedqa() -> tuple[Rows, Rows]:
    test = json.loads(text_of("pubmedqa/test_ground_truth.json"))
    sides: tuple[Rows, Rows] = ([], [])
    for id_, one in json.loads(text_of("pubmedqa/ori_pqal.json.gz")).items():
        row = {"text": one["QUESTION"], "context": " ".join(one["CONTEXTS"])}
        sides[id_ in test].append({**row, "label": one["final_decision"]})
    return sides


CLASSIFY: dict[str, Callable[[], tuple[Rows, Rows]]] = {
    "sst2": lambda: (labelled("stsa.binary.train.gz"), labelled("stsa.binary.test.gz")),
    "mr": lambda: tenth(labelled("rt-polarity.all.gz")),
    "subj": lambda: tenth(labelled("subj.all.gz")),
    "trec": lambda: (labelled("TREC.train.all.gz"), labelled("TREC.test.all")),
    "scicite": lambda: (scibert("sci-cite", "train"), scibert("sci-cite", "test")),
    "acl-arc": lambda: (scibert("citation_intent", "train"), scibert("citation_intent", "test")),
    "chemprot": lambda: (scibert("chemprot", "train"), scibert("chemprot", "test")),
    "pubmedqa": pubmedqa,
}
TAG = {
    "wnut17": ("wnut17/wnut17train.conll.gz", "wnut17/emerging.test.annotated.gz"),
    "ncbi-disease": tuple(f"scibert-tasks/ner/NCBI-disease/{s}.txt.gz" for s in ("train", "test")),
    "bc5cdr": tuple(f"scibert-tasks/ner/bc5cdr/{s}.txt.gz" for s in ("train", "test")),
}


def paragraphs(language: str, *, test: bool) -> Rows:
    """Return every fifth paragraph of XQuAD, or the others, which are translations of the same."""
    articles = json.loads(text_of(f"xquad/xquad.{language}.json.gz"))["data"]
    every = [paragraph for article in articles for paragraph in article["paragraphs"]]
    return [paragraph for i, paragraph in enumerate(every) if (i % 5 == 0) == test]


def write_set(name: str, folder: Path) -> tuple[str, str]:
    """Write `train` and `test` of a set; return its task and the ending of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in TAG:
        for side, source in zip(("train", "test"), TAG[name], strict=True):
            (folder / f"{side}.conll").write_text(text_of(source))
        return "tag", "conll"
    if name.startswith("xquad-"):
        tested = name.rpartition("-")[2]
        found = sorted(path.name.split(".")[1] for path in (DATA / "xquad").glob("xquad.*.gz"))
        trained = [one for one in found if one != tested] if "-to-" in name else [tested]
        for side, languages in (("train", trained), ("test", [tested])):
            own = [p for one in languages for p in paragraphs(one, test=side == "test")]
            (folder / f"{side}.json").write_text(json.dumps({"data": [{"paragraphs": own}]}))
        return "answer-span", "json"
    if name == "scitldr":
        for side in ("train", "test"):
            rows = map(json.loads, text_of(f"scitldr/SciTLDR-A/{side}.jsonl.gz").splitlines())
            pairs = ({"text": row["source"], "summary": row["target"]} for row in rows)
            write_rows(folder / f"{side}.jsonl", pairs)
        return "summarise", "jsonl"
    for side, rows in zip(("train", "test"), CLASSIFY[name](), strict=True):
        write_rows(folder / f"{side}.jsonl", rows)
    return "classify", "jsonl"


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def draw(path: Path, limit: int) -> Path:
    """Write texts of a training file drawn at random beside it; all of a shorter file.

    Of questions on passages, whole passages are drawn.
    """
    drawn = path.with_stem(f"{path.stem}-{limit}")
    if path.suffix == ".json":
        every = json.loads(path.read_text())["data"][0]["paragraphs"]
        random.Random(0).shuffle(every)
        before = itertools.accumulate((len(one["qas"]) for one in every), initial=0)
        own = [one for one, count in zip(every, before, strict=False) if count < limit]
        drawn.write_text(json.dumps({"data": [{"paragraphs": own}]}))
        return drawn
    apart, between = ("\n\n", r"\n\s*\n") if path.suffix == ".conll" else ("\n", "\n")
    texts = [text.strip() for text in re.split(between, path.read_text()) if text.strip()]
    chosen = random.Random(0).sample(texts, min(limit, len(texts)))
    drawn.write_text("".join(text + apart for text in chosen))
    return drawn


def lower(path: Path) -> Path:
    """Write a file of texts, tags or questions beside it, in lower case; labels stay."""
    lines = path.read_text().splitlines()
    if path.suffix == ".json":  # places of answers count characters
        found = json.loads(path.read_text())
        text = json.dumps(found, ensure_ascii=False)
        lines = ["".join(c.lower() if len(c.lower()) == 1 else c for c in text)]
    elif path.suffix == ".conll":
        words = (line.partition(" ") if " " in line else line.partition("\t") for line in lines)
        lines = [
            (word if word == "-DOCSTART-" else word.lower()) + gap + rest
            for word, gap, rest in words
        ]
    else:
        rows = map(json.loads, lines)
        texts = ("text", "context")
        lines = [json.dumps(row | {n: row[n].lower() for n in texts if n in row}) for row in rows]
    lowered = path.with_stem(f"{path.stem}-lower")
    lowered.write_text("".join(f"{line}\n" for line in lines))
    return lowered


def joined(path: Path) -> Path:
    """Write pairs as single texts beside them."""
    rows = map(json.loads, path.read_text().splitlines())
    out = path.with_stem(f"{path.stem}-joined")
    write_rows(out, ({**row, "text": f"{row['text']}\n{row['context']}"} for row in rows))
    return out
