"""Compare audit and extension with the `tokenizers` library, on SumPubMed abstracts.

- Auditing and choosing 5,000 forms, compared with `train_new_from_iterator` for 5,000 entries.
- Encoding with the extended tokenizer, compared with the original one, and with `add_tokens` for
  the same terms or the same forms.
- Loading the extended tokenizer, compared with the original one.

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
ENCODING_MEGABYTES = 16.0
"""Size of the text for the encoding comparison."""


def choose(base: Tokenizer, texts: list[str]):
    return audit(base, Corpus.from_texts(texts)).choose(ROWS)


def peak(megabytes: float) -> None:
    """Print the peak memory of an audit; run in a separate process."""
    with tempfile.TemporaryDirectory() as name:
        base = Tokenizer.load(unpacked(Path(name), "gpt2/vocab.json", "gpt2/merges.txt"))
    texts = abstracts(megabytes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    choose(base, texts)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"peak memory of audit and choice: {after / 1e6:.2f} GB, of which {before / 1e6:.2f} GB "
        "before the audit"
    )


def main() -> None:
    megabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 100
    if sys.argv[2:] == ["peak"]:
        peak(megabytes)
        return
    # Run first, because a child process starts from its parent's peak memory.
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
        with_terms = tokenizers.Tokenizer.from_str(base.engine.to_str())
        with_terms.add_tokens([term.text for term in terms])
        with_forms = tokenizers.Tokenizer.from_str(base.engine.to_str())
        with_forms.add_tokens(terms.forms)
        texts_to_encode = abstracts(ENCODING_MEGABYTES)
        size = sum(len(text.encode()) for text in texts_to_encode) / 1e6
        engines = {
            "base": base.engine,
            "add_tokens": with_terms,
            "add_tokens, same forms": with_forms,
        }
        targets = {"base": 0.95, "add_tokens": 1.2, "add_tokens, same forms": 1.2}
        for other, engine in engines.items():
            pair = compare(
                lambda: larger.engine.encode_batch_fast(texts_to_encode),
                lambda engine=engine: engine.encode_batch_fast(texts_to_encode),
                pairs=9,
            )
            print(pair.line(f"encoding {size:.0f} MB / {other}", targets[other]))
        for label, engine in {"extended": larger.engine, **engines}.items():
            tokens = sum(map(len, engine.encode_batch_fast(texts_to_encode)))
            print(f"  {label:<24} {tokens:>10,} tokens")

        base.save(folder / "base")
        larger.save(folder / "larger")
        pair = compare(
            lambda: Tokenizer.load(folder / "larger"), lambda: Tokenizer.load(folder / "base")
        )
        print(pair.line("loading the extended tokenizer / base", 1 / 1.2))


if __name__ == "__main__":
    main()
