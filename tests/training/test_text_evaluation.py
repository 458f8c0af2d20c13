"""Bits per byte, forgetting and term use against explicit sums and a published loss."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from idiolect.cli.main import app
from idiolect.errors import InputError
from idiolect.models.language_model import LanguageModel
from idiolect.training import text_evaluation as evaluation
from idiolect.training.text_evaluation import compare, forgetting, score, term_use, windows
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.rows.grow import grow
from models.stories import load_stories
from models.tiny import tiny_model


@pytest.fixture(scope="module")
def stories(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_stories(shared / "models" / "stories260k", tmp_path_factory.mktemp("stories"))


@pytest.fixture(scope="module")
def tales(shared: Path) -> list[str]:
    path = shared / "data" / "tinystories" / "tinystories_sample.txt.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    return [tale.strip() for tale in text.split("<|endoftext|>") if tale.strip()][:8]


def by_hand(model: LanguageModel, text: str) -> tuple[float, int]:
    ids = [1, *model.tokenizer.encode(text, add_special_tokens=False)]
    with torch.no_grad():
        logits = model.network(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -sum(float(logits[i, ids[i + 1]]) for i in range(len(ids) - 1)), len(ids) - 1


def test_score_is_the_sum_over_tokens(stories: LanguageModel, tales: list[str]) -> None:
    texts = windows(tales, size=500)
    found = score(stories, texts)
    sums = [by_hand(stories, text) for text in texts]
    assert found.nll == pytest.approx(sum(nll for nll, _ in sums), rel=1e-6)
    assert found.tokens == sum(tokens for _, tokens in sums)
    assert found.bytes == sum(len(text.encode()) for text in texts)
    assert found.bits_per_byte == pytest.approx(found.nll / math.log(2) / found.bytes)


def test_the_published_loss_is_reproduced(stories: LanguageModel, tales: list[str]) -> None:
    """1.297 nats per token is its author's validation loss; here on eight stories."""
    found = score(stories, [tale for tale in tales if len(tale) < 900])
    assert found.nll / found.tokens == pytest.approx(1.30, abs=0.06)


def test_the_start_token_is_not_counted(stories: LanguageModel) -> None:
    assert score(stories, ["once"]).tokens == len(
        stories.tokenizer.encode("once", add_special_tokens=False)
    )


def test_a_model_has_not_forgotten_itself(stories: LanguageModel, tales: list[str]) -> None:
    found = forgetting(stories, stories, windows(tales, size=500))
    assert found.divergence == pytest.approx(0.0, abs=1e-9)
    assert found.same_first == 1.0


def test_vocabularies_of_two_sizes_are_scored_in_equal_chunks(
    stories: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Once upon a time, there was a little girl named Lily."
    grown = grow(stories, extend(stories.tokenizer, ["zyx" + "qw" * n for n in range(60)]))
    # Five rows of the smaller vocabulary at once, and four of the larger one.
    monkeypatch.setattr(evaluation, "_MAX_LOGITS", 5 * len(stories.tokenizer))
    found = forgetting(stories, grown, [text])
    assert found.tokens == len(stories.tokenizer.encode_batch([text], add_special_tokens=False)[0])
    assert found.divergence == pytest.approx(0.0, abs=1e-9)


def test_divergence_equals_its_definition(stories: LanguageModel) -> None:
    other = LanguageModel(_with_noise(stories), stories.tokenizer, stories.settings)
    text = "Once upon a time there was a cat."
    found = forgetting(stories, other, [text])
    ids = torch.tensor([[1, *stories.tokenizer.encode(text, add_special_tokens=False)]])
    with torch.no_grad():
        p, q = (m.network(ids).logits[0, :-1].double().log_softmax(-1) for m in (stories, other))
    kl = (p.exp() * (p - q)).sum(-1).mean() / math.log(2)
    assert found.divergence == pytest.approx(float(kl), rel=1e-5)
    assert found.divergence > 0.01


def _with_noise(model: LanguageModel) -> torch.nn.Module:
    import copy

    network = copy.deepcopy(model.network)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * parameter.abs().mean() * torch.randn_like(parameter))
    return network


def test_term_use_counts_ranks(stories: LanguageModel, tales: list[str]) -> None:
    texts = windows(tales, size=500)
    first_id = 400
    found = term_use(stories, texts, first_id=first_id)
    occurrences = first = 0
    for text in texts:
        ids = torch.tensor([[1, *stories.tokenizer.encode(text, add_special_tokens=False)]])
        with torch.no_grad():
            best = stories.network(ids).logits[0, :-1].argmax(-1)
        new = ids[0, 1:] >= first_id
        occurrences += int(new.sum())
        first += int((best == ids[0, 1:])[new].sum())
    assert (found.occurrences, found.first) == (occurrences, first)
    assert found.first <= found.top_ten <= found.occurrences
    assert 0 < found.terms_first <= found.terms


def test_windows_contain_all_text() -> None:
    documents = ["one two three four", "x" * 25, "  ", "a b"]
    kept = "".join(windows(documents, size=10))
    assert kept.replace(" ", "") == "".join(documents).replace(" ", "")
    assert all(len(window) <= 10 for window in windows(documents, size=10))


def test_windows_shrink_until_both_models_can_read_them(
    stories: LanguageModel, tales: list[str]
) -> None:
    figures = compare(stories, stories, domain=["word " * 2000], general=tales[:2], size=8000)
    assert figures["window"] < 2100
    assert figures["domain"]["before"] == figures["domain"]["after"]
    assert figures["forgetting"]["divergence"] == pytest.approx(0.0, abs=1e-9)


def test_models_that_do_not_predict_the_next_token_are_refused() -> None:
    with pytest.raises(InputError, match="do not predict the next token"):
        score(tiny_model("bert"), ["a b"])


def test_command(stories: LanguageModel, tales: list[str], tmp_path: Path) -> None:
    stories.save(tmp_path / "model")
    lines = [tale.replace("\n", " ") for tale in tales]
    (tmp_path / "tales.txt").write_text("\n".join([lines[0], " ", *lines[1:]]))
    words = ["evaluate", "lm", str(tmp_path / "model"), "--base", str(tmp_path / "model")]
    text = str(tmp_path / "tales.txt")
    result = CliRunner().invoke(
        app,
        [*words, "--domain", text, "--general", text, "--out", str(tmp_path / "figures.json")],
        env={"COLUMNS": "120"},
    )
    assert result.exit_code == 0, result.output
    assert "domain: bits per byte" in result.output
    for name in ("domain", "general"):
        assert f"skipped 1 records of the {name} text: empty (tales.txt line 2)" in result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["domain"]["before"]["bits_per_byte"] == pytest.approx(0.9, abs=0.4)
