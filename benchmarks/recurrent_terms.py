"""Domain words for an LSTM: trained on textbooks, extended by terms of medicine, trained on.

    python benchmarks/recurrent_terms.py OPENSTAX SUMPUBMED OUT

OPENSTAX holds `BOOK.txt.gz`, SUMPUBMED is `abstracts.jsonl.gz`. A byte-level BPE tokenizer and an
LSTM are trained on the books, without the two medical ones. An audit of abstracts chooses 300
terms. Both the model with them and the one without then train on the same abstracts, for as many
steps: the added rows and the body; the original rows stay. Bits per byte are of abstracts that
neither saw.
"""

from __future__ import annotations

import argparse
import gzip
import json
from itertools import islice
from pathlib import Path

import torch

from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedRows
from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers.bpe import train as train_tokenizer
from idiolect.training.pretrain import pretrain
from idiolect.training.text_evaluation import score, windows
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.extend.extend import extend

MEDICAL = {"anatomy-physiology", "microbiology"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("books", type=Path)
    parser.add_argument("abstracts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1500, help="steps on the books")
    parser.add_argument("--more-steps", type=int, default=300, help="steps on the abstracts")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--terms", type=int, default=300)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    books = []
    for path in sorted(arguments.books.glob("*.txt.gz")):
        if path.name.removesuffix(".txt.gz") not in MEDICAL:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                books += [text for text in file.read().split("\n\n") if text.strip()]
    with gzip.open(arguments.abstracts, "rt", encoding="utf-8") as file:
        abstracts = [json.loads(line)["abstract"] for line in islice(file, 6000)]
    held_out, abstracts = abstracts[:100], abstracts[100:]

    tokenizer = train_tokenizer(books[:3000], 4096)
    size = arguments.hidden_size
    shape = {"model_type": "lstm", "hidden_size": size, "num_layers": 1, "dropout": 0.1}
    base = LanguageModel.new(shape, tokenizer)
    config = TrainingConfig(max_length=64, batch_size=32, learning_rate=3e-3, max_grad_norm=0.25)
    base = pretrain(
        base,
        Corpus.from_texts(books),
        output_dir=arguments.out / "base",
        steps=arguments.steps,
        train="all",
        unfreeze_original_rows=True,
        config=config,
    )
    texts = windows(held_out)
    print(f"trained on textbooks: {score(base, texts).bits_per_byte:.3f} bits per byte", flush=True)
    terms = audit(tokenizer, abstracts, books[:1000]).choose(arguments.terms)
    larger = extend(base, terms)
    rows = larger.network.tokens.weight
    assert isinstance(rows, ExtendedRows)
    original = rows.original.detach().clone()
    saved = 1 - sum(map(len, larger.tokenizer.encode_batch(held_out))) / sum(
        map(len, tokenizer.encode_batch(held_out))
    )
    print(
        f"{len(larger.extension.added)} tokens added, {saved:.1%} fewer tokens; before training: "
        f"{score(larger, texts).bits_per_byte:.3f} bits per byte",
        flush=True,
    )
    for name, model in (("without new tokens", base), ("with new tokens", larger)):
        trained = pretrain(
            model,
            Corpus.from_texts(abstracts),
            output_dir=arguments.out / name.replace(" ", "-"),
            steps=arguments.more_steps,
            train="all",
            config=config,
        )
        bits = score(trained, texts).bits_per_byte
        print(f"trained on, {name}: {bits:.3f} bits per byte", flush=True)
    print(f"original rows identical: {torch.equal(rows.original, original)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
