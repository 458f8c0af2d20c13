"""Prepare the training text of idiolect-base: OpenStax books and ELTeC novels, both CC BY 4.0.

    python text.py OPENSTAX ELTEC OUT

OPENSTAX holds one `BOOK.txt.gz` per book, with one paragraph per line and an empty line between
modules. ELTEC holds the novels, `*.xml.gz` in TEI. A document is a module of a book or a chapter of
a novel.

The output is OUT/train/{openstax,eltec}.jsonl and OUT/held-out/{openstax,eltec}.jsonl. One module
in fifty, chosen by a hash of its text, and three novels are held out. The two medical books are
excluded, so that medicine remains an unknown domain for the model.
"""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from idiolect import Corpus

EXCLUDED = {"anatomy-physiology", "microbiology"}
HELD_OUT_NOVELS = {"ENG18471_Bronte", "ENG19011_Jerome", "ENG19170_Conrad"}
BLOCKS = {"p", "head", "l", "quote"}


def modules(folder: Path) -> Iterator[str]:
    """Yield the modules of all books."""
    for path in sorted(folder.glob("*.txt.gz")):
        if path.name.removesuffix(".txt.gz") not in EXCLUDED:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                yield from (text.strip() for text in file.read().split("\n\n") if text.strip())


def chapters(path: Path) -> Iterator[str]:
    """Yield the chapters of a novel, one paragraph per line."""
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
    """Write documents as JSON lines and print their number and size."""
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
    training = [path for path in novels if path.name.removesuffix(".xml.gz") not in HELD_OUT_NOVELS]
    held_out_novels = [path for path in novels if path not in training]
    write(out / "train" / "eltec.jsonl", (text for path in training for text in chapters(path)))
    write(
        out / "held-out" / "eltec.jsonl",
        (text for path in held_out_novels for text in chapters(path)),
    )


if __name__ == "__main__":
    main()
