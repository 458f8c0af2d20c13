"""`idiolect align` as a user runs it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from cli.program import idiolect_program
from training import models

NAMES = ("sft", "reward", "dpo", "ipo", "kto", "orpo", "simpo", "ppo", "rloo", "grpo", "judge")


def test_fixed_names_and_the_first_loss_of_dpo(tmp_path: Path) -> None:
    found = idiolect_program("align", "--help").stdout
    assert all(f" {name} " in found for name in NAMES)
    models.model(grown=False).save(tmp_path / "model")
    pairs = [{"prompt": f"w{i}", "chosen": " w1 w2", "rejected": " w3"} for i in range(4)]
    pairs.append({"prompt": "w1", "chosen": "w2", "rejected": "w2"})
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    arguments = ("align", "dpo", "model", "pairs.jsonl", "-o", "run", "--batch-size", 2)
    refused = idiolect_program(*arguments, folder=tmp_path)
    assert refused.returncode == 2
    assert "1 of 5 preferences cannot be used: 1 chosen equals rejected" in refused.stderr
    assert "pairs.jsonl line 5" in refused.stderr
    run = idiolect_program(*arguments, "--max-unreadable", 0.5, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert abs(first["loss"] - math.log(2)) < 1e-6
    assert (tmp_path / "run" / "model" / "config.json").exists()


def test_a_constant_reward_is_reported(tmp_path: Path) -> None:
    models.model(grown=False).save(tmp_path / "model")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "w1"}\n{"prompt": "w2"}\n')
    run = idiolect_program(
        *("align", "grpo", "model", "prompts.jsonl", "--reward", "regex:never", "-o", "run"),
        *("--steps", 2, "--batch-size", 4, "--num-generations", 2, "--max-new-tokens", 3),
        folder=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert "have the reward 0, which teaches nothing" in run.stderr
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The reward did not rise." in page
    assert "Last texts" in page
