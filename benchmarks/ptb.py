"""Language models of words on the Penn Treebank: train, and report the test perplexity.

    python benchmarks/ptb.py PTB.zip OUT --recipe small

`small` is the 2-layer LSTM of Zaremba et al. (2014), 13 epochs, published at 115.91 (their code).
`awd` is the AWD-LSTM of Merity et al. (2017) at a size and number of epochs that two cores can do.
The run resumes where it was stopped. Perplexity is over all words of the test set and the ends of
its sentences, read as one text with the state carried from the first word to the last.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from idiolect.models.language_model import LanguageModel
from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.segment_stream import SegmentStream
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.causal import CausalStream
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from idiolect.training.validation import validation_loss

ROWS = 20
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "small": (
        {"model_type": "lstm", "hidden_size": 200, "num_layers": 2, "tie_word_embeddings": False},
        # Their rate 1 and norm 5 are of the loss summed over 20 steps; ours is the mean.
        {"max_length": 20, "learning_rate": 20.0, "max_grad_norm": 0.25, "min_lr_ratio": 0.002},
        13,
    ),
    "medium": (
        {
            "model_type": "lstm",
            "hidden_size": 650,
            "num_layers": 2,
            "dropout": 0.5,
            "tie_word_embeddings": False,
        },
        {"max_length": 35, "learning_rate": 35.0, "max_grad_norm": 5 / 35, "min_lr_ratio": 0.002},
        39,
    ),
    "awd": (
        {"model_type": "awd-lstm", "hidden_size": 400, "embedding_size": 200, "num_layers": 2},
        {
            "max_length": 70,
            "learning_rate": 30.0,
            "max_grad_norm": 0.25,
            "varied_length": True,
            "optimizer": "nt-asgd",
            "schedule": "constant",
            "weight_decay": 1.2e-6,
        },
        30,
    ),
}
"""Model, training settings and epochs."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="small")
    parser.add_argument("--epochs", type=int)
    arguments = parser.parse_args()
    shape, settings, epochs = RECIPES[arguments.recipe]
    epochs = arguments.epochs or epochs
    out = arguments.out / f"{arguments.recipe}-{epochs}"
    out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(arguments.archive) as archive:
        for part in ("train", "valid", "test"):
            (out / f"{part}.txt").write_bytes(archive.read(f"ptb.{part}.txt"))
    tokenizer = words(out / "train.txt")
    settings = {"optimizer": "sgd", "schedule": "exponential"} | settings
    length = settings["max_length"]
    tokens = sum(len(line.split()) + 1 for line in (out / "train.txt").open())
    per_epoch = math.ceil((tokens - 1) // ROWS / length)
    config = TrainingConfig(
        batch_size=ROWS, warmup_ratio=0.0, eval_steps=per_epoch, save_steps=500, **settings
    )
    model = LanguageModel.new(shape, tokenizer)
    started = time.perf_counter()
    model = pretrain(
        model,
        Corpus(out / "train.txt"),
        output_dir=out / "run",
        steps=epochs * per_epoch,
        train="all",
        unfreeze_original_rows=True,
        validation=Corpus(out / "valid.txt"),
        config=config,
    )
    seconds = time.perf_counter() - started
    result = {part: perplexity(model, out, part, config) for part in ("valid", "test")}
    parameters = sum(p.numel() for p in model.network.parameters())
    print(json.dumps({"recipe": arguments.recipe, "epochs": epochs, "parameters": parameters}))
    print(json.dumps({"seconds_of_this_call": round(seconds), **result}))


def words(path: Path) -> Tokenizer:
    """Return the tokenizer of the training set's words, `<eos>` at the end of each line."""
    counts: dict[str, int] = {"<eos>": 0}
    for line in path.open(encoding="utf-8"):
        for word in line.split():
            counts[word] = counts.get(word, 0) + 1
    engine = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(counts)}, unk_token="<unk>")
    )
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer.from_engine(engine, {"unk_token": "<unk>", "eos_token": "<eos>"})


def perplexity(model: LanguageModel, out: Path, part: str, config: TrainingConfig) -> float:
    """Read a part of the treebank as one text, and return its perplexity."""
    folder = out / f"{part}-tokens"
    if not folder.exists():
        TokenFile.write(folder, Corpus(out / f"{part}.txt"), model.tokenizer)
    tokens = TokenFile(folder, model.tokenizer)
    template = CausalStream.template(model.tokenizer)
    read = replace(config, max_length=1000, varied_length=False)
    source = SegmentStream(tokens, template, length=read.max_length, rows=1)
    return math.exp(validation_loss(model.network.eval(), CausalStream(model.network), source))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
