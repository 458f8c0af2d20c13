"""Pairs of aligned files, and what is wrong with them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from idiolect.errors import InputError
from idiolect.text.parallel_text import TextPair, read_parallel
from idiolect.text.skipped import Skipped


def test_pairs_are_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.de").write_text("ein Hund\neine Katze\n")
    (tmp_path / "a.en.gz").write_bytes(gzip.compress(b"a dog \n a cat"))
    pairs = read_parallel(tmp_path / "a.de", tmp_path / "a.en.gz")
    assert pairs == [TextPair("ein Hund", "a dog"), TextPair("eine Katze", "a cat")]


@pytest.mark.parametrize("lines", [(3, 5), (5, 3)])
def test_unequal_files_are_refused_with_both_numbers(
    tmp_path: Path, lines: tuple[int, int]
) -> None:
    for name, count in zip(("a", "b"), lines, strict=True):
        (tmp_path / name).write_text("x\n" * count)
    with pytest.raises(InputError, match=r"3 lines and .* has 5") as raised:
        read_parallel(tmp_path / "a", tmp_path / "b")
    shorter = "a" if lines[0] == 3 else "b"
    assert str(raised.value).startswith(str(tmp_path / shorter))


def test_empty_sides_are_counted_named_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x\n\n" + "x\n" * 8)
    (tmp_path / "b").write_text("y\n" * 9 + "  \n")
    skipped = Skipped()
    pairs = read_parallel(tmp_path / "a", tmp_path / "b", max_unreadable=0.2, skipped=skipped)
    assert len(pairs) == 8
    assert skipped.places == {"with an empty side": ["a line 2", "b line 10"]}
    with pytest.raises(InputError, match="2 of 10 pairs have an empty side"):
        read_parallel(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_text("")
    with pytest.raises(InputError, match="no pairs"):
        read_parallel(tmp_path / "c", tmp_path / "c")
