"""Prepare the text idiolect-base is trained on: OpenStax books and ELTeC novels, both CC BY 4.0.

    python text.py OPENSTAX ELTEC OUT

OPENSTAX holds one `BOOK.txt.gz` a book, a paragraph a line and an empty line between modules; ELTEC
holds the novels, `*.xml.gz` in TEI. A document is a module of a book or a chapter of a novel.

Written are OUT/train/{openstax,eltec}.jsonl and OUT/held-out/{openstax,eltec}.jsonl: one module in
fifty, by a hash of its text, and every chapter of three novels are held out. The two medical books
are left out altogether, so that medicine stays a domain the model has not met.
"""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from idiolect import Corpus

LEFT_OUT = {"anatomy-physiology", "microbiology"}
HELD_OUT_NOVELS = {"ENG18471_Bronte", "ENG19011_Jerome", "ENG19170_Conrad"}
BLOCKS = {"p", "head", "l", "quote"}


def modules(folder: Path) -> Iterator[str]:
    """Yield the modules of all books."""
    for path in sorted(folder.glob("*.txt.gz")):
        if path.name.removesuffix(".txt.gz") not in LEFT_OUT:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                yield from (text.strip() for text in file.read().split("\n\n") if text.strip())


def chapters(path: Path) -> Iterator[str]:
    """Yield the chapters of a novel, a line a paragraph."""
    with gzip.open(path) as file:
        body = ElementTree.parse(file).getroot().find(".//{*}body")
    if body is None:
        return
    for part in body.iter():
        blocks = [child for child in part if child.tag.rpartition("}")[2] in BLOCKS]
        lines = (" ".join("".join(block.itertext()).split()) for block in blocks)
        text = "\n".join(line for line in lines if line)
        if part.tag.endswith("}div") and len(text) > 200:
            yield text


def write(path: Path, texts: Iterator[str] | Corpus) -> None:
    """Write documents as lines of JSON and say how much that is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = size = 0
    with path.open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            count, size = count + 1, size + len(text.encode())
    print(f"{path}: {count:,} documents, {size / 1e6:.1f} MB")


def main() -> None:
    """Read both collections and write the four files."""
    openstax, eltec, out = map(Path, sys.argv[1:4])
    train, held_out = Corpus.from_texts(list(modules(openstax))).split(0.02)
    write(out / "train" / "openstax.jsonl", train)
    write(out / "held-out" / "openstax.jsonl", held_out)
    novels = sorted(eltec.glob("*.xml.gz"))
    kept = [path for path in novels if path.name.removesuffix(".xml.gz") not in HELD_OUT_NOVELS]
    apart = [path for path in novels if path not in kept]
    write(out / "train" / "eltec.jsonl", (text for path in kept for text in chapters(path)))
    write(out / "held-out" / "eltec.jsonl", (text for path in apart for text in chapters(path)))


if __name__ == "__main__":
    main()
