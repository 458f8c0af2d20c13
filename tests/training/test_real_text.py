"""A published model goes on learning on real text of another kind. Run with -s to see figures."""

from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from idiolect.models.language_model import LanguageModel
from idiolect.text.corpus import Corpus
from idiolect.training.pretrain import pretrain
from idiolect.training.text_evaluation import compare
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.extend.extend import extend
from models.stories import load_stories

PLAN = TrainingConfig(max_length=256, batch_size=16, learning_rate=2e-3, save_steps=500)
STEPS = 400


def _stories(folder: Path, count: int) -> list[str]:
    with gzip.open(folder / "tinystories" / "tinystories_sample.txt.gz", "rt") as file:
        texts = file.read().split("<|endoftext|>")
    return [text.strip() for text in islice(texts, count) if text.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("train", ["rows", "rows+lora", "all"])
def test_continued_pretraining_lowers_bits_per_byte(
    shared: Path, tmp_path: Path, train: Any
) -> None:
    base = load_stories(shared / "models" / "stories260k", tmp_path / "base")
    abstracts = list(islice(Corpus(shared / "data" / "sumpubmed" / "abstracts.jsonl.gz"), 4000))
    learnt, held_out = abstracts[:-100], abstracts[-100:]
    stories = _stories(shared / "data", 700)
    terms = audit(base.tokenizer, learnt[:1000], stories).choose(400, phrases=False)
    grown = extend(base, terms, domain=learnt[1000:1100])
    before = _figures(base, grown, held_out, stories)
    trained = pretrain(
        grown,
        Corpus.from_texts(learnt),
        output_dir=tmp_path / "run",
        steps=STEPS,
        train=train,
        replay=Corpus.from_texts(stories[100:]),
        replay_share=0.1,
        config=PLAN,
    )
    after = _figures(base, trained, held_out, stories)
    for name in ("domain", "general"):
        published, rows = before[name]["before"], before[name]["after"]
        print(
            f"{train}: {name} bits per byte: published {published['bits_per_byte']:.3f}, "
            f"with new rows {rows['bits_per_byte']:.3f}, "
            f"after {STEPS} steps {after[name]['after']['bits_per_byte']:.3f}"
        )
    print(f"{train}: new terms {after['terms']}; forgetting {after.get('forgetting')}")
    assert after["domain"]["after"]["bits_per_byte"] < before["domain"]["after"]["bits_per_byte"]
    if train != "rows":
        assert (
            after["domain"]["after"]["bits_per_byte"] < before["domain"]["before"]["bits_per_byte"]
        )


def _figures(
    base: LanguageModel, model: LanguageModel, held_out: list[str], stories: list[str]
) -> dict[str, Any]:
    return compare(base, model, domain=held_out, general=stories[:100])
