"""Cross-lingual encoders of several shapes: Tatoeba's error rates and zero-shot classification.

    python benchmarks/crosslingual.py DATA WORK [--shapes xlm-roberta,mt5] [--steps 600]

DATA holds `multi30k`, `tatoeba-laser` and `stsb-multi-mt`. Each shape is a small network of the
same width and depth, with random weights, tuned on Multi30k's captions in German, French and Czech
as pairs with their English ones. Then: error rates of Tatoeba (deu, fra, ces), and a classifier of
pairs of sentences (STS: the same meaning or not) that is trained on English and read in other
languages. Beside them stand the same without tuning, and the cosine of character n-grams, for the
pairs with the threshold that is best on English.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import time
from collections import Counter
from pathlib import Path
from zlib import crc32

import numpy as np

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.pairs import Pair
from idiolect.encoding.tune import tune
from idiolect.models.language_model import LanguageModel
from idiolect.tasks.classify.labelled_texts import LabelledText
from idiolect.tasks.classify.text_classifier import TextClassifier
from idiolect.tasks.crosslingual.aligned_sentences import ParallelText, read_archive
from idiolect.tasks.crosslingual.margin_scores import retrieval_errors
from idiolect.tasks.task_model import task_config
from idiolect.text.tokenizers import bpe
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.objectives.contrastive_losses import InfoNCE

LANGUAGES = {"de": "deu", "fr": "fra", "cs": "ces"}
WIDTH, LAYERS, HEADS = 128, 3, 4
SHAPES = {
    "xlm-roberta": {
        "architectures": ["XLMRobertaForMaskedLM"],
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 130,
        "type_vocab_size": 1,
    },
    "xlm": {
        "architectures": ["XLMWithLMHeadModel"],
        "emb_dim": WIDTH,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "max_position_embeddings": 128,
        "n_langs": 4,
        "use_lang_emb": True,
    },
    "xglm": {
        "architectures": ["XGLMForCausalLM"],
        "d_model": WIDTH,
        "ffn_dim": 4 * WIDTH,
        "num_layers": LAYERS,
        "attention_heads": HEADS,
        "max_position_embeddings": 128,
    },
    "mt5": {
        "architectures": ["MT5ForConditionalGeneration"],
        "d_model": WIDTH,
        "d_ff": 2 * WIDTH,
        "d_kv": WIDTH // HEADS,
        "num_layers": LAYERS,
        "num_decoder_layers": 1,
        "num_heads": HEADS,
    },
    "mbart": {
        "architectures": ["MBartForConditionalGeneration"],
        "d_model": WIDTH,
        "encoder_ffn_dim": 4 * WIDTH,
        "decoder_ffn_dim": 4 * WIDTH,
        "encoder_layers": LAYERS,
        "decoder_layers": 1,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
        "max_position_embeddings": 128,
    },
}


def captions(data: Path, language: str) -> list[str]:
    with gzip.open(data / f"multi30k/train.{language}.gz", "rt", encoding="utf-8") as lines:
        return lines.read().splitlines()


def sts(data: Path, language: str, part: str) -> list[LabelledText]:
    """Pairs of a score of at least 3.5 mean the same; of at most 2, something else."""
    path = data / f"stsb-multi-mt/stsb-{language}-{part}.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = [(one, other, float(score)) for one, other, score in csv.reader(lines)]
    return [
        LabelledText(one, "same" if score >= 3.5 else "other", other)
        for one, other, score in rows
        if score >= 3.5 or score <= 2
    ]


def ngram_vectors(sides: list[list[str]], size: int = 4096) -> list[np.ndarray]:
    """TF-IDF of hashed character trigrams and 4-grams, for both sides together."""
    counted = []
    for text in (text for side in sides for text in side):
        padded = f" {text.lower()} "
        grams = (padded[i : i + n] for n in (3, 4) for i in range(len(padded) - n + 1))
        counted.append(Counter(crc32(gram.encode()) % size for gram in grams))
    documents = Counter(gram for one in counted for gram in one)
    matrix = np.zeros((len(counted), size), np.float32)
    for row, one in enumerate(counted):
        for gram, times in one.items():
            matrix[row, gram] = times * np.log((1 + len(counted)) / (1 + documents[gram]))
    return [matrix[: len(sides[0])], matrix[len(sides[0]) :]]


def tatoeba(encode, texts: list[ParallelText]) -> dict[str, float]:
    """Error rates by the margin, the mean of both directions."""
    found = {}
    for text in texts:
        x, y = encode([text.sources, text.targets])
        found[text.name] = retrieval_errors(x, y).mean
    return found


def zero_shot(encoder: Encoder, data: Path, out: Path) -> dict[str, float]:
    train = sts(data, "en", "train")
    model = TextClassifier(encoder, ["other", "same"], pairs=True)
    config = task_config("frozen", learning_rate=3e-3, save_steps=10**6)
    model.train(train, output_dir=out, adaptation="frozen", epochs=4, config=config)
    found = {}
    for language in ("en", "de", "fr"):
        test = sts(data, language, "test")
        guess = model.predict(test)
        found[language] = float(np.mean([g == e.label for g, e in zip(guess, test, strict=True)]))
    return found


def threshold(data: Path) -> dict[str, float]:
    """Accuracy of a threshold on the cosine of n-grams, the best one on English."""

    def cosines(rows: list[LabelledText]) -> np.ndarray:
        sides = ngram_vectors([[one.text for one in rows], [str(one.text_pair) for one in rows]])
        units = [x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9) for x in sides]
        return (units[0] * units[1]).sum(1)

    def accuracy(found: np.ndarray, rows: list[LabelledText], least: float) -> float:
        return float(np.mean((found >= least) == [one.label == "same" for one in rows]))

    train = sts(data, "en", "train")
    known = cosines(train)
    least = max(np.quantile(known, np.linspace(0, 1, 101)), key=lambda x: accuracy(known, train, x))
    tests = {language: sts(data, language, "test") for language in ("en", "de", "fr")}
    return {name: accuracy(cosines(rows), rows, least) for name, rows in tests.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    texts = [
        text.part("second")
        for text in read_archive(
            args.data / "tatoeba-laser/tatoeba-v1.tar.gz", list(LANGUAGES.values())
        )
    ]
    english = captions(args.data, "en")
    others = {language: captions(args.data, language) for language in LANGUAGES}
    if not (args.work / "tok").is_dir():
        every = [*english, *(line for lines in others.values() for line in lines)]
        bpe.train(every, 8000).save(args.work / "tok")
    pairs = [
        Pair(line, translation)
        for lines in others.values()
        for line, translation in zip(lines, english, strict=True)
    ]

    def note(system: str, result: dict[str, object]) -> None:
        with (args.work / "results.jsonl").open("a") as out:
            out.write(json.dumps({"system": system} | result) + "\n")
        print(system, json.dumps(result), flush=True)

    if not (args.work / "results.jsonl").exists():
        found = {"tatoeba": tatoeba(ngram_vectors, texts), "zero-shot": threshold(args.data)}
        note("character n-grams", found)
    for shape in args.shapes.split(","):
        began = time.process_time()
        settings = {"model_type": shape, "pad_token_id": 0} | SHAPES[shape]
        tokenizer = Tokenizer.load(args.work / "tok")
        encoder = Encoder(LanguageModel.new(settings, tokenizer, seed=0), max_length=64)

        def encode(sides: list[list[str]], encoder: Encoder = encoder) -> list[np.ndarray]:
            return [encoder.encode(side) for side in sides]

        note(f"{shape}, random weights", {"tatoeba": tatoeba(encode, texts)})
        tuned = tune(
            encoder,
            pairs,
            output_dir=args.work / f"{shape}-pairs",
            steps=args.steps,
            loss=InfoNCE(bidirectional=True),
            unfreeze_original_rows=True,
            config={"batch_size": 64, "learning_rate": 2e-3, "save_steps": 10**6},
        )
        result = {
            "tatoeba": tatoeba(lambda sides: [tuned.encode(side) for side in sides], texts),
            "zero-shot": zero_shot(tuned, args.data, args.work / f"{shape}-sts"),
            "seconds": time.process_time() - began,
        }
        note(f"{shape}, tuned on Multi30k", result)


if __name__ == "__main__":
    main()
