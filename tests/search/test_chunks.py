"""Chunks of documents: exact places, nothing lost, cut at the seams of the text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from idiolect.errors import InputError
from idiolect.search.chunks import count_words, sentence_spans, split_text, widen

_SEAMS = st.sampled_from(
    [
        "\n",
        "\n\n",
        ". ",
        "# ",
        "## Care\n",
        "===\n",
        "。",
        " ",
        "\r\n",
        "\u2028",
        "```\n",
        "e\u0301",
    ]
)
_TEXTS = st.lists(st.one_of(_SEAMS, st.text(max_size=12)), max_size=30).map("".join)


@given(_TEXTS, st.integers(1, 12), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
@example("x" * 200, 2, 0)
@example("\x1c# a\x1db\x85c", 1, 0)
@example("\U0001f468\u200d\U0001f469\u200d\U0001f467" * 9, 2, 1)
def test_chunks_are_slices_and_nothing_is_lost(text: str, most: int, overlap: int) -> None:
    chunks = split_text(text, most, overlap=overlap)
    covered = set[int]()
    before = -1
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text == chunk.text.strip() != ""
        assert count_words(chunk.text) <= most or len(chunk.text) == 1
        assert chunk.end > before
        before = chunk.end
        covered |= set(range(chunk.start, chunk.end))
    assert all(place in covered for place, character in enumerate(text) if character.strip())


@given(_TEXTS, st.integers(1, 8), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_wider_part_holds_the_chunk(text: str, most: int, wider: int) -> None:
    for chunk in split_text(text, most):
        start, end = widen(text, (chunk.start, chunk.end), wider)
        assert start <= chunk.start
        assert end >= chunk.end
        assert (start, end) == (chunk.start, chunk.end) or count_words(text[start:end]) <= wider + 1


def test_seams_are_preferred() -> None:
    text = "Intro here.\n\n# Pumps\nOil them. Clean them well.\n\nKeep dry.\n\n# Seals\nDry."
    chunks = split_text(text, 8)
    assert [chunk.text for chunk in chunks] == [
        "Intro here.",
        "# Pumps\nOil them.",
        "Clean them well.\n\nKeep dry.",
        "# Seals\nDry.",
    ]
    assert [chunk.heading for chunk in chunks] == ["", "Pumps", "Pumps", "Seals"]
    wide = widen(text, (chunks[1].start, chunks[1].end), 40)
    assert text[slice(*wide)] == "# Pumps\nOil them. Clean them well.\n\nKeep dry."  # one section


def test_overlap_repeats_whole_sentences() -> None:
    text = "One two. Three four. Five six. Seven eight."
    texts = [chunk.text for chunk in split_text(text, 6, overlap=3)]
    assert texts == ["One two. Three four.", "Three four. Five six.", "Five six. Seven eight."]


def test_accents_stay_with_their_letter() -> None:
    text = "e\u0301\u0327" * 40
    assert all(chunk.text[0] == "e" for chunk in split_text(text, 4))


def test_wrapped_lines_are_one_sentence() -> None:
    text = "Return the sum of\nall elements, e.g. 3.5 of them. See\nDr. Who.\n- a list\n- an item"
    parts = [text[slice(*span)] for span in sentence_spans(text)]
    assert parts[0] == "Return the sum of\nall elements, e.g. 3.5 of them."
    assert parts[-2:] == ["- a list", "- an item"]


def test_lengths_are_checked() -> None:
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(InputError):
            split_text("a", wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        split_text(b"a")  # type: ignore[arg-type]
