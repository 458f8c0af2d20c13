"""`idiolect init`: files are recognized, and the configuration it writes is valid."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from idiolect.errors import InputError
from idiolect.pipeline.data import Data
from idiolect.pipeline.pipeline_config import PipelineConfig
from idiolect.pipeline.survey import survey
from pipeline.shop import open_shop


def written(folder: Path, base: str = "model") -> PipelineConfig:
    path = folder / "written.toml"
    path.write_text(survey(folder, base=base).text)
    return PipelineConfig.load(path)


def test_everything_is_found_by_its_name(tmp_path: Path) -> None:
    open_shop(tmp_path)
    config = written(tmp_path)
    usual = PipelineConfig.load(tmp_path / "idiolect.toml").data
    assert config.data == usual.model_copy(update={"id": "id", "text": ("title", "text")})
    assert config.base == "model"
    assert len(Data(config.data, tmp_path).items) == 40


def test_every_key_is_described(tmp_path: Path) -> None:
    open_shop(tmp_path)
    text = survey(tmp_path, base="model").text
    uncommented = "\n".join(
        line.removeprefix("# ") for line in text.splitlines() if " = " in line or line[:1] == "["
    )
    values = tomllib.loads(uncommented)
    assert set(values) == set(PipelineConfig.model_fields)
    for table in ("audit", "pretrain", "tune", "evaluate"):
        assert (
            values[table].keys()
            == PipelineConfig.model_fields[table].annotation.model_fields.keys()
        )
    assert "# Steps" not in text.replace("# steps = ", "")
    assert "# Share of general text, if there is any." in text


def test_fields_of_a_table_of_another_shop(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text(
        "sku,name,description,price\na1,Lamp,A lamp for the garden,3\nb2,Pump,A pump,4\n"
    )
    found = written(tmp_path)
    assert (found.data.items, found.data.id, found.data.title) == ("products.csv", "sku", "name")
    assert found.data.text == ("name", "description")
    item = Data(found.data, tmp_path).items["a1"]
    assert item.text == "Lamp\nA lamp for the garden"
    assert item.metadata == {"price": 3, "name": "Lamp", "title": "Lamp"}


def test_an_id_is_a_field_with_unique_values(tmp_path: Path) -> None:
    rows = [{"kind": "lamp", "code": f"x{i}", "words": "some words here"} for i in range(3)]
    (tmp_path / "things.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = written(tmp_path)
    assert (found.data.items, found.data.id) == ("things.jsonl", "code")
    assert found.data.text == ("words",)


def test_missing_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"id": "1", "text": "a"}\n')
    findings = survey(tmp_path, base="model").findings
    assert "items: items.jsonl" in findings
    assert "pairs: none found" in findings


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("notes.md", "hello", "holds no catalogue"),
        ("items.jsonl", "", "is empty"),
        ("items.jsonl", '{"id": 1, "n": 2}\n{"id": 2, "n": 2}\n', "no field with text"),
        ("items.jsonl", '{"a": "x"}\n{"a": "x"}\n', "no field with unique values"),
    ],
)
def test_invalid_catalogues(tmp_path: Path, file: str, content: str, message: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=message):
        survey(tmp_path, base="model")


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        survey(tmp_path / "nowhere", base="model")
