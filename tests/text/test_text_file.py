"""Texts on disk read as a list of them would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idiolect.text.text_file import TextFile


@given(st.lists(st.text()))
def test_it_is_a_list_of_texts(texts: list[str]) -> None:
    stored = TextFile(texts)
    assert isinstance(stored, Sequence)
    assert list(stored) == texts
    assert stored[::-2] == texts[::-2]
    assert stored[1:4] == texts[1:4]
    assert list(TextFile.distinct(texts)) == list(dict.fromkeys(texts))


def test_places_outside_are_refused(tmp_path: Path) -> None:
    stored = TextFile(["a", "b"], folder=tmp_path)
    stored.append("c")
    assert stored[-1] == "c"
    for outside in (3, -4):
        with pytest.raises(IndexError):
            stored[outside]
    assert not list(tmp_path.iterdir()), "the file has no name that could be left behind"
