"""Published tokenizers, unpacked, and real text in many languages."""

from __future__ import annotations

import functools
import gzip
import json
import random
import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest

from idiolect.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCES = {
    "gpt2": "gpt2",
    "roberta": "roberta-base",
    "gpt-neox": "gpt-neox-20b",
    "whisper": "whisper-tiny",
    "t5": "t5-small",
    "bert": "bert-base-cased",
    "llama": "llama-2/tokenizer.model",
    "bpemb": "bpemb-en-100k/en.wiki.bpe.vs100000.model",
    "botchan": "sentencepiece-test/test_model.model",
    "japanese": "sentencepiece-test/test_ja_model.model",
    "cl100k": "tiktoken/cl100k_base.tiktoken",
    "gpt2-ranks": "tiktoken/gpt2.tiktoken",
}


@pytest.fixture(scope="session")
def published(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each published tokenizer by a short name: a directory, or a file."""
    root = tmp_path_factory.mktemp("published")
    for path in (shared / "data" / "tokenizers").rglob("*"):
        if path.is_file() and "llama.cpp" not in path.parts:
            target = root / path.relative_to(shared / "data" / "tokenizers")
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".gz":
                target.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            else:
                shutil.copyfile(path, target)
    return {name: root / source for name, source in SOURCES.items()}


@pytest.fixture(scope="session")
def loaded(published: dict[str, Path]) -> Callable[[str], Tokenizer]:
    """Load each published tokenizer once: they do not change."""
    return functools.cache(lambda name: Tokenizer.load(published[name]))


@pytest.fixture(scope="session")
def multilingual(shared: Path) -> list[str]:
    """Paragraphs of XQuAD in twelve languages, lines of the UDHR in some three hundred."""
    texts = []
    for path in sorted((shared / "data" / "xquad").glob("*.json.gz")):
        articles = json.loads(gzip.decompress(path.read_bytes()))["data"]
        texts += [articles[0]["paragraphs"][i]["context"] for i in range(3)]
    with zipfile.ZipFile(shared / "data" / "nltk-corpora" / "udhr2.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".txt"):
                texts += archive.read(name).decode().split("\n")[2:6]
    return texts


@pytest.fixture(scope="session")
def odd() -> list[str]:
    """Unusual white space, ligatures, joined emoji, control characters, in all orders."""
    rng = random.Random(0)
    parts = [" ", "  ", "\t", "\n", "\r\n", "\u3000", "\u00a0", "\u200b", "\0", "▁", "a", "hello"]
    parts += ["é", "e\u0301", "ﬁ", "日本", "𝕏", "👩‍👩‍👧", "12", "<un", "<0x41>", "'S", "'ſ"]
    texts = ["".join(rng.choices(parts, k=rng.randrange(8))) for _ in range(3000)]
    return texts + [" " * n + end for n in range(80) for end in ("", "x")]
