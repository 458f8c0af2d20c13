"""Tokens a second beside transformers: greedy, beams, a stream of requests.

    python benchmarks/generation.py [--model smollm2] [--tokens 40] [--repeats 3]

Both sides run in one process, in alternation, with the same threads. The floor of greedy search
with one text is the time to read all weights once a token; it is measured too.
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


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    count = arguments.tokens
    generator = Generator(arguments.model)
    path = locate(arguments.model, ())
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    ids = generator.model.tokenizer.encode(PROMPT)

    def other(rows: list[list[int]], new: list[int], **options: Any) -> int:
        longest = max(map(len, rows))
        padded = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        with torch.inference_mode():
            theirs.generate(
                padded,
                attention_mask=mask,
                max_new_tokens=max(new),
                min_new_tokens=max(new),
                do_sample=False,
                pad_token_id=0,
                **options,
            )
        return sum(new)

    def ours(**options: Any) -> int:
        found = generator.generate([ids], max_new_tokens=count, eos_token_id=[], **options)
        return len(found[0].ids)

    print(f"{torch.get_num_threads()} threads; floor {_floor(generator):.1f} tokens a second")
    _show(
        "greedy, one text",
        _alternate(
            {"idiolect": ours, "transformers": lambda: other([ids], [count])}, arguments.repeats
        ),
    )
    _show(
        "beam 5",
        _alternate(
            {
                "idiolect": lambda: ours(num_beams=5),
                "transformers": lambda: other([ids], [count], num_beams=5),
            },
            arguments.repeats,
        ),
    )
    requests = [ids[: 4 + i % 8] for i in range(32)]
    lengths = [4 + (i * 37) % 60 for i in range(32)]

    end = generator.eos_token_id[0]

    def end_at(scores: Any, rows: Any) -> Any:
        """End each request at its length, and nowhere before."""
        scores[:, end] = float("-inf")
        for place, row in enumerate(rows):
            if len(row.ids) == lengths[row.number] - 1:
                scores[place] = float("-inf")
                scores[place, end] = 0.0
        return scores

    def continuous() -> int:
        found = generator.generate(
            requests, max_new_tokens=max(lengths), processors=[end_at], batch_size=16
        )
        return sum(len(one.ids) for one in found)

    _show(
        "32 requests of 4 to 63 tokens",
        _alternate(
            {"idiolect": continuous, "transformers": lambda: other(requests, lengths)},
            arguments.repeats,
        ),
    )


if __name__ == "__main__":
    main()
