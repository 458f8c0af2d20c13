import html.parser
import json
import re

import pytest
from typer.testing import CliRunner

from idiolect.cli.main import app
from idiolect.cli.run import results
from idiolect.errors import CheckpointError, InputError
from idiolect.pipeline.report import charts
from idiolect.pipeline.report.page import write_report

EVIL = "<script>alert('$x_1$ & \"y\"')</script><img src=http://example.org/a.png onerror=alert(1)>"


def text_metrics():
    return {
        "documents": 90,
        "words": 9000,
        "tokens": 14000,
        "bytes_per_token": 3.1,
        "tokens_per_word": 1.55,
        "unknown_share": 0.001,
        "pieces": {"1": 6000, "2": 2000, "3": 700, "7": 300},
    }


def broken(term="eigh", pieces=("e", "ig", "h"), chosen=True):
    return {"term": term, "pieces": list(pieces), "count": 40, "saved": 80, "chosen": chosen}


def counted():
    return {
        "documents": 10,
        "before": 1000,
        "after": 873,
        "saved": 0.127,
        "changed": 0,
        "uses": 60,
    }


def training(**more):
    return {"steps": 50, "tokens": 12800, "loss_first": 3.0, "loss_last": 2.0, **more}


def system(name, label, value, control=False):
    scores = {"ndcg@10": value, "recall@100": value + 0.2, "mrr@10": value - 0.05}
    return {
        "name": name,
        "label": label,
        "control": control,
        "search": scores,
        "similar": scores,
        "unseen": {},
    }


def difference(test, first, second, value, p_value):
    return {
        "test": test,
        "unseen": False,
        "measure": "ndcg@10",
        "first": first,
        "second": second,
        "difference": value,
        "low": value - 0.04,
        "high": value + 0.04,
        "p_value": p_value,
        "wins": 15,
        "losses": 2,
    }


def found(text="Some text.", grade=None):
    return {"id": "i1", "title": "Item one", "text": text, "grade": grade}


def figures():
    """All metrics of a run."""
    return {
        "audit": {
            "tokenizer": "byte-bpe",
            "vocabulary": 8192,
            "domain": text_metrics(),
            "general": text_metrics(),
            "candidates": 900,
            "terms": 2,
            "rows": 4,
            "saved": 320,
            "broken": [broken(), broken("lsqr", ("ls", "q", "r"), chosen=False)],
            "skipped": {},
        },
        "extend": {
            "method": "exact",
            "added": 4,
            "refused": [{"text": "a b", "reason": "crosses a border"}],
            "first_id": 8192,
            "texts": {"domain": counted(), "general": counted()},
            "unverified": [],
            "notes": ["A note of extend."],
        },
        "distill": training(error_before=0.5, error_after=0.2, without_context=1),
        "pretrain": training(train="all", objective="causal"),
        "tune": {
            "pairs": 300,
            "supervised": True,
            "notes": [],
            "steps": 50,
            "loss_first": 2.0,
            "loss_last": 0.5,
            "left_out": 3,
            "kept_apart": 20,
            "items_trained_on": 0,
        },
        "index": {
            "items": 30,
            "cut": 0,
            "meaning": 0.7,
            "encoder": "tuning",
            "candidates": [{"name": "tuning", "label": "with new tokens", "ndcg": 0.5}],
            "dimensions": 8,
            "bytes": 123456,
            "exact_queries_per_second": 900.0,
            "curve": [
                {"width": 10, "recall": 0.8, "queries_per_second": 9000.0},
                {"width": 20, "recall": 0.97, "queries_per_second": 5000.0},
            ],
        },
        "evaluate": {
            "tokens": {"domain": counted(), "general": counted()},
            "language": {
                "applicable": True,
                "note": "",
                "window": 1000,
                "systems": {
                    "base": {"domain": 2.31, "general": 1.52},
                    "pretraining": {"domain": 1.71, "general": 1.57},
                    "random.pretraining": {"domain": 1.83, "general": 1.58},
                },
                "forgetting": {"divergence": 0.123, "same_first": 0.9},
                "terms": None,
            },
            "search": {"queries": 20, "unseen": 20, "items": 30, "notes": ["A note of search."]},
            "similar": {"queries": 10, "unseen": 10, "items": 30, "notes": []},
            "systems": [
                system("bm25", "BM25", 0.41),
                system("base", "base", 0.214),
                system("tuning", "+ tuning", 0.537),
                system("words", "the index, words only", 0.45),
                system("hybrid", "hybrid", 0.61),
                system("untrained", "new tokens, untrained", 0.123, control=True),
            ],
            "significance": [
                difference("search", "base", "tuning", 0.323, 0.0001),
                difference("search", "words", "hybrid", 0.16, 0.002),
                difference("similar", "base", "tuning", 0.01, 0.4),
            ],
            "matryoshka": [
                {"dimensions": 4, "search": 0.4, "similar": 0.3},
                {"dimensions": 8, "search": 0.5, "similar": 0.4},
            ],
            "promises": {
                "original_rows": "0123abcd",
                "original_rows_identical": True,
                "documents_changed": 0,
                "documents_checked": 200,
            },
            "notes": ["Items' text is part of adaptation."],
        },
    }


def write_run(folder, metrics, *, text="Some text about eigh.", query="a query", term="eigh"):
    names = ("audit", "distill", "pretrain", "tune", "plain.pretrain", "plain.tune", "evaluate")
    for name in names:
        (folder / "stages" / name).mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    manifest = {
        "format": 1,
        "idiolect": "0.1.0",
        "versions": {"python": "3.11", "torch": "2.13"},
        "machine": {"processor": "x86_64", "cores": 2, "threads": 2},
        "stages": {name: {"fingerprint": "ab", "seconds": 12.5} for name in names},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "idiolect.toml").write_text('base = "some/where/small"\n[data]\nitems = "a.jsonl"\n')
    for name in ("distill", "pretrain", "tune", "plain.pretrain", "plain.tune"):
        rows = [{"step": step, "loss": 3 / step} for step in range(1, 51)]
        (folder / "stages" / name / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
    search = {
        "query": query,
        "before": [found(text)],
        "after": [found(text, grade=1.0)],
        "new_terms": [term],
    }
    missed = {"query": query, "wanted": text, "rank": None, "shared": [term]}
    shown = {"kind": "search", "examples": [search], "missed": [missed], "missed_of": [1, 20]}
    write_searches(folder, shown)
    return folder


def write_searches(run, shown):
    (run / "stages" / "evaluate" / "searches.json").write_text(json.dumps(shown))


class Reader(html.parser.HTMLParser):
    """Collects the content of a page, and checks that its tags are balanced."""

    void = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text, self.ids = [], [], [], "", []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("run"), figures())
    path = write_report(run)
    assert path == run / "report.html"
    return path.read_text()


def test_the_page_shows_what_was_measured(page):
    text = " ".join(read(page).text.split())
    for shown in (
        "Report: small with new tokens",
        "2.31 → 1.71",
        "0.214 → 0.537",
        "weights vectors by 70% and words by 30%",
        "12.7%",
        "2 of 2 kept",
        "eigh",
        "crosses a border",
        "A note of extend.",
        "A note of search.",
        "Items' text is part of adaptation.",
        "+0.323",
        "< 0.001",
        "15 : 2",
        "0123abcd",
        "0.123 bits per token",
        "3 pairs left out",
        "a query",
        "1 of 20 searches have no relevant item",
        "beyond 100",
    ):
        assert shown in text, shown


def test_old_pieces_are_marked_one_by_one(page):
    assert "<span>e</span><span>ig</span><span>h</span>" in page


def test_phrases_of_whole_words_are_not_among_broken_terms(tmp_path):
    metrics = figures()
    metrics["audit"]["broken"] = [
        broken("of the", (" of", " the")),
        broken("The end", ("\u2581The", "end")) | {"pieces": ["The", "end"]},
        broken("x", (" ", "x")),
        broken("numpy as np", (" num", "py", " as", " n", "p")),
        broken("as np", (" as", " n", "p"), chosen=False),
        broken("in a", (" in", " a"), chosen=False),
        broken("scipy", ("sci", "py"), chosen=False),
    ]
    page = write_report(write_run(tmp_path, metrics)).read_text()
    table = page.split("The chosen terms that cost most")[1].split("</table>")[0]
    shown = re.findall(r'<tr><td><span class="term[^>]*>([^<]*)', table)
    assert shown == ["numpy as np", "scipy"]
    phrases = page.split("None of their words is broken")[1].split("</p>")[0]
    assert re.findall(r'<span class="term taught">([^<]*)', phrases) == ["of the", "The end"]


def test_searches_that_did_not_change_are_shown_once(tmp_path):
    run = write_run(tmp_path, figures())
    search = {"query": "q", "before": [found()], "after": [found()], "new_terms": []}
    shown = {"kind": "similar", "examples": [search] * 9, "missed": [], "missed_of": [0, 0]}
    write_searches(run, shown)
    page = write_report(run).read_text()
    assert "before and after: the same" in page
    assert page.count('<div class="side">') == 3
    assert "None of the searches tried has other results" in page
    write_searches(run, shown | {"examples": [search, search | {"before": []}]})
    page = write_report(run).read_text()
    assert page.count('<div class="side">') == 3
    assert "None of the searches tried" not in page
    assert "Similar items, before and after" in page


def test_controls_share_axes_only_where_the_loss_is_the_same(page, tmp_path, drawn_charts):
    def legends(page):
        training = page.split('aria-label="Training loss"')[1].split("</svg>")[0]
        return re.findall(r">(new tokens|no new tokens|random tokens)<", training)

    assert legends(page) == ["new tokens", "no new tokens"]
    metrics = figures()
    metrics["tune"]["pairs"] = 0
    assert legends(write_report(write_run(tmp_path, metrics)).read_text()) == []


def test_text_that_cannot_be_encoded_does_not_stop_the_page(tmp_path):
    run = write_run(tmp_path, figures(), text="a lone \ud800 surrogate")
    assert "a lone ? surrogate" in write_report(run).read_text()


def test_the_best_system_is_marked_and_controls_are_apart(page):
    best = re.findall(r"<tr><td>([^<]*)</td>\s*<td class=\"n\"><b", page)
    assert best == ["hybrid"]
    assert page.count('<tr class="control">') == 1


def test_only_controls_that_were_trained_are_named(page, tmp_path):
    assert "where a gain comes from: the new tokens without training." in page
    metrics = figures()
    systems = metrics["evaluate"]["systems"]
    systems.append(system("plain.tuning", "no new tokens", 0.5, control=True))
    page = write_report(write_run(tmp_path, metrics)).read_text()
    assert "where a gain comes from: the same training without new tokens, " in page


def test_charts_are_drawn_for_wide_and_narrow_screens(page):
    for width in ("wide", "narrow"):
        names = re.findall(rf'<div class="{width}"><svg [^>]*aria-label="([^".]*)', page)
        assert names == [
            "nDCG@10 of each system",
            "Bits per byte of each model",
            "Words by pieces",
            "Training loss",
            "Recall and speed of the graph",
            "nDCG@10 by dimensions kept",
            "Seconds of each stage",
        ]
    assert "search: BM25 0.410, base 0.214, + tuning 0.537" in page, "values in the alternative"


def test_nothing_refers_to_a_network_and_no_script_runs(page):
    reader = read(page)
    assert "://" not in page
    assert "//" not in re.sub(r"/\*.*?\*/", "", page.split("<body>")[0])
    assert not {"script", "img", "link", "iframe", "object", "embed", "base"} & set(reader.tags)
    for name, value in reader.attributes:
        assert not name.startswith("on")
        if name in ("href", "xlink:href", "src", "action", "data"):
            assert value.startswith("#"), value
    for target in re.findall(r"url\(([^)]*)\)", page):
        assert target.startswith("#")
    assert "default-src 'none'" in page
    assert "@import" not in page


def test_every_reference_inside_the_page_has_one_target(page):
    reader = read(page)
    assert len(reader.ids) == len(set(reader.ids))
    for target in re.findall(r'(?:href="#|url\(#)([^")]*)', page):
        assert target in reader.ids, target


def test_charts_use_the_colors_of_the_page(page):
    body = page.split("<body>")[1]
    assert not re.search(r"#[0-9a-fA-F]{6}", body)
    used = set(re.findall(r"var\(--([\w-]+)\)", page))
    for scheme in re.findall(r":root \{(.*?)\}", page, re.DOTALL):
        assert used <= set(re.findall(r"--([\w-]+):", scheme))
    assert page.count(":root {") == 2


def test_text_from_outside_is_escaped_everywhere(tmp_path, drawn_charts):
    metrics = figures()
    metrics["audit"]["broken"] = [broken(EVIL, [EVIL])]
    metrics["audit"]["tokenizer"] = EVIL
    metrics["extend"]["refused"] = [{"text": EVIL, "reason": EVIL}]
    metrics["extend"]["notes"] = metrics["extend"]["unverified"] = [EVIL]
    metrics["evaluate"]["language"]["note"] = EVIL
    metrics["evaluate"]["notes"] = metrics["evaluate"]["search"]["notes"] = [EVIL]
    metrics["evaluate"]["systems"][0]["label"] = EVIL
    metrics["evaluate"]["promises"]["original_rows"] = EVIL
    metrics["audit"]["broken"].append(broken("of the", [" of", " the"]) | {"term": f"{EVIL} the"})
    metrics["audit"]["broken"][1]["pieces"] = f"{EVIL} the".split()
    run = write_run(tmp_path, metrics, text=f"{EVIL} eigh", query=EVIL, term=EVIL)
    (run / "idiolect.toml").write_text(f"base = {json.dumps(EVIL)}\n# {EVIL}\n")
    page = write_report(run).read_text()
    reader = read(page)
    assert not {"script", "img"} & set(reader.tags)
    assert not any(name.startswith("on") for name, _ in reader.attributes)
    assert reader.text.count(EVIL) > 15


def test_a_run_without_judgements_pairs_or_general_text(tmp_path):
    metrics = figures()
    evaluate = metrics["evaluate"]
    metrics["audit"]["general"] = evaluate["search"] = evaluate["similar"] = None
    metrics["tune"]["supervised"] = False
    metrics["index"]["items"] = 2
    del metrics["extend"]["texts"]["general"], evaluate["tokens"]["general"]
    evaluate["significance"], evaluate["matryoshka"] = [], []
    evaluate["language"] |= {"applicable": False, "note": "It is an encoder.", "systems": {}}
    evaluate["language"]["forgetting"] = None
    for one in evaluate["systems"]:
        one["search"] = one["similar"] = None
    run = write_run(tmp_path, metrics)
    write_searches(run, {"kind": "search", "examples": [], "missed": [], "missed_of": [0, 0]})
    text = read(write_report(run).read_text()).text
    assert "rankings could not be evaluated" in text
    assert "There were no queries" in text
    assert "without pairs" in text
    assert "It is an encoder." in text


def test_tables_of_a_run_without_judgements_have_no_empty_rows():
    metrics = figures()
    evaluate = metrics["evaluate"]
    evaluate["search"] = evaluate["similar"] = None
    evaluate["significance"] = []
    for one in evaluate["systems"]:
        one["search"] = one["similar"] = None
    systems, *others = results(metrics)
    assert "base" in list(systems.columns[0].cells)
    for name, *cells in zip(*(column.cells for column in systems.columns), strict=True):
        assert name == "controls" or any(cells)
    assert not any("Differences" in str(table.title) for table in others)


def test_a_broken_promise_is_shown(tmp_path):
    metrics = figures()
    metrics["evaluate"]["promises"] |= {"original_rows_identical": False, "documents_changed": 7}
    page = write_report(write_run(tmp_path, metrics)).read_text()
    assert "0 of 2 kept" in page
    assert page.count('<span class="no">broken</span>') == 2


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        write_report(tmp_path)
    metrics = figures()
    del metrics["evaluate"]["promises"]
    with pytest.raises(CheckpointError, match="promises"):
        write_report(write_run(tmp_path / "old", metrics))
    run = write_run(tmp_path / "damaged", figures())
    (run / "stages" / "evaluate" / "searches.json").write_text("[{")
    with pytest.raises(CheckpointError, match=r"searches\.json is damaged"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_run_ends_with_its_report(finished):
    reader = read((finished / "run" / "report.html").read_text())
    metrics = json.loads((finished / "run" / "metrics.json").read_text())
    figures = metrics["evaluate"]
    text = " ".join(reader.text.split())
    for one in figures["systems"]:
        if one["search"]:
            assert one["label"] in text
            assert f"{one['search']['ndcg@10']:.3f}" in text
    assert figures["promises"]["original_rows"] in text
    for name in json.loads((finished / "run" / "manifest.json").read_text())["stages"]:
        assert name in text
    searches = json.loads((finished / "run/stages/evaluate/searches.json").read_text())
    examples = searches["examples"]
    changed = any(search["before"] != search["after"] for search in examples)
    shown = examples if changed else examples[:3]  # the page says that no search changed
    assert shown
    assert all(search["query"] in text for search in shown)


def test_the_command_prints_the_path(tmp_path):
    run = write_run(tmp_path, figures())
    result = CliRunner().invoke(app, ["report", str(run)])
    assert result.exit_code == 0, result.output
    assert "report.html" in "".join(result.output.split())
    assert (run / "report.html").stat().st_size > 10_000


def test_the_same_run_gives_the_same_page(tmp_path, page, drawn_charts):
    assert write_report(write_run(tmp_path, figures())).read_text() == page


def test_labels_are_not_parsed_as_markup(drawn_charts):
    drawn = charts.dots("a", {"b": {"$\\frac{": 1.0, "<&>": 2.0}})
    for svg in (drawn.wide, drawn.narrow):
        assert "$\\frac{" in svg
        assert "&lt;&amp;&gt;" in svg
        assert "<&>" not in svg


def test_one_step_is_a_point(drawn_charts):
    def marks(steps):
        line = charts.Line("loss", range(steps), [2.0] * steps)
        svg = charts.lines("a", {"": [line]}, x="step", y="loss").wide
        return len(re.findall(r"<use[^>]*var\(--s1\)", svg))

    assert (marks(1), marks(2)) == (1, 0)
