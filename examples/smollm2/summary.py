"""The tables of a study, from what its steps have written so far.

PYTHONPATH=examples python -m smollm2.summary OUT
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from idiolect.ranking.evaluation.significance import compare
from idiolect.text.files import read_json, write_atomic
from smollm2.judged import COLLECTIONS
from smollm2.rankings import RECIPES
from smollm2.vocabularies import VARIANTS
from tables import row

__all__ = ["write_tables"]

Cell = tuple[str, str, str]
"""Kind of encoder, tokens, step."""
_SEEDS = 3
_TOKENS = {"none": "no new tokens", "new": "new tokens", "random": "random tokens"}
_STEPS = {"base": "base", "vocabulary": "+ vocabulary", "pretraining": "+ pre-training"}
_COMPARED = (("none", "new"), ("random", "new"))


class Results:
    """The figures of each query, of one collection; those of seeds are averaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.words: dict[str, dict[str, float]] = {}
        self.unseen: set[str] = set()
        self.cells: defaultdict[Cell, list[dict[str, Any]]] = defaultdict(list)
        if (folder / "words.json").exists():
            found = read_json(folder / "words.json")
            self.words, self.unseen = found["queries"]["words"], set(found["unseen"])
        for path in sorted(folder.glob("*.*.*.json")):
            kind, tokens, step, *_ = path.name.split(".")
            # Without new tokens, the encoder before tuning is the base.
            step = "base" if (tokens, step) == ("none", "vocabulary") else step
            self.cells[kind, tokens, step].append(read_json(path))

    def per_query(self, cell: Cell, side: str, measure: str) -> dict[str, float]:
        """Return the mean over the seeds for each unseen query; empty if there is no result."""
        values = [one["queries"][side][measure] for one in self.cells.get(cell, ())]
        return {q: fmean(v[q] for v in values) for q in sorted(self.unseen)} if values else {}

    def show(self, cell: Cell, side: str, *, seen: bool = False) -> str:
        """Format nDCG@10 and recall@100, and the number of seeds if it is not three."""
        found = self.cells.get(cell, [])
        queries = self.words["ndcg@10"].keys() - self.unseen if seen else self.unseen
        if not found or not queries:
            return ""
        means = [
            fmean(one["queries"][side][measure][q] for one in found for q in queries)
            for measure in ("ndcg@10", "recall@100")
        ]
        few = len(found) < _SEEDS and cell[2] == "tuning"
        return f"{means[0]:.3f} / {means[1]:.3f}" + (f" ({len(found)})" if few else "")

    def show_words(self, *, seen: bool = False) -> str:
        """Format the figures of words."""
        queries = self.words["ndcg@10"].keys() - self.unseen if seen else self.unseen
        means = (fmean(self.words[m][q] for q in queries) for m in ("ndcg@10", "recall@100"))
        return " / ".join(f"{mean:.3f}" for mean in means) if queries else ""


def write_tables(out: Path) -> None:
    """Write `tables.md`."""
    results = {name: Results(out / name) for name in COLLECTIONS}
    results = {name: one for name, one in results.items() if one.words}
    parts = [
        ("Tokens saved", _vocabularies(results)),
        ("Encoders alone: nDCG@10 / recall@100", _systems(results, "dense")),
        ("Hybrid: nDCG@10 / recall@100", _systems(results, "hybrid")),
        ("Queries whose item a training pair names", _seen(results)),
        ("Differences in nDCG@10", _differences(results)),
        ("The whole language model", _language(results)),
    ]
    text = "\n\n".join(f"### {title}\n\n" + "\n".join(lines) for title, lines in parts)
    write_atomic(out / "tables.md", f"{text}\n".encode())


def _labels() -> Iterator[tuple[str, Cell]]:
    for kind, recipe in RECIPES.items():
        yield f"{recipe.label}: base", (kind, "none", "base")
        for step in ("vocabulary", "pretraining"):
            for tokens in ("new", "random"):
                yield f"{_STEPS[step]}, {_TOKENS[tokens]}", (kind, tokens, step)
        for tokens in VARIANTS:
            yield f"+ tuning, {_TOKENS[tokens]}", (kind, tokens, "tuning")


def _systems(results: Mapping[str, Results], side: str) -> list[str]:
    lines = [row("", *results), row("---", *["---:"] * len(results))]
    lines.append(row("words (BM25)", *(one.show_words() for one in results.values())))
    for label, cell in _labels():
        cells = [one.show(cell, side) for one in results.values()]
        if any(cells):
            lines.append(row(label, *cells))
    return lines


def _seen(results: Mapping[str, Results]) -> list[str]:
    lines = []
    for name, one in results.items():
        count = len(one.words["ndcg@10"])
        lines.append(f"- {name}: {len(one.unseen)} of {count} queries ask for unseen items only")
        if len(one.unseen) == count:
            continue
        lines += ["", row(name, "seen, alone", "seen, hybrid"), row("---", "---:", "---:")]
        lines.append(row("words (BM25)", one.show_words(seen=True), ""))
        for label, cell in _labels():
            if found := one.show(cell, "dense", seen=True):
                lines.append(row(label, found, one.show(cell, "hybrid", seen=True)))
        lines.append("")
    return lines


def _differences(results: Mapping[str, Results]) -> list[str]:
    lines = [
        row("", "system", "against", "change", "95% interval", "p", "seeds"),
        row("---", "---", "---", "---:", "---:", "---:", "---:"),
    ]
    for name, one in results.items():
        words = {query: one.words["ndcg@10"][query] for query in sorted(one.unseen)}
        for kind, recipe in RECIPES.items():
            tuned = {tokens: (kind, tokens, "tuning") for tokens in VARIANTS}
            tests = [
                (f"{side}, {_TOKENS[second]}", _TOKENS[first], side, tuned[first], tuned[second])
                for side in ("dense", "hybrid")
                for first, second in _COMPARED
            ]
            tests.append(("dense, tuned", "base", "dense", (kind, "none", "base"), tuned["none"]))
            for label, against, side, first, second in tests:
                sides = [one.per_query(cell, side, "ndcg@10") for cell in (first, second)]
                if all(sides):
                    seeds = min(len(one.cells[first]), len(one.cells[second]))
                    seeds = len(one.cells[second]) if first[2] == "base" else seeds
                    lines.append(_test(name, f"{recipe.label}, {label}", against, *sides, seeds))
            for side, tokens in (("dense", "none"), ("hybrid", "none"), ("hybrid", "new")):
                if found := one.per_query(tuned[tokens], side, "ndcg@10"):
                    label = f"{recipe.label}, {side}, {_TOKENS[tokens]}"
                    seeds = len(one.cells[tuned[tokens]])
                    lines.append(_test(name, label, "words", words, found, seeds))
    return lines


def _test(
    name: str,
    label: str,
    against: str,
    first: Mapping[str, float],
    second: Mapping[str, float],
    seeds: int,
) -> str:
    found = compare(first, second)
    interval = f"{found.low:+.3f} to {found.high:+.3f}"
    change = f"{found.difference:+.3f}"
    return row(name, label, against, change, interval, f"{found.p_value:.4f}", seeds)


def _vocabularies(results: Mapping[str, Results]) -> list[str]:
    lines = [
        row("", "tokens", "rows", "phrases", "domain text", "general text", "documents changed"),
        row("---", "---", *["---:"] * 5),
    ]
    for name, one in results.items():
        for tokens, found in read_json(one.folder / "vocabulary.json").items():
            checks = found["checks"]
            changed = sum(check["changed"] for check in checks.values())
            total = sum(check["documents"] for check in checks.values())
            saved = [f"{checks[text]['saving']:.1%} fewer" for text in ("domain", "general")]
            counts = found["added"], found["phrases"], *saved
            lines.append(row(name, tokens, *counts, f"{changed} of {total:,}"))
    return lines


def _language(results: Mapping[str, Results]) -> list[str]:
    lines = [
        row("", "model", "bits/byte, domain", "bits/byte, general", "divergence", "same first"),
        row("---", "---", *["---:"] * 4),
    ]
    for name, one in results.items():
        for tokens in VARIANTS:
            path = one.folder / f"adapted.{tokens}" / "language.json"
            for step, found in (read_json(path) if path.exists() else {}).items():
                if "domain" not in found:
                    continue
                bits = [f"{found[text]['bits_per_byte']:.3f}" for text in ("domain", "general")]
                lost = found.get("forgetting")
                kept = [f"{lost['divergence']:.3f}", f"{lost['same_first']:.1%}"] if lost else []
                lines.append(row(name, f"{step}, {_TOKENS[tokens]}", *bits, *(kept or ["", ""])))
    return lines


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
