"""The examples in the help texts: all of them parse, and most of them run on small files."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from idiolect.cli.main import app
from idiolect.encoding.encoder import Encoder
from idiolect.errors import IdiolectError
from idiolect.ranking.evaluation.judged_collection import write_run
from vocabulary.conftest import DOMAIN, GENERAL
from vocabulary.rows.test_grow import TERMS, build

_SMALLER = {
    "--steps 2000": "--steps 2",
    "--vocab-size 52000": "--vocab-size 820",
    "192,96": "8,4",
}
"""Numbers of the examples that are too large for these models, and their replacements."""

_SMALL_TOML = """
[model]
model_type = "llama"
hidden_size = 16
intermediate_size = 24
num_hidden_layers = 1
num_attention_heads = 2

[training]
steps = 2
max_length = 32
batch_size = 2
"""


def _examples() -> list[str]:
    """Return the examples of all commands, in the order of the help."""
    found: list[str] = []

    def walk(command: Any) -> None:
        text = " ".join((command.help or "").split())
        found.extend(re.findall(r"\[bold\](idiolect .*?)\[/bold\]", text))
        for child in getattr(command, "commands", {}).values():
            walk(child)

    walk(get_command(app))
    return list(dict.fromkeys(found))


EXAMPLES = [example for example in _examples() if "…" not in example and "--help" not in example]


SHORT = {
    "idiolect tune encoder": "idiolect tune",
    "idiolect recommend items": "idiolect recommend",
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_parses(example: str) -> None:
    command: Any = get_command(app)
    name, *words = shlex.split(example)
    context = command.make_context(name, words)
    while getattr(command, "commands", None):
        words = [*context._protected_args, *context.args]
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, words, parent=context)
    path = context.command_path
    assert example.startswith((path, SHORT.get(path, path)))
    assert context.args == [], "not understood"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every file that the examples name, entered."""
    monkeypatch.chdir(tmp_path)
    model = build("gpt2")
    for name in ("gpt2", "runs/adapted/model"):
        model.save(tmp_path / name)
    model.tokenizer.save(tmp_path / "tokenizer")
    encoder = Encoder(build("bert"))
    for name in ("minilm", "all-MiniLM-L6-v2"):
        encoder.save(tmp_path / name)
    (tmp_path / "small.toml").write_text(_SMALL_TOML)
    for name in ("abstracts", "notes", "heldout"):
        _write(name, [{"text": text} for text in DOMAIN])
    products = [
        {
            "id": f"p{n + 1234}",
            "title": text,
            "text": text,
            "price": n,
            "brand": ("acme", "bolt")[n % 2],
        }
        for n, text in enumerate(DOMAIN[:40])
    ]
    _write("products", products[:30])
    _write("new", products[30:])
    general = [" ".join(text.split()) for text in GENERAL[:200]]
    (tmp_path / "books").mkdir()
    for path in ("books/general.txt", "wiki.txt"):
        (tmp_path / path).write_text("\n".join(general))
    _write("pairs", [{"query": text[:20], "document": text} for text in DOMAIN[:24]])
    documents = [{"_id": f"d{n}", "text": text} for n, text in enumerate(DOMAIN[:40])]
    queries = [{"_id": f"q{n}", "text": text[:20]} for n, text in enumerate(DOMAIN[:10])]
    for where in ("", "scifact/"):
        (tmp_path / where / "qrels").mkdir(parents=True)
        _write(f"{where}corpus", documents)
        _write(f"{where}queries", queries)
    rows = "\n".join(f"q{n}\td{n}\t1" for n in range(10))
    for split in ("train", "test"):
        (tmp_path / f"scifact/qrels/{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    write_run("bm25.txt", {f"q{n}": {f"d{n}": 2.0, f"d{n + 1}": 1.0} for n in range(10)})
    (tmp_path / "terms.txt").write_text("\n".join(TERMS))
    return tmp_path


def _write(name: str, records: list[dict[str, Any]]) -> None:
    Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))


def _run(start: str) -> str:
    """Run the examples that start with some words."""
    chosen = [example for example in EXAMPLES if example.startswith(f"idiolect {start}")]
    assert chosen, start
    output = ""
    for example in chosen:
        for large, small in _SMALLER.items():
            example = example.replace(large, small)
        result = CliRunner().invoke(app, shlex.split(example)[1:], env={"COLUMNS": "200"})
        if isinstance(result.exception, IdiolectError):
            raise AssertionError(f"{example}: {result.exception}")
        assert result.exit_code == 0, f"{example}: {result.output}"
        output += result.output
    return output


def test_examples_of_vocabulary_and_training(folder: Path) -> None:
    assert "terms chosen" in _run("audit")
    assert "tokens added" in _run("extend")
    assert "squared error" in _run("distill")
    assert "runs/rows/model" in _run("pretrain ./gpt2-medical")
    assert "runs/new/model" in _run("pretrain ./tokenizer")
    assert "gpt2-notes" in _run("tokenizer train")
    assert "bits per byte" in _run("evaluate lm")
    assert "vectors of 16 dimensions" in _run("encode")
    assert "rows of 16 dimensions" in _run("export table")


def test_examples_of_search_and_ranking(folder: Path) -> None:
    # Two examples tune into one folder with other options; the first is in the group's help.
    _run("tune ./minilm pairs.jsonl --epochs 2")
    shutil.rmtree("runs/tuned")
    _run("tune ./minilm pairs.jsonl --negatives")
    _run("tune cross-encoder ./minilm --data scifact --epochs 2")
    _run("tune two-tower")
    _run("tune lambdamart")
    assert "10 queries, 20 documents" in _run("rerank")
    assert "8 dimensions" in _run("evaluate search")
    assert "30 items written" in _run("index build")
    for command in ("add", "info", "verify", "snapshot", "restore", "compact", "passages"):
        _run(f"index {command}")
    _run("search products-index")
    _run("similar")
    assert '"citations"' in _run("answer")
    assert "deleted" in _run("index delete")


def test_examples_of_models() -> None:
    assert "Llama" in _run("models")
