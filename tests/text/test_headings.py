"""Titles and headings in Markdown, reStructuredText and plain text; what is neither."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from idiolect.text.headings import Section, split_sections, split_title

PROSE = (
    "the pumps of the second floor were replaced in the spring of last year, when the\n"
    "water had become too warm for them, and nobody remembered why."
)


@pytest.mark.parametrize(
    ("text", "title", "rest"),
    [
        ("Pumps\nThey move water.", "Pumps", "They move water."),
        ("\n# Pumps #\n\nThey move water.\n", "Pumps", "They move water."),
        ("Pumps\n=====\nThey move water.", "Pumps", "They move water."),
        ("=====\nPumps\n=====\n\nThey move water.", "Pumps", "They move water."),
        ("numpy.sin(x, /)\n\nSine of an angle.", "numpy.sin(x, /)", "Sine of an angle."),
        ("HP toner 83A\nblack, 2000 pages", "HP toner 83A", "black, 2000 pages"),
    ],
)
def test_title(text: str, title: str, rest: str) -> None:
    assert split_title(text) == (title, rest)


@pytest.mark.parametrize("text", ["", "Pumps", "Pumps\n \n", PROSE, f"{'word ' * 41}\nThe rest."])
def test_no_title(text: str) -> None:
    assert split_title(text) is None


def test_markdown() -> None:
    text = (
        "Before.\n\n# Pumps\nThey move water.\n\n## Care ##\n\nOil them.\n\n```\n# a comment\nx\n"
        "```\nAgain.\n\n### Empty\n\nSpares\n------\nAsk us.\n"
    )
    assert [(one.heading, one.body) for one in split_sections(text)] == [
        ("Pumps", "They move water."),
        ("Care", "Oil them.\n\n```\n# a comment\nx\n```\nAgain."),
        ("Spares", "Ask us."),
    ]


def test_headings_are_those_of_a_markdown_parser() -> None:
    text = (
        "Pumps\n=====\n\nThey move water.\n\n## Care\n\nOil *them*.\n\n#not one\n\n"
        "~~~\n# code\n~~~\n\n"
        "Parts to order\n--------------\n\nAsk us.\n\n- a list\n- of things\n\n"
        "   ### End ###\nBye.\n"
    )
    tokens = MarkdownIt().parse(text)
    theirs = [
        inside.content
        for opening, inside in pairwise(tokens)
        if opening.type == "heading_open" and inside.type == "inline"
    ]
    assert theirs == ["Pumps", "Care", "Parts to order", "End"]
    assert [one.heading for one in split_sections(text)] == theirs


def test_restructured_text() -> None:
    text = (
        "=======\nPumps\n=======\n\nThey move water.\n\nCare\n----\nOil them.\n\n"
        "Parts to order\n~~~~~~~~~~~~~~\n\nAsk us.\n"
    )
    assert split_sections(text) == [
        Section("Pumps", "They move water."),
        Section("Care", "Oil them."),
        Section("Parts to order", "Ask us."),
    ]


def test_plain_text() -> None:
    text = (
        "BACKGROUND\nthe pumps were old.\n\n2.1 Methods:\n\nWe oiled them.\n\nThen we waited.\n\n"
        "it went on\nwithout a heading.\n\n- Not this\n  one.\n"
    )
    assert split_sections(text) == [
        Section("BACKGROUND", "the pumps were old."),
        Section(
            "2.1 Methods",
            "We oiled them.\n\nThen we waited.\n\nit went on\nwithout a heading.\n\n"
            "- Not this\n  one.",
        ),
    ]
    assert split_sections(PROSE) == []


@given(st.text(alphabet="aA #=-`~\n.:1", max_size=60))
def test_any_text_is_split_without_inventing_any(text: str) -> None:
    for section in split_sections(text):
        assert section.heading in text
        assert section.body in text
        assert section.body.strip() == section.body != ""
    if (titled := split_title(text)) is not None:
        assert titled[0] in text
        assert titled[1].splitlines()[0] in text
