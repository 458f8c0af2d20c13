"""Pictures of the handbook, drawn by code when it is built: boxes, arrows and small matrices.

Each function of `drawings.py` that is listed in `DRAWINGS` becomes `_build/pictures/NAME.svg`;
a page shows it with the directive `picture`, whose content is the caption.
"""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

matplotlib.use("Agg")

import drawings

FOLDER = Path(__file__).parents[1] / "pictures"


def draw_all(app: Sphinx) -> None:
    """Draw the pictures whose code is newer than they are."""
    FOLDER.mkdir(exist_ok=True)
    newest = Path(drawings.__file__).stat().st_mtime
    for name, drawing in drawings.DRAWINGS.items():
        path = FOLDER / f"{name}.svg"
        if not path.exists() or path.stat().st_mtime < newest:
            figure = drawing()
            figure.savefig(path, transparent=False, bbox_inches="tight", metadata={"Date": None})
            matplotlib.pyplot.close(figure)


class Picture(SphinxDirective):
    """Shows a drawing with a caption, which is also its text for those who do not see it."""

    required_arguments = 1
    has_content = True
    option_spec = {"width": directives.unchanged}  # noqa: RUF012 (docutils' interface)

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in drawings.DRAWINGS:
            raise self.error(f"drawings.py has no drawing {name!r}")
        up = "../" * self.env.docname.count("/") or "./"
        text = " ".join(self.content)
        image = nodes.image(uri=f"{up}pictures/{name}.svg", alt=text, classes=["picture"])
        image["width"] = self.options.get("width", "100%")
        parsed = self.parse_text_to_nodes(text)
        caption = nodes.caption(text, "", *(parsed[0].children if parsed else []))
        return [nodes.figure("", image, caption)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Draw when the build begins, and add the directive."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    app.connect("builder-inited", draw_all)
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True}
