"""What `evaluate` measures beside rankings: bits per byte, and whether promises were kept."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping
from itertools import islice

from idiolect.pipeline.stage_metrics import Language, Promises, TokenCount
from idiolect.pipeline.stages import Work, load_model
from idiolect.text.corpus import Corpus
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.optim import original_rows
from idiolect.training.text_evaluation import compare, score, windows

__all__ = ["check_promises", "measure_language", "some_windows"]

_WINDOW = 1000


def measure_language(work: Work, systems: Mapping[str, str]) -> Language:
    """Measure bits per byte of every model that predicts the next token.

    Args:
        work: As always.
        systems: The names of the systems, and the step whose model each is.
    """
    base = load_model(work.base)
    result: Language = {
        "applicable": False,
        "note": "",
        "window": 0,
        "systems": {},
        "forgetting": None,
        "terms": None,
    }
    if base.network.decoder is None or base.network.encoder is not None:
        result["note"] = f"{base.family.title} reads both ways and predicts no next token"
        return result
    data, count = work.data, work.config.evaluate.windows
    domain = some_windows(data.corpus[1], count)
    general = some_windows(data.general[1], count) if data.general else []
    main = compare(
        base, load_model(str(work.done["adapt"] / "model")), domain=domain, general=general
    )
    result |= {
        "applicable": True,
        "window": main["window"],
        "forgetting": main.get("forgetting"),
        "terms": main.get("terms"),
    }
    texts = {"domain": domain, "general": general}
    cut = {name: windows(some, size=main["window"]) for name, some in texts.items() if some}
    for system, step in systems.items():
        if system in ("base", "pretraining"):
            side = "before" if system == "base" else "after"
            result["systems"][system] = {name: main[name][side]["bits_per_byte"] for name in cut}
        elif step.rpartition(".")[2] in ("extend", "distill", "adapt"):
            model = load_model(str(work.done[step] / "model"))
            result["systems"][system] = {
                name: score(model, some).bits_per_byte for name, some in cut.items()
            }
    return result


def some_windows(corpus: Corpus, count: int) -> list[str]:
    """Return windows of a corpus, few of each document, from documents drawn by their hashes.

    A corpus is often sorted: its first documents are all of one kind.
    """
    drawn = heapq.nsmallest(count, corpus, key=lambda text: hashlib.blake2b(text.encode()).digest())
    return list(
        islice((window for text in drawn for window in windows([text], size=_WINDOW)[:2]), count)
    )


def check_promises(work: Work, texts: Mapping[str, TokenCount]) -> Promises:
    """Check that the finished model has the base's rows, bit for bit, and sum up the re-reading."""
    base, final = (
        {name.removesuffix(".original"): rows for name, rows in original_rows(model).items()}
        for model in (
            load_model(work.base).network,
            load_model(str(work.done["tune"] / "model")).network,
        )
    )
    before = fingerprint(base)
    return {
        "original_rows": before,
        "original_rows_identical": fingerprint(final) == before,
        "documents_changed": sum(text["changed"] for text in texts.values()),
        "documents_checked": sum(text["documents"] for text in texts.values()),
    }
