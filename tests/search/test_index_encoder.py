"""The encoder of an index: stored by its location, loaded when it is needed, and verified."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from idiolect.encoding.encoder import Encoder
from idiolect.errors import ConfigError, InputError
from idiolect.search.index import Index
from idiolect.search.index_location import RUN_INDEX
from search.words import Words

ITEMS = [("1", "red lamp"), ("2", "wooden chair")]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the locations from which encoders were loaded; a file there is one's fingerprint."""
    locations: list[str] = []

    def load(location: str, **_: str) -> Words:
        locations.append(str(location))
        return Words(Path(location).read_text())

    monkeypatch.setattr(Encoder, "load", load)
    return locations


def _encoder(path: Path, fingerprint: str = "words") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(fingerprint)
    return str(path)


def _dense(index: Index) -> str:
    return index.search("crimson light", 1, mode="dense")[0].id


def test_the_encoder_is_loaded_when_it_is_needed(tmp_path: Path, loaded: list[str]) -> None:
    model = _encoder(tmp_path / "model")
    Index.build(tmp_path / "index", model, ITEMS).close()
    loaded.clear()
    with Index.open(tmp_path / "index") as index:
        assert dict(index.add(ITEMS)) == {"unchanged": 2}
        assert [hit.id for hit in index.search("lamp", mode="lexical")] == ["1"]
        assert model in repr(index)
        assert loaded == []
        assert _dense(index) == "1"
        assert index.search("crimson light", 1)[0].id == "1"
        assert loaded == [model]


def test_index_and_encoder_may_be_moved(
    tmp_path: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    monkeypatch.chdir(tmp_path / "old")
    Index.build("index", _encoder(Path("models/tuned")), ITEMS).close()
    monkeypatch.chdir(tmp_path)
    Path("old").rename("new")
    with Index.open("new/index") as index:  # both together
        assert _dense(index) == "1"
    assert loaded[-1] == str(tmp_path / "new/models/tuned")
    Path("new").rename("old")
    Path("other").mkdir()
    shutil.move("old/index", "other/index")
    with Index.open("other/index") as index:  # the index alone
        assert _dense(index) == "1"
    Path("old/models/tuned").rename("elsewhere")
    with Index.open("other/index") as index:
        with pytest.raises(ConfigError, match=r"is not at .*tuned any more \(pass encoder=PATH"):
            index.search("lamp")
        assert [hit.id for hit in index.search("lamp", mode="lexical")] == ["1"]
    with Index.open("other/index", "elsewhere") as index:
        assert _dense(index) == "1"


def test_the_name_of_a_known_model_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called so in some folder is another encoder."""
    monkeypatch.setattr(Encoder, "load", lambda *_, **__: Words())
    monkeypatch.chdir(tmp_path)
    Path("minilm").mkdir()
    for name, location in (("minilm", "minilm"), ("./minilm", str(tmp_path / "minilm"))):
        with Index.build(f"index-{len(name)}", name, ITEMS) as index:
            assert index.store.settings["source"] == location


def test_an_encoder_that_has_changed_is_refused(tmp_path: Path, loaded: list[str]) -> None:
    model = _encoder(tmp_path / "model")
    Index.build(tmp_path / "index", model, ITEMS).close()
    _encoder(tmp_path / "model", "tuned again")
    with Index.open(tmp_path / "index") as index:
        with pytest.raises(ConfigError, match="built with encoder words…, this is tuned again"):
            index.search("lamp")
        with pytest.raises(ConfigError, match="was built with"):
            index.update("1", text="blue lamp")
        assert index.get("1").text == "red lamp"  # type: ignore[union-attr]


def test_a_run_is_opened_as_its_index(tmp_path: Path, loaded: list[str]) -> None:
    """The index is built in the folder of an unfinished stage, which is renamed at its end."""
    stages = tmp_path / "run" / "stages"
    model = _encoder(stages / "tune" / "model")
    Index.build(stages / ".index.partial" / "index", model, ITEMS).close()
    with pytest.raises(InputError, match=r"the run .*run has no index yet \(`idiolect run` res"):
        Index.open(tmp_path / "run")
    (stages / ".index.partial").rename(stages / "index")
    (tmp_path / "run").rename(tmp_path / "moved")
    with Index.open(tmp_path / "moved") as index:
        assert _dense(index) == "1"
        assert index.store.path == tmp_path / "moved" / RUN_INDEX  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"movd does not exist \(did you mean .*moved\?\)"):
        Index.open(tmp_path / "movd")
