"""The report of an RL run: whether the policy improved, or exploits its reward.

Signs of an exploited reward (reward hacking): it rises while the held-out judge falls, texts repeat
one another (unique share, entropy), their length drifts, or the KL divergence from the reference
keeps growing. All of these are plotted over the steps, above the first and last texts.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from idiolect.errors import InputError
from idiolect.pipeline.report.charts import Chart, Line, lines
from idiolect.text.files import write_atomic

__all__ = ["explain_run", "write_alignment_report"]

_PANELS = {
    "reward": ("reward", "judge"),
    "divergence from the reference (nats)": ("kl", "kl_estimate"),
    "entropy (nats a token)": ("entropy",),
    "length (tokens)": ("length",),
    "shares": ("unique_share", "ended_share", "constant_share", "clip_share"),
    "loss": ("loss", "value_loss"),
}
_ROW = 2
"""Number of panels per row."""
_SHOWN = 4
_PART = 5
"""The first and last fifths of the run are compared."""
_STYLE = (
    ":root{--ink:#1c1c1a;--muted:#6b6b66;--grid:#dcdcd6;--paper:#fff;--s1:#2f6db5;--s2:#c8562a;"
    "--s3:#3a8a4d;--s4:#8a5bb0;--s5:#a98a17;--s6:#5a8f9c}"
    "@media(prefers-color-scheme:dark){:root{--ink:#eee;--muted:#aaa;--grid:#444;--paper:#181818;"
    "--s1:#7fb2ea;--s2:#ec8f68;--s3:#7ec892;--s4:#c09be0;--s5:#d9bf5a;--s6:#93c3cf}}"
    "body{font:16px/1.5 sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:var(--ink);"
    "background:var(--paper)}svg{width:100%}td,th{vertical-align:top;padding:.2em .8em .2em 0;"
    "text-align:left}.n{text-align:right}.narrow{display:none}"
    "@media(max-width:40em){.wide{display:none}.narrow{display:block}}"
)


def write_alignment_report(run: str | Path) -> Path:
    """Write `report.html` into the folder of a run of `idiolect align ppo | rloo | grpo`.

    Returns:
        The page's path.

    Raises:
        InputError: There is no such run.
    """
    run = Path(run)
    metrics = _read(run / "metrics.jsonl")
    if not metrics or "reward" not in metrics[0]:
        raise InputError(
            f"{run} is no run with a reward", hint="start one: idiolect align grpo … -o RUN"
        )
    charts = [_chart(metrics, group) for group in _groups(metrics)]
    said = "".join(f"<li>{html.escape(text)}</li>" for text in explain_run(metrics))
    drawn = "".join(
        f'<div class="wide">{one.wide}</div><div class="narrow">{one.narrow}</div>'
        for one in charts
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>Reinforcement</title><style>{_STYLE}</style><h1>Reinforcement</h1><ul>{said}</ul>"
        f"{drawn}{_samples(_read(run / 'samples.jsonl'))}</html>"
    )
    path = run / "report.html"
    write_atomic(path, page.encode())
    return path


def explain_run(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """Describe the changes from first to last fifth of a run, and signs of reward hacking."""
    part = max(1, len(metrics) // _PART)

    def change(name: str) -> tuple[float, float] | None:
        values = [float(one[name]) for one in metrics if name in one]
        if not values:
            return None
        return float(np.mean(values[:part])), float(np.mean(values[-part:]))

    said = []
    for name, told in (
        ("reward", "Reward"),
        ("judge", "Held-out judge"),
        ("kl", "Divergence from the reference in nats"),
        ("entropy", "Entropy in nats a token"),
        ("length", "Length in tokens"),
        ("unique_share", "Share of distinct texts"),
    ):
        if (found := change(name)) is not None:
            said.append(f"{told}: {found[0]:.3g} in the first fifth, {found[1]:.3g} in the last.")
    reward, judge, unique = change("reward"), change("judge"), change("unique_share")
    signs = []
    if reward and judge and reward[1] > reward[0] and judge[1] < judge[0]:
        signs.append("Warning: the reward rose while the held-out judge fell: it is exploited.")
    if unique and unique[1] < 0.5 * unique[0]:
        signs.append("Warning: most texts repeat one another now: the policy has collapsed.")
    if reward and reward[1] <= reward[0]:
        signs.append("The reward did not rise.")
    return signs + said


def _groups(metrics: Sequence[dict[str, Any]]) -> list[dict[str, tuple[str, ...]]]:
    """Return the measured panels, in rows."""
    known = {
        title: tuple(name for name in names if any(name in one for one in metrics))
        for title, names in _PANELS.items()
    }
    titles = [title for title, names in known.items() if names]
    return [
        {title: known[title] for title in titles[start : start + _ROW]}
        for start in range(0, len(titles), _ROW)
    ]


def _chart(metrics: Sequence[dict[str, Any]], panels: dict[str, tuple[str, ...]]) -> Chart:
    drawn = {}
    for title, names in panels.items():
        drawn[title] = [_smoothed(metrics, name) for name in names]
    return lines(", ".join(panels), drawn, x="step", y="")


def _smoothed(metrics: Sequence[dict[str, Any]], name: str) -> Line:
    found = [(float(one["step"]), float(one[name])) for one in metrics if name in one]
    steps, values = [step for step, _ in found], [value for _, value in found]
    width = max(1, len(values) // 20)
    smooth = [float(np.mean(values[max(0, i - width + 1) : i + 1])) for i in range(len(values))]
    return Line(name.replace("_", " "), steps, smooth, faint=values if width > 1 else None)


def _samples(samples: Sequence[dict[str, Any]]) -> str:
    """Return tables of the first and the last texts."""
    parts = []
    for title, chosen in (("First texts", samples[:_SHOWN]), ("Last texts", samples[-_SHOWN:])):
        rows = "".join(
            f'<tr><td class="n">{one["reward"]:.2f}</td><td>{html.escape(one["text"])}</td></tr>'
            for one in chosen
        )
        parts.append(f"<h2>{title}</h2><table><tr><th>reward</th><th>text</th></tr>{rows}</table>")
    return "".join(parts) if samples else ""


def _read(path: Path) -> list[dict[str, Any]]:
    """Read a JSON Lines file, up to the first incomplete line."""
    found: list[dict[str, Any]] = []
    if path.exists():
        # Not `splitlines`: a text may contain other line breaks, such as U+2028.
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                found.append(json.loads(line))
            except ValueError:
                break
    return found
