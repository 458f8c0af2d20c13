"""How many texts and kept sets equal those of transformers, on SmolLM2 in float32.

    python benchmarks/generation_parity.py FOLDER [--only greedy beams alone …] [--prompts 100]

FOLDER holds `harness/lambada_openai.jsonl.gz`, from which the prompts are cut: 4 to 23 words of
each passage. Where two texts differ, the gap between the two largest scores at that place says
whether rounding decided. llama.cpp (`pip install xllamacpp`) computes with the 4-bit weights of the
same file and 8-bit activations, so it can differ wherever two scores are close.
"""

from __future__ import annotations

import argparse
import gzip
import json
import urllib.request
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers

from idiolect.generate.generator import Generator
from idiolect.generate.token_sampling import Sampling
from idiolect.text.hub import locate

_RULES = {
    "top_k": (50, transformers.TopKLogitsWarper),
    "top_p": (0.9, transformers.TopPLogitsWarper),
    "min_p": (0.05, transformers.MinPLogitsWarper),
    "typical_p": (0.9, transformers.TypicalLogitsWarper),
    "epsilon_cutoff": (3e-4, transformers.EpsilonLogitsWarper),
    "eta_cutoff": (2e-3, transformers.EtaLogitsWarper),
}


def cut_prompts(folder: Path, count: int) -> list[str]:
    """Return the first 4 to 23 words of so many passages."""
    with gzip.open(folder / "harness" / "lambada_openai.jsonl.gz", "rt") as lines:
        passages = [json.loads(line)["context"].split() for line in islice(lines, count)]
    return [" ".join(words[: 4 + i % 20]) for i, words in enumerate(passages)]


class Parity:
    """Both models, and the prompts.

    Args:
        folder: The data.
        count: Number of prompts.
        tokens: New tokens of each.
    """

    def __init__(self, folder: Path, count: int, tokens: int) -> None:
        path = locate("smollm2", ())
        self.theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        ).eval()
        self.ours = Generator("smollm2")
        self.tokens = tokens
        encode = self.ours.model.tokenizer.encode
        self.rows = [encode(text) for text in cut_prompts(folder, count)]
        # A full stop ends a text too, so that texts end at different times.
        stop = self.ours.model.tokenizer.encode(".", add_special_tokens=False)
        self.ends = [*self.ours.eos_token_id, *stop]

    def reference(self, rows: Sequence[list[int]], **options: Any) -> list[list[int]]:
        """Return the new ids of transformers, of one padded batch, up to the end."""
        longest, pad = max(map(len, rows)), self.ends[0]
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            found = self.theirs.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=self.tokens,
                do_sample=False,
                eos_token_id=self.ends,
                pad_token_id=pad,
                **options,
            )[:, longest:].tolist()
        places = [next((i for i, t in enumerate(row) if t in self.ends), len(row)) for row in found]
        return [row[: place + 1] for row, place in zip(found, places, strict=True)]

    def write(self, **options: Any) -> list[list[int]]:
        """Return our new ids."""
        options = {"batch_size": 64, "eos_token_id": self.ends, **options}
        found = self.ours.generate(self.rows, max_new_tokens=self.tokens, **options)
        return [one.ids for one in found]

    def show(self, title: str, ours: list[list[int]], theirs: list[list[int]]) -> None:
        """Print how many are equal, and where rounding may have decided."""
        wrong = [i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
        print(f"{title}: {len(ours) - len(wrong)} of {len(ours)} equal", flush=True)
        for i in wrong:
            pairs = enumerate(zip(ours[i], theirs[i], strict=False))
            place = next((place for place, (a, b) in pairs if a != b), 0)
            ids = torch.tensor([self.rows[i] + ours[i][:place]])
            with torch.inference_mode():
                best = self.theirs(ids).logits[0, -1].topk(2)[0]
            print(f"  prompt {i} differs at {place}; gap {float(best[0] - best[1]):.2g}")

    def greedy(self) -> None:
        """Compare greedy search with transformers."""
        self.show("greedy", self.write(), self.reference(self.rows))

    def beams(self) -> None:
        """Compare beams with transformers, in batches of 25 prompts."""
        for penalty in (0.6, 1.0, 2.0):
            for stopping in (True, False, "never"):
                options: dict[str, Any] = {
                    "num_beams": 4,
                    "length_penalty": penalty,
                    "early_stopping": stopping,
                }
                theirs: list[list[int]] = []
                for start in range(0, len(self.rows), 25):
                    theirs += self.reference(self.rows[start : start + 25], **options)
                self.show(f"beam 4, {options}", self.write(batch_size=100, **options), theirs)

    def alone(self) -> None:
        """Compare texts written alone, in batches that rows join and leave, and all at once."""
        whole = self.write(batch_size=len(self.rows))
        self.show("alone and in one padded batch", self.write(batch_size=1), whole)
        self.show("in batches of 7 and in one padded batch", self.write(batch_size=7), whole)

    def speculation(self) -> None:
        """Compare greedy search with guesses, from the text and from an assistant."""
        plain = self.write()
        self.show("prompt lookup and greedy", self.write(prompt_lookup_num_tokens=5), plain)
        assisted = self.write(assistant=self.ours.model, num_assistant_tokens=3)
        self.show("assisted (by itself) and greedy", assisted, plain)

    def llama(self) -> None:
        """Compare greedy search with llama.cpp's on the quantised file itself."""
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(locate("smollm2", ()))
        parameters.n_ctx = 1024
        parameters.verbosity = 0
        server = xllamacpp.Server(parameters)
        theirs = []
        for row in self.rows:
            body = {"prompt": row, "n_predict": self.tokens, "temperature": 0}
            request = urllib.request.Request(
                f"{server.listening_address}/completion",
                json.dumps(body | {"return_tokens": True, "cache_prompt": False}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request) as response:
                theirs.append(json.load(response)["tokens"])
        ours = self.write(eos_token_id=self.ours.eos_token_id)
        ours = [[t for t in row if t not in self.ours.eos_token_id] for row in ours]
        self.show("greedy and llama.cpp", ours, theirs)

    def samplers(self) -> None:
        """Compare the kept sets of each rule on 10,000 rows of the model's vocabulary."""
        random = torch.Generator().manual_seed(0)
        equal: Counter[str] = Counter()
        for _ in range(100):
            scores = torch.randn(100, 49_152, generator=random) * 3
            for name, (value, warper) in _RULES.items():
                theirs = warper(value)(None, scores).isinf()
                ours = Sampling(**{name: value}).filter(scores).isinf()  # type: ignore[arg-type]
                equal[name] += int((ours == theirs).all(-1).sum())
        for name, count in equal.items():
            print(f"{name} {_RULES[name][0]}: kept sets equal in {count:,} of 10,000 rows")


def main() -> None:
    """Compare."""
    sections = ("greedy", "beams", "alone", "speculation", "llama", "samplers")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", choices=sections, default=sections)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=16)
    arguments = parser.parse_args()
    parity = Parity(arguments.folder, arguments.prompts, arguments.tokens)
    for name in arguments.only:
        getattr(parity, name)()


if __name__ == "__main__":
    main()
