"""Tokens a second beside transformers and ctranslate2.

    python benchmarks/generation.py [--model smollm2] [--tokens 40] [--repeats 5] [--threads 2]
        [--parts greedy int8 beam constrained streams]

`--model gpt2-small` is a network of GPT-2's smallest shape with random weights. All sides run in
one process, in alternation, with the same weights and number of threads; ctranslate2 takes part
where it is installed. A rate is the median of the repetitions, a ratio the median of the ratios of
each repetition, of elapsed time and of processor time. The floor of greedy search with one text is
the time to add up all weights once a token; it is measured too.

    greedy        one text
    int8          one text, with matrices of 8-bit integers, beside ctranslate2's int8
    beam          five beams for one text
    constrained   greedy search of one text under an expression that permits all of it, beside the
                  same without, for each of five prompts
    streams       32 requests, each with its own number of new tokens, that all wait at first.
                  `transformers` gets its usual best: all in one batch, padded on the left, until
                  the longest ends. Only the tokens that were asked for count. Short prompts (4 to
                  11 tokens), mixed ones (8 to 132), and the short ones behind 128 tokens that all
                  have in common, such as instructions.
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

from idiolect.generate.constrained import Constraint
from idiolect.generate.generator import Generator
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers.tokenizer import Tokenizer

PROMPT = "The history of medicine shows how societies have changed in their approach to illness"
PARTS = ("greedy", "int8", "beam", "constrained", "streams")
Sides = dict[str, Callable[[], int]]


def _alternate(title: str, sides: Sides, repeats: int) -> None:
    """Run all sides in alternation, after one run to warm up, and print rates and ratios."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            begin, used = time.perf_counter(), time.process_time()
            tokens = side()
            seconds, used = time.perf_counter() - begin, time.process_time() - used
            if repeat:
                rates[name].append((tokens / seconds, tokens / used))
    medians = {name: statistics.median(one for one, _ in found) for name, found in rates.items()}
    print(f"{title}: " + ", ".join(f"{name} {rate:.1f}" for name, rate in medians.items()))
    first, *others = rates
    for name in others:
        ratios = [
            statistics.median(
                a[kind] / b[kind] for a, b in zip(rates[first], rates[name], strict=True)
            )
            for kind in (0, 1)
        ]
        print(f"  ratio to {name}: {ratios[0]:.2f}, of processor time {ratios[1]:.2f}", flush=True)


def _floor(generator: Generator) -> float:
    """Return how often all weights can be read in a second: added up, one after another."""
    seen = {weight.data_ptr(): weight for weight in generator.model.network.parameters()}
    with torch.inference_mode():
        rates = []
        for _ in range(4):
            begin = time.perf_counter()
            for weight in seen.values():
                weight.sum()
            rates.append(1 / (time.perf_counter() - begin))
    return max(rates)


class _Transformers:
    """The same model in transformers."""

    def __init__(self, directory: Path) -> None:
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32
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


class _CTranslate2:
    """The same model in ctranslate2."""

    def __init__(self, directory: Path, generator: Generator) -> None:
        from ctranslate2.converters import TransformersConverter

        self._engine = generator.model.tokenizer.engine
        self._path = str(directory / "ctranslate2")
        TransformersConverter(str(directory)).convert(self._path, force=True)
        self._models: dict[str, Any] = {}

    def write(self, ids: list[int], new: int, *, beams: int = 1, precision: str = "float32") -> int:
        """Continue one text; return the number of new tokens."""
        if precision not in self._models:
            import ctranslate2

            self._models[precision] = ctranslate2.Generator(
                self._path, compute_type=precision, intra_threads=torch.get_num_threads()
            )
        found = self._models[precision].generate_batch(
            [[self._engine.id_to_token(one) for one in ids]],
            max_length=new,
            min_length=new,
            beam_size=beams,
            include_prompt_in_result=False,
        )
        assert len(found[0].sequences_ids[0]) == new
        return new


def measure_streams(generator: Generator, theirs: _Transformers, repeats: int) -> None:
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
        _alternate(title, {"idiolect": ours, "transformers": others}, repeats)


def _model(name: str) -> LanguageModel:
    if name != "gpt2-small":
        return LanguageModel.load(name)
    # With the 49,152 ids of this tokenizer, not GPT-2's 50,257: ctranslate2 wants as many as rows.
    return LanguageModel.new({"model_type": "gpt2"}, Tokenizer.load("smollm2"))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        _measure(arguments, Path(folder))


def _measure(arguments: argparse.Namespace, folder: Path) -> None:
    count, parts, repeats = arguments.tokens, arguments.parts, arguments.repeats
    generator = Generator(_model(arguments.model))
    generator.model.save(folder)
    theirs, ct2 = _Transformers(folder), None
    try:
        ct2 = _CTranslate2(folder, generator)
    except ImportError:
        print("ctranslate2 is not installed, so it takes no part")
    ids = generator.model.tokenizer.encode(PROMPT)

    def ours(
        prompt: list[int] = ids, who: Generator = generator, **options: Any
    ) -> Callable[[], int]:
        options |= {"max_new_tokens": count, "eos_token_id": []}
        return lambda: len(who.generate([prompt], **options)[0].ids)

    print(f"{torch.get_num_threads()} threads; floor {_floor(generator):.1f} tokens a second")
    if "greedy" in parts:
        sides: Sides = {"idiolect": ours(), "transformers": lambda: theirs.write([ids], [count])}
        if ct2:
            sides["ctranslate2"] = lambda: ct2.write(ids, count)
        _alternate("greedy, one text", sides, repeats)
    if "int8" in parts and ct2:
        small = Generator(LanguageModel.load(folder, quantization="int8"))
        sides = {
            "idiolect int8": ours(who=small),
            "ctranslate2 int8": lambda: ct2.write(ids, count, precision="int8"),
            "idiolect float32": ours(),
        }
        _alternate("greedy, one text, int8", sides, repeats)
    if "beam" in parts:
        sides = {
            "idiolect": ours(num_beams=5),
            "transformers": lambda: theirs.write([ids], [count], num_beams=5),
        }
        if ct2:
            sides["ctranslate2"] = lambda: ct2.write(ids, count, beams=5)
        _alternate("beam 5", sides, repeats)
    if "constrained" in parts:
        constraint = Constraint.regex(generator, r"(.|\n)*")
        for start in range(5):
            part = ids[start : start + 8]
            sides = {"with": ours(part, constraint=constraint), "without": ours(part)}
            _alternate(f"constrained, prompt {start + 1}", sides, repeats)
    if "streams" in parts:
        measure_streams(generator, theirs, repeats)


if __name__ == "__main__":
    main()
