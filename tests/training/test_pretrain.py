"""`pretrain`: only the chosen parts change, bit for bit, and its other guarantees."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from idiolect.errors import ConfigError, InputError, MissingDependencyError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.lora import LoraConfig
from idiolect.text.corpus import Corpus
from idiolect.training import progress
from idiolect.training.optim import row_rate
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from training import models

PLAN = TrainingConfig(
    max_length=32, batch_size=2, learning_rate=1e-2, weight_decay=0.1, save_steps=1000
)
MODES = ("rows", "rows+lora", "body", "all")


def _corpus(count: int = 60) -> Corpus:
    return Corpus.from_texts(models.texts(count))


def _prints(model: LanguageModel) -> dict[str, str]:
    return {name: models.fingerprint(p) for name, p in model.network.named_parameters()}


def _kind(name: str, rows: set[str]) -> str:
    if name.removesuffix(".original") in rows:
        return "original"
    return "added" if name.removesuffix(".added") in rows else "body"


@pytest.mark.parametrize(
    ("steps", "train", "tied"),
    [
        *((50, train, tied) for train, tied in itertools.product(MODES, (True, False))),
        *(
            pytest.param(500, train, tied, marks=pytest.mark.slow)
            for train, tied in itertools.product(MODES, (True, False))
        ),
    ],
)
def test_training_changes_only_the_chosen_parts(
    tmp_path: Path, steps: int, train: Any, tied: bool
) -> None:
    model = models.model("llama", tie_word_embeddings=tied)
    before, rows = _prints(model), set(model.network.vocabulary_rows())
    assert len(rows) == (1 if tied else 2)
    pretrain(model, _corpus(), output_dir=tmp_path / "run", steps=steps, train=train, config=PLAN)
    after = _prints(model)
    assert before.keys() == after.keys(), "adapters are folded in at the end"
    moved = {_kind(name, rows) for name in before if before[name] != after[name]}
    assert (
        moved
        == {
            "rows": {"added"},
            "rows+lora": {"added", "body"},
            "body": {"body"},
            "all": {"added", "body"},
        }[train]
    )
    # The file, as transformers reads it, holds the published rows bit for bit.
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    original = models.model("llama", tie_word_embeddings=tied).network.vocabulary_rows()
    for matrix, published in zip(
        (theirs.get_input_embeddings().weight, theirs.get_output_embeddings().weight),
        (original["tokens.weight"], original.get("heads.language.weight")),
        strict=True,
    ):
        if published is not None:
            assert isinstance(published, ExtendedRows)
            assert torch.equal(matrix[: len(models.OLD)], published.original)


@pytest.mark.parametrize("train", ["rows", "all"])
def test_masked_rows_and_their_biases(tmp_path: Path, train: Any) -> None:
    model = models.model("bert")
    before = _prints(model)
    pretrain(
        model,
        _corpus(),
        output_dir=tmp_path,
        steps=60,
        train=train,
        objective="masked",
        config=PLAN,
    )
    after = _prints(model)
    moved = {name for name in before if before[name] != after[name]}
    rows = {"tokens.weight.added", "heads.language.bias.added"}
    assert rows <= moved
    assert not {name for name in moved if name.endswith(".original")}
    assert (moved == rows) == (train == "rows")


def test_a_vocabulary_that_has_not_grown_is_frozen_as_well(tmp_path: Path) -> None:
    model = models.model(grown=False)
    before = _prints(model)
    pretrain(model, _corpus(), output_dir=tmp_path / "1", steps=20, train="all", config=PLAN)
    after = _prints(model)
    assert before["tokens.weight"] == after["tokens.weight"]
    assert before != after
    with pytest.raises(InputError, match="no added rows"):
        pretrain(model, _corpus(), output_dir=tmp_path / "2", steps=20, train="rows", config=PLAN)


def test_original_rows_move_only_when_they_are_unfrozen(tmp_path: Path) -> None:
    model = models.model()
    before = _prints(model)
    pretrain(
        model,
        _corpus(),
        output_dir=tmp_path,
        steps=20,
        train="rows",
        config=PLAN,
        unfreeze_original_rows=True,
    )
    after = _prints(model)
    moved = {name for name in before if before[name] != after[name]}
    assert moved == {"tokens.weight.original", "tokens.weight.added"}


def test_new_rows_do_not_change_old_text(tmp_path: Path) -> None:
    """Before any adapter or body is trained, old ids read and score bit for bit as published."""
    published = models.model(grown=False).network
    trained = pretrain(
        models.model(), _corpus(), output_dir=tmp_path, steps=20, config=PLAN
    ).network
    ids = torch.arange(4, len(models.OLD)).view(2, -1)
    with torch.no_grad():
        assert torch.equal(trained(ids).logits[..., : len(models.OLD)], published(ids).logits)


def test_the_loss_falls_and_is_reported(tmp_path: Path) -> None:
    model = models.model()
    pretrain(model, _corpus(), output_dir=tmp_path, steps=300, train="all", config=PLAN)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 300
    first = sum(line["bits_per_byte"] for line in lines[:10]) / 10
    last = sum(line["bits_per_byte"] for line in lines[-10:]) / 10
    assert last < 0.7 * first
    assert set(lines[0]) == {
        "step",
        "loss",
        "learning_rate",
        "gradient_norm",
        "tokens",
        "tokens_per_second",
        "bits_per_byte",
    }
    assert not model.network.training


def test_micro_batches_do_not_change_the_result(tmp_path: Path) -> None:
    """The same steps in other micro-batches: equal up to the rounding of sums."""
    results = []
    for size in (None, 1, 3):
        model = models.model()
        plan = TrainingConfig(
            max_length=32, batch_size=4, learning_rate=1e-2, micro_batch_size=size
        )
        pretrain(
            model, _corpus(), output_dir=tmp_path / str(size), steps=10, train="all", config=plan
        )
        results.append(torch.cat([p.detach().flatten() for p in model.network.parameters()]))
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, rtol=1e-4, atol=1e-5)


def test_replay_is_in_the_tokens(tmp_path: Path) -> None:
    general = Corpus.from_texts(["w35 w35 w35 w35 w35 w35"])
    pretrain(
        models.model(),
        _corpus(),
        output_dir=tmp_path,
        steps=1,
        replay=general,
        replay_share=0.25,
        config=PLAN,
    )
    ids = (tmp_path / "tokens" / "ids.bin").read_bytes()
    share = ids.count((39).to_bytes(4, "little")) * 4 / len(ids)
    assert 0.15 < share < 0.35


def test_adapters_are_saved_for_peft(tmp_path: Path) -> None:
    import peft

    base = tmp_path / "base"
    models.model().save(base)
    model = models.model()
    pretrain(
        model,
        _corpus(),
        output_dir=tmp_path / "run",
        steps=20,
        train="rows+lora",
        config=PLAN,
        lora=LoraConfig(r=4, target_modules=("query", "up")),
    )
    # Their base gets the trained rows; the adapter is the rest of the difference.
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    trained = model.network.tokens.weight
    assert isinstance(trained, ExtendedRows)
    with torch.no_grad():
        theirs.get_input_embeddings().weight.copy_(trained.joined())
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "run" / "adapter").eval()
    ids = torch.arange(4, 45).view(1, -1)
    with torch.no_grad():
        ours = model.network(ids).logits
        torch.testing.assert_close(ours, adapted(ids).logits, rtol=1e-4, atol=1e-5)
        theirs_unadapted = adapted.get_base_model()
        with adapted.disable_adapter():
            assert not torch.allclose(ours, theirs_unadapted(ids).logits, atol=1e-3)


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    model = models.model()
    for words, kind, options in (
        ("less than one row", InputError, {"corpus": Corpus.from_texts(["w1 w2"])}),
        ("the model has 64 positions", InputError, {"config": TrainingConfig(max_length=128)}),
        ("the objective .masked. trains bidirectional", ConfigError, {"objective": "masked"}),
        ("parameters to train: 'head'", ConfigError, {"train": "head"}),
        ("unknown objective 'span'", ConfigError, {"objective": "span"}),
        ("a run of 0 steps", ConfigError, {"steps": 0}),
    ):
        arguments: dict[str, Any] = {"corpus": _corpus(), "steps": 2, "config": PLAN} | options
        corpus = arguments.pop("corpus")
        with pytest.raises(kind, match=words) as caught:
            pretrain(model, corpus, output_dir=tmp_path / words, **arguments)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 0.0},
        {"learning_rate": 3.0},
        {"max_length": 1},
        {"batch_size": 0},
        {"warmup_ratio": -0.1},
        {"schedule": "step"},
        {"micro_batch_size": 0},
        {"max_grad_norm": 0.0},
        {"seed": -1},
    ],
)
def test_settings_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrainingConfig(**values)
    with pytest.raises(ConfigError):
        TrainingConfig.from_dict(values)


def test_settings_from_a_table() -> None:
    assert TrainingConfig.from_dict({"batch_size": 8, "schedule": "wsd"}) == TrainingConfig(
        batch_size=8, schedule="wsd"
    )
    with pytest.raises(ConfigError, match="unknown training settings: speed"):
        TrainingConfig.from_dict({"speed": 1})
    with pytest.raises(ConfigError, match="batch_size is '8'"):
        TrainingConfig.from_dict({"batch_size": "8"})


def test_rates() -> None:
    cosine = TrainingConfig(learning_rate=1e-3, warmup_ratio=0.1, min_lr_ratio=0.1)
    assert cosine.learning_rate_at(0, 100) == pytest.approx(1e-4)
    assert cosine.learning_rate_at(9, 100) == pytest.approx(1e-3)
    assert cosine.learning_rate_at(55, 100) == pytest.approx(5.5e-4)
    assert cosine.learning_rate_at(100, 100) == pytest.approx(1e-4)
    wsd = TrainingConfig(learning_rate=1e-3, warmup_ratio=0.1, min_lr_ratio=0.0, schedule="wsd")
    assert wsd.learning_rate_at(79, 100) == pytest.approx(1e-3)
    assert wsd.learning_rate_at(90, 100) == pytest.approx(5e-4)
    assert wsd.learning_rate_at(100, 100) == pytest.approx(0)


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    pretrain(models.model(), _corpus(), output_dir=tmp_path, steps=3, config=PLAN, tensorboard=True)
    events = accumulator.EventAccumulator(str(tmp_path / "events")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3]
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert events.Scalars("loss")[0].value == pytest.approx(first["loss"])


def test_tensorboard_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        progress.Reporter(tmp_path, steps=1, tensorboard=True)


def test_the_rate_of_rows_does_not_depend_on_the_last_bits_of_a_sum() -> None:
    """These differ with the number of threads, and a run may be resumed with another number."""
    model = models.model("llama")
    rows = model.network.vocabulary_rows()["tokens.weight"].original
    before = row_rate(model.network)
    with torch.no_grad():
        rows *= 1 + 1e-6
    assert row_rate(model.network) == before


@pytest.mark.parametrize("train", ["rows", "body"])
def test_rows_alone_train_at_a_rate_of_their_size(tmp_path: Path, train: Any) -> None:
    """Adam moves each number by about the rate, so a rate for rows of 0.3 destroys rows of 0.02."""
    model = models.model("llama")
    size = float(model.network.vocabulary_rows()["tokens.weight"].original.square().mean().sqrt())
    plan = TrainingConfig(max_length=32, batch_size=2, warmup_ratio=0.0)
    pretrain(model, _corpus(), output_dir=tmp_path / "run", steps=2, train=train, config=plan)
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    expected = min(3e-2, size / 50) if train == "rows" else 3e-4
    assert first["learning_rate"] == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("name", ["max_length", "batch_size", "micro_batch_size"])
def test_numbers_too_large_for_an_array_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 10+ .it is at most [12]"):
        TrainingConfig(**{name: 10**20})
