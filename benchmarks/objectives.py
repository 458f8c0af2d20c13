"""Steps per second of each pre-training objective, beside transformers with its data collators.

    python benchmarks/objectives.py TEXTS [--threads 1] [--steps 7]

Both sides train networks of one shape on the same documents of mixed length, one step in turn with
the other, and the medians are compared. Ours packs the documents into rows; transformers has a
document per row, padded by its collator:

    masked              DataCollatorForLanguageModeling (its own masks)
    the others          the targets of our objective, padded to the longest: the masks cost it
                        nothing, which is to its advantage

The tokenizer is learnt from TEXTS (JSON lines) if --tokenizer names no folder. `batch` is what
making a batch takes of our step.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers import wordpiece
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.added_tokens import add_tokens, new_model
from idiolect.training.data.batch import Batch
from idiolect.training.data.parallel_corpus import ParallelCorpus
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.objective_registry import find_objective
from idiolect.training.optim import make_optimizer
from idiolect.training.training_config import TrainingConfig

WIDTH, LAYERS, HEADS, INNER = 256, 4, 4, 1024
SHAPES: dict[str, dict[str, Any]] = {
    "BertForMaskedLM": {
        "model_type": "bert",
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
    },
    "XLMWithLMHeadModel": {
        "model_type": "xlm",
        "emb_dim": WIDTH,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "n_langs": 2,
        "lang2id": {"en": 0, "de": 1},
    },
    "T5ForConditionalGeneration": {
        "model_type": "t5",
        "d_model": WIDTH,
        "d_kv": WIDTH // HEADS,
        "d_ff": INNER,
        "num_layers": LAYERS // 2,
        "num_heads": HEADS,
    },
    "BartForConditionalGeneration": {
        "model_type": "bart",
        "d_model": WIDTH,
        **dict.fromkeys(("encoder_layers", "decoder_layers"), LAYERS // 2),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), INNER),
    },
}
SHAPES["BertForPreTraining"] = SHAPES["BertForMaskedLM"]
OBJECTIVES = {
    "masked": "BertForMaskedLM",
    "masked+next_sentence": "BertForPreTraining",
    "translation_masked": "XLMWithLMHeadModel",
    "span_corruption": "T5ForConditionalGeneration",
    "denoising": "BartForConditionalGeneration",
    "prefix": "T5ForConditionalGeneration",
}


def separate(grid: torch.Tensor, numbers: torch.Tensor, fill: int) -> torch.Tensor:
    """Return the texts of packed rows as padded rows of one text each."""
    texts = [
        ids[own == number]
        for ids, own in zip(grid, numbers, strict=True)
        for number in range(1, int(own.max()) + 1)
    ]
    return torch.nn.utils.rnn.pad_sequence(texts, True, fill)


def their_inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """Return a packed batch as a batch of one text a row, under transformers' names."""
    mask, decoder = batch.attention_mask, batch.decoder_attention_mask
    given = {"input_ids": separate(batch.input_ids, mask, 0)}
    given["attention_mask"] = separate((mask > 0).long(), mask, 0)
    assert batch.labels is not None
    given["labels"] = separate(batch.labels, mask if decoder is None else decoder, -100)
    if decoder is not None:
        assert batch.decoder_input_ids is not None
        given["decoder_input_ids"] = separate(batch.decoder_input_ids, decoder, 0)
    names = {"language_ids": "langs", "token_type_ids": "token_type_ids"}
    for name, theirs in (names | {"position_ids": "position_ids"}).items():
        if (tensor := getattr(batch, name)) is not None:
            given[theirs] = separate(tensor, mask, 0)
    if (follows := getattr(batch, "follows", None)) is not None:
        given["next_sentence_label"] = follows
    return given


def step(loss: torch.Tensor, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def compare(
    name: str, texts: list[str], tokenizer: Tokenizer, folder: Path, args: argparse.Namespace
) -> str:
    """Time one objective on both sides; return a row of the table."""
    entry, architecture = find_objective("pretrain", name), OBJECTIVES[name]
    shape = {"architectures": [architecture], **SHAPES[architecture]}
    model = new_model({**shape, "max_position_embeddings": 512}, tokenizer)
    needed = entry.load().missing_tokens(model.tokenizer, max_length=args.max_length)
    model = add_tokens(model, needed, frozen=False) if needed else model
    model.save(folder / name)
    reference = getattr(transformers, architecture).from_pretrained(str(folder / name)).train()
    network = model.network.train()
    pairs = entry.data == "pairs"
    extra = {"language_ids": {"en": 0, "de": 1}} if pairs else {}
    objective = entry.load().create(network, model.tokenizer, seed=0, **extra)
    corpus: Any = (
        ParallelCorpus(list(zip(texts[::2], texts[1::2], strict=False))) if pairs else texts
    )
    tokens = TokenFile.write(
        folder / f"tokens-{name}", corpus, model.tokenizer, sentences=objective.needs_sentences
    )
    config = TrainingConfig(max_length=args.max_length, batch_size=args.batch_size)
    given = {"languages": ("en", "de")} if pairs else {}
    source = objective.make_source(tokens, model.tokenizer, config, **given)
    ours = make_optimizer(network, weight_decay=0.1)
    for group in ours.param_groups:
        group["lr"] = 1e-4
    theirs = torch.optim.AdamW(reference.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    collate: Callable[[Any], Any] | None = None
    if name == "masked":
        wrapped = PreTrainedTokenizerFast.from_pretrained(str(folder / name))
        collate = DataCollatorForLanguageModeling(wrapped, mlm_probability=0.15)
    times: dict[str, list[float]] = {"making": [], "ours": [], "theirs": []}
    for number in range(args.steps + 2):
        begun = time.perf_counter()
        rows = source.take()
        batch = objective.prepare(rows)
        made = time.perf_counter()
        step(objective.loss(network, batch) / batch.count, network, ours)
        done = time.perf_counter()
        if collate is None:
            inputs = their_inputs(batch)
            started = time.perf_counter()
        else:
            ids = [rows.input_ids[r, a:b].tolist() for r, a, b in rows.texts()]
            started = time.perf_counter()
            inputs = dict(collate([{"input_ids": one} for one in ids]))
        step(reference(**inputs).loss, reference, theirs)
        ended = time.perf_counter()
        if number > 1:
            times["making"].append(made - begun)
            times["ours"].append(done - begun)
            times["theirs"].append(ended - started)
    median = {key: statistics.median(values) for key, values in times.items()}
    return (
        f"| {name} | {1 / median['ours']:.2f} | {1 / median['theirs']:.2f} | "
        f"{median['theirs'] / median['ours']:.2f} | {median['making'] / median['ours']:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--objectives", nargs="+", default=list(OBJECTIVES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # Documents of mixed length: paragraphs, and for each third one the next two with it.
    paragraphs = [
        paragraph
        for document, _ in zip(Corpus(args.texts), range(400), strict=False)
        for paragraph in document.split("\n")
        if len(paragraph) > 40
    ]
    texts = [
        "\n".join(paragraphs[i : i + (3 if i % 3 == 0 else 1)]) for i in range(len(paragraphs))
    ]
    tokenizer = Tokenizer.load(args.tokenizer) if args.tokenizer else wordpiece.train(texts, 8192)
    print("| objective | ours, steps/s | transformers | ratio | batch |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.objectives:
            print(compare(name, texts, tokenizer, Path(folder), args), flush=True)


if __name__ == "__main__":
    main()
