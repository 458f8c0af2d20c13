"""A store in a folder that cannot be written, and metadata that is not what was written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idiolect.errors import CheckpointError, InputError
from idiolect.search.store.store import Store
from search.things import DIMENSIONS, thing

READ = """
import sys
from idiolect.errors import InputError
from idiolect.search.index import Index
from idiolect.search.store.store import Store
path = sys.argv[1]
with Index.open(path) as index:
    assert len(index) == 3, len(index)
store = Store.open(path)
one = store.fetch(["t1"], vectors=True)["t1"]
assert store.query(one.vector, 1)[0].id == "t1"
for write in (lambda: store.delete(["t1"]), store.merge, lambda: store.snapshot("one")):
    try:
        write()
    except InputError as error:
        assert "cannot be written" in error.message, error
    else:
        raise AssertionError("it was written")
store.close()
"""


def _build(folder: Path) -> Path:
    with Store.open(folder, dimensions=DIMENSIONS, background=False) as store:
        store.upsert([thing(n, price=n, tags=["new", "red"]) for n in range(3)])
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a folder read-only")
def test_an_index_on_a_read_only_file_system_is_searched_and_not_written(tmp_path: Path) -> None:
    """Permission bits do not bind the superuser, a read-only mount does."""
    folder = _build(tmp_path / "index")
    mount = f'mount --bind "{folder}" "{folder}" && mount -o remount,bind,ro "{folder}"'
    if os.getuid() or not shutil.which("unshare"):
        pytest.skip("only the superuser mounts")
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounts are not permitted here")
    read = f'{mount} && exec "{sys.executable}" -c "$0" "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", read, READ, str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in folder.iterdir()) == ["ledger.db"]


def test_a_reader_without_rights_sees_later_writes_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _build(tmp_path / "index")
    reader_is_asking = [True]
    access = os.access
    monkeypatch.setattr(os, "access", lambda *given: not reader_is_asking[0] and access(*given))
    with Store.open(folder) as reader:
        assert sorted(path.name for path in folder.iterdir()) == ["ledger.db"]
        assert reader.namespaces() == {"": 3}
        with pytest.raises(InputError, match="cannot be written"):
            reader.upsert([thing(4)])
        reader_is_asking[0] = False
        writer = Store.open(folder, background=False)
        writer.upsert([thing(4)])
        reader_is_asking[0] = True
        assert reader.namespaces() == {"": 4}, "with the log of the writer"
        writer.close()
        assert reader.namespaces() == {"": 4}, "after the writer has closed"


def _damage_metadata(folder: Path) -> str:
    """Cut the metadata of the second item short, and return its id."""
    with sqlite3.connect(folder / "ledger.db") as db:
        (id,) = db.execute("SELECT id FROM items WHERE row = 2").fetchone()
        db.execute("""UPDATE items SET metadata = '{"price": ' WHERE row = 2""")
    db.close()
    return str(id)


def test_damaged_metadata_is_reported_with_its_item(tmp_path: Path) -> None:
    folder = _build(tmp_path / "index")
    id = _damage_metadata(folder)
    with Store.open(folder, background=False) as store:
        for read in (
            lambda: store.fetch([id]),
            lambda: list(store.items()),
            lambda: store.compact(rebuild=True),
        ):
            with pytest.raises(CheckpointError, match=f"is damaged.*metadata of the item '{id}'"):
                read()
        assert id in store.list()


@pytest.mark.parametrize("how", ["delete", "replace", "change the text"])
def test_an_item_with_damaged_metadata_can_be_deleted_and_replaced(
    tmp_path: Path, how: str
) -> None:
    folder = _build(tmp_path / "index")
    id = _damage_metadata(folder)
    with Store.open(folder, background=False) as store:
        whole = thing(int(id[1:]), price=1)
        if how == "delete":
            store.delete([id])
        elif how == "replace":
            store.upsert([replace(whole, vector=-np.asarray(whole.vector))])
        else:
            store.upsert([replace(whole, text="another text")])
        assert list(store.verify()) == [], "entries of the filters that no item has"
        store.compact(rebuild=True)
        assert (id in store.list()) == (how != "delete")


def test_a_read_only_index_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _build(tmp_path / "index")
    with sqlite3.connect(folder / "ledger.db") as db:
        (table,) = db.execute(
            "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE %fts5%'"
        ).fetchone()
    db.close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store.open(folder) as store:
        assert list(store.verify()) == []
        assert sorted(file.name for file in folder.iterdir()) == ["ledger.db"]
    monkeypatch.undo()
    with sqlite3.connect(folder / "ledger.db") as db:
        db.execute(f"DELETE FROM {table}_data WHERE id > 10")
    db.close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with Store.open(folder) as store:
        assert list(store.verify()), "a damaged full-text index"
