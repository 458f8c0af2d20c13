"""The stages that make something: each reads what earlier ones left, and writes one folder.

What is notable: the controls are the same stages with another start. `Work.model` is what a stage
goes on with, the base itself or what an earlier step has made of it, and no stage knows which.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.tune import tune_on_text
from idiolect.models.language_model import LanguageModel
from idiolect.pipeline.data import Data
from idiolect.pipeline.settings import PipelineConfig
from idiolect.pipeline.stage_metrics import (
    AuditMetrics,
    BrokenTerm,
    ExtendMetrics,
    TextMetrics,
    TokenCount,
    TrainingMetrics,
)
from idiolect.text.hub import locate
from idiolect.text.tokenizers.extension import Check
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.objectives.objective_registry import default_objective
from idiolect.training.pretrain import pretrain
from idiolect.training.progress import ProgressCallback
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.audit.audit import Audit, TermGroup
from idiolect.vocabulary.audit.audit import audit as find_terms
from idiolect.vocabulary.audit.corpus_scan import CorpusStatistics
from idiolect.vocabulary.extend.extend import extend as extend_model
from idiolect.vocabulary.rows.distill import distill as teach_rows
from idiolect.vocabulary.rows.distill import distillation_plan
from idiolect.vocabulary.terms import Term, Terms, read_glossary

__all__ = [
    "SAVE_EVERY",
    "Stage",
    "Work",
    "adapt",
    "audit",
    "distill",
    "extend",
    "is_encoder",
    "load_encoder",
    "load_model",
    "summed_up",
]

_SHOWN = 60
_HEAD_RATE, _IMITATION_RATE = 3e-4, 1e-4
SAVE_EVERY = 100
"""Training steps between checkpoints."""


@dataclass(frozen=True)
class Work:
    """What a step is given."""

    config: PipelineConfig
    data: Data
    base: str
    """Where the base is, as `LanguageModel.load` takes it."""
    model: str
    """Where the model is that the step goes on with: the base, or a folder."""
    done: Mapping[str, Path]
    """The folders of the steps it comes after, by their names."""
    folder: Path
    """Where it writes. It may hold what an earlier process, killed in this step, had written."""
    tell: ProgressCallback
    """Is told how far it is."""


Stage = Callable[[Work], Mapping[str, Any]]
"""Does a step, and returns its metrics."""


def load_model(path: str) -> LanguageModel:
    """Load a model onto the best device there is."""
    import torch

    return LanguageModel.load(path, device="cuda" if torch.cuda.is_available() else "cpu")


def load_encoder(work: Work, path: str) -> Encoder:
    """Make an encoder of a model, which reads as the base does unless the configuration says so."""
    base, settings = Encoder.load(work.base), work.config.encoder
    return base.altered(
        model=load_model(path),
        pooling=settings.pooling or base.pooling,
        normalise=True,  # whatever is compared here is compared by angle
        length=settings.length or base.length,
    )


def is_encoder(base: str) -> bool:
    """Whether a model was published as an encoder, and its vectors can be used as they are."""
    return (locate(base, ("modules.json",)) / "modules.json").exists()


def audit(work: Work) -> AuditMetrics:
    """Find the terms that the base's tokenizer breaks, and choose; also as many at random."""
    settings, data = work.config.audit, work.data
    items = data.items  # read first: what cannot be used is told before any work
    data.check()
    corpus, _ = data.corpus
    general = data.general[0] if data.general else None
    glossary = read_glossary(data.glossary) if data.glossary else None
    found = find_terms(Tokenizer.load(work.base), corpus, general, glossary)
    terms = found.choose(settings.rows, phrases=settings.phrases)
    terms.save(work.folder / "terms.json")
    picked = _random_terms(found, len(terms.forms), work.config)
    picked.save(work.folder / "random.json")
    chosen = {form for term in terms for form in term.forms}
    return {
        "items": len(items),
        "tokenizer": found.tokenizer.kind,
        "vocabulary": len(found.tokenizer),
        "domain": _text(found.statistics),
        "general": _text(found.general) if found.general else None,
        "candidates": len(found.candidates),
        "terms": len(terms),
        "rows": len(terms.forms),
        "saved": sum(term.saved for term in terms),
        "broken": [_broken(found.tokenizer, group, chosen) for group in found.groups[:_SHOWN]],
        "skipped": dict(corpus.skipped),
    }


def extend(work: Work, *, terms: str = "terms.json") -> ExtendMetrics:
    """Add the terms to the base, and verify that nothing else changes.

    Args:
        work: As always.
        terms: Which of the audit's choices.
    """
    settings, data = work.config.extend, work.data
    _, held_out = data.corpus
    grown = extend_model(
        load_model(work.model),
        Terms.load(work.done["audit"] / terms),
        settings.method,
        domain=held_out,
        general=data.all_general,
        init=settings.init,
        seed=work.config.seed,
    )
    record = grown.extension
    assert record is not None
    grown.save(work.folder / "model")
    return {
        "method": record.method,
        "added": len(record.added),
        "refused": [asdict(one) for one in record.refused[:50]],
        "first_id": record.size,
        "texts": {name: _count(check) for name, check in record.checks.items()},
        "unverified": list(record.unverified),
        "notes": list(record.notes),
    }


def distill(work: Work) -> TrainingMetrics:
    """Teach the new rows what the pieces meant to the base."""
    settings = work.config.distill
    student = load_model(work.model)
    result = teach_rows(
        student,
        load_model(work.base),
        work.data.corpus[0],
        contexts=settings.contexts,
        passes=settings.passes,
        plan=distillation_plan(student, seed=work.config.seed),
        out=work.folder,
    )
    return {
        **summed_up(work.folder),
        "error_before": result.error_before,
        "error_after": result.error_after,
        "without_context": len(result.without),
    }


def adapt(work: Work) -> TrainingMetrics:
    """Go on with pre-training on the domain's text.

    A model without a language-model head, as encoders are often published, learns to give a text
    with its new tokens the vector that the base gives it with the old pieces. Without new tokens it
    would be its own teacher: there is nothing to learn, and the control stays the base. A model
    with a head that was not distilled is given as many tokens more as distillation reads, so that
    the control without new tokens has had the same budget.
    """
    settings, data = work.config.adapt, work.data
    encoder = load_encoder(work, work.model)
    model, network = encoder.model, encoder.model.network
    length = min(settings.length, network.config.max_positions or settings.length)
    has_head = "language" in network.heads
    plan = TrainingConfig(
        length=length,
        batch=settings.batch,
        learning_rate=settings.learning_rate or (_HEAD_RATE if has_head else _IMITATION_RATE),
        save_every=SAVE_EVERY,
        seed=work.config.seed,
    )
    corpus, _ = data.corpus
    if not has_head:
        if model.extension is None:
            encoder.save(work.folder / "model")
            return {
                "steps": 0,
                "tokens": 0,
                "loss_first": 0.0,
                "loss_last": 0.0,
                "train": settings.train,
                "objective": "imitation",
            }
        tune_on_text(
            encoder,
            corpus,
            out=work.folder,
            objective="imitate",
            teacher=load_encoder(work, work.base),
            steps=settings.steps,
            train=settings.train,
            plan=plan,
        )
        return {**summed_up(work.folder), "train": settings.train, "objective": "imitation"}
    more = sum(_tokens(folder) for name, folder in work.done.items() if name == "distill")
    steps = settings.steps
    if model.extension is None:
        steps += round(more / (length * settings.batch))
    objective = default_objective(network.kind)
    pretrain(
        model,
        corpus,
        out=work.folder,
        steps=steps,
        train=settings.train,
        objective=objective,
        replay=data.general[0] if data.general and settings.replay else None,
        replay_share=settings.replay,
        plan=plan,
    )
    return {**summed_up(work.folder), "train": settings.train, "objective": objective}


def _random_terms(found: Audit, rows: int, config: PipelineConfig) -> Terms:
    """Choose as many rows among the candidates, without regard to what they save."""
    forms = [
        candidate.form
        for candidate in found.candidates
        if config.audit.phrases or " " not in candidate.form.strip()
    ]
    picked = random.Random(config.seed).sample(forms, min(rows, len(forms)))
    return Terms(Term(form.strip(), (form,)) for form in picked)


def _text(statistics: CorpusStatistics) -> TextMetrics:
    return {
        "documents": statistics.documents,
        "words": statistics.words,
        "tokens": statistics.tokens,
        "bytes_per_token": statistics.bytes_per_token,
        "tokens_per_word": statistics.tokens_per_word,
        "unknown_share": statistics.unknown_share,
        "pieces": {str(pieces): count for pieces, count in sorted(statistics.pieces.items())},
    }


def _broken(tokenizer: Tokenizer, group: TermGroup, chosen: set[str]) -> BrokenTerm:
    best = group.candidates[0]
    pieces = tokenizer.decode_batch([[piece] for piece in best.pieces], skip_special_tokens=False)
    return {
        "term": group.term,
        "pieces": pieces,
        "count": group.count,
        "saved": group.saved,
        "chosen": any(candidate.form in chosen for candidate in group.candidates),
    }


def _count(check: Check) -> TokenCount:
    return {
        "documents": check.documents,
        "before": check.tokens_before,
        "after": check.tokens_after,
        "saved": check.saving,
        "changed": check.changed,
        "uses": check.uses,
    }


def summed_up(folder: Path) -> TrainingMetrics:
    """Sum up a finished training, and remove what only going on with it would need."""
    losses = [line["loss"] for line in _curve(folder)]
    tenth = max(1, len(losses) // 10)
    for path in (*folder.glob("checkpoint-*"), folder / "tokens"):
        shutil.rmtree(path, ignore_errors=True)
    return {
        "steps": len(losses),
        "tokens": _tokens(folder),
        "loss_first": fmean(losses[:tenth]),
        "loss_last": fmean(losses[-tenth:]),
    }


def _tokens(folder: Path) -> int:
    """Tokens a training has read."""
    return sum(line["tokens"] for line in _curve(folder))


def _curve(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
