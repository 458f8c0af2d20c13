"""HTML pages with the metrics, the confusion matrix and the worst errors of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["confusion_table", "html_page", "html_table"]

_STYLE = (
    "body{font-family:sans-serif;max-width:64em;margin:2em auto}table{border-collapse:collapse}"
    "td,th{border:1px solid #bbb;padding:.3em .6em;text-align:left}img{max-width:100%}"
)


def html_page(title: str, sections: Mapping[str, str]) -> str:
    """Return a page with a heading and an HTML body for each section."""
    body = "".join(f"<h2>{escape(name)}</h2>{content}" for name, content in sections.items())
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{body}</html>\n"
    )


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts; they are escaped."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def confusion_table(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Return a confusion matrix: a row for each true label, a column for each predicted one."""
    rows = [[label, *map(str, row)] for label, row in zip(labels, counts, strict=True)]
    return html_table(["true \\ predicted", *labels], rows)
