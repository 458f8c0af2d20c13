"""Progress: a bar on a terminal, whole lines elsewhere, and one report for work inside work."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import pytest

from idiolect.training import progress
from idiolect.training.progress import (
    Activity,
    Reporter,
    lines_of,
    notice,
    report_to,
    show_progress,
    status,
    track,
)

_WORK = """
import time
from idiolect.training import progress
progress._FIRST_LINE = progress._OTHER_LINES = 0.1
with progress.show_progress("encoding", 1000) as activity:
    for _ in range(6):
        time.sleep(0.1)
        activity.advance(100)
    with progress.status("a silent part"):
        time.sleep(0.5)
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Print lines at once."""
    monkeypatch.setattr(progress, "_FIRST_LINE", 0.01)
    monkeypatch.setattr(progress, "_OTHER_LINES", 0.01)


@pytest.mark.parametrize("variable", ["", "FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_file_gets_whole_lines(variable: str) -> None:
    environment = {**os.environ, **({variable: "1"} if variable else {})}
    done = subprocess.run(
        [sys.executable, "-c", _WORK], capture_output=True, env=environment, check=True
    )
    assert done.stdout == b""
    assert b"\r" not in done.stderr
    assert b"\x1b" not in done.stderr
    lines = done.stderr.decode().splitlines()
    assert len(lines) > 4
    assert all(line.startswith("encoding: ") for line in lines)
    assert any("/1,000" in line and "left" in line for line in lines)
    assert "600/1,000  a silent part" in lines[-1]


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", _WORK], stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        if not part:
            break
        written += part
    assert process.wait() == 0
    assert b"\r" in written
    assert b"600/1,000" in written
    assert b"left" not in written, "the line for files"


def test_short_work_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with status("loading"):
        pass
    assert list(track("ab", "reading")) == ["a", "b"]
    assert capsys.readouterr() == ("", "")


def test_hidden_work_prints_nothing(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("encoding", 5, shown=False) as activity:
        activity.advance()
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_nobody_reads_any_more(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as not_to_be_written:
        for stream in (None, not_to_be_written):
            monkeypatch.setattr(sys, "stderr", stream)
            lines = []
            with lines_of(lambda lines=lines: lines.append("written") or "working"):
                time.sleep(0.05)
            notice("a remark")
            assert lines, "the thread that prints has stopped, or never began"


def test_work_inside_work_is_a_note_of_it() -> None:
    seen: list[tuple[int, int, str]] = []
    with report_to(lambda *state: seen.append(state)), show_progress("systems", 3) as outer:
        outer.update(1, "BM25")
        with show_progress("encoding", 1000) as inner:
            inner.advance(500)
            assert seen[-1] == (1, 3, "BM25: encoding 500/1,000")
        assert seen[-1] == (1, 3, "BM25")
    assert seen[0] == (0, 3, "systems")


def test_remarks_go_to_the_display() -> None:
    said: list[str] = []
    with report_to(lambda *_: None, said.append):
        notice("a file is damaged")
    assert said == ["a file is damaged"]


def test_time_left_counts_from_where_the_run_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    activity = Activity("training", 100)
    activity.start_at(90)
    now[0] += 10
    activity.update(95, "loss 1.0")
    assert activity.line() == "training: 95/100  loss 1.0  0:10, about 0:10 left"


def test_training_reports_steps() -> None:
    seen: list[tuple[int, int, str]] = []
    with (
        report_to(lambda *state: seen.append(state)),
        Reporter(None, steps=4, done=2) as reporter,
    ):
        reporter.step(3, {"loss": 1.5, "tokens_per_second": 1000.0})
    assert seen[0][:2] == (0, 4)
    assert seen[-1] == (3, 4, "loss 1.5000  1,000 tokens/s")
