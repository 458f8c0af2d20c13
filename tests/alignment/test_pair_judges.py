"""A judge behind an endpoint is asked in both orders, and a reply without a verdict is a tie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from idiolect.alignment.judging.pair_judges import AnswerPair, EndpointJudge, win_rate
from idiolect.alignment.preference.preferences import Preference
from idiolect.alignment.reward.reward_evaluation import evaluate_margins
from idiolect.search.answers.writers import EndpointWriter


def test_a_judge_behind_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: EndpointWriter, messages: list[dict[str, str]], _: int) -> Iterator[str]:
        text = messages[0]["content"]
        good = text.index("{fine}") < text.index("bad") if "{fine}" in text else None
        yield from ("The verdict: [[", "A" if good else "B", "]]") if good is not None else ("?",)

    monkeypatch.setattr(EndpointWriter, "write", write)
    judge = EndpointJudge("http://localhost:8000/v1", "any")
    found = win_rate(judge, [AnswerPair("q", "{fine}", "bad"), AnswerPair("q", "a", "b")])
    assert (found.win_rate, found.first_place, judge.unclear) == (0.75, 0.5, 2)
    assert list(judge([AnswerPair("q", "bad", "{fine}")])) == [0.0]


def test_each_pair_is_in_one_band_of_lengths() -> None:
    lengths = [-1, 0, 1, 1, 2, 3]
    pairs = [Preference("q", "x" * (5 + longer), "y" * 5) for longer in lengths]
    found = evaluate_margins(pairs, np.ones(len(pairs)), bands=2, samples=10).by_length
    assert [(one.low, one.high, one.count) for one in found] == [(-1, 1, 2), (1, 3, 4)]
