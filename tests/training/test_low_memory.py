"""Training over a quantised base: frozen rows, killed runs, and the three ways to merge."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from idiolect.errors import CheckpointError, ConfigError
from idiolect.models.adapter import load_adapter
from idiolect.models.language_model import LanguageModel
from idiolect.models.merging import merge_adapter
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.lora import LoraConfig
from idiolect.nn.quantized_matrix import quantized_matrices, whole
from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from models.gguf_file import TOKENS, tiny, write_model
from training import models, runs

CONFIG = TrainingConfig(
    max_length=32, batch_size=4, learning_rate=1e-2, gradient_checkpointing=True
)
LORA = LoraConfig(target_modules=("query", "up"), use_dora=True, use_rslora=True)
IDS = torch.arange(45).view(5, 9)


def train(model: LanguageModel | Path, out: Path, **options: Any) -> LanguageModel:
    settings = {"steps": 8, "train": "rows+lora", "lora": LORA, "config": CONFIG} | options
    corpus = Corpus.from_texts(models.texts())
    return pretrain(model, corpus, output_dir=out, **settings)  # type: ignore[arg-type]


def logits(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.network.eval()(IDS).logits
    return found


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_only_rows_and_adapters_move(tmp_path: Path, quantization: Any) -> None:
    model = models.model()
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    train(model, tmp_path, quantization=quantization)
    after = LanguageModel.load(tmp_path / "model").network.state_dict()
    assert torch.equal(after["tokens.weight.original"], before["tokens.weight.original"])
    assert not torch.equal(after["tokens.weight.added"], before["tokens.weight.added"])
    name = "decoder.layers.0.attention.{}.weight"
    published = models.model()
    quantised = {n: whole(m) for n, m in quantized_matrices(model.network).items()}
    # What is not adapted has the values of the quantised base.
    assert torch.equal(after[name.format("key")], quantised[name.format("key")])
    assert not torch.equal(after[name.format("query")], before[name.format("query")])
    assert published.settings == model.settings


def test_rows_of_kept_blocks_train_beside_them(tmp_path: Path) -> None:
    """The blocks of a GGUF file stay the published ones, in memory and in what is saved."""
    import gguf

    path = write_model(
        tmp_path / "m.gguf",
        tiny("llama", tie_word_embeddings=True),
        storage=gguf.GGMLQuantizationType.Q8_0,
    )
    exact = LanguageModel.load(path)
    model = LanguageModel.load(path, quantization="keep")
    model.network.add_rows(len(TOKENS), {"tokens.weight": torch.randn(2, 64)})
    rows = model.network.tokens.weight
    assert isinstance(rows, ExtendedRows)
    added = rows.added.detach().clone()
    texts = ["the the hat", "he the heat"] * 40
    pretrain(
        model,
        Corpus.from_texts(texts),
        output_dir=tmp_path / "run",
        steps=4,
        train="rows+lora",
        quantization="keep",
        config=CONFIG,
    )
    rows.verify()
    assert not torch.equal(rows.added, added)
    again = LanguageModel.load(tmp_path / "run" / "model").network.tokens.weight
    published = exact.network.tokens.weight
    assert isinstance(again, ExtendedRows)
    assert torch.equal(whole(again.original)[: len(TOKENS)], published[: len(TOKENS)])  # type: ignore[index]


def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    options = {
        "quantization": "nf4",
        "lora": LORA,
        "config": replace(runs.PLAN, gradient_checkpointing=True),
    }
    assert runs.finish(runs.start(tmp_path / "whole", **options)) == 0
    out = tmp_path / "killed"
    process = runs.start(out, **options)
    runs.wait_for((out / "checkpoint-00000008").exists, process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    runs.finish(process)
    assert not (out / "model").exists()
    assert runs.finish(runs.start(out, **options)) == 0
    assert runs.outcome(out) == runs.outcome(tmp_path / "whole")


def test_checkpointing_changes_no_bit(tmp_path: Path) -> None:
    for name, recompute in (("kept", False), ("again", True)):
        config = replace(CONFIG, gradient_checkpointing=recompute)
        train(models.model("gpt2"), tmp_path / name, config=config)
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("kept", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_adapter_alone_merged_as_trained_and_merged_in_full(tmp_path: Path) -> None:
    models.model().save(tmp_path / "base")
    trained = train(tmp_path / "base", tmp_path / "run", quantization="nf4")
    expected = logits(trained)
    torch.testing.assert_close(logits(LanguageModel.load(tmp_path / "run" / "model")), expected)

    again = LanguageModel.load(tmp_path / "base", quantization="nf4")
    assert merge_adapter(again, tmp_path / "run")
    torch.testing.assert_close(logits(again), expected)

    full = LanguageModel.load(tmp_path / "base")
    merge_adapter(full, tmp_path / "run")
    base, change = logits(LanguageModel.load(tmp_path / "base")), logits(full) - expected
    assert 0 < change.norm() < 0.5 * (expected - base).norm(), "near, but not as trained"

    alone = LanguageModel.load(tmp_path / "base")
    load_adapter(alone, tmp_path / "run" / "adapter")
    assert not torch.allclose(logits(alone), logits(full)), "without the trained rows"


def test_a_run_of_another_vocabulary_is_not_merged(tmp_path: Path) -> None:
    train(models.model(), tmp_path / "run", steps=1)
    other = models.model(grown=False)
    assert isinstance(other.tokenizer, Tokenizer)
    with pytest.raises(CheckpointError, match="with another tokenizer"):
        merge_adapter(other, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "nf4", "train": "all"}, "quantised weights are frozen"),
        ({"quantization": "keep"}, "no quantised blocks to keep"),
        ({"quantization": "nf5"}, "unknown quantization 'nf5'"),
        ({"quantization": "nf4", "sharded": True}, "cannot be divided among processes"),
    ],
)
def test_what_cannot_train_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(models.model(), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
