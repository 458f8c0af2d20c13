"""Runs that are killed, interrupted, fed a bad batch or out of disk resume to identical results."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from idiolect.errors import CheckpointError, InputError, TrainingError
from idiolect.text.corpus import Corpus
from idiolect.training.checkpoint import RunFolder
from idiolect.training.objectives.causal import Causal
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from training import models, runs


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An uninterrupted run, and its duration in seconds."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert runs.finish(runs.start(out)) == 0  # starts the server of processes
    shutil.rmtree(out)
    started = time.perf_counter()
    assert runs.finish(runs.start(out)) == 0
    return out, time.perf_counter() - started


def _assert_same(out: Path, whole: Path) -> None:
    ours, reference = runs.outcome(out), runs.outcome(whole)
    assert ours.keys() == reference.keys()
    for name, data in reference.items():
        assert ours[name] == data, f"{name} differs"
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, runs.STEPS + 1))
    assert not list(out.glob(".*")), "a temporary file was left"


@pytest.mark.parametrize("often", [5, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, whole: tuple[Path, float], often: int) -> None:
    reference, seconds = whole
    seed = time.time_ns()
    draw = random.Random(seed)
    out, kills = tmp_path / "run", 0
    while True:
        process = runs.start(out)
        if kills < often:
            process.join(draw.uniform(0, seconds))
        else:
            runs.finish(process)
        if process.exitcode is not None:
            assert process.exitcode == 0, f"seed {seed}"
            break
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        runs.finish(process)
        kills += 1
    _assert_same(out, reference)


def test_a_run_killed_before_the_record_of_its_model_was_there(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    def save(model: Path) -> None:
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")

    folder.publish(save)
    record = (tmp_path / "published.json").read_bytes()
    (tmp_path / "published.json").rename(tmp_path / ".published.json.new")
    assert folder.is_published()
    assert (tmp_path / "published.json").read_bytes() == record
    assert {path.name for path in tmp_path.iterdir()} == {"model", "published.json"}


def test_a_setting_that_was_added_since_has_its_default(tmp_path: Path) -> None:
    folder, usual = RunFolder(tmp_path), {"config": {"new": 2}}
    folder.begin({"config": {"old": 1}})
    (tmp_path / "model").mkdir()
    folder.begin({"config": {"old": 1, "new": 2}}, defaults=usual)
    with pytest.raises(CheckpointError, match="new was 2 and is 3"):
        folder.begin({"config": {"old": 1, "new": 3}}, defaults=usual)
    with pytest.raises(CheckpointError, match="old was 1 and is None"):
        folder.begin({"config": {"new": 2}}, defaults=usual)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = runs.start(out, steps=1000)
    runs.wait_for(lambda: any(out.glob("checkpoint-*")), process)
    assert runs.finish(runs.start(out, steps=1000)) == 2
    assert "another process trains in" in (tmp_path / "error.txt").read_text()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    assert runs.finish(process) == 143, "it was not disturbed"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_a_signal_saves_and_ends(
    tmp_path: Path, whole: tuple[Path, float], number: signal.Signals, status: int
) -> None:
    out = tmp_path / "run"
    process = runs.start(out)
    metrics = out / "metrics.jsonl"
    runs.wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 2, process)
    assert process.pid is not None
    os.kill(process.pid, number)
    assert runs.finish(process) == status
    done = metrics.read_text().count("\n")
    assert done < runs.STEPS, "it ran to the end"
    assert (out / f"checkpoint-{done:08}" / "state.json").exists(), "the last step was not saved"
    assert runs.finish(runs.start(out)) == 0
    _assert_same(out, whole[0])


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, whole: tuple[Path, float]) -> None:
    out = tmp_path / "run"
    process = runs.start(out)
    runs.wait_for(lambda: (out / "checkpoint-00000004").exists(), process)
    process.kill()
    runs.finish(process)
    before = {path.name for path in out.glob("checkpoint-*")}
    room = (whole[0] / f"checkpoint-{runs.STEPS:08}" / "optimizer.safetensors").stat().st_size - 1
    assert runs.finish(runs.start(out, largest_file=room)) == 2
    error = (tmp_path / "error.txt").read_text()
    assert "cannot write the checkpoint of step" in error
    assert "is complete" in error
    assert {path.name for path in out.glob("checkpoint-*")} == before
    assert not list(out.glob(".checkpoint*"))
    assert runs.finish(runs.start(out)) == 0
    _assert_same(out, whole[0])


def _corpus() -> Corpus:
    return Corpus.from_texts(models.texts())


_PLAN = TrainingConfig(max_length=32, batch_size=2, learning_rate=1e-2, save_steps=4)


@pytest.mark.parametrize(
    ("factor", "words"), [(float("nan"), "the loss is nan"), (1e3, "its mean so far")]
)
def test_a_bad_batch_stops_the_run_before_the_weights_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, words: str
) -> None:
    calls = 0
    usual = Causal.loss

    def poisoned(self: Causal, network: object, batch: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return usual(self, network, batch) * (factor if calls == 7 else 1.0)  # type: ignore[arg-type]

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Causal, "loss", poisoned)
        with pytest.raises(TrainingError) as caught:
            pretrain(models.model(), _corpus(), output_dir=out, steps=10, config=_PLAN)
    message = str(caught.value)
    assert "step 7" in message
    assert words in message
    assert "the batch holds documents" in message
    assert (out / "checkpoint-00000006").exists(), "the state before the batch is kept"
    # With the usual loss the run resumes and ends as an uninterrupted one does.
    pretrain(models.model(), _corpus(), output_dir=out, steps=10, config=_PLAN)
    other = tmp_path / "other"
    pretrain(models.model(), _corpus(), output_dir=other, steps=10, config=_PLAN)
    weights = "model/model.safetensors"
    assert (out / weights).read_bytes() == (other / weights).read_bytes()


def test_an_infinite_gradient_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Causal.loss

    def infinite(self: Causal, network: object, batch: object) -> torch.Tensor:
        loss = usual(self, network, batch)  # type: ignore[arg-type]
        loss.register_hook(lambda grad: grad * float("inf"))
        return loss

    monkeypatch.setattr(Causal, "loss", infinite)
    with pytest.raises(TrainingError, match="gradient"):
        pretrain(models.model(), _corpus(), output_dir=tmp_path / "run", steps=3, config=_PLAN)


def test_too_little_disk_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="are free"):
        pretrain(models.model(), _corpus(), output_dir=tmp_path / "run", steps=3, config=_PLAN)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_another_run_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain(models.model(), _corpus(), output_dir=out, steps=2, config=_PLAN)
    other = models.model()
    with torch.no_grad():
        next(other.network.decoder.parameters()).add_(1)  # type: ignore[union-attr]
    with pytest.raises(CheckpointError, match="another run: model was"):
        pretrain(other, _corpus(), output_dir=out, steps=2, config=_PLAN)
    with pytest.raises(CheckpointError, match="steps was 2 and is 3"):
        pretrain(models.model(), _corpus(), output_dir=out, steps=3, config=_PLAN)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        pretrain(models.model(), _corpus(), output_dir=out, steps=2, config=_PLAN)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("kept", [1, 2])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    tmp_path: Path, name: str, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without one before it, the run starts again; both end as an undamaged run does."""
    out, plan = tmp_path / "run", replace(_PLAN, save_steps=3 - kept)
    pretrain(models.model(), _corpus(), output_dir=out, steps=2, config=plan)
    whole = load_file(out / "model" / "model.safetensors")
    shutil.rmtree(out / "model")
    file = out / "checkpoint-00000002" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    pretrain(models.model(), _corpus(), output_dir=out, steps=2, config=plan)
    assert "checkpoint-00000002 is damaged and not used" in capsys.readouterr().err
    again = load_file(out / "model" / "model.safetensors")
    assert all(again[name].equal(tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_model_is_written_again(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    pretrain(models.model(), _corpus(), output_dir=out, steps=1, config=_PLAN)
    file = out / "model" / name
    whole = file.read_bytes()
    (out / "model" / "notes.txt").write_text("a user's own")
    pretrain(models.model(), _corpus(), output_dir=out, steps=1, config=_PLAN)
    assert "writing the model again" not in capsys.readouterr().err, "an added file is no damage"
    file.write_bytes(whole[:100])
    pretrain(models.model(), _corpus(), output_dir=out, steps=1, config=_PLAN)
    assert f"{name} has 100 bytes instead of" in capsys.readouterr().err
    assert file.read_bytes() == whole
    assert (out / "model" / "notes.txt").exists()


def test_a_damaged_token_file_is_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    pretrain(models.model(), _corpus(), output_dir=out, steps=1, config=_PLAN)
    ids = out / "tokens" / "ids.bin"
    whole = ids.read_bytes()
    ids.write_bytes(whole[:-4])
    pretrain(models.model(), _corpus(), output_dir=out, steps=1, config=_PLAN)
    assert "ids.bin is missing or truncated; tokenizing the corpus again" in capsys.readouterr().err
    assert ids.read_bytes() == whole


def test_a_damaged_record_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain(models.model(), _corpus(), output_dir=out, steps=1, config=_PLAN)
    record = out / "run.json"
    record.write_text(record.read_text()[:40])
    with pytest.raises(CheckpointError, match=r"delete the folder .* to start the run again"):
        pretrain(models.model(), _corpus(), output_dir=out, steps=1, config=_PLAN)


def test_only_a_runs_own_temporary_files_are_deleted(tmp_path: Path) -> None:
    """The folder may be one that holds a user's hidden files, such as a repository."""
    (tmp_path / ".git").mkdir()
    users = [tmp_path / ".env", tmp_path / ".git" / "HEAD", tmp_path / "notes" / ".draft"]
    own = [tmp_path / name for name in (".checkpoint.a1", ".tokens.a1", ".model.new")]
    for folder in (tmp_path / "notes", tmp_path / "adapter", *own):
        folder.mkdir()
    own += [tmp_path / ".run.json.a1", tmp_path / "adapter" / ".adapter_config.json.a1"]
    for file in (*users, *own[3:]):
        file.write_text("x")
    RunFolder(tmp_path).begin({})
    assert all(path.exists() for path in users)
    assert not any(path.exists() for path in own)


def test_a_run_with_other_settings_uses_no_files_of_one_without_checkpoints(
    tmp_path: Path,
) -> None:
    """Token ids of other corpora, or log-probabilities of another model, would be used unseen."""
    RunFolder(tmp_path).begin({"corpus": "a"})
    folders = [tmp_path / name for name in ("tokens", "tokens-1", "validation-tokens-0", "mined")]
    for folder in (*folders, tmp_path / "tokens-of-mine"):
        folder.mkdir()
    (tmp_path / "reference.safetensors").write_text("x")
    RunFolder(tmp_path).begin({"corpus": "b"})
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "tokens-of-mine"}


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = pretrain(models.model(), _corpus(), output_dir=out, steps=4, config=_PLAN)
    stamp = (out / "model" / "model.safetensors").stat().st_mtime_ns
    again = pretrain(models.model(), _corpus(), output_dir=out, steps=4, config=_PLAN)
    assert (out / "model" / "model.safetensors").stat().st_mtime_ns == stamp
    for (name, a), b in zip(
        first.network.named_parameters(), again.network.parameters(), strict=True
    ):
        assert torch.equal(a, b), name
