"""SST-2, TREC-6 and NCBI-disease as labelled texts, from the published files.

    python benchmarks/prompt_data.py DATA texts

writes texts/{sst2,trec,ncbi}_{train,test}.jsonl. NCBI-disease is read as a question about each
sentence: does it name a disease? Its tags are those of the corpus.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from idiolect.prompting.prompt_template import PromptTemplate
from idiolect.tasks.classify.labelled_texts import LabelledText

TEMPLATES = {
    "sst2": PromptTemplate(
        "", "Review: {text}\nSentiment:", {"0": "negative", "1": "positive"}, "\n\n"
    ),
    "trec": PromptTemplate(
        "",
        "Question: {text}\nAnswer type:",
        {
            "0": "description",
            "1": "entity",
            "2": "abbreviation",
            "3": "person",
            "4": "location",
            "5": "number",
        },
    ),
    "ncbi": PromptTemplate(
        "", "Sentence: {text}\nDoes it name a disease?", {"0": "no", "1": "yes"}
    ),
}


def read(data: Path, name: str, part: str) -> list[LabelledText]:
    """Return the training or test part of a collection, each text once, in random order."""
    found = list({one.text: one for one in _read(data, name, part)}.values())
    order = np.random.default_rng(0).permutation(len(found))
    return [found[int(number)] for number in order]


def _read(data: Path, name: str, part: str) -> Iterator[LabelledText]:
    if name == "ncbi":
        yield from _sentences(data / "scibert-tasks/ner/NCBI-disease" / f"{part}.txt.gz")
        return
    folder = data / "sentence-classification"
    if name == "sst2":
        path = folder / f"stsa.binary.{part}.gz"
    else:
        path = folder / ("TREC.train.all.gz" if part == "train" else "TREC.test.all")
    for line in _lines(path):
        label, _, text = line.strip().partition(" ")
        yield LabelledText(text, label)


def _lines(path: Path) -> Iterator[str]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    # Not `splitlines`: some letters of Latin-1 are line ends to it.
    yield from (line for line in content.decode("latin-1").split("\n") if line.strip())


def _sentences(path: Path) -> Iterator[LabelledText]:
    words: list[str] = []
    tags: list[str] = []
    for line in [*gzip.decompress(path.read_bytes()).decode().splitlines(), ""]:
        if line.strip() and not line.startswith("-DOCSTART"):
            columns = line.split()
            words.append(columns[0])
            tags.append(columns[-1])
        elif words:
            yield LabelledText(" ".join(words), str(int(any(tag != "O" for tag in tags))))
            words, tags = [], []


def main() -> None:
    data, out = map(Path, sys.argv[1:3])
    out.mkdir(parents=True, exist_ok=True)
    for name in TEMPLATES:
        for part in ("train", "test"):
            texts = read(data, name, part)
            lines = (json.dumps({"text": one.text, "label": one.label}) for one in texts)
            (out / f"{name}_{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(f"{name} {part}: {len(texts):,} texts")


if __name__ == "__main__":
    main()
