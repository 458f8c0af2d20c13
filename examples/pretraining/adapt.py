"""Pre-train a small BERT, T5, BART or XLM on OpenStax, and teach it 300 medical terms.

    python examples/pretraining/adapt.py OPENSTAX OUT [--models bert t5 bart xlm] [--steps 1000]

OPENSTAX holds one `BOOK.txt.gz` a book. The two medical books are the domain; the others are what
each model is pre-trained on by its own objective, from its recipe in this folder. Then, by the same
objective on the medical books and with the same number of steps:

    with terms      the vocabulary extended by 300 terms, original rows frozen
    without         the same vocabulary, original rows frozen: the control

Reported: bits for each byte of hidden words on held-out medical text. Every seventh word is hidden,
the same words for each model, so that vocabularies can be compared. Original rows are compared bit
for bit. A run that was stopped resumes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import math
import os
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from idiolect import Corpus, LanguageModel, Tokenizer, audit, extend, pretrain
from idiolect.text.tokenizers import bpe, unigram, wordpiece
from idiolect.training.added_tokens import new_model
from idiolect.training.objectives.span_corruption import sentinel_ids
from idiolect.training.optim import original_rows
from idiolect.training.text_evaluation import windows
from idiolect.training.training_config import TrainingConfig

HERE = Path(__file__).parent
MEDICAL = {"anatomy-physiology", "microbiology"}
LEARN = {"bert": wordpiece, "t5": unigram, "bart": bpe, "xlm": unigram}
TERMS = 300


def books(folder: Path) -> dict[str, Corpus]:
    """Return the modules of all books: general and medical, each with a held-out part."""
    texts: dict[str, list[str]] = {"general": [], "medical": []}
    for path in sorted(folder.glob("*.txt.gz")):
        kind = "medical" if path.name.removesuffix(".txt.gz") in MEDICAL else "general"
        text = gzip.decompress(path.read_bytes()).decode()
        texts[kind] += [one.strip() for one in text.split("\n\n") if one.strip()]
    parts = {}
    for kind, share in (("general", 0.02), ("medical", 0.1)):
        parts[kind], parts[f"{kind} held out"] = Corpus.from_texts(texts[kind]).split(share)
    return parts


def hidden_words(text: str) -> list[tuple[int, int]]:
    """Return where the hidden words of a text are: every seventh, of three letters or more."""
    words = [m.span() for m in re.finditer(r"\S+", text)]
    return [(a, b) for a, b in words[3::7] if b - a >= 3]


def hide(model: LanguageModel, text: str) -> tuple[list[int], list[bool], int]:
    """Return the ids of a text, which of them are hidden, and the bytes of the hidden words."""
    hidden = hidden_words(text)
    (ids, offsets), *_ = model.tokenizer.encode_with_offsets([text], add_special_tokens=False)
    covered = [any(a < stop and start < b for a, b in hidden) for start, stop in offsets]
    return ids, covered, sum(len(text[a:b].encode()) for a, b in hidden)


def inputs_of(
    model: LanguageModel, ids: list[int], hidden: list[bool]
) -> tuple[dict[str, torch.Tensor], list[int], list[int]]:
    """Return a network's input for a text with hidden tokens.

    Returns:
        The input, the places that predict the hidden tokens, and these tokens.
    """
    tokenizer, network = model.tokenizer, model.network
    wanted = [id_ for id_, is_hidden in zip(ids, hidden, strict=True) if is_hidden]
    if network.kind == "bidirectional":
        first = [i for i in (tokenizer.cls_token_id, tokenizer.bos_token_id) if i is not None][:1]
        ends = (tokenizer.sep_token_id, tokenizer.eos_token_id)
        end = [i for i in ends if i is not None][:1]
        shown = [tokenizer.mask_token_id if h else i for i, h in zip(ids, hidden, strict=True)]
        row = [*first, *shown, *end]
        given = {"input_ids": torch.tensor([row])}
        if "lang2id" in model.settings:
            given["language_ids"] = torch.zeros_like(given["input_ids"])
        return given, [i + len(first) for i, h in enumerate(hidden) if h], wanted
    stand_ins = iter(sentinel_ids(tokenizer) or [tokenizer.mask_token_id] * len(ids))
    has_sentinels = bool(sentinel_ids(tokenizer))
    source: list[Any] = []
    target: list[Any] = []
    places: list[int] = []
    for i, (id_, is_hidden) in enumerate(zip(ids, hidden, strict=True)):
        if is_hidden and not (i and hidden[i - 1]):
            source.append(next(stand_ins))
            if has_sentinels:
                target.append(source[-1])
        if not is_hidden:
            source.append(id_)
        if is_hidden or not has_sentinels:
            places += [len(target)] if is_hidden else []
            target.append(id_)
    end = tokenizer.eos_token_id
    given = {"input_ids": torch.tensor([[*source, end]])}
    given["decoder_input_ids"] = network.shift_right(torch.tensor([[*target, end]]))
    return given, places, wanted


@torch.no_grad()
def bits_of_hidden_words(model: LanguageModel, texts: list[str]) -> float:
    """Return the bits per byte of hidden words, each predicted from all that is not hidden."""
    model.network.eval()
    bits, size = 0.0, 0
    for text in texts:
        ids, hidden, count = hide(model, text)
        if not count:
            continue
        given, places, wanted = inputs_of(model, ids, hidden)
        states = model.network(**given, return_logits=False).hidden_states[0, places]
        logits = model.network.score_vocabulary(states)[:, : len(model.tokenizer)]
        bits += float(F.cross_entropy(logits, torch.tensor(wanted), reduction="sum"))
        size += count
    return bits / math.log(2) / size


def medical_terms(tokenizer: Tokenizer, parts: dict[str, Corpus]) -> Any:
    """Return the words of the medical books that save most tokens, and are typical of them."""
    found = audit(tokenizer, parts["medical"], parts["general held out"])
    return found.choose(TERMS, phrases=False)


def digest(model: LanguageModel, count: int) -> str:
    """Return a hash of the first rows of the vocabulary."""
    rows = [r[:count].detach().contiguous() for r in original_rows(model.network).values()]
    return hashlib.sha256(b"".join(row.numpy().tobytes() for row in rows)).hexdigest()


def run(name: str, parts: dict[str, Corpus], args: argparse.Namespace) -> dict[str, Any]:
    """Pre-train and adapt one model; return its figures."""
    out = args.out / name
    out.mkdir(parents=True, exist_ok=True)
    recipe = tomllib.loads((HERE / f"{name}.toml").read_text())
    training = recipe["training"]
    objective = "masked" if name == "xlm" else training.pop("objective")
    training.pop("objective", None)
    steps = args.steps or training["steps"]
    training.pop("steps")
    config = TrainingConfig.from_dict(training)
    if args.batch_size:
        config = replace(config, batch_size=args.batch_size)
    config = replace(config, eval_steps=max(1, steps // 5))
    if not (out / "tokenizer").exists():
        LEARN[name].train(iter(parts["general"]), 8192).save(out / "tokenizer")
    settings = {"objective": objective, "objective_settings": recipe.get("objective")}

    def text(part: str) -> Any:
        return {"en": parts[part]} if name == "xlm" else parts[part]

    if not (out / "base" / "model").exists():
        pretrain(
            new_model(recipe["model"], Tokenizer.load(out / "tokenizer"), seed=1),
            text("general"),
            output_dir=out / "base",
            steps=steps,
            train="all",
            unfreeze_original_rows=True,
            validation=text("general held out"),
            config=config,
            **settings,
        )
    base = LanguageModel.load(out / "base" / "model")
    held_out = windows(parts["medical held out"], size=250)[: args.windows]
    figures: dict[str, Any] = {"base": bits_of_hidden_words(base, held_out)}
    grown = extend(base, medical_terms(base.tokenizer, parts))
    figures["new ids"] = len(grown.tokenizer) - len(base.tokenizer)
    figures["with terms, untrained"] = bits_of_hidden_words(grown, held_out)
    count = len(base.tokenizer)
    before = digest(base, count)
    # The rate of a run that continues another, half of the first one's.
    config = replace(config, learning_rate=config.max_learning_rate / 2)
    for label, start in (("with terms", grown), ("without", base)):
        adapted = pretrain(
            start,
            text("medical"),
            output_dir=out / label.replace(" ", "-"),
            steps=max(1, steps // 2),
            train="all",
            config=config,
            **settings,
        )
        figures[label] = bits_of_hidden_words(adapted, held_out)
        figures[f"original rows, {label}"] = (
            "identical" if digest(adapted, count) == before else "changed"
        )
    lines = (out / "base" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line) for line in lines]
    figures["validation loss"] = [
        round(line["validation_loss"], 3) for line in losses if "validation_loss" in line
    ]
    return figures


def main() -> None:
    """Run all models and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("openstax", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=list(LEARN), choices=list(LEARN))
    parser.add_argument("--steps", type=int, help="Instead of the recipe's.")
    parser.add_argument("--batch-size", type=int, help="Instead of the recipe's.")
    parser.add_argument("--windows", type=int, default=400, help="Held-out texts.")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    parts = books(args.openstax)
    for name in args.models:
        figures = run(name, parts, args)
        (args.out / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")
        print(name, json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
