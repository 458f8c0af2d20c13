"""Files are written whole, with the mode of the process's umask, which is never touched."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from idiolect.text.files import replacing_file, working_folder, write_atomic


@pytest.fixture
def umask() -> int:
    """The umask of this process, which only a test may set."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_file_has_the_usual_mode(tmp_path: Path, umask: int) -> None:
    write_atomic(tmp_path / "a", b"data")
    assert (tmp_path / "a").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask
    private = os.umask(0o077)
    try:
        write_atomic(tmp_path / "b", b"data")
    finally:
        os.umask(private)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600


def test_threads_write_without_touching_the_umask(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[int] = []
    monkeypatch.setattr(os, "umask", touched.append)

    def write(name: str) -> None:
        for number in range(40):
            write_atomic(tmp_path / f"{name}{number}", name.encode() * 1000)
            write_atomic(tmp_path / "shared", name.encode() * 1000)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not touched
    files = list(tmp_path.iterdir())
    assert len(files) == 81, "no temporary file is left"
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o666 & ~umask}
    assert len(set((tmp_path / "shared").read_bytes())) == 1


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomic(tmp_path / "a", b"old")

    def fail(source: object, target: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(tmp_path / "a", b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder") as caught:
        write_atomic(tmp_path / "report.html", b"data")
    assert caught.value.filename == str(tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_file_that_cannot_be_created_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_atomic(tmp_path / "no" / "report.html", b"data")
    assert caught.value.filename == str(tmp_path / "no" / "report.html")


def _killed_within(context: str, statement: str) -> None:
    code = (
        "import os; from pathlib import Path; from idiolect.text.files import *\n"
        f"with {context} as fresh:\n    {statement}; os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    _killed_within(f"replacing_file(Path({str(path)!r}))", "fresh.write_bytes(b'half of a long')")
    assert len(list(tmp_path.iterdir())) == 1, "the child left its file"
    write_atomic(path, b"short")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.json", b"short")]


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing_file(path) as first:
        first.write_bytes(b"first")
        with replacing_file(path) as second:
            assert second != first
            second.write_bytes(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / ".a.new").symlink_to("other")
    write_atomic(tmp_path / "a", b"data")
    assert (tmp_path / "other").read_bytes() == b"other"
    assert (tmp_path / "a").read_bytes() == b"data"


def test_a_working_folder_of_a_killed_process_is_deleted_and_one_in_use_is_not(
    tmp_path: Path,
) -> None:
    _killed_within(f"working_folder(Path({str(tmp_path)!r}), '.saving-')", "(fresh / 'a').touch()")
    (left,) = tmp_path.iterdir()
    (tmp_path / ".saving-file").touch()
    with (
        working_folder(tmp_path, ".saving-") as first,
        working_folder(tmp_path, ".saving-") as second,
    ):
        assert not left.exists()
        assert first.is_dir()
        assert second.is_dir()
        (second / "data").write_bytes(b"data")
        second.rename(tmp_path / "kept")
    assert {path.name for path in tmp_path.iterdir()} == {".saving-file", "kept"}
    assert (tmp_path / "kept" / "data").read_bytes() == b"data"
