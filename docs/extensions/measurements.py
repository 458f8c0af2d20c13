"""Figures of the handbook: `{measured}` prints one of them, and links to its row.

No figure is typed into a page. `docs/benchmarks/` has a file for each benchmark, written by
`benchmarks/record.py`: what it printed, the figures it named, the machine, the date and the
versions. The page of benchmarks lists all of it. Figures of longer runs are in `measurements.json`,
copied from what their commands printed; `measurements` lists both kinds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

FILE = Path(__file__).parents[1] / "measurements.json"
RECORDS = FILE.with_name("benchmarks")
PAGE = "handbook/measurements"
QUIET = 0.2
"""Share of the processors that other programs may take. Busier runs are shown, and not cited."""


def read_records() -> dict[str, dict[str, Any]]:
    """Return what benchmarks have recorded, by the name of the benchmark."""
    files = sorted(RECORDS.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def read() -> dict[str, dict[str, str]]:
    """Return all figures by their key, with value, what it is, command, and where it is from."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    figures = {
        key: {**figure, "source": "copied from the output"}
        for key, figure in content["figures"].items()
    }
    for name, record in read_records().items():
        if record["others"] > QUIET:
            continue
        source = {"command": record["command"], "source": f"benchmarks/{name}.json"}
        figures |= {key: {**figure, **source} for key, figure in record["figures"].items()}
    return figures


class Measured(SphinxRole):
    """Prints a figure by its key."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        figures = read()
        if self.text not in figures:
            message = self.inliner.reporter.error(f"no figure {self.text!r}", line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        here = self.env.docname.count("/")
        target = "../" * here + f"{PAGE}.html#{self.text}"
        link = nodes.reference("", figures[self.text]["value"], refuri=target, internal=True)
        return [link], []


class Measurements(SphinxDirective):
    """Lists all figures."""

    def run(self) -> list[nodes.Node]:
        content = json.loads(FILE.read_text(encoding="utf-8"))
        rows = [self._row(key, figure) for key, figure in read().items()]
        titles = ("what", "measured", "command", "from")
        return [nodes.paragraph(text=content["machine"]), _table(titles, rows)]

    def _row(self, key: str, figure: Mapping[str, str]) -> nodes.row:
        what = nodes.paragraph("", figure["what"], ids=[key])
        command = nodes.paragraph("", "", nodes.literal(text=figure["command"]))
        value, source = (nodes.paragraph(text=figure[name]) for name in ("value", "source"))
        return nodes.row("", *(nodes.entry("", part) for part in (what, value, command, source)))


class Benchmarks(SphinxDirective):
    """Shows each recorded benchmark: its command, where and when it ran, and what it printed."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(RECORDS))
        return [node for name, one in read_records().items() for node in self._of(name, one)]

    def _of(self, name: str, record: Mapping[str, Any]) -> Iterator[nodes.Node]:
        machine = record["machine"]
        where = (
            f"{record['date']}, {record['seconds']} seconds, {machine['cores']} cores of "
            f"{machine['processor']}, {machine['memory_gib']} GiB, {machine['system']}; "
            f"other programs took {record['others']:.0%} of the processors."
        )
        used = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
        yield nodes.rubric(text=name, ids=[f"benchmark-{name}"])
        yield nodes.paragraph("", "", nodes.literal(text=record["command"]))
        yield nodes.paragraph(text=f"{where} {used}.")
        text = "\n".join(record["lines"])
        yield nodes.literal_block(text, text, language="text")


def _table(titles: tuple[str, ...], rows: list[nodes.row]) -> nodes.table:
    head = nodes.row("", *(nodes.entry("", nodes.paragraph(text=title)) for title in titles))
    columns = [nodes.colspec(colwidth=width) for width in (4, 2, 4, 2)]
    group = nodes.tgroup(
        "", *columns, nodes.thead("", head), nodes.tbody("", *rows), cols=len(titles)
    )
    return nodes.table("", group)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the role and the directives."""
    app.add_role("measured", Measured())
    app.add_directive("measurements", Measurements)
    app.add_directive("benchmarks", Benchmarks)
    return {"parallel_read_safe": True}
