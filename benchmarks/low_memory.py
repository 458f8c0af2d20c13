"""Measure peak memory and loss of adapting SmolLM2 over a base kept in few bits.

    python benchmarks/low_memory.py FOLDER_WITH_DATA [--steps 100] [--base float32 nf4]

SmolLM2-135M gets 1,000 new tokens from product texts, then trains `rows+lora` (rank 16 on all
linear layers) on rows of 512 tokens. The base is kept in float32, NF4, int8, or the blocks of its
GGUF file. Each run is a process of its own, so that peaks are not mixed. The peak is that of the
whole run: loading, growing the vocabulary, training, and writing checkpoints and the merged model.

The loss is the mean of the last fifth of the steps; all runs read the same batches. Gradient
checkpointing does not change the loss. So it is measured over a few steps, and their losses are
compared with those of the run without it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import figure

ADDED, LENGTH, RANK = 1_000, 512, 16
BASES = ("float32", "nf4", "int8", "keep")
LAYERS = ("query", "key", "value", "output", "gate", "up", "down")
LIMIT_MIB, LIMIT_LOSS = 1536, 0.02


def prepare(folder: Path, scratch: Path) -> None:
    """Write the texts and the extended tokenizer for all runs."""
    from adaptation import product_texts
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.corpus import Corpus
    from idiolect.vocabulary.audit.audit import audit
    from idiolect.vocabulary.extend.extend import extend

    texts = product_texts(folder)[:20_000]
    tokenizer = LanguageModel.load("smollm2", quantization="keep").tokenizer
    terms = audit(tokenizer, Corpus.from_texts(texts)).choose(2 * ADDED)
    extend(tokenizer, terms, max_rows=ADDED).save(scratch / "tokenizer")
    (scratch / "texts.json").write_text(json.dumps(texts))


def measure(scratch: Path, base: str, checkpointing: bool, steps: int) -> dict[str, Any]:
    """Train in this process; return its memory in MiB, losses and seconds a step."""
    import torch

    imported = _peak()
    from idiolect.models.language_model import LanguageModel
    from idiolect.nn.lora import LoraConfig
    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.training.pretrain import pretrain
    from idiolect.training.training_config import TrainingConfig
    from idiolect.vocabulary.rows.grow import grow

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    quantization: Any = None if base == "float32" else base
    model = LanguageModel.load("smollm2", quantization=quantization)
    model = grow(model, Tokenizer.load(scratch / "tokenizer"))
    loaded = _peak()
    texts = Corpus.from_texts(json.loads((scratch / "texts.json").read_text()))
    run = Path(tempfile.mkdtemp(dir=scratch))
    started = time.perf_counter()
    pretrain(
        model,
        texts,
        output_dir=run,
        steps=steps,
        train="rows+lora",
        lora=LoraConfig(r=RANK, lora_alpha=2.0 * RANK, target_modules=LAYERS),
        quantization=quantization,
        config=TrainingConfig(
            max_length=LENGTH,
            batch_size=1,
            gradient_checkpointing=checkpointing,
            save_steps=10**6,
        ),
    )
    seconds = time.perf_counter() - started
    lines = (run / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    return {
        "imported": imported,
        "loaded": loaded,
        "peak": _peak(),
        "losses": losses,
        "seconds": seconds / steps,
    }


def _peak() -> float:
    """Return the peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_process(scratch: Path, base: str, checkpointing: bool, steps: int) -> dict[str, Any]:
    """Run `measure` in a process of its own."""
    arguments = [str(scratch), base, str(int(checkpointing)), str(steps)]
    command = [sys.executable, __file__, "--measure", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(scratch: Path, bases: list[str], steps: int, few: int) -> None:
    """Print a line for each base, with and without gradient checkpointing."""
    print(f"{'base':8} {'checkpointing':13} {'peak':>9} {'above import':>13} {'s/step':>7}  loss")
    reference: float | None = None
    for base in bases:
        plain = in_process(scratch, base, False, steps)
        losses = plain["losses"]
        last = losses[-max(1, steps // 5) :]
        loss = sum(last) / len(last)
        reference = loss if base == "float32" else reference
        ratio = "" if reference is None else f" ({loss / reference - 1:+.2%} of float32's)"
        print(_line(base, "no", plain) + f"  {loss:.4f}{ratio}", flush=True)
        again = in_process(scratch, base, True, min(few, steps))
        # The schedule of a shorter run is another one, so only the first step is the same.
        same = again["losses"][0] == losses[0]
        verdict = "first loss the same" if same else "first loss DIFFERS"
        print(_line(base, "yes", again) + f"  {verdict}", flush=True)
        if base == "nf4":
            what = "peak memory of fine-tuning SmolLM2 at length 512, NF4, gradient checkpointing"
            figure("memory.qlora", f"{again['peak'] / 1024:.2f} GiB", what)


def _line(base: str, checkpointing: str, found: dict[str, Any]) -> str:
    above = found["peak"] - found["imported"]
    return (
        f"{base:8} {checkpointing:13} {found['peak']:5.0f} MiB {above:9.0f} MiB "
        f"{found['seconds']:7.2f}"
    )


def main() -> None:
    """Parse the arguments and compare the bases."""
    if sys.argv[1:2] == ["--measure"]:
        scratch, base, checkpointing, steps = sys.argv[2:]
        found = measure(Path(scratch), base, checkpointing == "1", int(steps))
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--checkpointing-steps", type=int, default=3)
    parser.add_argument("--base", nargs="+", choices=BASES, default=list(BASES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        prepare(arguments.folder, scratch)
        report(scratch, arguments.base, arguments.steps, arguments.checkpointing_steps)
    print(f"targets: {LIMIT_MIB} MiB of peak memory, loss within {LIMIT_LOSS:.0%} of float32's")


if __name__ == "__main__":
    main()
