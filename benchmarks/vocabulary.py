"""Audit and extension side by side with the `tokenizers` library, on the abstracts of SumPubMed.

- Audit and choice of 5,000 forms against `train_new_from_iterator` for as many entries.
- Encoding with the extended tokenizer against its base, and against a tokenizer that was given the
  same terms by `add_tokens`: as the terms are written, and as the very same forms.
- Loading the extended tokenizer against its base.

Run from the repository root: python benchmarks/vocabulary.py [MEGABYTES]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import tokenizers
import transformers

from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.extend.extend import extend
from paired import compare
from text import abstracts, unpacked

ROWS = 5000
ENCODED = 16.0
"""Megabytes for the encoding part."""


def choose(base: Tokenizer, texts: list[str]):
    return audit(base, Corpus.from_texts(texts)).choose(ROWS)


def peak(megabytes: float) -> None:
    """Print the memory of an audit alone, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        base = Tokenizer.load(unpacked(Path(name), "gpt2/vocab.json", "gpt2/merges.txt"))
    texts = abstracts(megabytes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    choose(base, texts)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"peak memory of audit and choice: {after / 1e6:.2f} GB, {before / 1e6:.2f} GB of it text"
    )


def main() -> None:
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 100
    if sys.argv[2:] == ["peak"]:
        peak(megabytes)
        return
    # First, while this process is small: a child's peak begins at its parent's.
    subprocess.run([sys.executable, __file__, str(megabytes), "peak"], check=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = Tokenizer.load(unpacked(folder, "gpt2/vocab.json", "gpt2/merges.txt"))
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer.from_str(base.engine.to_str())
        )
        texts = abstracts(megabytes)
        print(f"{len(texts):,} documents, {sum(len(t.encode()) for t in texts) / 1e6:.1f} MB")

        def train() -> object:
            batches = (texts[i : i + 1000] for i in range(0, len(texts), 1000))
            return fast.train_new_from_iterator(batches, ROWS)

        pair = compare(lambda: choose(base, texts), train, pairs=3, warm=0)
        print(pair.line(f"audit, choose {ROWS:,} / train_new", 1.0))
        terms = choose(base, texts)
        larger = extend(base, terms, general=texts[:500])
        written = tokenizers.Tokenizer.from_str(base.engine.to_str())
        written.add_tokens([term.text for term in terms])
        forms = tokenizers.Tokenizer.from_str(base.engine.to_str())
        forms.add_tokens(terms.forms)
        some = abstracts(ENCODED)
        size = sum(len(text.encode()) for text in some) / 1e6
        engines = {"base": base.engine, "add_tokens": written, "add_tokens, same forms": forms}
        targets = {"base": 0.95, "add_tokens": 1.2, "add_tokens, same forms": 1.2}
        for other, engine in engines.items():
            pair = compare(
                lambda: larger.engine.encode_batch_fast(some),
                lambda engine=engine: engine.encode_batch_fast(some),
                pairs=9,
            )
            print(pair.line(f"encoding {size:.0f} MB / {other}", targets[other]))
        for label, engine in {"extended": larger.engine, **engines}.items():
            tokens = sum(map(len, engine.encode_batch_fast(some)))
            print(f"  {label:<24} {tokens:>10,} tokens")

        base.save(folder / "base")
        larger.save(folder / "larger")
        pair = compare(
            lambda: Tokenizer.load(folder / "larger"), lambda: Tokenizer.load(folder / "base")
        )
        print(pair.line("loading the extended tokenizer / base", 1 / 1.2))


if __name__ == "__main__":
    main()
