"""Tokens a second beside transformers: greedy, beams, a stream of requests.

    python benchmarks/generation.py [--model smollm2] [--tokens 40] [--repeats 3]

Both sides run in one process, in alternation, with the same threads. The floor of greedy search
with one text is the time to read all weights once a token; it is measured too.

The streams are 32 requests, each with its own number of new tokens, that all wait at the beginning.
`transformers` gets its usual best: all in one batch, padded on the left, until the longest ends.
Only the tokens that were asked for count. Three streams: short prompts (4 to 11 tokens), mixed ones
(8 to 132), and the short ones behind 128 tokens that all have in common, such as instructions.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from idiolect.generate.generator import Generator
from idiolect.text.hub import locate

PROMPT = "The history of medicine shows how societies have changed in their approach to illness"


def _alternate(sides: dict[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    """Return the median tokens a second of each side, after one run to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            begin = time.perf_counter()
            tokens = side()
            if repeat:
                rates[name].append(tokens / (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in rates.items()}


def _show(title: str, rates: dict[str, float]) -> None:
    ours = rates["idiolect"]
    print(f"{title}: " + ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items()))
    for name, rate in rates.items():
        if name != "idiolect":
            print(f"  ratio to {name}: {ours / rate:.2f}", flush=True)


def _floor(generator: Generator) -> float:
    """Return how often all weights can be multiplied with one vector in a second."""
    seen = {weight.data_ptr(): weight for weight in generator.model.network.parameters()}
    matrices = [weight for weight in seen.values() if weight.dim() == 2]
    vectors = [torch.ones(matrix.shape[1]) for matrix in matrices]
    with torch.inference_mode():
        rates = []
        for _ in range(4):
            begin = time.perf_counter()
            for matrix, vector in zip(matrices, vectors, strict=True):
                torch.mv(matrix, vector)
            rates.append(1 / (time.perf_counter() - begin))
    return max(rates)


class _Theirs:
    """The same model in transformers."""

    def __init__(self, name: str) -> None:
        path = locate(name, ())
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        ).eval()

    def write(self, rows: list[list[int]], new: list[int], **options: Any) -> int:
        """Continue all rows in one batch; return how many tokens were asked for."""
        longest = max(map(len, rows))
        padded = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            self.model.generate(
                padded,
                attention_mask=mask,
                max_new_tokens=max(new),
                min_new_tokens=max(new),
                do_sample=False,
                pad_token_id=0,
                **options,
            )
        return sum(new)


def measure_streams(generator: Generator, theirs: _Theirs, repeats: int) -> None:
    """Measure the streams of requests."""
    ids = generator.model.tokenizer.encode(" ".join([PROMPT] * 20))
    new = [4 + (i * 37) % 60 for i in range(32)]
    end = generator.eos_token_id[0]

    def end_at(scores: Any, rows: Any) -> Any:
        """End each request at its length, and nowhere before."""
        scores[:, end] = float("-inf")
        for place, row in enumerate(rows):
            if len(row.ids) == new[row.number] - 1:
                scores[place] = float("-inf")
                scores[place, end] = 0.0
        return scores

    short = [ids[i : i + 4 + i % 8] for i in range(32)]
    for title, requests in (
        ("prompts of 4 to 11 tokens", short),
        ("prompts of 8 to 132 tokens", [ids[i : i + 8 + (i * 29) % 125] for i in range(32)]),
        ("the short prompts after 128 common tokens", [ids[50:178] + one for one in short]),
    ):

        def ours(requests: list[list[int]] = requests) -> int:
            found = generator.generate(requests, max_new_tokens=max(new), processors=[end_at])
            return sum(len(one.ids) for one in found)

        def others(requests: list[list[int]] = requests) -> int:
            return theirs.write(requests, new)

        title = f"32 requests of 4 to 63 new tokens, {title}"
        _show(title, _alternate({"idiolect": ours, "transformers": others}, repeats))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    count = arguments.tokens
    generator = Generator(arguments.model)
    theirs = _Theirs(arguments.model)
    ids = generator.model.tokenizer.encode(PROMPT)

    def ours(**options: Any) -> int:
        found = generator.generate([ids], max_new_tokens=count, eos_token_id=[], **options)
        return len(found[0].ids)

    print(f"{torch.get_num_threads()} threads; floor {_floor(generator):.1f} tokens a second")
    _show(
        "greedy, one text",
        _alternate(
            {"idiolect": ours, "transformers": lambda: theirs.write([ids], [count])},
            arguments.repeats,
        ),
    )
    _show(
        "beam 5",
        _alternate(
            {
                "idiolect": lambda: ours(num_beams=5),
                "transformers": lambda: theirs.write([ids], [count], num_beams=5),
            },
            arguments.repeats,
        ),
    )
    measure_streams(generator, theirs, arguments.repeats)


if __name__ == "__main__":
    main()
