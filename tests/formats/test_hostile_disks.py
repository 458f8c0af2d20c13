"""Folders that cannot be written to, and clocks that jump: one line, and nothing is lost."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from idiolect.errors import CheckpointError, InputError
from idiolect.pipeline.publishing.push_to_hub import Publication
from idiolect.pipeline.run_directory import RunDirectory
from idiolect.search.index import Index
from idiolect.serve.access.api_keys import add_key
from idiolect.text.file_record import FileRecord
from idiolect.vocabulary.terms import Terms
from idiolect.words.word_vectors import WordVectors

_NOBODY = 65534
_ITEMS = [
    {"id": str(number), "text": text, "vector": np.eye(3)[number].tolist()}
    for number, text in enumerate(("a lamp", "a pump", "a chair"))
]


@contextmanager
def _without_rights(folder: Path) -> Iterator[None]:
    """Make a folder unwritable, and drop the rights of root, to whom modes mean nothing."""
    mine, mode = os.geteuid(), folder.stat().st_mode
    folder.chmod(0o555)
    if not mine:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if not mine:
            os.seteuid(mine)
        folder.chmod(mode)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others may read, unlike that of pytest."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_folder_without_rights_is_named(folder: Path) -> None:
    vectors = WordVectors(["lamp"], np.eye(1, dtype=np.float32))
    publication = Publication("me/words", "tune", "mit", {"README.md": b"# words"})
    with _without_rights(folder):
        with pytest.raises(InputError, match=r"cannot create .*new"):
            Index.build(folder / "new", None, _ITEMS)
        with pytest.raises(InputError, match="cannot write"):
            vectors.save(folder / "words.safetensors")
        with pytest.raises(InputError, match="cannot write"):
            publication.write(folder / "card")
        with pytest.raises(InputError, match=r"cannot write .*terms.json"):
            Terms.of(["lamp"]).save(folder / "terms.json")
        with pytest.raises(InputError, match=r"cannot write .*keys.json"):
            add_key(folder / "keys.json", "web")
        with (
            pytest.raises(InputError, match=r"cannot write to .*run"),
            RunDirectory(folder / "run").locked(""),
        ):
            pass
    assert not list(folder.iterdir()), "nothing was left behind"


def test_an_index_without_rights_is_refused_and_unchanged(folder: Path) -> None:
    path = folder / "index"
    Index.build(path, None, _ITEMS).close()
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    for file in path.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    with _without_rights(path), pytest.raises(CheckpointError, match="permissions"):
        Index.open(path)
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()} == before
    with Index.open(path) as index:
        assert len(index) == 3


@pytest.mark.parametrize("moment", [0, 4_000_000_000])
def test_files_are_intact_whatever_the_clock_said(folder: Path, moment: int) -> None:
    """A clock that jumped, or a copy that lost its times, makes no stage run again."""
    path = folder / "model.bin"
    path.write_bytes(b"weights")
    record = FileRecord.of(folder)
    os.utime(path, (moment, moment))
    assert not record.damage(folder)
    path.write_bytes(b"Weights")
    os.utime(path, (moment, moment))
    assert FileRecord(record.files).damage(folder), "the content decides"
