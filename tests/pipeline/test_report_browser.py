"""The report in a real browser: nothing is cut off on a narrow screen, and colors are readable."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from idiolect.pipeline.report.page import write_report
from pipeline.test_report import figures, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
WIDTHS = (320, 400, 1280)
LONG = "an-unbroken-identifier_of-0123456789-" * 8
MEASURE = """
const found = [];
for (const frame of document.querySelectorAll("iframe")) {
  const page = frame.contentDocument, root = page.documentElement, outside = [];
  for (const one of page.querySelectorAll("body *")) {
    const box = one.getBoundingClientRect();
    if (box.width && box.right > root.clientWidth + 1 && !one.closest(".scroll, pre, svg"))
      outside.push(one.tagName + " " + one.textContent.slice(0, 40));
  }
  const shown = [...page.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().width);
  const drawn = shown.map(svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width);
  found.push({
    width: root.clientWidth, content: root.scrollWidth, outside,
    scrolled: [...page.querySelectorAll(".scroll")].filter(s => s.scrollWidth > s.clientWidth)
      .map(s => [s.tabIndex, s.getAttribute("aria-label"),
                 s.previousElementSibling.getBoundingClientRect().height > 0]),
    clipped: shown.flatMap(svg => [...svg.querySelectorAll("text")].filter(text => {
      const a = text.getBoundingClientRect(), b = svg.getBoundingClientRect();
      return a.left < b.left - 1 || a.right > b.right + 1;
    }).map(text => text.textContent)),
    scale: Math.min(...drawn), charts: shown.length,
  });
}
document.body.innerHTML = "";
document.body.textContent = "MEASURED" + JSON.stringify(found) + "MEASURED";
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The layout of a page with long words at each width, as the browser computes it."""
    if CHROMIUM is None:
        pytest.skip("no Chromium to open the page with")
    folder = tmp_path_factory.mktemp("browser")
    metrics = figures()
    metrics["evaluate"]["notes"] = [LONG]
    metrics["audit"]["broken"][0] |= {"term": LONG, "pieces": LONG.split("-")}
    metrics["extend"]["refused"] = [{"text": LONG, "reason": LONG}]
    page = write_report(write_run(folder / "run", metrics, text=LONG, query=LONG, term=LONG))
    text = html.escape(page.read_text(encoding="utf-8"), quote=True)
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{text}"></iframe>'
        for width in WIDTHS
    )
    outer = folder / "frames.html"
    outer.write_text(
        f"<!doctype html><body>{frames}<script>addEventListener('load', () => {{{MEASURE}}})"
        "</script>",
        encoding="utf-8",
    )
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--dump-dom",
    ]
    command += [f"--user-data-dir={folder / 'profile'}", outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r"MEASURED(\[.*\])MEASURED", done.stdout, re.DOTALL)
    if found is None:
        pytest.skip(f"Chromium does not start here: {done.stderr[-200:]}")
    layouts: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    return layouts


def test_nothing_is_wider_than_the_screen(measured: list[dict[str, Any]]) -> None:
    assert [layout["width"] for layout in measured] == list(WIDTHS)
    for layout in measured:
        assert layout["content"] <= layout["width"], layout["width"]
        assert layout["outside"] == [], layout["width"]
        assert layout["clipped"] == [], layout["width"]


def test_wide_tables_scroll_by_keyboard_and_say_so(measured: list[dict[str, Any]]) -> None:
    narrow = next(layout for layout in measured if layout["width"] == 400)
    assert narrow["scrolled"], "the table of systems is wider than this"
    for focus, name, told in narrow["scrolled"]:
        assert focus == 0
        assert name
        assert told, name


def test_text_in_charts_is_as_large_on_a_narrow_screen(measured: list[dict[str, Any]]) -> None:
    assert len({layout["charts"] for layout in measured}) == 1
    assert {layout["width"]: round(layout["scale"], 1) for layout in measured}[400] >= 1
    assert min(layout["scale"] for layout in measured) > 0.75


def test_colors_have_contrast(tmp_path: Path) -> None:
    page = write_report(write_run(tmp_path / "run", figures())).read_text()
    schemes = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        color = dict(re.findall(r"--([\w-]+): (#\w{6})\b", scheme))
        for ground in ("paper", "panel"):
            for ink in ("ink", "muted", "good", "bad", "s1"):
                assert contrast(color[ink], color[ground]) >= 4.5, (ink, ground)
        assert contrast(color["ink"], color["piece"]) >= 4.5
        assert contrast(color["ink"], color["new"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""
    dark, light = sorted(luminance(color) for color in (one, other))
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
