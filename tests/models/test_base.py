"""The model that comes with the package: found by name, whole, small, and read alike elsewhere."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
import transformers

from idiolect.models.language_model import LanguageModel
from idiolect.text.hub import locate
from idiolect.text.packaged_models import PACKAGED, PackagedModel
from idiolect.training.text_evaluation import score

TEXTS = [
    "The Supreme Court is the highest court in the United States.",
    "She looked out of the window, and saw that it had begun to snow.",
    "naïve café №5 — 日本語\n\tx = y**2",
]


@pytest.fixture(scope="module")
def base() -> LanguageModel:
    return LanguageModel.load("idiolect-base")


def test_the_name_needs_no_network_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert (locate("idiolect-base", ()) / "model.safetensors").is_file()


def test_a_folder_of_that_name_is_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = locate("idiolect-base", ())
    for name in ("idiolect-base", "smollm2"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert not caplog.text
    assert locate("idiolect-base", ()) == known
    assert "not what is called so here: ./idiolect-base" in caplog.text
    monkeypatch.setitem(PACKAGED, "smollm2", PackagedModel("text", "idiolect.text", "hub.py"))
    assert locate("smollm2", ()).name == "hub.py"
    assert "./smollm2" in caplog.text
    for source in ("./idiolect-base", Path("idiolect-base")):
        assert locate(source, ()) == Path("idiolect-base")


def test_it_is_small_and_as_its_recipe_says(base: LanguageModel) -> None:
    folder = locate("idiolect-base", ())
    assert sum(file.stat().st_size for file in folder.iterdir()) < 12e6
    with (folder / "pretrain.toml").open("rb") as file:
        recipe = tomllib.load(file)
    assert {name: base.settings[name] for name in recipe["model"]} == recipe["model"]
    weights = sum(parameter.numel() for parameter in base.network.parameters())
    assert 4e6 <= weights <= 8e6


def test_any_text_comes_back(base: LanguageModel) -> None:
    for text, ids in zip(TEXTS, base.tokenizer.encode_batch(TEXTS), strict=True):
        assert base.tokenizer.decode(ids) == text


def test_transformers_gives_the_same_logits(base: LanguageModel) -> None:
    folder = locate("idiolect-base", ())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        ids = base.tokenizer.encode_batch([text])[0]
        assert tokenizer(text)["input_ids"] == ids
        given = torch.tensor([ids])
        with torch.inference_mode():
            wanted = theirs(given).logits
            got = base.network(given, torch.ones_like(given)).logits
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_it_knows_english(base: LanguageModel) -> None:
    sentence = TEXTS[0]
    shuffled = " ".join(sorted(sentence.split(), key=lambda word: word[::-1]))
    assert score(base, [sentence]).nll < score(base, [shuffled]).nll - 10
