"""Tagging: schemes, CRF, files, training on any network, long texts, measures and the commands."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from cli.program import idiolect_program
from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError, InputError
from idiolect.tasks.tag.linear_chain_crf import LinearChainCrf
from idiolect.tasks.tag.tag_schemes import (
    TagScheme,
    invalid_transitions,
    read_tags,
    strict_spans,
    tag_names,
    write_tags,
)
from idiolect.tasks.tag.tagged_texts import (
    TaggedText,
    TextSpan,
    read_tagged_texts,
    split_words,
    write_tagged_texts,
)
from idiolect.tasks.tag.tagging_metrics import score_spans
from idiolect.tasks.tag.text_tagger import TextTagger
from idiolect.tasks.tag.training_dictionary import TrainingDictionary
from idiolect.tasks.task_model import task_config
from idiolect.tasks.windows import most_context, windows
from training import models

WORDS = models.OLD[len(models.SPECIAL) :]


def _text(words: list[str], tags: list[str]) -> TaggedText:
    text = " ".join(words)
    bare = TaggedText(text, split_words(text))
    return TaggedText(text, bare.words, bare.text_spans(read_tags(tags)))


def _texts(count: int, *, seed: int = 0, length: int = 9) -> list[TaggedText]:
    """`w0 w2` is a span of A, and `w1 w3` one of B."""
    draw, made = random.Random(seed), []
    for _ in range(count):
        words, tags = list[str](), list[str]()
        while len(words) < length:
            chosen = draw.choice([0, 1, 2, 2])
            words += [WORDS[chosen] if chosen < 2 else draw.choice(WORDS[8:])]
            tags += ["BBO"[chosen] + ["-A", "-B", ""][chosen]]
            if chosen < 2:
                words += [WORDS[chosen + 2]]
                tags += ["I" + ["-A", "-B"][chosen]]
        made.append(_text(words, tags))
    return made


def _tagger(kind: str = "bert", **settings: bool | str | int) -> TextTagger:
    return TextTagger(Encoder(models.model(kind, grown=False)), ["A", "B"], **settings)


# Schemes


def test_schemes_by_hand() -> None:
    spans = [(0, 2, "P"), (3, 4, "P"), (4, 5, "P"), (5, 6, "Q")]
    written = {
        "iob1": ["I-P", "I-P", "O", "I-P", "B-P", "I-Q"],
        "iob2": ["B-P", "I-P", "O", "B-P", "B-P", "B-Q"],
        "bioes": ["B-P", "E-P", "O", "S-P", "S-P", "S-Q"],
    }
    for scheme, tags in written.items():
        assert write_tags(spans, 6, scheme) == tags
        assert read_tags(tags) == spans
        assert strict_spans(tags, scheme) == spans
        assert invalid_transitions(tags, scheme) == 0
    assert invalid_transitions(written["iob1"], "iob2") == 3
    with pytest.raises(InputError, match="overlaps"):
        write_tags([(0, 2, "P"), (1, 3, "Q")], 3, "iob2")


@pytest.mark.parametrize("scheme", ["iob2", "bioes"])
def test_spans_and_scores_equal_seqeval_strict(scheme: TagScheme) -> None:
    pytest.importorskip("seqeval")
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.scheme import IOB2, IOBES

    draw = random.Random(1)
    names = tag_names(["A", "B"], scheme)
    # Any tags as predictions, valid or not.
    found = [[draw.choice(names) for _ in range(12)] for _ in range(20)]
    truth = [write_tags(read_tags([draw.choice(names) for _ in range(12)]), 12, scheme)] * 20
    asked = {"mode": "strict", "scheme": IOB2 if scheme == "iob2" else IOBES}
    ours = score_spans(
        *(
            [[TextSpan(*s) for s in strict_spans(tags, scheme)] for tags in side]
            for side in (truth, found)
        )
    )
    assert ours.micro.f1 > 0
    for value, theirs in (
        (ours.micro.precision, precision_score(truth, found, **asked)),
        (ours.micro.recall, recall_score(truth, found, **asked)),
        (ours.micro.f1, f1_score(truth, found, **asked)),
        (ours.macro_f1, f1_score(truth, found, average="macro", **asked)),
    ):
        assert value == pytest.approx(theirs, abs=1e-9)


# CRF


def _random_crf(tags: int = 3) -> LinearChainCrf:
    torch.manual_seed(0)
    crf = LinearChainCrf(tags).double()
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    return crf


def test_crf_equals_enumeration() -> None:
    crf, lengths = _random_crf().requires_grad_(False), (4, 2, 1)
    emissions = torch.randn(3, 4, 3, dtype=torch.double)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    total = crf.log_partition(emissions, mask)
    for row, length in enumerate(lengths):
        scores = {
            path: float(
                crf.starts[path[0]]
                + crf.ends[path[-1]]
                + sum(emissions[row, i, tag] for i, tag in enumerate(path))
                + sum(crf.transitions[a, b] for a, b in itertools.pairwise(path))
            )
            for path in itertools.product(range(3), repeat=length)
        }
        all_ = torch.tensor(list(scores.values()), dtype=torch.double)
        assert float(total[row]) == pytest.approx(float(all_.logsumexp(0)), abs=1e-9)
        best = max(scores, key=lambda path: scores[path])
        assert tuple(crf.decode(emissions[row, :length])) == best
        tags = torch.tensor([[*best, *[2] * (4 - length)]])
        found = crf.score(emissions[row : row + 1], tags, mask[row : row + 1])
        assert float(found) == pytest.approx(scores[best], abs=1e-9)


def test_crf_equals_pytorch_crf() -> None:
    torchcrf = pytest.importorskip("torchcrf")
    crf, theirs = _random_crf(), torchcrf.CRF(3, batch_first=True).double()
    with torch.no_grad():
        theirs.start_transitions.copy_(crf.starts)
        theirs.transitions.copy_(crf.transitions)
        theirs.end_transitions.copy_(crf.ends)
    emissions = torch.randn(5, 9, 3, dtype=torch.double, requires_grad=True)
    mask = torch.arange(9) < torch.tensor([9, 7, 1, 4, 9])[:, None]
    tags = torch.randint(3, (5, 9))
    ours = crf(emissions, tags, mask)
    expected = -theirs(emissions, tags, mask, reduction="none")
    torch.testing.assert_close(ours, expected, atol=1e-9, rtol=0)
    slopes = (torch.autograd.grad(loss.sum(), emissions)[0] for loss in (ours, expected))
    torch.testing.assert_close(*slopes, atol=1e-9, rtol=0)
    paths = [crf.decode(row[: int(n)]) for row, n in zip(emissions, mask.sum(1), strict=True)]
    assert paths == theirs.decode(emissions, mask)


# Files


def test_a_crf_on_another_device_scores_emissions_on_the_cpu() -> None:
    """On a GPU, a tagger collects the emissions of its windows on the CPU.

    Device `meta` stands for the GPU: its weights cannot be copied, which is the error here.
    """
    crf, emissions = LinearChainCrf(3).to("meta"), torch.zeros(4, 3)
    with pytest.raises(NotImplementedError, match="Cannot copy"):
        crf.decode(emissions)
    with pytest.raises(NotImplementedError, match="Cannot copy"):
        crf.score(emissions[None], torch.zeros(1, 4).long(), torch.ones(1, 4).bool())


def test_files_of_every_scheme_have_the_same_spans(tmp_path: Path) -> None:
    texts = _texts(8)
    for scheme in ("iob1", "iob2", "bioes"):
        write_tagged_texts(tmp_path / "a.conll", texts, scheme)
        assert read_tagged_texts(tmp_path / "a.conll") == texts
        assert read_tagged_texts(tmp_path / "a.conll", scheme=scheme) == texts
    write_tagged_texts(tmp_path / "a.jsonl", texts, "iob2")
    assert read_tagged_texts(tmp_path / "a.jsonl") == texts
    (tmp_path / "b.conll").write_text("a I-A\n")
    with pytest.raises(InputError, match=r"line 1: its tags are not IOB2"):
        read_tagged_texts(tmp_path / "b.conll", scheme="iob2")


def test_columns_and_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("-DOCSTART- (1)\n\nAda\tN\tO\tI-P\n.\tN\tO\tO\n\n\nBob\tN\tO\tI-P\n")
    first, second = read_tagged_texts(path)
    assert (first.text, first.spans) == ("Ada .", (TextSpan(0, 3, "P"),))
    assert second.text == "Bob"
    assert not read_tagged_texts(path, tag_column=2)[0].spans


def test_bad_files(tmp_path: Path) -> None:
    def spans(*places: tuple[int, int, str]) -> str:
        values = [dict(zip(("start", "end", "label"), place, strict=True)) for place in places]
        return json.dumps({"text": "alpha beta", "spans": values}) + "\n"

    path = tmp_path / "a.jsonl"
    path.write_text(spans((0, 5, "A"), (3, 10, "B")))
    with pytest.raises(InputError, match=r"line 1: the spans 0-5 \(A\) and 3-10 \(B\) overlap"):
        read_tagged_texts(path)
    path.write_text(spans((0, 2, "A"), (2, 5, "B")))
    with pytest.raises(InputError, match="overlap"):
        read_tagged_texts(path)  # both would tag the first word
    path.write_text(spans((0, 50, "A")))
    with pytest.raises(InputError, match="1 of 1 texts cannot be read: 1 no spans, or spans out"):
        read_tagged_texts(path)
    path.write_text(spans((0, 5, "A")) + spans((0, 50, "A")))
    assert len(read_tagged_texts(path, max_unreadable=0.5)) == 1
    for name in ("a.csv", "a.jsonl.gz", "a.conll.zst"):  # what reads them expects another content
        with pytest.raises(InputError, match="are not written as"):
            write_tagged_texts(tmp_path / name, _texts(1), "iob2")
    path = tmp_path / "a.conll"
    path.write_text("word\n\nother O\n")
    with pytest.raises(InputError, match=r"1 of 2 texts cannot be read: 1 too few columns"):
        read_tagged_texts(path)
    path.write_text("word NN\n")
    with pytest.raises(InputError, match="unknown tag 'NN'"):
        read_tagged_texts(path)
    with pytest.raises(InputError, match=r"text 1 has the unknown label 'C': 'w3'"):
        _tagger().check_labels([_text(["w3"], ["B-C"])])
    with pytest.raises(ConfigError, match="IOB1"):
        _tagger(scheme="iob1")


# Training


@pytest.mark.parametrize(
    ("kind", "crf", "scheme", "adaptation"),
    [
        ("bert", False, "iob2", "full"),
        ("bert", True, "bioes", "full"),
        ("gpt2", True, "iob2", "lora"),
    ],
)
def test_learns(kind: str, crf: bool, scheme: str, adaptation: str, tmp_path: Path) -> None:
    tagger = _tagger(kind, crf=crf, scheme=scheme)
    config = task_config(
        adaptation, batch_size=8, learning_rate=1e-2, learning_rates={"attached": 3e-2}
    )
    texts, test = _texts(96), _texts(20, seed=1)
    tagger.train(texts, output_dir=tmp_path, adaptation=adaptation, epochs=4, config=config)
    found = tagger.predict(test)
    scores = score_spans([t.spans for t in test], [f.spans for f in found])
    assert scores.micro.f1 > 0.9
    loaded = TextTagger.load(tmp_path / "model")
    assert loaded.tags == tagger.tags
    again = loaded.predict([TaggedText(t.text, t.words) for t in test])
    assert [one.spans for one in again] == [one.spans for one in found]
    if crf:
        assert not sum(one.invalid for one in found)
        assert all(one.margin > -1e-4 for one in found), "a CRF's own path scores best"


def test_batches_do_not_change_scores() -> None:
    tagger, texts = _tagger(), [*_texts(3), *_texts(3, length=30)]
    together = tagger.emissions(texts)
    for text, scores in zip(texts, together, strict=True):
        torch.testing.assert_close(tagger.emissions([text])[0], scores, atol=1e-5, rtol=0)


def test_windows_by_hand() -> None:
    assert windows(5, 6, 2) == [(0, 5)]
    assert windows(11, 6, 2) == [(0, 6), (4, 10), (8, 11)]
    assert most_context([(0, 6), (4, 10), (8, 11)], 11).tolist() == [0] * 5 + [1] * 4 + [2] * 2
    with pytest.raises(ConfigError, match="cannot share"):
        windows(9, 4, 4)


def test_a_long_text_is_read_in_windows() -> None:
    text = _texts(1, length=150)[0]
    tagger = TextTagger(Encoder(models.model("bert", grown=False), max_length=32), ["A", "B"])
    pieces = tagger.read([text])
    assert len(pieces) > 5
    assert all(len(piece.ids) <= 32 for piece in pieces)
    read = [n for piece in pieces for n in range(piece.words.start, piece.words.stop)]
    assert read == list(range(len(text.words))), "each word once, in order"
    ids = tagger.encoder.model.tokenizer.encode(text.text, add_special_tokens=False)
    chosen = [piece.ids[place] for piece in pieces for place in piece.places]
    assert chosen == ids, "these words are tokens"
    assert len(tagger.emissions([text])[0]) == len(text.words)


def test_a_word_is_its_first_token_or_its_last() -> None:
    text = TaggedText("ab cd \u200b", ((0, 2), (3, 5), (6, 7)))
    offsets = [(0, 1), (1, 2), (2, 4), (4, 5)]  # the second word begins with its space
    assert _tagger("bert")._places(text, offsets).tolist() == [0, 2, 3]
    assert _tagger("gpt2")._places(text, offsets).tolist() == [1, 3, 3]


def test_dictionary_by_hand() -> None:
    train = [
        _text(["a", "b", "x", "a"], ["B-A", "I-A", "O", "O"]),
        _text(["c", "c", "c"], ["B-B", "O", "O"]),
        _text(["a"], ["B-A"]),
    ]
    found = TrainingDictionary(train).tag([_text(["A", "B", "a", "c"], ["O"] * 4)])
    # The longest run, in any case; `a` alone is a span in one place of three; `c` in one of three.
    assert found == [(TextSpan(0, 3, "A"),)]


def test_commands(tmp_path: Path) -> None:
    _tagger().encoder.save(tmp_path / "base")
    for name, count in (("train", 64), ("test", 20)):
        write_tagged_texts(tmp_path / f"{name}.conll", _texts(count, seed=count), "iob1")
    ran = idiolect_program(
        *("tasks", "tag", "train", "train.conll", "--encoder", "base", "-o", "run", "--crf"),
        *("--lr", 0.01, "--batch-size", 8, "--epochs", 6),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    ran = idiolect_program(
        *("tasks", "tag", "evaluate", "run/model", "test.conll", "--train", "train.conll"),
        *("--errors", "errors.html", "--json"),
        folder=tmp_path,
    )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["tagger"]["micro"]["f1"] > 0.8
    assert result["training dictionary"]["micro"]["f1"] == 1
    assert np.sum(result["confusion"]) == sum(len(t.words) for t in _texts(20, seed=20))
    assert "Confusion of words" in (tmp_path / "errors.html").read_text()
    (tmp_path / "new.jsonl").write_text(json.dumps({"text": f"{WORDS[9]} {WORDS[0]} w2"}) + "\n")
    ran = idiolect_program(
        *("tasks", "tag", "predict", "run/model", "new.jsonl", "-o", "out.jsonl"), folder=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "out.jsonl").read_text())
    assert found["spans"] == [{"start": 3, "end": 8, "label": "A", "text": "w0 w2"}]
