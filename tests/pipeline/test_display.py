"""The progress display of a run."""

from __future__ import annotations

import pytest

from idiolect.pipeline import display
from idiolect.pipeline.display import Display


def test_time_left_in_all_is_named_only_if_every_stage_has_an_estimate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    first = Display(["audit", "extend", "report"], [None, None, 5.0])
    again = Display(["audit", "extend", "report"], [40.0, 60.0, 5.0])
    with first.running("audit"), again.running("audit"):
        now[0] += 10
        # Of two stages nothing is known yet: the five seconds of the report are no estimate.
        assert first._describe() == "audit: 0:10  stage 1 of 3"
        assert again._describe() == "audit: 0:10  about 1:35 left in all"
        first.advance(0, 100, "")
        now[0] += 10
        first.advance(20, 100, "")
        assert first._describe() == "audit: 0:20  20/100  stage 1 of 3, about 0:40 left in it"


def test_a_control_takes_as_long_as_the_same_stage_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    run = Display(["evaluate_recommend", "recommend"], [None, None])
    with run.running("evaluate_recommend"):
        now[0] += 10
    with run.running("recommend"):
        assert run._describe() == "recommend: 0:00  stage 2 of 2"
    controls = Display(["tune", "random.tune"], [None, None])
    with controls.running("tune"):
        now[0] += 10
    with controls.running("random.tune"):
        assert controls._describe() == "random.tune: 0:00  about 0:10 left in all"
