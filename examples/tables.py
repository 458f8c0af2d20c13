"""Print the metrics of finished runs as the Markdown tables of docs/results.md.

python examples/tables.py examples/icecat/run examples/medicine/run
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from idiolect.pipeline.report.verdict import judge


def row(*cells: object) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def number(value: float | None) -> str:
    """Format a number; None is empty."""
    return "" if value is None else f"{value:.3f}"


def systems(figures: dict[str, Any]) -> list[str]:
    """Return the table of all systems."""
    tests = [test for test in ("search", "similar") if figures[test]]
    bits = figures["language"]["systems"]
    texts = [name for name in ("domain", "general") if name in bits.get("base", {})]
    heads = [f"{test} {measure}" for test in tests for measure in ("nDCG@10", "R@100")]
    heads += [f"bits/byte, {name}" for name in texts]
    lines = [row("", *heads), row("---", *["---:"] * len(heads))]
    for system in figures["systems"]:
        cells = [
            number((system[test] or {}).get(name))
            for test in tests
            for name in ("ndcg@10", "recall@100")
        ]
        cells += [number(bits.get(system["name"], {}).get(name)) for name in texts]
        if not any(cells):
            continue
        label = f"*{system['label']}*" if system["control"] else system["label"]
        lines.append(row(label, *cells))
    return lines


def differences(figures: dict[str, Any]) -> list[str]:
    """Return the table of differences."""
    labels = {system["name"]: system["label"] for system in figures["systems"]}
    lines = [
        row("", "system", "against", "change in nDCG@10", "95% interval", "p"),
        row("---", "---", "---", "---:", "---:", "---:"),
    ]
    for one in figures["significance"]:
        interval = f"{one['low']:+.3f} to {one['high']:+.3f}"
        lines.append(
            row(
                one["test"] + (", unseen" if one["unseen"] else ""),
                labels[one["second"]],
                labels[one["first"]],
                f"{one['difference']:+.3f}",
                interval,
                f"{one['p_value']:.4f}",
            )
        )
    return lines


def tables(run: Path) -> list[str]:
    """Return the summary and tables of a run."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    figures = metrics["evaluate"]
    tokens = "; ".join(
        f"{name} text {text['saved']:.1%} fewer tokens ({text['before']:,} to {text['after']:,})"
        for name, text in figures["tokens"].items()
    )
    promises = figures["promises"]
    kept = "identical" if promises["original_rows_identical"] else "CHANGED"
    minutes = sum(stage["seconds"] for stage in manifest["stages"].values()) / 60
    tests = "; ".join(
        f"{test}: {figures[test]['queries']} queries over {figures[test]['items']:,} items"
        for test in ("search", "similar")
        if figures[test]
    )
    return [
        f"{metrics['extend']['added']:,} new tokens: {tokens}. Original rows {kept}; "
        f"{promises['documents_changed']} of {promises['documents_checked']:,} documents changed "
        f"elsewhere. {tests}. {minutes:.0f} minutes.",
        "",
        *systems(figures),
        "",
        *differences(figures),
        "",
        f"- {judge(metrics).index}",
        *(f"- {note}" for note in figures["notes"]),
    ]


def main() -> None:
    """Print the tables of each run."""
    for name in sys.argv[1:]:
        print(f"### {name}\n\n" + "\n".join(tables(Path(name))) + "\n")


if __name__ == "__main__":
    main()
