"""Classification: training on any network, calibration, baselines, measures and the commands."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cli.program import idiolect_program
from idiolect.encoding.encoder import Encoder
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.tasks.classify.classification_baselines import TfidfClassifier
from idiolect.tasks.classify.classification_metrics import score_classes
from idiolect.tasks.classify.errors_page import errors_page
from idiolect.tasks.classify.labelled_texts import LabelledText, read_labelled_texts
from idiolect.tasks.classify.multi_label import MultiLabelClassifier, load_classifier
from idiolect.tasks.classify.multi_label_metrics import score_multi_label
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.tasks.task_model import Adaptation, full_learning_rate, task_config
from training import models

WORDS = models.OLD[len(models.SPECIAL) :]


def _examples(count: int, *, pairs: bool = False, seed: int = 0) -> list[LabelledText]:
    """The label is named by the first word; of pairs, by whether both have the same one."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        first, second = draw.choice(WORDS[:2]), draw.choice(WORDS[:2])
        text = f"{first} {draw.choice(WORDS[8:])}"
        pair = f"{second} {draw.choice(WORDS[8:])}"
        label = ("same" if first == second else "other") if pairs else f"of {first}"
        made.append(LabelledText(text, label, pair if pairs else None))
    return made


def _classifier(kind: str = "bert", *, pairs: bool = False) -> TextClassifier:
    encoder = Encoder(models.model(kind, grown=False))
    labels = ["other", "same"] if pairs else sorted(f"of {word}" for word in WORDS[:2])
    return TextClassifier(encoder, labels, pairs=pairs)


def _accuracy(model: TextClassifier, examples: list[LabelledText]) -> float:
    found = model.predict(examples)
    return sum(a == e.label for a, e in zip(found, examples, strict=True)) / len(examples)


@pytest.mark.parametrize(
    ("kind", "adaptation", "pairs"),
    [
        ("bert", "full", False),
        ("bert", "full", True),
        ("gpt2", "lora", False),
        ("gpt2", "prefix", False),
        ("bert", "prompt", False),
        ("bert", "frozen", False),
    ],
)
def test_learns(kind: str, adaptation: Adaptation, pairs: bool, tmp_path: Path) -> None:
    model = _classifier(kind, pairs=pairs)
    before = {n: t.clone() for n, t in model.encoder.model.network.state_dict().items()}
    config = task_config(
        adaptation, batch_size=16, learning_rate=5e-3, learning_rates={"attached": 2e-2}
    )
    examples = _examples(160, pairs=pairs)
    model.train(examples, output_dir=tmp_path, adaptation=adaptation, epochs=6, config=config)
    test = _examples(60, pairs=pairs, seed=1)
    assert _accuracy(model, test) > 0.9
    after = model.encoder.model.network.state_dict()
    same = [torch.equal(tensor, after[name]) for name, tensor in before.items()]
    # Virtual tokens are beside the network, which stays as it is.
    frozen = adaptation in ("frozen", "prefix", "prompt")
    assert all(same) if frozen else not all(same)
    loaded = TextClassifier.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.probabilities(test), model.probabilities(test), atol=1e-5)


def test_the_learning_rate_of_a_frozen_encoder_is_that_of_the_layer() -> None:
    config = task_config("frozen", learning_rate=0.25)
    assert config.learning_rates.get("attached", config.learning_rate) == 0.25


def test_the_learning_rate_of_a_whole_network_is_by_its_width(tmp_path: Path) -> None:
    rates = [full_learning_rate(width) for width in (768, 384, 8, 10_000)]
    assert rates == pytest.approx([5e-5, 2e-4, 1e-3, 1e-5])
    model = _classifier()
    width = int(model.encoder.model.network.config.hidden_size)
    for name, config in (("usual", None), ("given", task_config(learning_rate=3e-4))):
        model.train(_examples(8), output_dir=tmp_path / name, epochs=1, config=config)
        record = json.loads((tmp_path / name / "run.json").read_text())
        expected = full_learning_rate(width) if config is None else 3e-4
        assert record["config"]["learning_rate"] == expected


def test_batches_do_not_change_scores() -> None:
    model, texts = _classifier(), _examples(20)
    alone = np.concatenate([model.probabilities([text]) for text in texts])
    np.testing.assert_allclose(model.probabilities(texts), alone, atol=1e-6)


def test_temperature_is_the_best_and_keeps_predictions() -> None:
    model, texts = _classifier(), _examples(80)
    with torch.no_grad():
        model.head[1].weight.mul_(3)
    before = model.probabilities(texts)
    # Right in two of three texts, however sure.
    names = [model.labels[(int(n) + (i % 3 == 0)) % 2] for i, n in enumerate(before.argmax(1))]
    texts = [replace(text, label=name) for text, name in zip(texts, names, strict=True)]
    truth = model.numbers(texts)
    temperature = model.calibrate(texts)
    after = model.probabilities(texts)
    assert temperature > 1
    assert (before.argmax(1) == after.argmax(1)).all()
    best = score_classes(after, truth).nll
    for other in (0.9, 1.1):
        model.temperature = temperature * other
        assert score_classes(model.probabilities(texts), truth).nll > best


def test_a_fitted_temperature_is_no_damage_to_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        model, texts = _classifier(), _examples(16)
        model.train(texts, output_dir=tmp_path, epochs=1)
        model.calibrate(texts)
        model.save_record(tmp_path / "model")
    assert TextClassifier.load(tmp_path / "model").temperature == model.temperature
    assert "writing the model again" not in capsys.readouterr().err


def test_class_weights_change_what_is_learnt(tmp_path: Path) -> None:
    # All texts are the same: only the shares of the labels can be learnt.
    texts = [LabelledText(f"{WORDS[3]}", label) for label in ["of w0"] * 27 + ["of w1"] * 9]
    names = sorted({str(text.label) for text in texts})
    shares = []
    for balanced in (False, True):
        model = TextClassifier(_classifier().encoder, names)
        config = task_config("frozen", batch_size=36, learning_rates={"attached": 5e-2})
        folder = tmp_path / str(balanced)
        model.train(
            texts,
            output_dir=folder,
            adaptation="frozen",
            epochs=80,
            balanced=balanced,
            config=config,
        )
        shares.append(float(model.probabilities(texts[:1])[0, 0]))
    assert shares == pytest.approx([0.75, 0.5], abs=0.05)


def test_measures_equal_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random_state = np.random.default_rng(0)
    shares = random_state.dirichlet(np.ones(4), 200)
    truth = random_state.integers(0, 3, 200)  # the fourth is never right
    found, guess = score_classes(shares, truth), shares.argmax(1)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, guess), abs=1e-12)
    macro = metrics.f1_score(truth, guess, average="macro")
    assert found.macro_f1 == pytest.approx(macro, abs=1e-12)
    assert found.nll == pytest.approx(metrics.log_loss(truth, shares, labels=range(4)), abs=1e-9)
    assert found.confusion == tuple(map(tuple, metrics.confusion_matrix(truth, guess)))


def test_calibration_error_by_hand() -> None:
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    # 0.9 sure and half right; 0.6 sure and always right.
    assert score_classes(shares, np.array([0, 1, 1, 1])).ece == pytest.approx(0.4)


def test_baseline_equals_scikit_learn() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    train, test = _examples(60), _examples(30, seed=1)
    vectors = text.TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    theirs = linear.LogisticRegression(C=10, max_iter=2000, tol=1e-8)
    theirs.fit(vectors.fit_transform([e.text for e in train]), [e.label for e in train])
    expected = theirs.predict_proba(vectors.transform([e.text for e in test]))
    # scikit-learn fits two labels with one weight vector: half the penalty of our two.
    assert (TfidfClassifier(train).probabilities(test).argmax(1) == expected.argmax(1)).all()
    third = [*train, *(LabelledText(f"{WORDS[5]} {WORDS[6 + i]}", "x") for i in range(9))]
    theirs.fit(vectors.fit_transform([e.text for e in third]), [e.label for e in third])
    expected = theirs.predict_proba(vectors.transform([e.text for e in test]))
    np.testing.assert_allclose(TfidfClassifier(third).probabilities(test), expected, atol=1e-3)


def test_bad_input(tmp_path: Path) -> None:
    model = _classifier()
    with pytest.raises(InputError, match="unknown label 'never seen'"):
        model.numbers([LabelledText("w1", "never seen")])
    with pytest.raises(InputError, match="reads single texts"):
        model.predict([LabelledText("w1", None, "w2")])
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 3}\n{"text": " ", "label": 1}\n{"text": "b"}\n')
    assert read_labelled_texts(path) == [LabelledText("a", "3")]
    with pytest.raises(InputError, match="no record with 'words'"):
        read_labelled_texts(path, text="words")
    model.save(tmp_path / "model")
    (tmp_path / "model" / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="damaged"):
        TextClassifier.load(tmp_path / "model")


def test_errors_page_escapes_and_sorts() -> None:
    examples = [
        LabelledText("<b>fine</b>", "x"),
        LabelledText("near", "y"),
        LabelledText("<i>", "y"),
    ]
    shares = np.array([[0.9, 0.1], [0.6, 0.4], [0.9, 0.1]])
    scores = {"a & b": score_classes(shares, np.array([0, 1, 1]))}
    page = errors_page(scores, ["x", "y"], examples, shares)
    assert "a &amp; b" in page
    assert "fine" not in page, "it is right"
    assert page.index("&lt;i&gt;") < page.index("near")


def test_commands(tmp_path: Path) -> None:
    _classifier().encoder.save(tmp_path / "base")
    for name, count in (("train", 96), ("dev", 30), ("test", 30)):
        rows = [f"{e.text},{e.label}" for e in _examples(count, seed=count)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["sentence,topic", *rows]))
    fields = ("--text", "sentence")
    options = (*fields, "--label", "topic")
    ran = idiolect_program(
        *("tasks", "classify", "train", "train.csv", "--encoder", "base", "-o", "run"),
        *("--valid", "dev.csv", "--lr", 0.005, "--batch-size", 8, "--epochs", 4, *options),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    assert "temperature" in ran.stdout
    ran = idiolect_program(
        *("tasks", "classify", "evaluate", "run/model", "test.csv", "--train", "train.csv"),
        *("--errors", "errors.html", "--json", *options),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["classifier"]["accuracy"] > 0.9 > result["majority label"]["accuracy"]
    assert "Confusion matrix" in (tmp_path / "errors.html").read_text()
    ran = idiolect_program(
        *("tasks", "classify", "predict", "run/model", "test.csv", "-o", "out.jsonl", *fields),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(lines) == 30
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4) for line in lines)


def test_a_frozen_encoder_keeps_all_its_states(tmp_path: Path) -> None:
    """A static encoder has no states but its vector; trained ones learn what goes into it."""
    write = "text,label\n" + "".join(f"{e.text},{e.label}\n" for e in _examples(8))
    (tmp_path / "train.csv").write_text(write)
    network = models.model("bert", grown=False)
    for name, encoder in (("layers", Encoder(network)), ("static", Encoder(network, layers=0))):
        encoder.save(tmp_path / name)
    for base, adaptation, expected in (
        ("layers", "frozen", True),
        ("static", "frozen", False),
        ("layers", "full", False),
    ):
        run = f"{base}-{adaptation}"
        ran = idiolect_program(
            *("tasks", "classify", "train", "train.csv", "--encoder", base, "-o", run),
            *("--adaptation", adaptation, "--epochs", 1),
            folder=tmp_path,
        )
        assert ran.returncode == 0, ran.stderr
        record = json.loads((tmp_path / run / "model" / "classifier.json").read_text())
        assert record["concat_pooling"] == expected


def test_a_long_text_is_read_in_windows() -> None:
    encoder = Encoder(models.model("bert", grown=False), max_length=10)
    model = TextClassifier(encoder, ["a", "b"], stride=2)
    words = WORDS[4:20]  # sixteen tokens; eight fit
    long, short = LabelledText(" ".join(words), "a"), LabelledText(words[0], "b")
    parts, sources = model._windows([short, long])
    own = [words[:8], words[6:14], words[12:]]
    assert [part.text for part in parts] == [words[0], *(" ".join(part) for part in own)]
    assert [part.label for part in parts] == ["b", "a", "a", "a"]
    assert sources.tolist() == [0, 1, 1, 1]
    alone = model._scores(parts)
    np.testing.assert_allclose(model._scores([short, long])[1], alone[1:].mean(0), atol=1e-6)
    with pytest.raises(ConfigError, match="windows of 8 tokens cannot share 8"):
        TextClassifier(encoder, ["a", "b"], stride=8)
    with pytest.raises(ConfigError, match="pairs are not read in windows"):
        TextClassifier(encoder, ["a", "b"], stride=2, pairs=True)


# Several labels


def _several(count: int, *, seed: int = 0) -> list[LabelledText]:
    """A text has label A with w0 in it, and label B with w1."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        chosen = [draw.random() < 0.5, draw.random() < 0.3]
        words = [word for word, is_in in zip(WORDS[:2], chosen, strict=True) if is_in]
        words += draw.choices(WORDS[8:], k=3)
        draw.shuffle(words)
        labels = tuple(name for name, is_in in zip("AB", chosen, strict=True) if is_in)
        made.append(LabelledText(" ".join(words), labels=labels))
    return made


def test_several_labels_by_the_commands(tmp_path: Path) -> None:
    _classifier().encoder.save(tmp_path / "base")
    for name, count in (("train", 96), ("dev", 32), ("test", 32)):
        rows = [
            {"text": e.text, "label": list(e.labels or ())} for e in _several(count, seed=count)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ran = idiolect_program(
        *("tasks", "classify", "train", "train.jsonl", "--encoder", "base", "-o", "run"),
        *("--multi-label", "--balanced", "--valid", "dev.jsonl"),
        *("--lr", 0.01, "--batch-size", 8, "--epochs", 5),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    ran = idiolect_program(
        *("tasks", "classify", "evaluate", "run/model", "test.jsonl", "--train", "train.jsonl"),
        *("--errors", "errors.html", "--json"),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["classifier"]["micro_f1"] > 0.65 > result["shares of the labels"]["micro_f1"]
    assert result["TF-IDF + logistic regression"]["micro_f1"] > 0.8
    assert "wrongly found" in (tmp_path / "errors.html").read_text()
    ran = idiolect_program(
        *("tasks", "classify", "predict", "run/model", "test.jsonl", "-o", "out.jsonl"),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert any(not line["labels"] for line in lines), "a text may have none"
    loaded = load_classifier(tmp_path / "run" / "model")
    assert isinstance(loaded, MultiLabelClassifier)
    found = loaded.predict_labels(_several(32, seed=32))
    assert [list(one) for one in found] == [line["labels"] for line in lines]


def test_measures_of_several_labels_equal_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random_state = np.random.default_rng(0)
    shares = random_state.random((200, 3))
    truth = (random_state.random((200, 3)) < 0.4).astype(int)
    found, guess = score_multi_label(shares, truth), (shares > 0.5).astype(int)
    for average, value in (("micro", found.micro_f1), ("macro", found.macro_f1)):
        assert value == pytest.approx(metrics.f1_score(truth, guess, average=average), abs=1e-12)
    accuracy = metrics.accuracy_score(truth, guess)
    assert found.subset_accuracy == pytest.approx(accuracy, abs=1e-12)
    both = metrics.multilabel_confusion_matrix(truth, guess)
    for (hits, wrong, missed, out), theirs in zip(found.confusion, both, strict=True):
        assert [[out, wrong], [missed, hits]] == theirs.tolist()


def test_several_labels_are_weighed_and_refused(tmp_path: Path) -> None:
    model = MultiLabelClassifier(_classifier().encoder, ["A", "B"])
    texts = [LabelledText("w1", labels=labels) for labels in (("A",), ("A",), ("A",), ())]
    targets = model.targets(texts)
    assert model.label_weights(targets).tolist() == pytest.approx(
        [1 / 3, 3]
    )  # B has no text: as if one
    scores = torch.zeros(4, 2, dtype=torch.double)
    assert float(model.loss(scores, torch.from_numpy(targets))) == pytest.approx(8 * np.log(2))
    with pytest.raises(InputError, match="text 1 has the unknown label 'C'"):
        model.targets([LabelledText("w1", labels=("A", "C"))])
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,A;B\nb,\n")
    found = read_labelled_texts(path, multi_label=True)
    assert [text.labels for text in found] == [("A", "B"), ()]
