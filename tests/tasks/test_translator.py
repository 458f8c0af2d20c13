"""Translate texts, score them, and show an alignment."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from idiolect.errors import InputError
from idiolect.tasks.alignment_plot import plot_alignment
from idiolect.tasks.bleu import bleu
from idiolect.tasks.translator import Translator
from training.models import model as other_model
from training.test_translation import small


@pytest.mark.parametrize("num_beams", [1, 3])
def test_texts_keep_their_order_and_empty_ones_stay(num_beams: int) -> None:
    """Texts of a batch have the translations they have alone, each with its own longest length."""
    translator = Translator(small("luong"), num_beams=num_beams, batch_size=2)
    texts = ["a h ja", "", "b i ja c k ja", "c", "  "]
    found = translator.translate(texts)
    assert [found[n] for n in (1, 4)] == ["", ""]
    for text, translation in zip(texts, found, strict=True):
        if text.strip():
            assert translator.translate([text]) == [translation]


@torch.inference_mode()
def test_an_alignment_is_the_attention_of_the_translation(tmp_path: Path) -> None:
    translator = Translator(small("bahdanau"))
    found = translator.align("a h ja", "yes h $a")
    assert found.source[-1] == found.target[-1] == "</s>"
    assert found.weights.shape == (len(found.target), len(found.source))
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(len(found.target)))
    plot_alignment(found, tmp_path / "plot.png", title="a plot")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="no alignment to show"):
        Translator(small("transformer")).align("a h ja", "yes")


def test_bad_models_and_texts_are_refused() -> None:
    with pytest.raises(InputError, match="no encoder-decoders"):
        Translator(other_model("gpt2"))
    located = small("luong", attention="location", max_position_embeddings=6)
    with pytest.raises(InputError, match=r"text 2 has .* tokens, but the model has 6 positions"):
        Translator(located).translate(["a", "b i ja c k ja d l ja"])


def test_bleu_is_sacrebleus() -> None:
    pytest.importorskip("sacrebleu")
    found = bleu(["the cat sat on the mat ."], ["the cat sat on a mat ."], tokenize="none")
    # Precisions 6/7, 4/6, 2/5 and 1/4, as long as the reference.
    assert found.score == pytest.approx(100 * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25)
    assert found.reference_length == 7
    assert "tok:none" in found.signature
    assert bleu(["The cat sat on"], ["the cat sat on"], lowercase=True).score == pytest.approx(100)
    with pytest.raises(InputError, match="1 translations and 2 references"):
        bleu(["a"], ["a", "b"])


def test_published_references_have_the_published_length(shared: Path) -> None:
    """The length tells the protocol of Transformer-tiny on Multi30k."""
    data = gzip.decompress((shared / "data" / "multi30k-bpe" / "test.2016.de.gz").read_bytes())
    references = [line.replace("@@ ", "") for line in data.decode().splitlines()]
    found = bleu(references, references, tokenize="none")
    assert (found.reference_length, found.score) == (12_103, pytest.approx(100))
