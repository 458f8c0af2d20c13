"""Report the gradients of a run: their norm at each step, and how far they reach back in time.

    gradients.jsonl   a line now and then: the norm of ∂E/∂h_t of each layer, for t = 1 … T, where E
                      is the loss of the segment's last token alone
    gradients.png     both over the run
    report.html       the picture, and what it says

With the loss of all tokens, each step would receive a gradient from its own token. The loss of the
last token alone shows how much of its gradient remains after a number of steps back.
"""

from __future__ import annotations

import base64
import html
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idiolect.nn.network import Network
from idiolect.nn.recurrent.recurrent_gradients import gradients_through_time
from idiolect.nn.recurrent.recurrent_network import RecurrentNetwork
from idiolect.text.files import write_atomic
from idiolect.training.data.batch import Batch

__all__ = ["Diagnosis"]

_TIMES = 20
"""Number of measurements in a run."""
_TEXTS = 8
"""Number of rows of a batch to measure."""


class Diagnosis:
    """Measures the gradients of a run, and reports them in its folder.

    Args:
        folder: The run's folder.
        steps: Steps of the whole run.
        done: Completed steps; measurements of later ones, left by a killed run, are deleted.
    """

    def __init__(self, folder: Path, *, steps: int, done: int = 0) -> None:
        self.folder = folder
        self.every = max(1, steps // _TIMES)
        kept = [one for one in _lines(self._path) if one["step"] <= done]
        write_atomic(self._path, "".join(f"{json.dumps(one)}\n" for one in kept).encode())

    @property
    def _path(self) -> Path:
        return self.folder / "gradients.jsonl"

    def measure(self, step: int, network: Network, batch: Any) -> None:
        """Measure a batch, if the step is one of those that are measured.

        Args:
            step: The number of the step, from 1.
            network: The network.
            batch: The step's batch.
        """
        if step % self.every and step != 1:
            return
        if not isinstance(network, RecurrentNetwork) or not isinstance(batch, Batch):
            return
        ids, labels = batch.input_ids[:_TEXTS], batch.labels
        assert labels is not None
        ids, labels = ids.to(network.device), labels[:_TEXTS, -1].to(network.device)

        def last(hidden: Tensor) -> Tensor:
            return torch.nn.functional.cross_entropy(
                network.score_vocabulary(hidden[:, -1]), labels
            )

        training = network.training
        network.eval()
        norms = gradients_through_time(network, ids, last)
        network.train(training)
        line = {
            "step": step,
            "layers": [[float(f"{n:.4g}") for n in own] for own in norms.tolist()],
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def report(self) -> None:
        """Draw the measurements and write the report."""
        metrics, measured = _lines(self.folder / "metrics.jsonl"), _lines(self._path)
        picture = self.folder / "gradients.png"
        _draw(metrics, measured, picture)
        image = base64.b64encode(picture.read_bytes()).decode()
        said = "".join(f"<p>{html.escape(text)}</p>" for text in _explain(metrics, measured))
        page = (
            "<!doctype html><meta charset=utf-8><title>Gradients of the run</title>"
            "<style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
            "img{max-width:100%}</style><h1>Gradients of the run</h1>"
            f"{said}<img alt='Norm of the gradient over steps, and through time' "
            f"src='data:image/png;base64,{image}'>"
        )
        write_atomic(self.folder / "report.html", page.encode())


def _explain(metrics: list[dict[str, Any]], measured: list[dict[str, Any]]) -> list[str]:
    """Describe the plot in words."""
    norms = sorted(one["gradient_norm"] for one in metrics)
    said = []
    if norms:
        said.append(
            f"Norm of the gradient before clipping: median {norms[len(norms) // 2]:.3g}, largest "
            f"{norms[-1]:.3g}, over {len(norms)} steps."
        )
    if not measured:
        return [*said, "This network has no recurrence, so no gradient goes back through time."]
    for number, own in enumerate(measured[-1]["layers"], 1):
        first, last = own[0], own[-1]
        if not first or not last:
            rate = "none is left" if last else "it receives none"
        else:
            factor = (first / last) ** (1 / max(1, len(own) - 1))
            rate = f"a factor of {factor:.3f} a step"
        said.append(
            f"Layer {number}, at the end of the run: the last token's gradient is {last:.3g} at "
            f"its own step and {first:.3g} after {len(own) - 1} steps back, {rate}."
        )
    return said


def _draw(metrics: list[dict[str, Any]], measured: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure  # takes half a second to import

    layers = len(measured[0]["layers"]) if measured else 0
    figure = Figure(figsize=(4.2 * (1 + layers), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + layers, squeeze=False)[0]
    axes[0].plot([m["step"] for m in metrics], [m["gradient_norm"] for m in metrics], lw=0.8)
    axes[0].set(title="norm of the gradient", xlabel="step", yscale="log")
    for number, panel in enumerate(axes[1:]):
        for count, one in enumerate(measured):
            own = [norm if norm > 0 else math.nan for norm in one["layers"][number]]
            shade = 0.85 * (1 - count / max(1, len(measured) - 1))
            back = range(len(own) - 1, -1, -1)
            panel.plot(back, own, lw=1, color=str(shade))
        panel.set(
            title=f"layer {number + 1}: ‖∂E/∂h‖ (dark: late)",
            xlabel="steps back from the last token",
            yscale="log",
        )
    for panel in axes:
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines, up to a line that is incomplete."""
    found: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
    return found
