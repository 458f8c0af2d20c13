"""`FileRecord`: which files are damaged, what it costs to find out, and what is no damage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from idiolect.text import file_record
from idiolect.text.file_record import FileRecord


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files, one in a subfolder."""
    (tmp_path / "made" / "model").mkdir(parents=True)
    (tmp_path / "made" / "model" / "weights").write_bytes(b"weights" * 100)
    (tmp_path / "made" / "list.json").write_text("[]")
    return tmp_path / "made"


def test_nothing_is_wrong_with_files_that_did_not_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = FileRecord.of(folder)
    assert list(record.files) == ["list.json", "model/weights"]
    monkeypatch.setattr(file_record, "_hash", lambda path: pytest.fail("it need not be read"))
    (folder / "notes.txt").write_text("a user's own file")
    assert record.damage(folder) == {}


def test_each_kind_of_damage_is_named(folder: Path) -> None:
    record = FileRecord.of(folder)
    weights = folder / "model" / "weights"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:10])
    assert record.damage(folder) == {"model/weights": "has 10 bytes instead of 700"}
    weights.write_bytes(b"W" + whole[1:])
    assert record.damage(folder) == {"model/weights": "has been changed"}
    weights.unlink()
    (folder / "list.json").unlink()
    (folder / "list.json").mkdir()
    assert record.damage(folder) == {"list.json": "is missing", "model/weights": "is missing"}


def test_a_change_that_restores_the_time_is_noticed(folder: Path) -> None:
    weights = folder / "model" / "weights"
    before = weights.stat()
    record = FileRecord.of(folder)
    weights.write_bytes(b"W" + weights.read_bytes()[1:])
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert record.damage(folder) == {"model/weights": "has been changed"}


def test_a_copy_is_intact_and_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = FileRecord.of(folder)
    digest = record.digest()
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copy)
    assert record.damage(copy) == {}
    assert record.digest() == digest
    monkeypatch.setattr(file_record, "_hash", lambda path: pytest.fail("it was read already"))
    assert FileRecord(record.files).damage(copy) == {}


def test_a_digest_leaves_out_names(folder: Path) -> None:
    before = FileRecord.of(folder)
    (folder / "list.json").write_text("[1]")
    after = FileRecord.of(folder)
    assert before.digest() != after.digest()
    assert before.digest(["list.json"]) == after.digest(["list.json"])
    assert before.digest(["model"]) != before.digest()
