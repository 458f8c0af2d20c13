"""How long a dependency can be learnt: plain networks, clipped, regularised, and an LSTM.

    python benchmarks/vanishing.py --seeds 5 -o docs/vanishing.png

Temporal order: two of the symbols are A or B, among the first fifth and around the middle of the
text; the network says at the end which came first and second (4 classes). Adding: each step has a
number and a mark; two steps are marked, and the network says the sum of their numbers (Hochreiter &
Schmidhuber 1997, as in Pascanu et al. 2013, 1211.5063). A run succeeds when, on new texts, less
than 1 % are wrong, or the squared error is below 0.04.

The steps are SGD's, as in the paper, and inputs are numbers: the one training loop, which trains
language models over token ids with checkpoints, is not used here. A run ends at success or
after `--steps`. Matrices of plain networks begin sparse with a spectral radius of 0.95 (the
paper's "smart tanh"), the gates of LSTMs as Tallec & Ollivier (2018, 1804.11188) propose.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from idiolect.nn.recurrent import RecurrentLayer, penalize_vanishing

METHODS = ("plain", "clipping", "clipping + Ω", "LSTM")
TASKS = ("temporal order", "adding")
HIDDEN, BATCH, MAX_NORM, OMEGA = 50, 20, 1.0, 2.0
RATE, LSTM_RATES = 0.05, {"temporal order": 1.0, "adding": 0.5}


def temporal_order(length: int, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    ids = torch.randint(2, 6, (count, length), generator=random)
    which = torch.randint(0, 2, (count, 2), generator=random)
    for number, (low, high) in enumerate(((0.1, 0.2), (0.4, 0.5))):
        places = torch.randint(int(low * length), int(high * length), (count,), generator=random)
        ids[torch.arange(count), places] = which[:, number]
    return nn.functional.one_hot(ids, 6).float(), 2 * which[:, 0] + which[:, 1]


def adding(length: int, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    numbers = torch.rand(count, length, generator=random)
    marks = torch.zeros(count, length)
    rows = torch.arange(count)
    marks[rows, torch.randint(0, length // 10, (count,), generator=random)] = 1
    marks[rows, torch.randint(length // 10, length // 2, (count,), generator=random)] = 1
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(1) / 2


def run(task: str, method: str, length: int, seed: int, steps: int) -> tuple[bool, int]:
    """Train one network; return whether it succeeded and after how many steps it ended."""
    random = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    draw = temporal_order if task == "temporal order" else adding
    inputs, outputs = (6, 4) if draw is temporal_order else (2, 1)
    layer = RecurrentLayer("lstm" if method == "LSTM" else "tanh", inputs, HIDDEN)
    begin(layer, length)
    output = nn.Linear(HIDDEN, outputs)
    parameters = [*layer.parameters(), *output.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=LSTM_RATES[task] if method == "LSTM" else RATE)
    held, wanted = draw(length, 500, torch.Generator().manual_seed(10_000 + seed))
    for step in range(1, steps + 1):
        x, target = draw(length, BATCH, random)
        states, _ = layer(x)
        if method == "clipping + Ω":
            # The loss below is a mean, so Ω is not multiplied by the number of states.
            states = penalize_vanishing(layer, states, OMEGA / (BATCH * length))
        loss = measure(output(states[:, -1]), target)
        optimizer.zero_grad()
        loss.backward()
        if method != "plain":
            nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimizer.step()
        if not torch.isfinite(loss):
            return False, step
        with torch.no_grad():
            if step % 100 == 0 and solved(output(layer(held)[0][:, -1]), wanted):
                return True, step
    return False, steps


@torch.no_grad()
def begin(layer: RecurrentLayer, length: int) -> None:
    """Give a layer its first weights."""
    if layer.kind == "lstm":
        # Gates that remember for 1 to `length` steps.
        forget = torch.log(1 + torch.rand(HIDDEN) * (length - 2))
        layer.bias_ih[HIDDEN : 2 * HIDDEN], layer.bias_ih[:HIDDEN] = forget, -forget
        return
    kept = torch.rand(HIDDEN, HIDDEN).argsort(1) < 15  # connections of each unit
    matrix = torch.randn(HIDDEN, HIDDEN) * kept
    layer.weight_hh.copy_(0.95 * matrix / torch.linalg.eigvals(matrix).abs().max())
    layer.weight_ih.normal_(0, 0.1)


def measure(scores: Tensor, target: Tensor) -> Tensor:
    if scores.shape[-1] == 1:
        return nn.functional.mse_loss(scores[:, 0], target)
    return nn.functional.cross_entropy(scores, target)


def solved(scores: Tensor, target: Tensor) -> bool:
    if scores.shape[-1] == 1:  # the target is half the sum
        return float(nn.functional.mse_loss(2 * scores[:, 0], 2 * target)) < 0.04
    return float((scores.argmax(-1) != target).float().mean()) < 0.01


def draw_figure(results: list[dict], path: Path) -> None:
    tasks = [task for task in TASKS if any(one["task"] == task for one in results)]
    figure = Figure(figsize=(4.2 * len(tasks), 3.2), layout="constrained")
    for panel, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for place, method in enumerate(METHODS):
            own = [one for one in results if one["task"] == task and one["method"] == method]
            lengths = sorted({one["length"] for one in own})
            shares = [
                sum(one["success"] for one in own if one["length"] == length)
                / sum(one["length"] == length for one in own)
                for length in lengths
            ]
            shifted = [length + 2 * (place - 1.5) for length in lengths]
            panel.plot(shifted, shares, "o-", label=method, lw=1.4)
        panel.set(
            title=task, xlabel="length", ylabel="share of runs that succeed", ylim=(-0.05, 1.05)
        )
        panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[20, 50, 100, 150, 200])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("-o", "--out", type=Path, default=Path("vanishing.png"))
    arguments = parser.parse_args()
    # Finished runs are kept beside the figure, so that a stopped benchmark continues.
    record = arguments.out.with_suffix(".jsonl")
    results = [json.loads(line) for line in record.open()] if record.exists() else []
    for seed in range(arguments.seeds):
        for length in arguments.lengths:
            for task in arguments.tasks:
                for method in METHODS:
                    key = {"task": task, "method": method, "length": length, "seed": seed}
                    key["steps"] = arguments.steps
                    if any(key.items() <= one.items() for one in results):
                        continue
                    started = time.perf_counter()
                    success, ended = run(task, method, length, seed, arguments.steps)
                    one = key | {"success": success, "ended": ended}
                    results.append(one)
                    with record.open("a") as file:
                        file.write(json.dumps(one) + "\n")
                    print(one, f"{time.perf_counter() - started:.0f} s", flush=True)
    draw_figure(results, arguments.out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
