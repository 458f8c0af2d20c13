"""Tuning by prompts, prefixes, LoRA and fully; and the commands, on files."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cli.program import idiolect_program
from idiolect.cli.prompting import evaluating, tuning
from idiolect.cli.prompting.task_options import find_task
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.generate.generator import Generator
from idiolect.models.language_model import LanguageModel
from idiolect.nn.prompt.attach_prompt import add_prompt, prompt_of
from idiolect.nn.prompt.prompt_config import PromptConfig
from idiolect.prompting.prompt_evaluation import evaluate_prompt
from idiolect.prompting.prompt_task import PromptTask
from idiolect.prompting.prompt_template import PromptTemplate
from idiolect.prompting.tune_prompt import (
    AnswerObjective,
    PromptAdaptation,
    tune_prompt,
    tuning_config,
)
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.training.data.shuffled_epochs import EpochSample
from training import models

TASK = PromptTask(PromptTemplate("", "{text} w30", {"a": "w31", "b": "w32 w33"}), ("a", "b"))


def examples(count: int, *, seed: int = 0) -> list[LabelledText]:
    """The last word names the label."""
    draw = random.Random(seed)
    labels = [draw.choice("ab") for _ in range(count)]
    return [
        LabelledText(f"w{draw.randint(8, 20)} " * draw.randint(1, 3) + f"w{'ab'.index(one)}", one)
        for one in labels
    ]


def test_the_loss_is_that_of_the_answers_tokens() -> None:
    model = models.model("llama", grown=False)
    shown = examples(6)
    batch = AnswerObjective(model, TASK, shown, 64).prepare(EpochSample([4, 1, 3], 0))
    expected, count = torch.zeros(()), 0
    for number in (4, 1, 3):
        answer = TASK.template.answer(str(shown[number].label))
        context = model.tokenizer.encode(TASK.template.render(shown[number]))
        target = model.tokenizer.encode(answer)
        logits = model.network(torch.tensor([[*context, *target]])).logits[0]
        predicted = logits[len(context) - 1 : -1]
        expected = expected + F.cross_entropy(predicted, torch.tensor(target), reduction="sum")
        count += len(target)
    objective = AnswerObjective(model, TASK, shown, 64)
    torch.testing.assert_close(objective.loss(model.network, batch), expected)
    assert batch.count == count
    # A row that is too long loses its start, never its answer.
    short = AnswerObjective(model, TASK, shown, 3).prepare(EpochSample([4, 1, 3], 0))
    assert short.input_ids.shape[1] == 3
    assert short.count == count


@pytest.mark.parametrize("adaptation", ["prompt", "prefix"])
def test_long_texts_leave_room_for_virtual_tokens(
    tmp_path: Path, adaptation: PromptAdaptation, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are added after the examples are known, and take positions from them."""
    long = [LabelledText("w9 " * 100 + f"w{'ab'.index(one)}", one) for one in "abab"]
    long.append(LabelledText("w9", "a"))
    model = models.model("gpt2", grown=False)
    config = tuning_config(adaptation, batch_size=4)
    tune_prompt(
        model, TASK, long, output_dir=tmp_path, adaptation=adaptation, config=config, steps=1
    )
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    room = 64 - model.network.virtual_tokens
    assert json.loads(line)["tokens"] in (4 * room, 3 * room + 2)
    said = capsys.readouterr().err
    assert f"4 of 5 examples are cut to their last {room} tokens" in said
    evaluate_prompt(Generator(model), TASK, long)
    said = capsys.readouterr().err
    assert f"4 of 5 prompts exceed the model's context of {room} tokens" in said


@pytest.mark.parametrize("adaptation", ["prompt", "prefix", "lora", "full"])
def test_each_adaptation_learns_and_leaves_the_rest_alone(
    tmp_path: Path, adaptation: PromptAdaptation
) -> None:
    model = models.model("llama", grown=False)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    rates: dict[PromptAdaptation, float] = {
        "prompt": 0.3,
        "prefix": 0.2,
        "lora": 0.03,
        "full": 5e-3,
    }
    config = tuning_config(
        adaptation, learning_rate=rates[adaptation], max_length=32, precision="fp32"
    )
    tune_prompt(
        model,
        TASK,
        examples(64),
        output_dir=tmp_path,
        adaptation=adaptation,
        prompt=PromptConfig(
            method="prefix" if adaptation == "prefix" else "prompt", num_virtual_tokens=4
        ),
        epochs=8,
        config=config,
        base="none",
    )
    losses = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1]["loss"] < 0.9 * losses[0]["loss"]
    after = model.network.state_dict()
    same = {name: torch.equal(tensor, after[name]) for name, tensor in before.items()}
    assert same["tokens.weight"], "original rows"
    if adaptation in ("prompt", "prefix"):
        assert all(same.values())
    elif adaptation == "full":
        assert not all(same.values())
    assert PromptTask.load(tmp_path / "model/prompt.json") == TASK


def test_a_run_resumes_and_refuses_another(tmp_path: Path) -> None:
    """A run that stops at a checkpoint ends as one that does not."""

    def run(folder: str, steps: int, **changes: object) -> torch.Tensor:
        model = models.model("llama", grown=False)
        config = tuning_config("prefix", save_steps=3, batch_size=4, precision="fp32")
        tune_prompt(
            model,
            PromptTask(TASK.template.with_changes(**changes), TASK.labels),
            examples(16),
            output_dir=tmp_path / folder,
            adaptation="prefix",
            steps=steps,
            config=config,
        )
        return model.network.prompt.table().detach()  # type: ignore[union-attr,operator]

    whole = run("whole", 6)
    assert torch.equal(run("whole", 6), whole), "a finished run is loaded"
    with pytest.raises(CheckpointError, match="run"):
        run("whole", 6, instruction="w9")


def test_bad_input_is_refused_before_training(tmp_path: Path) -> None:
    model = models.model("llama", grown=False)
    for wrong, message in (([], "no examples"), ([LabelledText("w8", "c")], "the label 'c'")):
        with pytest.raises(InputError, match=message):
            tune_prompt(model, TASK, wrong, output_dir=tmp_path)
    with pytest.raises(InputError, match="causal"):
        tune_prompt(models.model("bert", grown=False), TASK, examples(4), output_dir=tmp_path)
    with pytest.raises(ConfigError, match="unknown adaptation"):
        tuning_config("suffix")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a prefix for adaptation prompt"):
        tune_prompt(
            model, TASK, examples(4), output_dir=tmp_path, prompt=PromptConfig(method="prefix")
        )


def test_the_commands(tmp_path: Path) -> None:
    models.model("llama", grown=False).save(tmp_path / "model")
    for name, seed, count in (("train", 0, 60), ("test", 1, 30)):
        lines = [json.dumps({"text": e.text, "label": e.label}) for e in examples(count, seed=seed)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    form = ("--example", r"{text} w30", "--answer", "a=w31", "--answer", "b=w32")
    tuned = idiolect_program(
        *("prompt", "tune", "model", "train.jsonl", "--valid", "test.jsonl", "-o", "run"),
        *("--method", "prefix", "--num-virtual-tokens", 4, "--lr", 0.2, "--epochs", 8, *form),
        folder=tmp_path,
    )
    assert tuned.returncode == 0, tuned.stderr
    assert "after" in tuned.stdout
    loaded = Generator(LanguageModel.load(tmp_path / "run/model"))
    texts = examples(30, seed=1)
    task = PromptTask.load(tmp_path / "run/model/prompt.json")
    found = idiolect_program(
        "prompt", "evaluate", "run/model", "test.jsonl", "--json", folder=tmp_path
    )
    accuracy = json.loads(found.stdout)["accuracy"]
    assert accuracy == evaluate_prompt(loaded, task, texts).mean
    assert f"{accuracy:.4f} after" in tuned.stdout
    searched = idiolect_program(
        *(
            "prompt",
            "optimise",
            "model",
            "train.jsonl",
            "--test",
            "test.jsonl",
            "-o",
            "new/best.json",
        ),
        *("--num-train", 20, "--num-valid", 10, "--candidates", 3, "--max-calls", 60),
        *("--num-fewshot", 2, "--json", *form),
        folder=tmp_path,
    )
    assert searched.returncode == 0, searched.stderr
    result = json.loads(searched.stdout)
    assert result["calls"] <= 60
    assert result["validation"]["best"] >= result["validation"]["first"]
    again = idiolect_program(
        *("prompt", "evaluate", "model", "test.jsonl", "--prompt", "new/best.json", "--pool"),
        *("train.jsonl", "--num-fewshot", 2, "--seeds", 2, "--calibrated"),
        folder=tmp_path,
    )
    assert "accuracy 0." in again.stdout, again.stderr
    for words, message in (
        (("evaluate", "model", "test.jsonl", "--answer", "c=w1"), "answer 'c=w1'"),
        (("evaluate", "model", "test.jsonl", "--seeds", 2), "--pool"),
        (("optimise", "model", "test.jsonl", "-o", "x.json"), "examples are wanted"),
        (("optimise", "model", "test.jsonl", "-o", "run"), "run is a folder"),
        (
            ("tune", "model", "train.jsonl", "-o", "r", "--method", "lora", "--init-text", "w1"),
            "lora",
        ),
    ):
        refused = idiolect_program("prompt", *words, folder=tmp_path)
        assert refused.returncode == 2
        assert message in refused.stderr


def test_options_change_only_what_they_name(tmp_path: Path) -> None:
    path = tmp_path / "prompt.json"
    TASK.save(path)
    task = find_task("model", path, None, None, ["a=w40"], examples(4))
    assert task.template.answers == {"a": "w40", "b": "w32 w33"}
    pairs = [LabelledText("w8", label, "w9") for label in "ab"]
    with pytest.raises(ConfigError, match="does not show the second texts"):
        find_task("model", None, None, None, None, pairs)
    form = "{text} {text_pair}"
    assert find_task("model", None, None, form, None, pairs).template.example == form
    with pytest.raises(ConfigError, match="have no second text"):
        find_task("model", None, None, form, None, examples(4))


def test_evaluated_texts_are_no_demonstrations(capsys: pytest.CaptureFixture[str]) -> None:
    """Their prompts would show their own answers."""
    pool = [LabelledText(f"w{number}", "a") for number in range(4)]
    assert evaluating._without(pool, [LabelledText("w2", "b")]) == [pool[0], pool[1], pool[3]]
    assert "1 of 4 examples of the pool are evaluated texts" in capsys.readouterr().err


def test_virtual_tokens_are_trained_further_or_refused(tmp_path: Path) -> None:
    """Other methods would save the virtual tokens alone, without what they trained."""
    model = models.model("llama", grown=False)
    add_prompt(model.network, PromptConfig(num_virtual_tokens=3))
    for adaptation, prompt in (
        ("lora", None),
        ("full", None),
        ("prefix", None),
        ("prompt", PromptConfig(num_virtual_tokens=5)),
    ):
        with pytest.raises(ConfigError, match="already has a prompt of 3 virtual tokens"):
            tune_prompt(
                model, TASK, examples(4), output_dir=tmp_path / "no", adaptation=adaptation,  # type: ignore[arg-type]
                prompt=prompt,
            )  # fmt: skip
    before = prompt_of(model.network).table().clone()  # type: ignore[union-attr]
    tune_prompt(model, TASK, examples(4), output_dir=tmp_path / "run", steps=1, base="base")
    after = prompt_of(model.network).table()  # type: ignore[union-attr]
    assert after.shape == before.shape
    assert not torch.equal(after, before)
    # The base of a prompt that was tuned twice is a model, for peft as well.
    assert tuning._base_of(str(tmp_path / "run/model")) == "base"
    assert tuning._base_of("smollm2") == "smollm2"
    assert tuning._base_of(str(tmp_path)) == str(tmp_path.resolve())
