"""The new tokens of a collection: terms that save the most, and as many random ones."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from idiolect import LanguageModel, audit, extend
from idiolect.text.corpus import Corpus
from idiolect.text.files import write_atomic
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.terms import Term, Terms
from smollm2.judged import corpora

__all__ = ["VARIANTS", "choose_terms", "grown"]

VARIANTS = ("none", "new", "random")
"""Without new tokens, with chosen ones, with random ones."""
_GENERAL = 2000
"""Documents of general text to check that nothing else changes."""


def choose_terms(base: Tokenizer, data: Path, out: Path, rows: int) -> None:
    """Choose terms across the borders of words, verify them on held-out text, and save them.

    `vocabulary.json` gets the tokens before and after, and the documents that changed elsewhere.
    """
    training, held_out, whole = corpora(data)
    general = Corpus.from_texts(list(islice(whole, _GENERAL)))
    found = audit(base, training, general)
    chosen = found.choose(rows)
    larger = extend(base, chosen, domain=held_out, general=general)
    record = larger.extension
    assert record is not None
    added = Terms([Term(t.text.strip(), (t.text,)) for t in record.added], method=record.method)
    added.save(out / "new.json")
    names = [candidate.form for candidate in found.candidates]
    drawn = random.Random(0).sample(names, min(4 * rows, len(names)))
    at_random = extend(
        base,
        Terms([Term(name.strip(), (name,)) for name in drawn], method=record.method),
        domain=held_out,
        general=general,
        max_rows=len(added.forms),
    )
    control = at_random.extension
    assert control is not None
    forms = [Term(t.text.strip(), (t.text,)) for t in control.added]
    Terms(forms, method=control.method).save(out / "random.json")
    figures = {
        name: {
            "method": one.method,
            "added": len(one.added),
            "phrases": sum(len(token.text.split()) > 1 for token in one.added),
            "checks": {text: asdict(c) | {"saving": c.saving} for text, c in one.checks.items()},
            "refused": len(one.refused),
        }
        for name, one in (("new", record), ("random", control))
    }
    figures["new"]["examples"] = [token.text for token in record.added[:: max(1, rows // 40)]]
    write_atomic(out / "vocabulary.json", json.dumps(figures, ensure_ascii=False).encode())


def grown(base: LanguageModel, terms: Path, variant: str) -> LanguageModel:
    """Return the base with the tokens of a variant, which were verified when they were chosen."""
    return base if variant == "none" else extend(base, Terms.load(terms / f"{variant}.json"))
