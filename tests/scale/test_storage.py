"""Files under URIs: their names, and local copies of models."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from idiolect.errors import CheckpointError
from idiolect.scale.corpus_parts import ReadingOptions, divide_corpus
from idiolect.scale.storage import Storage, local_copy
from idiolect.text.skipped import Skipped


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder for local copies."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_any_name_of_a_file_is_found_again_by_its_uri(tmp_path: Path) -> None:
    names = ["50%25.jsonl", "a b.jsonl", "q?.jsonl", "x#1.jsonl", "ü.jsonl"]
    (tmp_path / "of 1%20").mkdir()
    for name in names:
        (tmp_path / "of 1%20" / name).write_text(f'{{"text": "{name}"}}\n')
    options = ReadingOptions()
    parts = divide_corpus([(tmp_path / "of 1%20").as_uri()], options, 1000)
    assert [text for part in parts for text in part.documents(options, Skipped())] == names


def test_options_of_a_uri_belong_to_the_files_of_its_folder() -> None:
    options = "?scheme=http&endpoint_override=localhost%3A9000"
    file = Storage.of(f"s3://bucket/folder/{options}") / "part 1.jsonl"
    assert file.uri == f"s3://bucket/folder/part%201.jsonl{options}"
    assert Storage.of(file.uri).path == file.path == "bucket/folder/part 1.jsonl"


def test_a_model_of_one_file_is_copied_too(tmp_path: Path, copies: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    copy = Path(local_copy((tmp_path / "model.gguf").as_uri()))
    assert (copy.name, copy.read_bytes()) == ("model.gguf", b"GGUF")
    assert local_copy((tmp_path / "model.gguf").as_uri()) == str(copy)


def test_a_copy_that_fails_leaves_nothing(
    tmp_path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    for name in ("a", "b"):
        (tmp_path / "model" / name).write_bytes(b"content")
    usual = Storage.download

    def cut(self: Storage, target: Path, begin: int = 0, end: int | None = None) -> None:
        usual(self, target, begin, end)
        if self.name == "b":
            raise CheckpointError("the connection is lost")

    monkeypatch.setattr(Storage, "download", cut)
    with pytest.raises(CheckpointError, match="lost"):
        local_copy((tmp_path / "model").as_uri())
    assert not [path for path in copies.rglob("*") if path.is_file()]
