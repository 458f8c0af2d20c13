"""`idiolect encode` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tokenizers
from typer.testing import CliRunner

from encoding.models import tiny_encoder
from idiolect.cli.main import app
from idiolect.encoding.pairs import PairFile
from idiolect.encoding.precision import QuantizedVectors
from training import models

runner = CliRunner()


def test_vectors_counts_and_codes(tmp_path: Path) -> None:
    encoder = tiny_encoder(max_length=6, prompts={"query": "a "})
    encoder.save(tmp_path / "model")
    texts = ["a b c", "d e f g h i j", "p"]
    lines = [json.dumps({"text": text}) for text in [*texts, " "]]
    (tmp_path / "docs.jsonl").write_text("\n".join(lines))
    out = tmp_path / "v.npy"
    command = ["encode", str(tmp_path / "model"), str(tmp_path / "docs.jsonl"), "-o", str(out)]
    result = runner.invoke(app, [*command, "--prompt-name", "query", "--codes", "binary"])
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(np.load(out), encoder.encode(texts, prompt_name="query"), atol=1e-6)
    words = " ".join(result.output.split())
    assert "texts 3" in words
    assert "truncated to 6 tokens 1" in words
    assert "tokens lost 4" in words
    assert "skipped 1 records: empty" in words
    assert "3 vectors of 16 dimensions" in words
    assert len(QuantizedVectors.open(tmp_path / "v.binary")) == 3
    again = runner.invoke(app, [*command, "--prompt-name", "query"])
    assert again.exit_code == 0
    other = runner.invoke(app, command)
    assert other.exit_code != 0
    assert "started with prompt query, not none" in str(other.exception)


def test_auto_keeps_the_precision_of_a_started_file(tmp_path: Path) -> None:
    tiny_encoder("llama").save(tmp_path / "model")
    (tmp_path / "docs.jsonl").write_text(json.dumps({"text": "a b c"}))
    out = tmp_path / "v.npy"
    command = ["encode", str(tmp_path / "model"), str(tmp_path / "docs.jsonl"), "-o", str(out)]
    assert runner.invoke(app, [*command, "--precision", "bf16"]).exit_code == 0
    again = runner.invoke(app, [*command, "--precision", "auto"])
    assert "computed in bf16" in " ".join(again.output.split())
    assert "started with precision bf16, not fp32" in str(runner.invoke(app, command).exception)


def test_a_static_encoder_is_exported_as_a_table(tmp_path: Path) -> None:
    encoder = tiny_encoder("llama")
    encoder.save(tmp_path / "model")
    command = ["export", "table", str(tmp_path / "model"), "-o", str(tmp_path / "table")]
    assert "make one with layers=0" in str(runner.invoke(app, command).exception)
    result = runner.invoke(app, [*command, "--layers", "0"])
    assert result.exit_code == 0, result.output
    assert "rows of 16 dimensions" in result.output
    table = np.load(tmp_path / "table" / "embeddings.npy")
    engine = tokenizers.Tokenizer.from_file(str(tmp_path / "table" / "tokenizer.json"))
    mean = table[engine.encode("a b c", add_special_tokens=False).ids].mean(0)
    expected = encoder.with_changes(layers=0).encode(["a b c"])[0]
    np.testing.assert_allclose(mean / np.linalg.norm(mean), expected, atol=1e-6)


def test_help_has_an_example() -> None:
    result = runner.invoke(app, ["encode", "--help"], env={"COLUMNS": "120"})
    assert "idiolect encode all-MiniLM-L6-v2 abstracts.jsonl -o abstracts.npy" in result.output


def test_generated_queries_are_pairs_to_tune_on(tmp_path: Path) -> None:
    models.model("llama", grown=False).save(tmp_path / "model")
    texts = models.texts(12)
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    out = tmp_path / "pairs.jsonl"
    command = ["generate-queries", str(tmp_path / "model"), str(tmp_path / "docs.jsonl")]
    command += ["-o", str(out), "--filter-top-k", "0", "--max-texts", "6", "--max-new-tokens", "9"]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    made = list(PairFile(out))
    assert {pair.document for pair in made} <= set(texts)
    words = " ".join(result.output.split())
    assert "18 queries for 6 texts" in words, "the cost is shown before"
    assert f"{len(made)} pairs of 6 texts in" in words
    assert "tokens read" in words
    bad = runner.invoke(app, [*command, "--temperature", "0"])
    assert "a temperature of 0.0" in str(bad.exception)
    shown = runner.invoke(app, ["generate-queries", "--help"], env={"COLUMNS": "120"})
    assert "idiolect generate-queries smollm2 abstracts.jsonl --max-texts 300" in shown.output
