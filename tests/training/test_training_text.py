"""Several corpora, replay and resume, for every objective through `pretrain`."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scipy import stats

from idiolect.errors import ConfigError, IdiolectError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.text.sentences import sentence_ends
from idiolect.training.data.mixed_rows import MixedRows
from idiolect.training.data.packed_documents import PackedDocuments
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.masked import Masked
from idiolect.training.optim import original_rows
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from idiolect.training.training_text import CorpusSampling, sampling_shares
from training import models
from training.test_encoder_decoder_objectives import SHAPES
from training.test_masked_objectives import pretraining_bert, xlm

TEXTS = ["\n".join(text.split(" ", 2)) for text in models.texts(40)]
PAIRS = [(a.split("\n")[0], b.split("\n")[0]) for a, b in zip(TEXTS, TEXTS[7:], strict=False)]
CONFIG = TrainingConfig(max_length=24, batch_size=4, learning_rate=1e-2, save_steps=3, seed=4)


def _model(name: str) -> LanguageModel:
    if name == "masked+next_sentence":
        return pretraining_bert()
    if name == "translation_masked":
        made = xlm()
        made.settings["lang2id"] = {"en": 0, "de": 1}
        return made
    if name in ("masked", "causal"):
        return models.model("bert" if name == "masked" else "llama", grown=False)
    kind = {"span_corruption": "t5", "denoising": "bart", "prefix": "t5"}[name]
    shape = {"model_type": kind, "dropout_rate": 0.0, "dropout": 0.0, **SHAPES[kind]}
    return LanguageModel.new(
        {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, **shape},
        models.tokenizer(grown=False),
    )


def _metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def _train(name: str, out: Path, *, steps: int = 6, **options: Any) -> dict[str, torch.Tensor]:
    corpus: Any = {"en-de": PAIRS} if name == "translation_masked" else TEXTS
    settings = {"train": "all", "config": CONFIG, **options}
    pretrain(
        _model(name),
        settings.pop("corpus", corpus),
        objective=name,
        output_dir=out,
        steps=steps,
        **settings,
    )
    lines = _metrics(out)
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    assert all(line["loss"] > 0 for line in lines)
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.parametrize(
    "name",
    ["masked+next_sentence", "translation_masked", "span_corruption", "denoising", "prefix"],
)
def test_objectives_resume_and_do_not_depend_on_accumulation(name: str, tmp_path: Path) -> None:
    whole = _train(name, tmp_path / "whole")
    # As after a kill between the steps 3 and 6.
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    for path in ("checkpoint-00000006", "model"):
        shutil.rmtree(tmp_path / "killed" / path)
    (tmp_path / "killed" / "published.json").unlink(missing_ok=True)
    resumed = _train(name, tmp_path / "killed")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    _train(
        name, tmp_path / "parts", config=TrainingConfig(**{**vars(CONFIG), "micro_batch_size": 1})
    )
    at_once, in_parts = (_metrics(tmp_path / folder) for folder in ("whole", "parts"))
    for key in ("loss", "gradient_norm"):
        assert in_parts[0][key] == pytest.approx(at_once[0][key], rel=2e-6)
    assert in_parts[-1]["loss"] == pytest.approx(at_once[-1]["loss"], rel=1e-3)


def test_original_rows_stay_and_added_tokens_train(tmp_path: Path) -> None:
    model = _model("denoising")
    before = {k: v.detach().clone() for k, v in original_rows(model.network).items()}
    model.tokenizer.settings.pop("mask_token")
    model.tokenizer.__dict__.pop("mask_token_id", None)
    del model.tokenizer.settings
    model.tokenizer.settings = {"eos_token": "</s>", "bos_token": "<s>"}
    trained = pretrain(
        model, TEXTS, objective="denoising", output_dir=tmp_path, steps=2, config=CONFIG
    )
    assert trained.tokenizer.mask_token_id == 40
    added = trained.network.tokens.weight.added
    assert len(added) == 1
    after = original_rows(trained.network)
    for name, rows in before.items():
        assert torch.equal(rows, after[name if name in after else f"{name}.original"])
    loaded = LanguageModel.load(tmp_path / "model")
    assert loaded.tokenizer.mask_token_id == 40


def test_shares_of_several_corpora() -> None:
    assert sampling_shares([900, 100], CorpusSampling(alpha=1)) == pytest.approx([0.9, 0.1])
    assert sampling_shares([900, 100], CorpusSampling(alpha=0)) == pytest.approx([0.5, 0.5])
    by_temperature = sampling_shares([900, 100], CorpusSampling(temperature=2))
    assert by_temperature == pytest.approx([0.75, 0.25])
    assert sampling_shares([9000, 100], CorpusSampling(alpha=1, cap=300)) == pytest.approx(
        [0.75, 0.25]
    )
    with pytest.raises(ConfigError, match="both set"):
        CorpusSampling(alpha=1, temperature=2)
    with pytest.raises(ConfigError, match="sampling_temperature is 0"):
        CorpusSampling(temperature=0)


def test_rows_are_drawn_in_these_shares_and_resume(tmp_path: Path) -> None:
    tokenizer = models.tokenizer(grown=False, template=True)
    sources = [
        PackedDocuments(
            TokenFile.write(tmp_path / code, TEXTS[start::2], tokenizer),
            Masked.template(tokenizer),
            length=20,
            rows=8,
            language=code,
        )
        for start, code in enumerate(("en", "de"))
    ]
    mixed = MixedRows(sources, [0.7, 0.3], rows=8, seed=1, documents=[20, 20])
    drawn: Counter[str] = Counter()
    for _ in range(60):
        state = mixed.state()
        rows = mixed.take()
        drawn.update(rows.languages)
        for (row, _, _), origin in zip(rows.texts(), rows.origins, strict=True):
            assert (origin.document >= 20) == (rows.languages[row] == "de")
    assert stats.chisquare([drawn["en"], drawn["de"]], [336, 144]).pvalue > 0.001
    mixed.restore(state)
    assert torch.equal(mixed.take().input_ids, rows.input_ids)


def test_languages_of_a_corpus_reach_the_network(tmp_path: Path) -> None:
    made = xlm()
    made.settings["lang2id"] = {"en": 0, "de": 1}
    corpus = {"en": TEXTS[::2], "de": TEXTS[1::2]}
    options: dict[str, Any] = {"steps": 2, "train": "all", "config": CONFIG}
    pretrain(made, corpus, objective="masked", output_dir=tmp_path / "a", **options)
    pretrain(
        made,
        corpus,
        objective="masked",
        output_dir=tmp_path / "b",
        replay={"en": TEXTS[5:15]},
        replay_share=0.3,
        validation={"de": TEXTS[:5]},
        sampling_alpha=0.7,
        **options,
    )
    assert "validation_loss" in (tmp_path / "b" / "metrics.jsonl").read_text()
    with pytest.raises(InputError, match="no id for the languages fr in lang2id"):
        pretrain(made, {"fr": TEXTS}, objective="masked", output_dir=tmp_path / "c", **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("denoising", {"corpus": [t.replace("\n", " ") for t in TEXTS]}, "has two sentences"),
        ("masked+next_sentence", {"corpus": ["w1 w2 w3 " * 30] * 3}, "has two sentences"),
        ("span_corruption", {"objective_settings": {"mask": 1}}, "has no setting 'mask'"),
        ("translation_masked", {"corpus": TEXTS}, "pair 1 is"),
        ("translation_masked", {"corpus": {"en": PAIRS}}, "'en' names no two languages"),
        ("span_corruption", {"config": {"max_length": 2}}, "too short for one span"),
        ("causal", {"corpus": {"en": TEXTS}, "sampling_cap": 0}, "sampling_cap is 0"),
        ("causal", {"corpus": {"en": TEXTS}, "replay": ["w1"]}, "the replayed text has 3 tokens"),
        (
            "masked",
            {"corpus": ["w1 w2 " * 30], "objective_settings": {"full_sentences": True}},
            "set .*full_sentences=false",
        ),
    ],
)
def test_bad_input_is_one_line(
    name: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(IdiolectError, match=message) as caught:
        _train(name, tmp_path / "run", **options)
    assert "\n" not in str(caught.value)


def test_sentences_end_at_punctuation_and_lines() -> None:
    def split(text: str) -> list[str]:
        edges = [0, *sentence_ends(text), len(text)]
        return [text[a:b].strip() for a, b in pairwise(edges)]

    assert split('He saw Dr. Who. "Really?" she said.') == [
        "He saw Dr. Who.",
        '"Really?" she said.',
    ]
    assert split("pH was 7.4 at ca. 3 h. See Fig. 2. Done!") == [
        "pH was 7.4 at ca. 3 h. See Fig. 2.",
        "Done!",
    ]
    assert split("all small. no capitals? none") == ["all small.", "no capitals?", "none"]
    assert split("A title\n\nIts text. More") == ["A title", "Its text.", "More"]
    assert split("一つ。二つ。") == ["一つ。", "二つ。"]
