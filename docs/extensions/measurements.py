"""Figures of the handbook: `{measured}` prints one of `measurements.json`, and links to its row.

No figure is typed into a page. Each entry of the file has the value as printed, what it is, and the
command that printed it; `measurements` lists all of them with machine and versions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

FILE = Path(__file__).parents[1] / "measurements.json"
PAGE = "handbook/measurements"


def read() -> dict[str, Any]:
    """Return the file's content."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


class Measured(SphinxRole):
    """Prints a figure by its key."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        figures = read()["figures"]
        if self.text not in figures:
            message = self.inliner.reporter.error(
                f"measurements.json has no {self.text!r}", line=self.lineno
            )
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        here = self.env.docname.count("/")
        target = "../" * here + f"{PAGE}.html#{self.text}"
        link = nodes.reference("", figures[self.text]["value"], refuri=target, internal=True)
        return [link], []


class Measurements(SphinxDirective):
    """Lists all figures."""

    def run(self) -> list[nodes.Node]:
        content = read()
        machine = nodes.paragraph(text=content["machine"])
        rows = [self._row(key, figure) for key, figure in content["figures"].items()]
        return [machine, _table(("what", "measured", "command"), rows)]

    def _row(self, key: str, figure: Mapping[str, str]) -> nodes.row:
        what = nodes.paragraph("", figure["what"], ids=[key])
        command = nodes.paragraph("", "", nodes.literal(text=figure["command"]))
        return nodes.row(
            "",
            *(
                nodes.entry("", part)
                for part in (what, nodes.paragraph(text=figure["value"]), command)
            ),
        )


def _table(titles: tuple[str, ...], rows: list[nodes.row]) -> nodes.table:
    head = nodes.row("", *(nodes.entry("", nodes.paragraph(text=title)) for title in titles))
    columns = [nodes.colspec(colwidth=width) for width in (4, 2, 4)]
    group = nodes.tgroup(
        "", *columns, nodes.thead("", head), nodes.tbody("", *rows), cols=len(titles)
    )
    return nodes.table("", group)


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the role and the directive."""
    app.add_role("measured", Measured())
    app.add_directive("measurements", Measurements)
    return {"parallel_read_safe": True}
