"""Translation language modelling against masked-token prediction, at equal tokens.

    python benchmarks/cross_lingual_pretraining.py OUT [--steps 2000] [--languages de fr]

Both runs read the same rows of Multi30k pairs with the same masks; only the first lets a token see
the translation (XLM, Conneau & Lample 2019, 1901.07291). Reported for each language, beside an
untrained network and the overlap of character n-grams:

    masked accuracy   share of masked tokens of Multi30k's test pairs that are found, with the
                      translation visible
    retrieval         error of finding a sentence's translation among 1,000 of Tatoeba, and among
                      the 1,000 test captions of Multi30k, by the mean of the states less their mean
                      in this language (Libovický et al. 2019, 1911.03310); the mean of both
                      directions, at the best layer

A run that was stopped resumes. The table is printed and written to OUT/table.json.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import tarfile
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from idiolect.generate.model_defaults import find_context_length
from idiolect.models.language_model import LanguageModel
from idiolect.text.parallel_text import TextPair
from idiolect.text.tokenizers import unigram
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.added_tokens import new_model
from idiolect.training.data.parallel_corpus import ParallelCorpus
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.translation_masked import TranslationMasked
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("IDIOLECT_DATA", ROOT.parent / "shared" / "data"))
RECIPE = ROOT / "examples" / "pretraining" / "xlm.toml"
ISO = {"de": "deu", "fr": "fra", "cs": "ces"}


def lines(name: str) -> list[str]:
    """Return the lines of a file of Multi30k."""
    return gzip.decompress((DATA / "multi30k" / f"{name}.gz").read_bytes()).decode().splitlines()


def pairs(split: str, language: str) -> ParallelCorpus:
    """Return English sentences and their translations."""
    both = zip(lines(f"{split}.en"), lines(f"{split}.{language}"), strict=True)
    return ParallelCorpus([TextPair(a, b) for a, b in both], ("en", language))


def tatoeba(language: str) -> tuple[list[str], list[str]]:
    """Return Tatoeba's sentences in a language and in English."""
    iso = ISO[language]
    with tarfile.open(DATA / "tatoeba-laser" / "tatoeba-v1.tar.gz") as archive:
        files = [archive.extractfile(f"tatoeba.{iso}-eng.{side}") for side in (iso, "eng")]
        sides = [io.TextIOWrapper(file, "utf-8").read().splitlines() for file in files if file]
    return sides[0], sides[1]


@torch.no_grad()
def masked_accuracy(model: LanguageModel, corpus: ParallelCorpus) -> float:
    """Return the share of masked tokens that a model finds with the translation visible."""
    objective = TranslationMasked(
        model.network, model.tokenizer, language_ids=model.settings["lang2id"], seed=9
    )
    config = TrainingConfig(max_length=128, batch_size=32)
    right = count = 0
    with tempfile.TemporaryDirectory() as folder:
        tokens = TokenFile.write(Path(folder) / "tokens", corpus, model.tokenizer)
        source = objective.make_source(tokens, model.tokenizer, config, languages=corpus.languages)
        while source.state()["epochs"] == 0:
            batch = objective.prepare(source.take())
            hidden = model.network(**batch.inputs, return_logits=False).hidden_states
            found = model.network.score_vocabulary(hidden[batch.predicted]).argmax(-1)
            right += int((found == batch.labels[batch.predicted]).sum())
            count += batch.count
    return right / count


@torch.no_grad()
def vectors(model: LanguageModel, texts: list[str], language: str, layers: int) -> np.ndarray:
    """Return the mean state of each text after some layers. Shape: (texts, width)."""
    network = model.network.first_layers(layers)
    # Sentences with letters that the vocabulary lacks can exceed the network's positions.
    longest = find_context_length(model)
    rows = [row[:longest] for row in model.tokenizer.encode_batch(texts)]
    found = np.zeros((len(rows), network.config.hidden_size), np.float32)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), 64):
        own = order[start : start + 64]
        width = max(len(rows[i]) for i in own)
        ids = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in own])
        mask = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in own])
        languages = torch.full_like(ids, model.settings["lang2id"][language])
        states = network(ids, mask, language_ids=languages, return_logits=False).hidden_states
        found[own] = ((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
    return found


def errors(scores: np.ndarray) -> list[float]:
    """Return the error of the search from rows to columns, and from columns to rows."""
    own = np.arange(len(scores))
    return [float((scores.argmax(axis) != own).mean()) for axis in (1, 0)]


def cosines(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of one matrix with each row of the other."""
    rows, columns = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, columns))
    return rows @ columns.T


def overlap(language: str) -> dict[str, Any]:
    """Return the errors of TF-IDF over character n-grams, which needs no training."""
    figures: dict[str, Any] = {"masked_accuracy": None}
    for name, (theirs, english) in texts_of(language).items():
        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))
        matrix = vectorizer.fit_transform([*theirs, *english])
        scores = (matrix[: len(theirs)] @ matrix[len(theirs) :].T).toarray()
        figures[name] = [errors(scores)]
    return figures


def texts_of(language: str) -> dict[str, tuple[list[str], list[str]]]:
    """Return sentences in a language and in English, of Tatoeba and of Multi30k's test set."""
    captions = lines(f"test_2016_flickr.{language}"), lines("test_2016_flickr.en")
    return {"tatoeba": tatoeba(language), "captions": captions}


def measure(model: LanguageModel, languages: list[str]) -> dict[str, Any]:
    """Return a model's figures for each language; retrieval errors after each layer."""
    model.network.eval()
    figures: dict[str, Any] = {}
    for language in languages:
        found: dict[str, Any] = {
            "masked_accuracy": masked_accuracy(model, pairs("test_2016_flickr", language))
        }
        for name, (theirs, english) in texts_of(language).items():
            found[name] = []
            for layers in range(1, model.network.config.num_encoder_layers + 1):
                one = vectors(model, theirs, language, layers)
                other = vectors(model, english, "en", layers)
                one, other = one - one.mean(0), other - other.mean(0)
                found[name].append(errors(cosines(one, other)))
        figures[language] = found
    return figures


def main() -> None:
    """Train both, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--languages", nargs="+", default=["de", "fr"], choices=sorted(ISO))
    parser.add_argument("--vocab-size", type=int, default=8000)
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    args.out.mkdir(parents=True, exist_ok=True)
    recipe = tomllib.loads(RECIPE.read_text())
    training = recipe["training"] | {"steps": args.steps}
    objective, steps = training.pop("objective"), training.pop("steps")
    config = TrainingConfig.from_dict(training)
    corpora = [pairs("train", language) for language in args.languages]
    folder = args.out / "tokenizer"
    if not folder.exists():
        texts = [text for corpus in corpora for text in corpus]
        unigram.train(texts[:: max(1, len(texts) // 40_000)], args.vocab_size).save(folder)
    tokenizer = Tokenizer.load(folder)
    names = {code: number for number, code in enumerate(["en", *args.languages])}
    settings = recipe["model"] | {"lang2id": names, "n_langs": len(names)}
    table: dict[str, Any] = {"n-gram overlap": {code: overlap(code) for code in args.languages}}
    for name, separate in (("TLM", 0.0), ("MLM", 1.0)):
        model = new_model(settings, tokenizer, seed=1)
        started = time.perf_counter()
        trained = pretrain(
            model,
            corpora,
            output_dir=args.out / name,
            steps=steps,
            train="all",
            objective=objective,
            objective_settings={"separate": separate},
            unfreeze_original_rows=True,
            config=config,
        )
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        if "untrained" not in table:
            untrained = new_model(settings, trained.tokenizer, seed=1)
            table["untrained"] = measure(untrained, args.languages)
        table[name] = measure(trained, args.languages)
        (args.out / "table.json").write_text(json.dumps(table, indent=2))
    print("| network | language | masked accuracy | Tatoeba | captions |")
    for name, figures in table.items():
        for language, one in figures.items():
            accuracy = one["masked_accuracy"]
            shown = "" if accuracy is None else f"{accuracy:.1%}"
            best = (min(np.mean(errors) for errors in one[key]) for key in ("tatoeba", "captions"))
            cells = " | ".join(f"{error:.1%}" for error in best)
            print(f"| {name} | {language} | {shown} | {cells} |")


if __name__ == "__main__":
    main()
