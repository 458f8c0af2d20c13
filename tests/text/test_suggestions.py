"""Hints with a similar name."""

from __future__ import annotations

from pathlib import Path

from idiolect.text.suggestions import similar_path


def test_a_path_is_not_suggested_in_its_own_place(tmp_path: Path) -> None:
    (tmp_path / "shop").touch()
    assert similar_path(tmp_path / "shop") == ""
    (tmp_path / "shops").touch()
    assert similar_path(tmp_path / "shop") == f"did you mean {tmp_path / 'shops'}?"
    assert similar_path(tmp_path / "shp") == f"did you mean {tmp_path / 'shop'}?"
