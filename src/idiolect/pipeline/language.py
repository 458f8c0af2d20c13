"""Evaluate language modeling (bits per byte), and verify the library's guarantees."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Mapping
from itertools import islice
from typing import Any, TypedDict

from idiolect.models.language_model import LanguageModel
from idiolect.pipeline.stage import Work
from idiolect.pipeline.stage_models import load_model
from idiolect.pipeline.stages.extend_stage import TokenCount
from idiolect.text.corpus import Corpus
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.optim import original_rows
from idiolect.training.text_evaluation import compare, score, windows

__all__ = ["Language", "Promises", "check_promises", "measure_language", "some_windows"]

_WINDOW = 1000


class Language(TypedDict):
    """Bits per byte, on held-out documents."""

    applicable: bool
    """False for models that do not predict the next token."""
    note: str
    window: int
    """Characters per window."""
    systems: dict[str, dict[str, float]]
    """By the system's name (base, vocabulary, pretraining, plain.pretraining, random.pretraining,
    untrained): `domain` and, if there is general text, `general`."""
    forgetting: dict[str, Any] | None
    """Change from base to pretraining on general text without new terms: KL divergence in bits per
    token, and `same_first`, the share of equal top predictions."""
    terms: dict[str, Any] | None
    """How often new tokens are ranked first where they occur; see `TermUse` of
    `training.text_evaluation`."""


class Promises(TypedDict):
    """Whether the guarantees of the library hold."""

    original_rows: str
    """Hash of the base's embedding and head rows."""
    original_rows_identical: bool
    """Whether the finished model has the same rows."""
    documents_changed: int
    """Documents that are tokenized differently apart from the new terms, in all text checked."""
    documents_checked: int


def measure_language(work: Work[Any], windows_per_text: int) -> Language:
    """Measure bits per byte of every model that predicts the next token.

    Args:
        work: The input of the stage; its systems that predict the next token are measured.
        windows_per_text: Number of windows of domain text, and of general text.
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
    if base.network.kind != "causal":
        result["note"] = f"{base.family.title} is bidirectional and does not predict the next token"
        return result
    data = work.data
    domain = some_windows(data.corpus[1], windows_per_text)
    general = some_windows(data.general[1], windows_per_text) if data.general else []
    pretrained = load_model(work.done["pretrain"] / "model")
    main = compare(base, pretrained, domain=domain, general=general)
    result |= {
        "applicable": True,
        "window": main["window"],
        "forgetting": main.get("forgetting"),
        "terms": main.get("terms"),
    }
    texts = {"domain": domain, "general": general}
    cut = {name: windows(some, size=main["window"]) for name, some in texts.items() if some}
    for system in work.systems:
        if system.name in ("base", "pretraining"):
            side = "before" if system.name == "base" else "after"
            bits = {name: main[name][side]["bits_per_byte"] for name in cut}
        elif system.predicts:
            model = load_model(work.done[system.stage] / "model")
            bits = {name: score(model, some).bits_per_byte for name, some in cut.items()}
        else:
            continue
        result["systems"][system.name] = bits
    return result


def some_windows(corpus: Corpus, count: int) -> list[str]:
    """Return windows of a corpus, at most two of each document, in the order of their hashes.

    A corpus is often sorted, so its first documents are not representative.
    """
    drawn = heapq.nsmallest(count, corpus, key=lambda text: hashlib.blake2b(text.encode()).digest())
    return list(
        islice((window for text in drawn for window in windows([text], size=_WINDOW)[:2]), count)
    )


def _rows_of(model: LanguageModel) -> str:
    """Return a hash of a model's original rows."""
    rows = original_rows(model.network).items()
    return fingerprint({name.removesuffix(".original"): row for name, row in rows})


def check_promises(work: Work[Any], texts: Mapping[str, TokenCount]) -> Promises:
    """Check that trained models have the base's rows, bit for bit, and sum up the token checks.

    An encoder without layers is skipped: its table is a copy of the rows, meant to be trained.
    """
    before = _rows_of(load_model(work.base))
    trained = (load_model(work.done[stage] / "model") for stage in ("pretrain", "tune"))
    return {
        "original_rows": before,
        "original_rows_identical": all(
            _rows_of(model) == before for model in trained if not model.network.context_free
        ),
        "documents_changed": sum(text["changed"] for text in texts.values()),
        "documents_checked": sum(text["documents"] for text in texts.values()),
    }
