"""The page: what it loads, and each of its stories in a browser, by role and label."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs the extra serve")

from fastapi.testclient import TestClient

from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.serve.app import create_app
from idiolect.serve.page_files import STATIC
from idiolect.serve.serve_settings import ServeSettings
from pipeline import shop

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
SCRIPT = "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\">"
KEY = "a-key-for-the-test"
ANSWER: dict[str, Any] = {
    "answer": "The lamp is for the garden [1].",
    "citations": [{"id": "wide", "start": 2402, "end": 2424, "text": "a lamp lights the path"}],
    "passages": [
        {"id": "wide", "start": 2400, "end": 2430, "text": "…", "score": 0.9},
        {"id": "mivotrexol-0", "start": 0, "end": 3, "text": "the", "score": 0.1},
    ],
    "abstained": False,
}


# What is served


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    path = tmp_path_factory.mktemp("page") / "index"
    Index.build(path, None, [Item("p1", "a lamp", vector=np.ones(2, np.float32))]).close()
    with TestClient(create_app(ServeSettings(path=str(path)))) as client:
        yield client


def test_the_page_and_its_files_are_served_and_load_nothing_from_elsewhere(
    client: TestClient,
) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page.text)
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for path in (path for path in STATIC.rglob("*") if path.suffix in types):
        name = path.relative_to(STATIC).as_posix()
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["content-type"].startswith(types[path.suffix]), name
        text = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|\burl\(|@import|//\w+\.\w+/", text), name
        for imported in re.findall(r'from "(.+?)"', text):
            assert (path.parent / imported).is_file(), f"{name}: {imported}"
    for loaded in re.findall(r'(?:src|href)="([^"#]+)"', page.text):
        assert (STATIC.parent / loaded).is_file(), loaded


def test_no_text_is_read_as_html_and_files_stay_short() -> None:
    for path in STATIC.rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\.write\(|\beval\(", text), (
            path
        )
        assert len(text.splitlines()) < 300, path


# In a browser


def _axe() -> str | None:
    """The source of axe-core: the file $AXE_CORE, or in node_modules here or of npm."""
    folders = [Path("node_modules")]
    if npm := shutil.which("npm"):
        done = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=False)
        folders.append(Path(done.stdout.strip()))
    named = [Path(os.environ["AXE_CORE"])] if "AXE_CORE" in os.environ else []
    for path in [*named, *(folder / "axe-core" / "axe.min.js" for folder in folders)]:
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


class Site:
    """A server in a process of its own."""

    def __init__(self, run: Path, log: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}/"
        self._command = [sys.executable, "-m", "idiolect", "serve", str(run)]
        self._command += ["--port", str(self.port), *options]
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        for _ in range(1800):
            try:
                with urllib.request.urlopen(f"{self.url}health", timeout=30):
                    return
            except OSError:  # not yet
                assert self.process.poll() is None, self._log.read_text()
                time.sleep(0.1)
        raise AssertionError(self._log.read_text())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the shop, with an item that tries to run a script."""
    from idiolect.pipeline.run import run as run_pipeline
    from idiolect.recommend.train_recommender import train_recommender

    folder = tmp_path_factory.mktemp("served-run")
    config = shop.open_shop(folder)
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    for number, item in enumerate(items):
        item |= {"kind": item["id"].split("-")[0], "price": number}
    items[0]["text"] += " in the garden"
    long = "\U0001f4a1 a lamp lights the path. "  # one character, two UTF-16 units
    items.append({"id": "bad/one", "title": SCRIPT, "text": f"a lamp {SCRIPT}", "kind": "bad"})
    items.append({"id": "wide", "title": "wide", "text": "word " * 480 + long, "kind": "bad"})
    shop.write(folder / "items.jsonl", items)
    run_pipeline(config)
    ids = [item["id"] for item in items]
    events = [{"user": n, "items": ids[n : n + 6]} for n in range(len(ids) - 5)]
    shop.write(folder / "histories.jsonl", events)
    train_recommender(
        folder / "histories.jsonl",
        model="transitions",
        items=folder / "items.jsonl",
        output_dir=folder / "run" / "recommend",
    )
    return folder / "run"


@pytest.fixture(scope="module")
def site(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(run, tmp_path_factory.mktemp("log") / "server.log")
    yield site
    site.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium to open the page with")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """Open a view; every error in the console, and every script of an item, fails the test."""
    contexts, errors = [], []

    def visit(view: str = "", *, url: str = site.url, expected: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 850}} | options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda message: (
                errors.append(message.text)
                if message.type == "error" and not (expected and expected in message.text)
                else None
            ),
        )
        page.on("request", lambda request: _check_host(request.url, url, errors))
        page.goto(f"{url}#/{view}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert errors == []


def _check_host(requested: str, url: str, errors: list[str]) -> None:
    if not requested.startswith(url):
        errors.append(f"asked for {requested}")


def _titles(page: Any, name: str = "Results") -> list[str]:
    """The results of a list, once there are any."""
    found = page.get_by_role("list", name=name, exact=True)
    found.get_by_role("link").first.wait_for()
    return [link.text_content() for link in found.get_by_role("link").all()]


def _until(page: Any, expression: str) -> None:
    """Wait for a condition; the browser's own waiting needs `eval`, which the page forbids."""
    for _ in range(600):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{expression} at {page.url}")


def _settle(page: Any) -> None:
    _until(page, "document.querySelectorAll('[aria-busy]').length === 0")


@pytest.mark.slow
def test_search_as_you_type(visit: Callable[..., Any]) -> None:
    page = visit()
    box = page.get_by_role("searchbox", name="Search", exact=True)
    assert box.evaluate("box => box === document.activeElement")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    box.press_sequentially("knife for bread", delay=5)
    page.get_by_role("status").filter(has_text="10 results by words and meaning").wait_for()
    assert len([url for url in sent if url.endswith("/search")]) < 5  # not one for each letter
    assert _titles(page)[0].startswith("mivotrexol")
    assert "knife" in page.get_by_role("list", name="Results").locator("mark").all_text_contents()
    assert page.url.endswith("#/search?q=knife+for+bread")

    page.get_by_role("radio", name="Words").check()
    page.get_by_role("status").filter(has_text="by words in").wait_for()
    assert "mode=lexical" in page.url
    page.go_back()
    page.get_by_role("status").filter(has_text="by words and meaning").wait_for()
    assert page.get_by_role("radio", name="Both").is_checked()

    box.fill("qqqqq")
    page.get_by_role("radio", name="Words").check()
    page.get_by_text("No item matches.").wait_for()
    box.fill("")
    page.get_by_text("Describe what you are looking for.").wait_for()


@pytest.mark.slow
def test_a_search_that_is_overtaken_is_aborted(visit: Callable[..., Any]) -> None:
    page = visit()
    held: list[Any] = []
    aborted: list[str] = []
    page.on("requestfailed", lambda request: aborted.append(request.post_data))

    def hold_first(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/search", hold_first)
    box = page.get_by_role("searchbox", name="Search", exact=True)
    box.fill("lamp")
    page.wait_for_timeout(400)
    assert held
    box.fill("bread")
    assert _titles(page)[0].startswith("mivotrexol")
    assert len(aborted) == 1
    assert '"query":"lamp"' in aborted[0]
    assert box.input_value() == "bread"


@pytest.mark.slow
def test_filters_narrow_a_search_and_are_in_the_address(visit: Callable[..., Any]) -> None:
    page = visit("search?q=garden")
    filters = page.get_by_role("region", name="Filters")
    filters.get_by_role("checkbox", name="mivotrexol").check()
    page.get_by_role("button", name="Remove the filter kind: mivotrexol").wait_for()
    _until(page, "location.hash.includes('filter=')")
    _until(
        page,
        "[...document.querySelectorAll('[data-result]')]"
        ".every(link => link.textContent.startsWith('mivotrexol'))",
    )

    shared = visit(page.url.split("#/")[1])
    _titles(shared)
    assert shared.get_by_role("checkbox", name="mivotrexol").is_checked()
    shared.get_by_role("button", name="Remove the filter kind: mivotrexol").click()
    _until(shared, "!location.hash.includes('filter=')")
    _until(shared, "!document.querySelector('[data-result]')?.textContent.startsWith('mivotrexol')")
    shared.get_by_label("price to").fill("3")
    shared.get_by_role("button", name="Remove the filter price ≤ 3").wait_for()
    shared.get_by_role("status").filter(has_text="4 results").wait_for()
    shared.get_by_label("price to").fill("-1")
    shared.get_by_text("No item that passes the filters matches.").wait_for()
    shared.get_by_role("button", name="Search without filters").click()
    shared.get_by_role("status").filter(has_text="10 results").wait_for()


@pytest.mark.slow
def test_modes_stand_side_by_side(visit: Callable[..., Any]) -> None:
    page = visit("search?q=lamp+for+the+garden")
    page.get_by_role("radio", name="Side by side").check()
    page.get_by_role("status").filter(has_text="of them on every side").wait_for()
    sides = {}
    for name in ("Words", "Meaning", "Both"):
        side = page.get_by_role("region", name=name, exact=True)
        sides[name] = _titles(side, f"Results: {name}")
    assert len(sides["Words"]) == 8
    first = page.get_by_role("region", name="Words", exact=True).get_by_role("listitem").first
    meaning, both = re.search(r"Meaning (\d+|–).*Both (\d+|–)", first.text_content()).groups()
    for name, place in (("Meaning", meaning), ("Both", both)):
        if sides["Words"][0] in sides[name]:
            assert place == str(sides[name].index(sides["Words"][0]) + 1)


@pytest.mark.slow
def test_before_and_after_stand_side_by_side(visit: Callable[..., Any]) -> None:
    page = visit()
    systems = [{"name": "base", "label": "Before: model"}, {"name": "run", "label": "After: run"}]
    page.route(
        "**/info", lambda route: route.fulfill(json=route.fetch().json() | {"systems": systems})
    )

    def answer(route: Any) -> None:
        body = json.loads(route.request.post_data)
        if body.pop("system", None) == "base":
            body["mode"] = "lexical"  # so that the sides differ
        route.continue_(post_data=json.dumps(body))

    page.route("**/search", answer)
    page.reload()
    page.get_by_role("searchbox", name="Search", exact=True).fill("lamp for the garden")
    page.get_by_role("radio", name="Before and after").check()
    page.get_by_role("status").filter(has_text="By meaning: ").wait_for()
    before = page.get_by_role("region", name="Before: model")
    after = page.get_by_role("region", name="After: run")
    titles = [_titles(before, "Results: Before: model"), _titles(after, "Results: After: run")]
    assert titles[0] != titles[1]
    for entry in before.get_by_role("listitem").all():
        assert re.search(r"After (\d+|–)", entry.text_content())


@pytest.mark.slow
def test_searches_of_the_base_use_its_vectors(run: Path) -> None:
    from idiolect.pipeline.pipeline_config import PipelineConfig
    from idiolect.pipeline.stages.index_stage import open_index
    from idiolect.serve.base_search import BaseSearch

    vectors = np.load(run / "stages" / "index" / "vectors" / "base.npy")
    lines = (run.parent / "items.jsonl").read_text().splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    with open_index(run) as index:
        base = BaseSearch(run, PipelineConfig.load(run / "idiolect.toml"), index)
        scores = {hit.id: hit.score for hit in base.search("the garden lamp", len(ids), "dense")}
        assert set(scores) == set(ids)
        wanted = np.array([scores[id] for id in ids])
        query, *_ = np.linalg.lstsq(vectors.astype(float), wanted)
        np.testing.assert_allclose(vectors @ query, wanted, atol=1e-5)  # cosines with one vector

        some = base.search("the garden lamp", 5, "dense", filter={"kind": "bad"})
        assert [hit.id for hit in some] == sorted(["bad/one", "wide"], key=lambda id: -scores[id])
        assert [hit.score for hit in some] == [scores[hit.id] for hit in some]
        words = base.search("the garden lamp", 5, "lexical")
        assert words == index.search("the garden lamp", 5, "lexical")
        assert len(base.search("the garden lamp", 5, "hybrid")) == 5


@pytest.mark.slow
def test_an_item_has_similar_ones_and_says_why(visit: Callable[..., Any]) -> None:
    page = visit("search?q=zorblaxine")
    page.get_by_role("list", name="Results").get_by_role("link").first.click()
    heading = page.get_by_role("heading", level=1)
    heading.filter(has_text="zorblaxine").wait_for()
    name = heading.text_content()
    similar = page.get_by_role("list", name="Similar items")
    assert name not in _titles(page, "Similar items")
    term = similar.get_by_role("button").first
    word = term.text_content()
    term.click()
    assert term.get_attribute("aria-pressed") == "true"
    marked = page.locator(".item mark").all_text_contents()
    assert marked
    assert {one.lower() for one in marked} == {word}
    similar.get_by_role("link").first.click()
    shown = "document.querySelector('.item h1[tabindex]')?.textContent"
    _until(page, f"({shown} ?? {json.dumps(name)}) !== {json.dumps(name)}")
    page.go_back()
    page.get_by_role("heading", level=1, name=name).wait_for()
    page.get_by_role("link", name="← Back").click()
    page.get_by_role("searchbox", name="Search", exact=True).wait_for()


@pytest.mark.slow
def test_a_script_in_an_item_is_text(visit: Callable[..., Any]) -> None:
    page = visit(f"item?id={quote('bad/one', safe='')}")
    page.get_by_role("heading", level=1, name=SCRIPT, exact=True).wait_for()
    page.get_by_text(f"a lamp {SCRIPT}", exact=True).wait_for()
    page.goto(page.url.split("#")[0] + "#/search?q=document+title&mode=lexical")
    page.wait_for_timeout(200)
    assert SCRIPT in _titles(page)
    assert page.title() != "run"
    assert page.locator("main script, main img").count() == 0


@pytest.mark.slow
def test_recommendations_follow_a_clicked_history(visit: Callable[..., Any]) -> None:
    page = visit("recommend")
    page.get_by_text("The history is empty.").wait_for()
    page.get_by_role("searchbox", name="Find items to add").fill("zorblaxine 3")
    adding = page.get_by_role("button", name=re.compile("Add to the history: zorblaxine 3"))
    adding.click()
    history = page.get_by_role("list", name="History", exact=True)
    history.get_by_role("link", name="zorblaxine 3").wait_for()
    assert _titles(page, "Recommended items")[0] in ("zorblaxine 4", "zorblaxine 5")
    page.get_by_text("because of zorblaxine 3").first.wait_for()
    page.get_by_role("button", name="Add to the history: zorblaxine 5").click()
    page.get_by_role("status").filter(has_text="2 items of history").wait_for()
    assert history.get_by_role("listitem").count() == 2
    page.go_back()
    page.get_by_role("status").filter(has_text="1 item of history").wait_for()
    page.get_by_role("button", name="Remove zorblaxine 3").click()
    page.get_by_text("The history is empty.").wait_for()


@pytest.mark.slow
def test_an_audit_shows_both_vocabularies(visit: Callable[..., Any]) -> None:
    page = visit("audit")
    box = page.get_by_role("textbox", name="Text")
    box.fill("the zorblaxine is a pump for water \U0001f4a1\nthe zorblaxine is a pump for water")
    page.get_by_role("status").filter(has_text=re.compile(r"\d+ tokens become \d+")).wait_for()
    base = page.get_by_role("region", name=re.compile("^Base"))
    adapted = page.get_by_role("region", name=re.compile("^Adapted"))
    whole = adapted.locator(".piece.whole").all_text_contents()
    assert [one for one in whole if "zorblaxine" in one]
    assert base.locator(".piece.broken").count() > 4
    shown = base.locator(".pieces").text_content().replace("↵", "")
    assert shown.count("\U0001f4a1") == 1
    assert page.get_by_role("row").filter(has_text="zorblaxine").count() >= 1
    page.reload()
    page.get_by_role("row").filter(has_text="zorblaxine").first.wait_for()
    assert box.input_value().startswith("the zorblaxine")


@pytest.mark.slow
def test_the_report_is_shown(visit: Callable[..., Any]) -> None:
    page = visit("report")
    page.locator(".report").get_by_role("heading", level=1).wait_for()
    link = page.get_by_role("navigation", name="Sections").get_by_role("link", name="Searches")
    link.click()
    assert page.get_by_role("heading", name="Searches, before").evaluate(
        "heading => Math.abs(heading.getBoundingClientRect().top) < 200"
    )
    assert page.url.endswith("#/report")


@pytest.mark.slow
def test_an_answer_leads_to_its_sources(visit: Callable[..., Any]) -> None:
    page = visit()
    page.route("**/info", lambda route: _with_answers(route))
    page.route("**/answer", lambda route: _answer(route, ANSWER))
    page.reload()
    page.get_by_role("link", name="Answers").click()
    page.get_by_role("textbox", name="Question").fill("What is the lamp for?")
    page.get_by_role("button", name="Answer").click()
    page.get_by_role("region", name="Answer").get_by_text("The lamp is for").wait_for()
    source = page.get_by_role("region", name="Source 1: wide")
    source.locator("mark").filter(has_text="a lamp lights the path").wait_for()
    _until(page, "document.querySelector('.document').textContent.length > 500")
    page.get_by_role("button", name="Go to source 1").first.click()
    assert source.evaluate("source => source === document.activeElement")
    assert source.evaluate(
        """source => {
          const outer = source.getBoundingClientRect();
          const inner = source.querySelector("mark").getBoundingClientRect();
          return source.scrollTop > 0 && inner.top >= outer.top && inner.bottom <= outer.bottom;
        }"""
    )
    page.get_by_text("2 passages read").click()
    assert page.get_by_text("cited", exact=True).count() == 1

    nothing = {"answer": "Nothing says so.", "citations": [], "passages": [], "abstained": True}
    page.unroute("**/answer")
    page.route("**/answer", lambda route: _answer(route, nothing))
    page.get_by_role("textbox", name="Question").fill("Who won?")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="No answer").wait_for()


def _answer(route: Any, answer: dict[str, Any]) -> None:
    events = [{"piece": answer["answer"]}, answer]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    route.fulfill(body=body, content_type="text/event-stream")


def _with_answers(route: Any) -> None:
    info = route.fetch().json()
    info["abilities"]["answer"] = True
    route.fulfill(json=info)


@pytest.mark.slow
def test_the_keyboard_is_enough(visit: Callable[..., Any]) -> None:
    page = visit("audit")
    page.get_by_role("textbox", name="Text").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"  # "Skip to the content" is first
    page.get_by_role("link", name="Search", exact=True).focus()
    page.keyboard.press("Enter")
    box = page.get_by_role("searchbox", name="Search", exact=True)
    box.wait_for()
    page.keyboard.press("Control+k")
    page.keyboard.type("bread")
    page.wait_for_timeout(300)  # longer than the pause after which a search starts
    _settle(page)
    titles = _titles(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    focused = "document.activeElement.textContent"
    assert page.evaluate(focused) == titles[1]
    page.keyboard.press("Escape")
    assert box.evaluate("box => box === document.activeElement")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1, name=titles[0]).wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H1"


@pytest.mark.slow
def test_a_server_that_is_away_slow_or_busy_is_said(visit: Callable[..., Any]) -> None:
    page = visit(expected="Failed to load resource")
    box = page.get_by_role("searchbox", name="Search", exact=True)
    page.route("**/search", lambda route: route.abort("connectionrefused"))
    box.fill("lamp")
    page.get_by_role("alert").filter(has_text="The server cannot be reached.").wait_for()
    page.unroute("**/search")
    page.get_by_role("button", name="Try again").click()
    assert _titles(page)

    held: list[Any] = []
    page.route("**/search", lambda route: held.append(route))
    box.fill("lamp garden")
    page.get_by_role("status").filter(has_text="Searching…").wait_for()
    held[0].continue_()
    page.unroute("**/search")
    page.get_by_role("status").filter(has_text="results").wait_for()

    answers = [
        {"status": 429, "headers": {"Retry-After": "1"}, "json": _error("too many requests")},
        {"status": 500, "body": "<html>gateway</html>"},
    ]
    page.route("**/search", lambda route: route.fulfill(**answers[0]))
    box.fill("lamp bread")
    page.get_by_text("Trying again in 1 s.").wait_for()
    page.unroute("**/search")
    page.get_by_role("status").filter(has_text="results").wait_for()
    page.route("**/search", lambda route: route.fulfill(**answers[1]))
    box.fill("lamp water")
    page.get_by_role("alert").filter(has_text="Something went wrong on the server.").wait_for()
    page.unroute("**/search")
    page.goto(page.url.split("#")[0] + "#/item?id=nothing")
    page.get_by_role("alert").filter(has_text="No item 'nothing'.").wait_for()


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "overloaded_error", "hint": ""}}


@pytest.mark.slow
def test_a_server_that_stops_and_returns(
    run: Path, visit: Callable[..., Any], tmp_path: Path
) -> None:
    own = Site(run, tmp_path / "server.log")
    try:
        page = visit(url=own.url, expected="Failed to load resource")
        box = page.get_by_role("searchbox", name="Search", exact=True)
        box.fill("lamp")
        assert _titles(page)
        own.stop()
        box.fill("bread")
        page.get_by_role("alert").filter(has_text="The server cannot be reached.").wait_for()
        own.start()
        page.get_by_role("button", name="Try again").click()
        assert _titles(page)[0].startswith("mivotrexol")
    finally:
        own.stop()


@pytest.mark.slow
def test_a_key_is_asked_for_once_and_kept_in_the_tab(
    run: Path, visit: Callable[..., Any], tmp_path: Path
) -> None:
    own = Site(run, tmp_path / "server.log", "--api-key", KEY)
    try:
        page = visit("search?q=lamp", url=own.url, expected="401")
        dialog = page.get_by_role("dialog", name="This server asks for a key")
        dialog.get_by_label("Key").fill("wrong")
        dialog.get_by_role("button", name="Continue").click()
        dialog.get_by_text("The server did not accept that key.").wait_for()
        dialog.get_by_label("Key").fill(KEY)
        page.keyboard.press("Enter")
        assert _titles(page)
        assert not dialog.is_visible()
        page.reload()
        assert _titles(page)
        page.get_by_role("link", name="Report").click()
        page.get_by_role("navigation", name="Sections").wait_for()
        kept = "[Object.values(sessionStorage), Object.values(localStorage), document.cookie]"
        assert page.evaluate(kept) == [[KEY], [], ""]

        other = visit(url=own.url, expected="401")
        other.get_by_role("button", name="Cancel").click()
        other.get_by_role("alert").filter(has_text="answers only with a key").wait_for()
    finally:
        own.stop()


VIEWS = {
    "search": "search",
    "results": "search?q=lamp+for+the+garden",
    "modes": "search?q=lamp+for+the+garden&mode=modes",
    "item": "item?id=zorblaxine-0",
    "recommend": f"recommend?history={quote(json.dumps(['zorblaxine-3', 'zorblaxine-4']))}",
    "audit": f"audit?text={quote('the zorblaxine is a pump for water')}",
    "report": "report",
    "answer": "answer?q=what",
    "away": "item?id=nothing",
}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_every_view_is_accessible_and_fits(
    visit: Callable[..., Any], width: int, scheme: str
) -> None:
    axe = _axe()
    page = visit(
        color_scheme=scheme, viewport={"width": width, "height": 850}, expected="Failed to load"
    )
    page.route("**/info", lambda route: _with_answers(route))
    page.route("**/answer", lambda route: _answer(route, ANSWER))
    for name, view in VIEWS.items():
        page.goto(f"{page.url.split('#')[0]}#/{view}")
        page.reload()
        page.get_by_role("heading", level=1).first.wait_for(state="attached")
        page.wait_for_timeout(150)
        _settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        if axe is not None:
            page.evaluate(axe)
            problems = page.evaluate("axe.run()")["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in problems] == [], name
    if axe is None:
        pytest.skip("axe-core is not here (npm install --no-save axe-core, or set AXE_CORE)")
