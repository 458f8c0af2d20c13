"""A frozen network reads each example once, and the head becomes what it would become otherwise."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError
from idiolect.nn.attention import Attention
from idiolect.nn.basic import Dropout
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.tasks.finetuning import frozen_states
from idiolect.tasks.tag.tagged_texts import TaggedText, TextSpan, split_words
from idiolect.tasks.tag.text_tagger import TextTagger
from idiolect.tasks.task_model import TaskModel, task_config
from training import models

WORDS = models.OLD[len(models.SPECIAL) :]
TEXTS = [" ".join(WORDS[i % 7 : i % 7 + 2 + i % 3]) for i in range(24)]
EPOCHS = 3


def _encoder() -> Encoder:
    """Without dropout, which would make each reading another."""
    model = models.model("bert", grown=False)
    for module in model.network.modules():
        if isinstance(module, Dropout):
            module.rate = 0.0
        elif isinstance(module, Attention):
            module.dropout = 0.0
    return Encoder(model)


def _classifier(folder: Path, *, pairs: bool = False) -> TaskModel:
    texts = [LabelledText(t, "ab"[i % 2], t[::-1] if pairs else None) for i, t in enumerate(TEXTS)]
    model = TextClassifier(_encoder(), ["a", "b"], pairs=pairs)
    config = task_config("frozen", batch_size=8)
    return model.train(
        texts, output_dir=folder, adaptation="frozen", epochs=EPOCHS, config=config, balanced=True
    )


def _tagger(folder: Path, *, crf: bool = True) -> TaskModel:
    def tagged(text: str) -> TaggedText:
        words = split_words(text)
        return TaggedText(text, words, (TextSpan(*words[0], "A"),))

    torch.manual_seed(0)
    model = TextTagger(_encoder(), ["A"], crf=crf)
    model.head.dropout = torch.nn.Identity()
    config = task_config("frozen", batch_size=8)
    texts = [tagged(text) for text in TEXTS]
    return model.train(texts, output_dir=folder, adaptation="frozen", epochs=EPOCHS, config=config)


@pytest.mark.parametrize(
    "train",
    [
        _classifier,
        lambda folder: _classifier(folder, pairs=True),
        _tagger,
        lambda folder: _tagger(folder, crf=False),
    ],
    ids=["classifier", "pairs", "crf", "softmax"],
)
def test_reads_each_example_once(
    train: Callable[[Path], TaskModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = train(tmp_path / "once")
    monkeypatch.setattr(frozen_states, "_MOST_BYTES", 0)
    anew = train(tmp_path / "anew")
    for name, tensor in anew.head.state_dict().items():
        torch.testing.assert_close(once.head.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_counts_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[int]()
    whole = TextClassifier.features

    def features(self: TextClassifier, rows, *, language_loss):  # type: ignore[no-untyped-def]
        read.append(len(rows))
        return whole(self, rows, language_loss=language_loss)

    monkeypatch.setattr(TextClassifier, "features", features)
    _classifier(tmp_path / "once")
    assert sum(read) == len(TEXTS)
    monkeypatch.setattr(frozen_states, "_MOST_BYTES", 0)
    _classifier(tmp_path / "anew")
    assert sum(read) == (1 + EPOCHS) * len(TEXTS)


def test_states_are_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    network = models.model("bert", grown=False).network.train()
    modes = list[bool]()

    def compute(numbers: list[int]) -> list[torch.Tensor]:
        modes.append(network.training)
        return [torch.full((2,), float(number)) for number in numbers]

    rows = [[1, 2], [3], [4, 5, 6]]
    found = frozen_states.frozen_states(network, rows, compute, numbers=6, precision="fp32")
    assert found is not None
    assert [one.tolist() for one in found] == [[0, 0], [1, 1], [2, 2]]
    assert modes == [False]
    too_many = (2 << 30) // 4 + 1
    assert (
        frozen_states.frozen_states(network, rows, compute, numbers=too_many, precision="fp32")
        is None
    )


def test_an_encoder_in_8_bits_is_refused_before_training(tmp_path: Path) -> None:
    encoder = Encoder(models.model("bert", grown=False), precision="int8")
    model = TextClassifier(encoder, ["a", "b"])
    texts = [LabelledText(text, "ab"[i % 2]) for i, text in enumerate(TEXTS)]
    with pytest.raises(ConfigError, match="8-bit integers cannot be trained or saved"):
        model.train(texts, output_dir=tmp_path / "run", adaptation="frozen")
    assert not (tmp_path / "run").exists()


def test_a_spike_of_the_loss_does_not_end_the_training_of_a_head(tmp_path: Path) -> None:
    texts = [LabelledText(text, "ab"[i % 2]) for i, text in enumerate(TEXTS)]
    config = task_config("frozen", batch_size=1, learning_rate=0.5)
    model = TextClassifier(_encoder(), ["a", "b"])
    model.train(texts, output_dir=tmp_path, adaptation="frozen", epochs=4, config=config)
    losses = [
        json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert max(losses) > 3 * statistics.mean(losses) + 1  # where other runs are stopped
