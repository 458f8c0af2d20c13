"""Counts of skipped records: what is told, and how much is kept."""

from __future__ import annotations

from idiolect.text.skipped import Skipped, skip, summary


def test_a_summary_names_the_most_frequent_reasons_only() -> None:
    skipped = Skipped()
    for number in range(300):
        skip(skipped, f"unknown tag '{number}'", f"a.conll line {number}")
    for number in range(7):
        skip(skipped, "empty", f"a.conll line {number}")
    told = summary(skipped)
    assert told.startswith("7 empty (a.conll line 0, a.conll line 1, a.conll line 2, …), 1 unknown")
    assert told.endswith(", 296 for other reasons")
    assert len(told) < 400


def test_reasons_that_quote_a_long_file_take_bounded_memory() -> None:
    skipped = Skipped()
    for number in range(5000):
        skip(skipped, f"unknown tag '{number}'", f"line {number}")
    assert len(skipped) <= 1001
    assert skipped.total() == 5000
    assert summary(skipped).count("for other reasons") == 1
