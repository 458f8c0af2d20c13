"""Write the figures of finished runs as Markdown, as they stand in docs/results.md.

python examples/tables.py examples/icecat/run examples/medicine/run
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def row(*cells: object) -> str:
    """Write a row of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def number(value: float | None) -> str:
    """Write a figure, or nothing."""
    return "" if value is None else f"{value:.3f}"


def systems(figures: dict[str, Any]) -> list[str]:
    """Lay out what each system is worth."""
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
    """Lay out which differences are more than chance."""
    labels = {system["name"]: system["label"] for system in figures["systems"]}
    lines = [
        row("", "system", "against", "change in nDCG@10", "95% interval", "p"),
        row("---", "---", "---", "---:", "---:", "---:"),
    ]
    for one in figures["significance"]:
        interval = f"{one['low']:+.3f} to {one['high']:+.3f}"
        lines.append(
            row(
                one["test"],
                labels[one["second"]],
                labels[one["first"]],
                f"{one['difference']:+.3f}",
                interval,
                f"{one['p_value']:.4f}",
            )
        )
    return lines


def told(run: Path) -> list[str]:
    """Lay out a run."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    figures = metrics["evaluate"]
    tokens = "; ".join(
        f"{name} text {text['saved']:.1%} fewer tokens ({text['before']:,} to {text['after']:,})"
        for name, text in figures["tokens"].items()
    )
    promises = figures["promises"]
    kept = "identical" if promises["original_rows_identical"] else "CHANGED"
    minutes = sum(step["seconds"] for step in manifest["steps"].values()) / 60
    tests = "; ".join(
        f"{test}: {figures[test]['queries']} queries over {figures[test]['items']:,} items"
        for test in ("search", "similar")
        if figures[test]
    )
    return [
        f"{metrics['extend']['added']:,} new tokens: {tokens}. Original rows {kept}; "
        f"{promises['documents_changed']} of {promises['documents_checked']:,} documents tokenised "
        f"otherwise beyond the new terms. {tests}. {minutes:.0f} minutes.",
        "",
        *systems(figures),
        "",
        *differences(figures),
        "",
        *(f"- {note}" for note in figures["notes"]),
    ]


def main() -> None:
    """Print each run."""
    for name in sys.argv[1:]:
        print(f"### {name}\n\n" + "\n".join(told(Path(name))) + "\n")


if __name__ == "__main__":
    main()
