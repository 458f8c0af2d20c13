"""Word vectors as features: what a probe can learn from them, and what only from their order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from idiolect.cli.main import app
from idiolect.errors import InputError
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.probes.tagged_words import TaggedSentence
from idiolect.tasks.probes.word_probes import (
    WordProbe,
    _windows,
    probe_words,
    tagging_probes,
    text_probe,
)
from idiolect.words.word_vectors import WordVectors

NOUNS, VERBS = [f"n{i}" for i in range(40)], [f"v{i}" for i in range(40)]


@pytest.fixture
def vectors() -> WordVectors:
    """Nouns lie on one side, verbs on the other; each word also has noise."""
    noise = np.random.default_rng(0).standard_normal((80, 6)) * 0.1
    noise[:, 0] += [1] * 40 + [-1] * 40
    return WordVectors(NOUNS + VERBS, noise)


def _sentences(count: int, words: int = 6) -> list[list[str]]:
    generator = np.random.default_rng(1)
    return [generator.choice(NOUNS + VERBS, words).tolist() for _ in range(count)]


def test_windows_end_with_their_sentence() -> None:
    made = _windows([np.array([4, -1, 6]), np.array([7])])
    assert made.tolist() == [
        [-1, -1, 4, -1, 6],
        [-1, 4, -1, 6, -1],
        [4, -1, 6, -1, -1],
        [-1, -1, 7, -1, -1],
    ]


def test_tags_of_a_word_and_of_its_neighbour_are_learnt(vectors: WordVectors) -> None:
    sentences = _sentences(120)
    own = tuple(tuple(word[0] for word in one) for one in sentences)
    before = tuple(("-", *(word[0] for word in one[:-1])) for one in sentences)
    words = tuple(map(tuple, sentences))
    for labels in (own, before):
        score = probe_words(vectors, WordProbe("tags", "tagging", words, labels))
        assert score.score == score.score_all == 1.0
        assert (score.answered, score.questions) == (24 * 6, 24 * 6)
        assert score.baselines["majority"] < 0.6


def test_unknown_words_count_in_the_score_of_all(vectors: WordVectors) -> None:
    """Their tag is the rarer one, so that it is predicted wrongly without a vector."""
    sentences = [[*one[:4], "unseen", one[5]] for one in _sentences(100)]
    tags = tuple(tuple(word[0] for word in one) for one in sentences)
    words = tuple(map(tuple, sentences))
    score = probe_words(vectors, WordProbe("tags", "tagging", words, tags))
    assert (score.answered, score.questions) == (100, 120)
    assert score.score == 1.0
    flat = [tag for one in tags for tag in one]
    assert score.baselines["majority"] == pytest.approx(
        max(flat.count("n"), flat.count("v")) / 500, abs=0.12
    )


def test_texts_are_classified_by_the_mean_of_their_words(vectors: WordVectors) -> None:
    """Of words that never occur in training, random vectors say nothing."""
    generator = np.random.default_rng(3)
    texts = []
    for number in range(80):
        label = number % 2
        words = generator.choice((NOUNS, VERBS)[label], 2)
        texts.append(LabelledText(f"The {words[0]}, and {words[1]}!", str(label)))
    task = text_probe("sides", texts)
    assert task.sentences[0][0] == "the"
    score = probe_words(vectors, task)
    assert (score.score, score.answered, score.questions) == (1.0, 16, 16)
    assert score.baselines["random vectors"] < 1
    assert 0.3 < score.baselines["majority"] < 0.7
    again = probe_words(vectors, task)
    assert again == score


def test_chunks_are_made_of_parts_of_speech() -> None:
    sentence = TaggedSentence(("The", "Cat", "sleeps"), ("DT", "NN", "VBZ"))
    tags, chunks = tagging_probes("toy", [sentence])
    assert tags.sentences == chunks.sentences == (("the", "cat", "sleeps"),)
    assert chunks.labels == (("B-NP", "I-NP", "B-VP"),)
    assert tagging_probes("toy", [sentence], lowercase=False)[0].sentences[0][0] == "The"


def test_too_few_sentences_or_labels_are_refused(vectors: WordVectors) -> None:
    for count, message in ((9, "has 9 sentences"), (20, "has one label")):
        texts = [LabelledText("n1 v2", "same")] * count
        with pytest.raises(InputError, match=message):
            probe_words(vectors, text_probe("toy", texts))


def test_the_command_prints_tasks_with_their_baselines(
    vectors: WordVectors, tmp_path: Path
) -> None:
    vectors.save(tmp_path / "v.safetensors")
    lines = [
        " ".join(f"{w}_{'NN' if w[0] == 'n' else 'VB'}" for w in one) for one in _sentences(60)
    ]
    (tmp_path / "tags.txt").write_text("\n".join(lines))
    rows = [{"text": " ".join([w] * 2), "label": w[0]} for w in NOUNS[:20] + VERBS[:20]]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["words", "evaluate", str(tmp_path / "v.safetensors")]
    command += ["--tagged", str(tmp_path / "tags.txt"), "--labelled", str(tmp_path / "texts.jsonl")]
    found = CliRunner().invoke(app, [*command, "--json"])
    assert found.exit_code == 0, found.output
    scores = json.loads(found.stdout)["models"]["v"]
    assert [one["test"] for one in scores] == ["tags: parts of speech", "tags: chunks", "texts"]
    assert all(set(one["baselines"]) == {"majority", "random vectors"} for one in scores)
    assert scores[2]["score"] == 1.0
    assert scores[2]["baselines"]["random vectors"] < 1
    page = tmp_path / "page.html"
    plain = CliRunner().invoke(app, [*command, "--report", str(page)])
    assert "majority" in plain.stdout
    assert "random vectors" in page.read_text()
