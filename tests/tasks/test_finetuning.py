"""Fine-tuning methods: rates by layer, unfreezing, concat pooling, auxiliary loss, adaptation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cli.program import idiolect_program
from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError
from idiolect.models.language_model import LanguageModel
from idiolect.tasks.answer_span.answer_finder import AnswerFinder
from idiolect.tasks.answer_span.squad_files import PassageAnswer, PassageQuestion
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.tasks.finetuning.concat_pooling import concat_pool
from idiolect.tasks.finetuning.domain_adaptation import adapt_to_domain
from idiolect.tasks.finetuning.recipe import FineTuning, read_transfer
from idiolect.tasks.finetuning.text_states import read_texts
from idiolect.tasks.tag.tagged_texts import TaggedText, TextSpan, split_words
from idiolect.tasks.tag.text_tagger import TextTagger
from idiolect.tasks.task_model import task_config
from idiolect.training.added_tokens import new_model
from idiolect.training.layer_schedule import layer_distances, layer_rates
from idiolect.training.training_config import TrainingConfig
from training import models

WORDS = models.OLD[len(models.SPECIAL) :]


def _recurrent() -> LanguageModel:
    settings = {"model_type": "awd-lstm", "hidden_size": 24, "embedding_size": 16}
    return LanguageModel.new(settings, models.tokenizer(grown=False), seed=0)


def _examples(count: int = 64) -> list[LabelledText]:
    made = []
    for number in range(count):
        words = [WORDS[number % 2], *(WORDS[(number * 7 + i) % 30] for i in range(number % 5 + 1))]
        made.append(LabelledText(" ".join(words), f"l{number % 2}"))
    return made


@pytest.mark.parametrize("side", ["left", "right"])
def test_concat_pooling_by_hand_on_either_side_of_padding(side: str) -> None:
    text = torch.tensor([[-1.0, -5.0], [-3.0, -2.0]])
    padding = torch.full((2, 2), 9.0)
    rows = [text, padding] if side == "right" else [padding, text]
    mask = torch.tensor([[1, 1, 0, 0] if side == "right" else [0, 0, 1, 1], [0, 0, 0, 0]])
    hidden = torch.stack([torch.cat(rows), torch.full((4, 2), 9.0)])
    expected = [[-3.0, -2.0, -1.0, -2.0, -2.0, -3.5], [0.0] * 6]
    assert concat_pool(hidden, mask).tolist() == expected


@pytest.mark.parametrize("kind", ["awd-lstm", "gpt2", "bert"])
def test_a_text_has_the_same_vector_alone_and_beside_longer_ones(kind: str) -> None:
    encoder = Encoder(_recurrent() if kind == "awd-lstm" else models.model(kind, grown=False))
    encoder.model.network.eval()
    rows = encoder.reader.read(["w1 w2", "w3 w4 w5 w6 w7 w8"], None, _counts())
    both, _ = read_texts(encoder, rows, concat_pooling=True)
    alone, _ = read_texts(encoder, rows[:1], concat_pooling=True)
    torch.testing.assert_close(both[:1], alone, atol=1e-6, rtol=0)


def _counts():  # type: ignore[no-untyped-def]
    from idiolect.encoding.text_reader import EncodingCounts

    return EncodingCounts()


@pytest.mark.parametrize("kind", ["gpt2", "awd-lstm"])
def test_language_loss_is_the_mean_of_each_text(kind: str) -> None:
    encoder = Encoder(_recurrent() if kind == "awd-lstm" else models.model(kind, grown=False))
    network = encoder.model.network.eval()
    rows = encoder.reader.read(["w1 w2 w3", "w3 w4 w5 w6 w7 w8"], None, _counts())
    _, loss = read_texts(encoder, rows, language_loss=True)
    expected = 0.0
    for row in rows:
        ids = torch.tensor([row])
        logits = network(ids).logits[0]
        expected += float(F.cross_entropy(logits[:-1], ids[0, 1:]).detach())
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)


def test_slanted_triangular_is_the_papers() -> None:
    config = TrainingConfig(
        schedule="slanted_triangular", learning_rate=0.01, warmup_ratio=0.1, min_lr_ratio=1 / 32
    )
    steps, ratio, cut = 200, 32, 20
    for step in range(steps):
        p = step / cut if step < cut else 1 - (step - cut) / (cut * (1 / 0.1 - 1))
        expected = 0.01 * (1 + p * (ratio - 1)) / ratio
        assert config.learning_rate_at(step, steps) == pytest.approx(expected, rel=1e-9)


def test_each_layer_has_a_lower_rate_than_the_one_above() -> None:
    network = models.model("bert", grown=False).network
    with network.attach({"head": torch.nn.Linear(2, 2)}):
        distances = layer_distances(network)
        named = dict.fromkeys(n for n, _ in network.named_parameters())
        rates = layer_rates(network, named, usual=0.26, layer_decay=1 / 2.6)
    assert distances["attached.head.weight"] == 0
    assert {d for n, d in distances.items() if "layers.1." in n} == {1}
    assert {d for n, d in distances.items() if "layers.0." in n} == {2}
    assert distances["tokens.weight"] == 3
    assert rates["attached.head.weight"] == pytest.approx(0.26)
    assert rates["tokens.weight"] == pytest.approx(0.26 / 2.6**3)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_the_top_under_a_head_is_that_of_the_encoder(kind: str) -> None:
    """A head reads the encoder; the decoder has no part in its loss."""
    shape = {"model_type": kind, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2}
    sizes = ("layers", "attention_heads")
    shape |= {f"{side}_{size}": 2 for side in ("encoder", "decoder") for size in sizes}
    model = new_model(shape | {"num_heads": 2}, models.tokenizer(grown=False))
    network = model.network
    for attached, distances in (
        ({"head": torch.nn.Linear(2, 2)}, {"encoder.layers.1.": 1, "encoder.layers.0.": 2}),
        ({}, {"decoder.layers.1.": 1, "encoder.layers.1.": 3, "encoder.layers.0.": 4}),
    ):
        with network.attach(attached):
            found = layer_distances(network)
        for part, distance in distances.items():
            assert {d for n, d in found.items() if n.startswith(part)} == {distance}
        assert found["tokens.weight"] == max(distances.values()) + 1


def test_layers_train_from_the_top_down(tmp_path: Path) -> None:
    """After each epoch one more layer has moved; before it, it has not."""
    model = TextClassifier(Encoder(_recurrent()), ["l0", "l1"], concat_pooling=True)
    network = model.encoder.model.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    config = task_config(batch_size=32, learning_rates={}, learning_rate=1e-2)
    methods = FineTuning.of("ulmfit", unfreeze_original_rows=True)
    arguments = {"config": config, "fine_tuning": methods, "epochs": 6}
    moved: dict[int, set[str]] = {}

    def note(module: torch.nn.Module, args: object) -> None:
        now = network.state_dict()
        changed = {n.split(".w")[0] for n, t in before.items() if not torch.equal(t, now[n])}
        moved[len(moved)] = changed

    handle = network.register_forward_pre_hook(note)
    network.text_states, original = _noted(network, note), network.text_states
    model.train(_examples(), output_dir=tmp_path / "run", **arguments)  # type: ignore[arg-type]
    network.text_states = original  # type: ignore[method-assign]
    handle.remove()
    layers = [{n for n in moved[step] if n.startswith("layers")} for step in sorted(moved)]
    assert [len({n.split(".")[1] for n in one}) for one in layers] == [
        *(0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3)
    ]
    assert [any(n.startswith("tokens") for n in moved[s]) for s in (8, 9)] == [False, True]


def _noted(network, note):  # type: ignore[no-untyped-def]
    original = network.text_states

    def states(*args, **kwargs):  # type: ignore[no-untyped-def]
        note(network, args)
        return original(*args, **kwargs)

    return states


def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    config = task_config(batch_size=32, learning_rate=1e-2, save_steps=3)
    methods = FineTuning.of("ulmfit", lm_loss_weight=0.5)
    shares = []
    for killed in (False, True):
        model = TextClassifier(Encoder(_recurrent()), ["l0", "l1"], concat_pooling=True)
        arguments = {"config": config, "fine_tuning": methods, "epochs": 6}
        folder = tmp_path / str(killed)
        if killed:
            network = model.encoder.model.network
            calls = iter(range(7))

            def stop(*args: object, calls=calls) -> None:  # type: ignore[no-untyped-def]
                if next(calls, None) is None:
                    raise ZeroDivisionError

            network.text_states = _noted(network, stop)
            with pytest.raises(ZeroDivisionError):
                model.train(_examples(), output_dir=folder, **arguments)  # type: ignore[arg-type]
            model = TextClassifier(Encoder(_recurrent()), ["l0", "l1"], concat_pooling=True)
        model.train(_examples(), output_dir=folder, **arguments)  # type: ignore[arg-type]
        shares.append(TextClassifier.load(folder / "model").probabilities(_examples()))
    np.testing.assert_array_equal(*shares)


def test_bad_input(tmp_path: Path) -> None:
    model = TextClassifier(Encoder(models.model("bert", grown=False)), ["l0", "l1"])
    with pytest.raises(ConfigError, match="from left to right"):
        model.train(_examples(), output_dir=tmp_path, fine_tuning=FineTuning.of("gpt1"))
    with pytest.raises(ConfigError, match="the lowest of 4 groups"):
        model.train(
            _examples(),
            output_dir=tmp_path / "b",
            epochs=2,
            fine_tuning=FineTuning.of(
                "plain", gradual_unfreezing=True, unfreeze_original_rows=True
            ),
        )
    for wrong in ({"layer_decay": 0}, {"lm_loss_weight": -1.0}, {"concat": True}):
        with pytest.raises(ConfigError):
            FineTuning.of("ulmfit", **wrong)
    with pytest.raises(ConfigError, match="unknown recipe"):
        FineTuning.of("ulmfti")
    path = tmp_path / "transfer.toml"
    for table, wrong in (("", "has no steps"), ('steps = 5\noutput_dir = "x"', "output_dir")):
        path.write_text(f"[adaptation]\n{table}\n")
        with pytest.raises(ConfigError, match=wrong):
            read_transfer(str(path))


@pytest.mark.parametrize("task", ["tag", "answer", "classify"])
def test_windows_leave_room_for_virtual_tokens(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A saved model reads a text in the same windows, and truncates none."""
    text = " ".join(WORDS[number % 30] for number in range(150))
    encoder, config = (
        Encoder(models.model("bert", grown=False)),
        task_config("prefix", batch_size=2),
    )
    given: dict[str, Any] = {"output_dir": tmp_path, "adaptation": "prefix", "epochs": 1}
    if task == "tag":
        tagged = [TaggedText(text, split_words(text), (TextSpan(0, 2, "P"),))]
        tagger = TextTagger(encoder, ["P"], stride=30).train(tagged, config=config, **given)
        found: Any = tagger.emissions(tagged)[0].tolist()
        again: Any = TextTagger.load(tmp_path / "model").emissions(tagged)[0].tolist()
    elif task == "answer":
        asked = [PassageQuestion("1", "w3 w4", text, (PassageAnswer("w5", text.find("w5")),))]
        finder = AnswerFinder(encoder, stride=8).train(asked, config=config, **given)
        found, again = finder.predict(asked), AnswerFinder.load(tmp_path / "model").predict(asked)
    else:
        examples = [LabelledText(text, "a"), LabelledText(text, "b")]
        classifier = TextClassifier(encoder, ["a", "b"], stride=8)
        classifier.train(examples, config=config, **given)
        found = classifier.probabilities(examples).tolist()
        again = TextClassifier.load(tmp_path / "model").probabilities(examples).tolist()
    assert found == again
    assert "truncated" not in capsys.readouterr().err


def test_adaptation_takes_the_settings_of_pretraining(tmp_path: Path) -> None:
    encoder = Encoder(models.model("bert", grown=False))
    adapt_to_domain(
        encoder,
        models.texts(20),
        output_dir=tmp_path / "run",
        steps=1,
        max_length=16,
        batch_size=2,
        objective_settings={"mlm_probability": 0.3},
        replay=models.texts(20, seed=1),
        replay_share=0.2,
    )
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["objective_settings"] == {"mlm_probability": 0.3}
    assert "20%" in record["corpus"]
    with pytest.raises(ConfigError, match="unknown training settings: replays"):
        adapt_to_domain(encoder, ["w1"], output_dir=tmp_path / "b", steps=1, replays=["w1"])


def test_command_adapts_first_and_then_fine_tunes(tmp_path: Path) -> None:
    _recurrent().save(tmp_path / "base")
    lines = [json.dumps({"text": e.text, "label": e.label}) for e in _examples(96)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    (tmp_path / "more.txt").write_text("\n".join(models.texts(20)))
    (tmp_path / "transfer.toml").write_text(
        '[adaptation]\ntexts = ["more.txt"]\nsteps = 5\nbatch_size = 2\nmax_length = 16\n'
        '[fine_tuning]\nrecipe = "ulmfit"\nlm_loss_weight = 0.2\nunfreeze_original_rows = true\n'
    )
    command = (
        *("tasks", "classify", "train", "train.jsonl", "--encoder", "base", "-o", "run"),
        *("--transfer", "transfer.toml", "--epochs", 12, "--lr", 0.01, "--batch-size", 16),
    )
    for _ in range(2):  # the second time, there is nothing left to do
        ran = idiolect_program(*command, folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["config"]["unfreeze_steps"] == 6
    assert (tmp_path / "run/adapted/model").is_dir()
    loaded = TextClassifier.load(tmp_path / "run/model")
    assert loaded.concat_pooling
    right = [
        a == e.label for a, e in zip(loaded.predict(_examples(40)), _examples(40), strict=True)
    ]
    assert sum(right) > 30
