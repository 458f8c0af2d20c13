"""Compare loading, encoding and training of tokenizers, on the abstracts of SumPubMed.

Run from the repository root: python benchmarks/text.py [MEGABYTES]
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from itertools import islice
from pathlib import Path

import sentencepiece
import tiktoken
import tokenizers
import transformers
from tiktoken_ext import openai_public

from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers import bpe
from idiolect.text.tokenizers.tiktoken import read_ranks
from idiolect.text.tokenizers.tokenizer import Tokenizer
from paired import compare

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PUBLISHED = SHARED / "tokenizers"
THREADS = 2


def unpacked(folder: Path, *names: str) -> Path:
    for name in names:
        data = gzip.decompress((PUBLISHED / f"{name}.gz").read_bytes())
        (folder / Path(name).name).write_bytes(data)
    return folder / Path(names[0]).name


def abstracts(megabytes: float) -> list[str]:
    texts, size = [], 0
    for text in Corpus(SHARED / "sumpubmed" / "abstracts.jsonl.gz", "abstract"):
        texts.append(text)
        size += len(text)
        if size > megabytes * 1e6:
            break
    return texts


def main() -> None:
    texts = abstracts(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
    size = sum(map(len, texts)) / 1e6
    print(f"{len(texts):,} documents, {size:.1f} MB, {THREADS} threads")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpacked(folder, "gpt2/vocab.json", "gpt2/merges.txt")
        saved = folder / "saved"
        Tokenizer.load(folder / "vocab.json").save(saved)
        ours = Tokenizer.load(saved)
        theirs = transformers.AutoTokenizer.from_pretrained(saved)
        pair = compare(
            lambda: Tokenizer.load(saved), lambda: transformers.AutoTokenizer.from_pretrained(saved)
        )
        print(pair.line("load GPT-2 / transformers", 1.0))
        pair = compare(lambda: ours.encode_batch(texts), lambda: theirs(texts), pairs=5)
        print(pair.line("encode GPT-2 / transformers", 1.0))

        ranks_file = unpacked(folder, "tiktoken/cl100k_base.tiktoken")
        ranks = read_ranks(ranks_file)
        openai_public.load_tiktoken_bpe = lambda *_, **__: ranks
        cl100k = tiktoken.Encoding(**openai_public.ENCODING_CONSTRUCTORS["cl100k_base"]())
        ours_cl100k = Tokenizer.load(ranks_file)
        pair = compare(
            lambda: ours_cl100k.encode_batch(texts),
            lambda: cl100k.encode_ordinary_batch(texts, num_threads=THREADS),
            pairs=5,
        )
        print(pair.line("encode cl100k / tiktoken", 1.0))

    llama = Tokenizer.load(PUBLISHED / "llama-2" / "tokenizer.model")
    pipeline = json.loads(llama.engine.to_str())
    pipeline["pre_tokenizer"] = None
    whole = Tokenizer.from_engine(tokenizers.Tokenizer.from_str(json.dumps(pipeline)))
    pair = compare(lambda: llama.encode_batch(texts), lambda: whole.encode_batch(texts), pairs=5)
    print(pair.line("encode Llama-2, cut into words / as published", 1.0))
    google = sentencepiece.SentencePieceProcessor(
        model_file=str(PUBLISHED / "llama-2" / "tokenizer.model")
    )
    pair = compare(
        lambda: llama.encode_batch(texts),
        lambda: google.encode(texts, num_threads=THREADS),
        pairs=5,
    )
    print(pair.line("encode Llama-2 / sentencepiece", 1.0))

    few = list(islice(texts, 3000))
    alphabet = bpe.train(few, 257)
    pair = compare(lambda: bpe.extend(alphabet, few, 5000), lambda: bpe.train(few, 5000), pairs=3)
    print(pair.line("train 4,743 merges / the library's trainer", 0.1))
    pair = compare(
        lambda: bpe.extend(ours, few, len(ours) + 4743),
        lambda: bpe.train(few, 5000),
        pairs=3,
    )
    print(pair.line("4,743 more merges for GPT-2 / the library from scratch", 0.1))


if __name__ == "__main__":
    main()
