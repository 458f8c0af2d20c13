"""Compare training an extended GPT-2-small model with `transformers.Trainer` and `peft`.

    python benchmarks/adaptation.py FOLDER_WITH_DATA [--documents 32]

Both sides train the same 124M weights and 2,000 added rows in float32, on the same product texts of
various lengths, truncated to 512 tokens. Theirs pads each batch of eight to its longest text, and
uses `peft`'s trainable token indices if only rows are trained; ours packs documents. One epoch is
timed, alternating between the sides, and divided by the number of non-padding tokens. Peak memory
is that of a separate process that trains for one epoch.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from idiolect.models.language_model import LanguageModel
from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.checkpoint import Checkpoint, RunFolder
from idiolect.training.data.packed_documents import PackedDocuments, TextTemplate
from idiolect.training.data.token_file import TokenFile
from idiolect.training.loop import Trainer
from idiolect.training.objectives.causal import Causal
from idiolect.training.optim import choose_parameters
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.extend.extend import extend
from paired import compare

ADDED, LENGTH, BATCH, PAIRS = 2_000, 512, 8, 3
TARGETS = {"rows": (1.5, 0.7), "all": (1.2, None)}
MODES = ("rows", "all")


class NoCheckpoints(RunFolder):
    """A run directory that saves no checkpoints, like the other side."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Discard the checkpoint."""


def product_texts(folder: Path) -> list[str]:
    """Title, description and attributes of each product."""
    packed = zipfile.ZipFile(folder / "icecat-chorus" / "products_1.json.zip")
    texts = []
    for product in json.loads(packed.read(packed.namelist()[0])):
        parts = [product.get("title"), product.get("short_description")]
        parts += [
            f"{key[7:].replace('_', ' ')}: {value}"
            for key, value in product.items()
            if key.startswith("attr_")
        ]
        texts.append("\n".join(str(part) for part in parts if part))
    return texts


def prepare(folder: Path, scratch: Path, documents: int) -> None:
    """Write the extended model and the truncated documents for both sides."""
    texts = product_texts(folder)
    base = scratch / "base"
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(transformers.GPT2Config()).save_pretrained(base)
    for packed in (folder / "tokenizers" / "gpt2").glob("*.gz"):
        (base / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    Tokenizer.load(base / "vocab.json").save(base)
    model = LanguageModel.load(base)
    terms = audit(model.tokenizer, Corpus.from_texts(texts)).choose(2 * ADDED)
    grown = extend(model, terms, max_rows=ADDED)
    grown.save(scratch / "grown")
    rows = len(grown.tokenizer) - len(model.tokenizer)
    assert rows == ADDED, f"{rows} rows were added"
    step = len(texts) // documents
    ids = grown.tokenizer.encode_batch(texts[::step][:documents])
    chosen = grown.tokenizer.decode_batch([one[: LENGTH - 2] for one in ids])
    (scratch / "documents.json").write_text(json.dumps(chosen))


def our_side(scratch: Path, mode: Any) -> tuple[Callable[[], None], int]:
    """Return a function that trains for one epoch, and its number of tokens."""
    model = LanguageModel.load(scratch / "grown")
    texts = json.loads((scratch / "documents.json").read_text())
    folder = NoCheckpoints(tempfile.mkdtemp(dir=scratch))
    tokens = TokenFile.write(folder.tokens, texts, model.tokenizer)
    frame = TextTemplate.of(model.tokenizer, causal=True)
    total = int(tokens.record["tokens"]) + len(texts) * len(frame.before + frame.after)
    rows = max(1, BATCH * total // (len(texts) * LENGTH))
    steps = total // (rows * LENGTH)
    plan = TrainingConfig(max_length=LENGTH, batch_size=rows, save_steps=10**9)
    source = PackedDocuments(tokens, frame, length=LENGTH, rows=rows)
    choose_parameters(model.network, mode)
    trainer = Trainer(
        model.network, Causal(model.network), source, plan, steps=steps, folder=folder
    )

    def run() -> None:
        trainer.done = 0
        trainer.run()

    return run, steps * rows * LENGTH


def their_side(scratch: Path, mode: str) -> tuple[Callable[[], None], int]:
    """Return the same for `transformers` and `peft`."""
    import peft

    tokenizer = transformers.AutoTokenizer.from_pretrained(scratch / "grown")
    tokenizer.pad_token = tokenizer.eos_token
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(scratch / "grown")
    if mode == "rows":
        rows = len(tokenizer)
        config = peft.TrainableTokensConfig(
            token_indices=list(range(rows - ADDED, rows)), target_modules=["wte"]
        )
        model = peft.get_peft_model(model, config)
    texts = json.loads((scratch / "documents.json").read_text())
    data = []
    for text in texts:
        ids = tokenizer(f"{tokenizer.bos_token}{text}{tokenizer.eos_token}")["input_ids"]
        data.append({"input_ids": ids, "attention_mask": [1] * len(ids)})
    arguments = transformers.TrainingArguments(
        output_dir=str(scratch / "theirs"),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=3e-4,
        weight_decay=0.1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = tokenizer.pad(rows, return_tensors="pt")
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        return dict(batch)

    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data, data_collator=collate
    )

    def run() -> None:
        trainer.train()

    return run, sum(len(one["input_ids"]) for one in data)


SIDES = {"ours": our_side, "theirs": their_side}


def peak(scratch: Path, side: str, mode: str) -> float:
    """Return the peak memory in GiB of a process that trains one side for one epoch."""
    command = [sys.executable, __file__, "--only", side, mode, str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _peak_of_this_process() -> float:
    """Return the peak memory in GiB. (`ru_maxrss` would include the parent process.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs=3, metavar=("SIDE", "MODE", "SCRATCH"))
    parser.add_argument("--modes", nargs="*", default=MODES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    if arguments.only:
        side, mode, scratch = arguments.only
        run, _ = SIDES[side](Path(scratch), mode)
        run()
        print(_peak_of_this_process())
        return
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        prepare(arguments.folder, scratch, arguments.documents)
        lengths = sorted(map(len, json.loads((scratch / "documents.json").read_text())))
        print(
            f"{len(lengths)} documents of {lengths[0]} to {lengths[-1]} characters, "
            f"median {lengths[len(lengths) // 2]}; {arguments.threads} threads",
            flush=True,
        )
        for mode in arguments.modes:
            speed, memory = TARGETS[mode]
            ours, our_tokens = our_side(scratch, mode)
            theirs, their_tokens = their_side(scratch, mode)
            pair = compare(ours, theirs, pairs=PAIRS)
            # Scale to the same number of tokens, so that the ratio compares tokens per second.
            pair.ours[:] = [seconds * their_tokens / our_tokens for seconds in pair.ours]
            print(pair.line(f'train="{mode}", {their_tokens} tokens', speed), flush=True)
            del ours, theirs
            needed = {side: peak(scratch, side, mode) for side in SIDES}
            share = needed["ours"] / needed["theirs"]
            result = "" if memory is None else "reached" if share <= memory else "SHORT"
            print(
                f"  peak memory: ours {needed['ours']:.2f} GiB, theirs {needed['theirs']:.2f} GiB, "
                f"ratio {share:.2f} {result}",
                flush=True,
            )


if __name__ == "__main__":
    main()
