"""The whole language model learns a domain: distillation, then pre-training with replay."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from idiolect import LanguageModel, TrainingConfig, distill, pretrain
from idiolect.nn.lora import LoraConfig
from idiolect.pipeline.language import some_windows
from idiolect.pipeline.training_summary import tokens_read
from idiolect.text.corpus import Corpus
from idiolect.text.files import read_json, write_atomic
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.optim import original_rows
from idiolect.training.text_evaluation import forgetting, score, term_use, windows
from idiolect.vocabulary.rows.distill import distillation_config
from smollm2.judged import corpora
from smollm2.vocabularies import grown

__all__ = ["Budget", "adapt"]

_LORA = LoraConfig(r=16, lora_alpha=32, target_modules=("query", "value"))
_LENGTH, _BATCH = 128, 8
_DOCUMENTS = 2000
"""Documents of the domain, of which pre-training reads a part."""
_REPLAY = 0.2
"""Share of general text in pre-training."""


@dataclass(frozen=True)
class Budget:
    """How much is read."""

    contexts: int = 1
    """Snippets for each new token, in distillation."""
    snippet_length: int = 50
    """Tokens of a snippet."""
    steps: int = 10
    """Steps of pre-training, of 1,024 tokens."""
    characters: int = 16_000
    """Characters of each text to measure bits per byte on, in windows of at most 1,000."""


def adapt(
    base: LanguageModel,
    variant: str,
    data: Path,
    terms: Path,
    out: Path,
    wiki: Path,
    budget: Budget,
    more: int = 0,
) -> None:
    """Adapt the base with the tokens of a variant, and measure it after each step; resumes.

    `out/distilled` and `out/model` are the models, `out/language.json` the figures.

    Args:
        base: The published model.
        variant: The tokens that are added first, of `VARIANTS`.
        data: The collection.
        terms: The folder of `choose_terms`.
        out: The folder for models and figures.
        wiki: WikiText-2's test part.
        budget: How much is read.
        more: Additional tokens of pre-training, in place of those that distillation reads.
    """
    corpus, held_out, general = corpora(data)
    texts = {
        "domain": _first(some_windows(held_out, budget.characters // 100), budget.characters),
        "general": _wikitext(wiki, budget.characters // 1000),
    }
    path = out / "language.json"
    figures = read_json(path) if path.exists() else {}

    def note(step: str, values: dict[str, Any]) -> None:
        figures[step] = values
        write_atomic(path, json.dumps(figures).encode())

    out.mkdir(parents=True, exist_ok=True)
    shuffled = sorted(corpus)
    random.Random(0).shuffle(shuffled)
    if variant == "none":
        # Training changes a model in place, and the base is compared with it afterwards.
        model = LanguageModel(
            deepcopy(base.network), base.tokenizer, base.settings, base.companions
        )
        if "base" not in figures:
            note("base", _bits(model, texts))
    else:
        model = grown(base, terms, variant)
        if "untrained" not in figures:
            note("untrained", _bits(model, texts))
        if not (out / "distilled").exists():
            note("distillation", _distill(model, base, shuffled, out, budget))
        model = LanguageModel.load(out / "distilled")
        if "vocabulary" not in figures:
            note("vocabulary", _bits(model, texts))
    if not (out / "model").exists():
        steps = budget.steps + round(more / (_LENGTH * _BATCH))
        _pretrain(model, shuffled[:_DOCUMENTS], general, out, steps)
    if "pretraining" not in figures:
        model = LanguageModel.load(out / "model")
        # Short windows: most must have no new token, which both models would read differently.
        short = windows(texts["general"], size=250)
        note(
            "pretraining",
            _bits(model, texts)
            | {"forgetting": asdict(forgetting(base, model, short))}
            | {"original_rows_identical": _rows_of(base) == _rows_of(model)},
        )


def _distill(
    model: LanguageModel, base: LanguageModel, texts: list[str], out: Path, budget: Budget
) -> dict[str, Any]:
    """Train the new rows, save the model in `out/distilled`, and return the figures."""
    folder = out / "distillation"
    config = replace(distillation_config(model), max_length=budget.snippet_length, save_steps=10)
    result = distill(model, base, texts, contexts=budget.contexts, config=config, output_dir=folder)
    values = asdict(result) | {"contexts": len(result.without), "tokens": tokens_read(folder)}
    (folder / "model").rename(out / "distilled")
    shutil.rmtree(folder)
    return values


def _pretrain(
    model: LanguageModel, texts: list[str], general: Corpus, out: Path, steps: int
) -> None:
    """Continue pre-training with LoRA and replay, and save the model in `out/model`."""
    folder = out / "pretraining"
    pretrain(
        model,
        Corpus.from_texts(texts),
        output_dir=folder,
        steps=steps,
        train="rows+lora",
        lora=_LORA,
        replay=general,
        replay_share=_REPLAY,
        config=TrainingConfig(
            max_length=_LENGTH, batch_size=_BATCH, learning_rate=1e-3, save_steps=10
        ),
    )
    (folder / "model").rename(out / "model")
    shutil.rmtree(folder)


def _rows_of(model: LanguageModel) -> str:
    """Hash the published rows of a model."""
    rows = original_rows(model.network).items()
    return fingerprint({name.removesuffix(".original"): row for name, row in rows})


def _first(texts: list[str], characters: int) -> list[str]:
    """Return texts until they have so many characters."""
    ends = accumulate(map(len, texts))
    return [text for text, end in zip(texts, ends, strict=True) if end <= characters]


def _wikitext(path: Path, count: int) -> list[str]:
    """Return windows spread over WikiText-2's test part, which no step reads."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        cut = windows([file.read()], size=1000)
    return cut[:: max(1, len(cut) // count)][:count]


def _bits(model: LanguageModel, texts: dict[str, list[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: asdict(one := score(model, some)) | {"bits_per_byte": one.bits_per_byte}
        for name, some in texts.items()
    }
    if (extension := model.extension) is not None:
        found["terms"] = asdict(term_use(model, texts["domain"], first_id=extension.size))
    return found
