"""Titles, headings and crops as queries: what is drawn, what is skipped, and what is learned."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoding.test_static_encoder import WORDS, static
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.mining import Mining
from idiolect.encoding.objectives.text_parts import Crops, Headings, Parts, Titles
from idiolect.encoding.tune import tune
from idiolect.encoding.tune_on_text import tune_on_text
from idiolect.encoding.tuning_setup import tuning_config
from idiolect.errors import ConfigError, InputError
from idiolect.training.data.shuffled_epochs import EpochSample

LETTERS = WORDS[4:]


def article(number: int) -> str:
    """A title of two words of its own, and two sections, of which one has a common heading."""
    title = f"{LETTERS[number % 16]} {LETTERS[number // 16]}"
    body = " ".join(LETTERS[(number * k) % 16] for k in range(1, 9))
    return f"# {title}\n\n## Methods\n\n{body} one\n\n## Of {title}\n\n{body} two"


def drawn(objective: Any, epoch: int = 0) -> list[tuple[str, str]]:
    return [objective._draw(number, epoch) for number in objective._numbers]


def test_what_is_drawn() -> None:
    texts = [article(number) for number in range(20)]
    encoder = static()
    for (query, document), text in zip(drawn(Titles(encoder, texts)), texts, strict=True):
        assert text == f"# {query}\n\n{document}"
    found = {pair for epoch in range(8) for pair in drawn(Headings(encoder, texts), epoch)}
    first = texts[0].split("\n\n")
    assert (f"{first[0][2:]} Methods", first[2]) in found, "a heading of all texts has a title"
    assert (first[3][3:], first[4]) in found, "a heading of its own is alone"
    parts = {pair for epoch in range(30) for pair in drawn(Parts(encoder, texts), epoch)[:1]}
    assert {drawn(Titles(encoder, texts))[0], (first[3][3:], first[4])} <= parts
    crops = parts - {*drawn(Titles(encoder, texts)), *found}
    assert crops
    assert all(sorted((q + " " + d).split()) == sorted(texts[0].split()) for q, d in crops)


def test_draws_follow_from_seed_epoch_and_text() -> None:
    texts = [article(number) for number in range(20)]
    encoder = static()
    assert drawn(Parts(encoder, texts, seed=1)) == drawn(Parts(encoder, texts, seed=1))
    assert drawn(Parts(encoder, texts, seed=1)) != drawn(Parts(encoder, texts, seed=2))
    assert drawn(Parts(encoder, texts), 0) != drawn(Parts(encoder, texts), 1)


def test_texts_without_the_part_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [*(article(number) for number in range(6)), "a b c d", "e f g h"]
    encoder = static()
    for kind in (Titles, Headings):
        objective = kind(encoder, texts)
        assert len(objective) == 6
        assert list(objective.skipped.values()) == [2]
    assert len(Parts(encoder, texts)) == len(Crops(encoder, texts)) == 8
    config = tuning_config(encoder, batch_size=4)
    with caplog.at_level(logging.WARNING):
        tune_on_text(
            encoder, texts, output_dir=tmp_path, objective="titles", epochs=2, config=config
        )
    assert "2 of 8 texts have no title of their own and are not trained on (text 7, text 8)" in (
        caplog.text
    )
    assert Encoder.load(tmp_path / "model").fingerprint == encoder.fingerprint
    # two epochs of one step each: six texts, four per step
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_title_that_many_texts_share_is_no_title() -> None:
    texts = [f"BACKGROUND\n{LETTERS[number]} {LETTERS[number + 1]} a b" for number in range(9)]
    with pytest.raises(InputError, match="9 of 9 texts have no title of their own") as caught:
        Titles(static(), texts)
    assert "crops" in caught.value.hint
    with pytest.raises(InputError, match="no heading of their own"):
        Headings(static(), texts)


def test_equal_queries_are_not_contrasted() -> None:
    texts = ["a b\nc d e f", "a b\ng h i j", "k l\nm n o p"]
    objective = Titles(static(), texts)
    batch = objective.prepare(EpochSample([0, 1, 2], 0))
    expected = np.zeros((3, 3), bool)
    expected[0, 1] = expected[1, 0] = True
    np.testing.assert_array_equal(batch.ignored.numpy(), expected)
    network = objective.encoder.model.network
    queries, documents = (
        objective.encoder.embed_rows(rows) for rows in (batch.queries, batch.rows)
    )
    scores = (queries @ documents.T / 0.05).masked_fill(batch.ignored, -np.inf)
    expected_loss = torch.nn.functional.cross_entropy(scores, torch.arange(3), reduction="sum")
    assert torch.allclose(objective.loss(network, batch), expected_loss, atol=1e-4)


def test_tune_without_pairs_trains_on_crops_and_tells_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [*(article(number) for number in range(24)), "a b c d"]
    made = [static(), static()]
    config = tuning_config(made[0], batch_size=8, learning_rate=1e-3)
    options: dict[str, Any] = {"steps": 4, "config": config, "whiten": False}
    tune(made[0], corpus=texts, output_dir=tmp_path / "tune", **options)
    told = capsys.readouterr().err
    assert "training on crops of 25 texts, of which 24 have a title and 24 a heading" in told
    tune_on_text(made[1], texts, output_dir=tmp_path / "crops", objective="crops", **options)
    assert made[0].fingerprint == made[1].fingerprint != static().fingerprint
    with pytest.raises(ConfigError, match="mining needs pairs"):
        tune(static(), None, corpus=texts, output_dir=tmp_path, mining=Mining(count=1))
    with pytest.raises(InputError, match="0 different texts"):
        tune(static(), None, output_dir=tmp_path)


def test_titles_are_learned(tmp_path: Path) -> None:
    """A title finds its text, which has other words, after training only."""
    texts = [f"{LETTERS[n]}\n{LETTERS[n + 8]} {LETTERS[n + 8]}" for n in range(8)]
    encoder = static()

    def found() -> int:
        lines = [text.splitlines() for text in texts]
        queries, documents = (encoder.encode([line[side] for line in lines]) for side in (0, 1))
        return int(((queries @ documents.T).argmax(1) == np.arange(8)).sum())

    before = found()
    config = tuning_config(encoder, batch_size=8)
    options: dict[str, Any] = {"steps": 60, "whiten": False, "config": config}
    tune_on_text(encoder, texts, output_dir=tmp_path, objective="titles", **options)
    assert found() == 8 > before
