"""Strategies that transformers 5 no longer has, beside transformers 4.55.4, on SmolLM2 in float32.

    python benchmarks/moved_strategies.py prompts FOLDER TEXTS.json      # with idiolect installed
    python benchmarks/moved_strategies.py write TEXTS.json               # with transformers 4.55.4
    python benchmarks/moved_strategies.py compare TEXTS.json             # with idiolect installed

Contrastive search, DoLa, diverse beams, and beams with a word that must occur. The middle command
runs in an environment of its own (`pip install torch transformers==4.55.4 gguf accelerate`). FOLDER
holds `harness/lambada_openai.jsonl.gz`; each prompt is 4 to 23 words of a passage. transformers
writes one prompt at a time, since it chooses DoLa's layer for a whole batch, and we for each text.
Where texts differ, one thing at a time is changed in transformers (`CHANGES`) or in ours.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

LAYERS = [16, 20, 24, 28]
WORD = " water"
OPTIONS: dict[str, dict[str, Any]] = {
    "contrastive": {"penalty_alpha": 0.6, "top_k": 4},
    "dola": {"dola_layers": LAYERS},
    "diverse": {
        "num_beams": 4,
        "num_beam_groups": 2,
        "diversity_penalty": 0.5,
        "early_stopping": True,
    },
    "words": {"num_beams": 6, "early_stopping": True},
    "words to the end": {"num_beams": 6},
}


@contextmanager
def _normed(model: Any) -> Iterator[None]:
    """Let the head read early states after the last norm, as it reads the last ones."""

    def score(states: torch.Tensor) -> Any:
        return model.lm_head(model.model.norm(states))

    with mock.patch.object(model, "get_output_embeddings", return_value=score):
        yield


@contextmanager
def _divergence(model: Any) -> Iterator[None]:
    """Compute Jensen and Shannon's divergence: KL(P, M) instead of KL(M, P)."""
    whole = torch.nn.functional.kl_div

    def turned(logs: torch.Tensor, mean: torch.Tensor, reduction: str) -> torch.Tensor:
        return whole(mean.log(), logs.exp(), reduction=reduction)

    with mock.patch.object(torch.nn.functional, "kl_div", turned):
        yield


@contextmanager
def _pushed(model: Any) -> Iterator[None]:
    """Also continue each beam that has its words by its likeliest token, as Post & Vilar do."""
    from transformers.generation.beam_search import ConstrainedBeamSearchScorer as Scorer

    whole = Scorer.step_sentence_constraint

    def pushed(scorer: Any, *args: Any) -> Any:
        return whole(scorer, *args, push_progress=True)

    with mock.patch.object(Scorer, "step_sentence_constraint", pushed):
        yield


@contextmanager
def _not_pushed(form: list[int] | None = None) -> Iterator[None]:
    """Let ours continue beams by the tokens of the words they lack alone, as transformers does.

    With a form, only this one counts as the word.
    """
    from idiolect.generate.required_words import RequiredWords

    begin = RequiredWords.__init__

    def init(self: Any, words: Any) -> None:
        begin(self, words if form is None else [[form]])

    def proposed(self: Any, ids: Any, sums: Any) -> set[int]:
        return set(self.progress(ids).tokens)

    with (
        mock.patch.object(RequiredWords, "proposed", proposed),
        mock.patch.object(RequiredWords, "__init__", init),
    ):
        yield


CHANGES: dict[str, tuple[Any, ...]] = {
    "contrastive": (),
    "diverse": (),
    "dola": (),
    "dola, normed": (_normed,),
    "dola, divergence": (_divergence,),
    "dola, normed, divergence": (_normed, _divergence),
    "words": (),
    "words, either form": (),
    "words, pushed": (_pushed,),
    "words, either form, pushed": (_pushed,),
    "words to the end": (),
    "words to the end, either form": (),
}
"""What transformers writes, and what is changed in it before."""


def prompts(folder: Path, out: Path, count: int) -> None:
    """Write the prompts' ids."""
    from generation_parity import cut_prompts
    from idiolect.generate.generator import Generator
    from idiolect.text.hub import locate

    generator = Generator("smollm2")
    tokenizer = generator.model.tokenizer
    plain = {"add_special_tokens": False}
    record = {
        "model": str(locate("smollm2", ())),
        "prompts": [tokenizer.encode(text) for text in cut_prompts(folder, count)],
        "ends": [*generator.eos_token_id, *tokenizer.encode(".", **plain)],
        "forms": [tokenizer.encode(form, **plain) for form in (WORD.strip(), WORD)],
    }
    out.write_text(json.dumps(record))


def write(path: Path, tokens: int, names: list[str], count: int) -> None:
    """Add what transformers writes to the first prompts; what is there already is kept."""
    import transformers

    record = json.loads(path.read_text())
    file = Path(record["model"])
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, torch_dtype=torch.float32
    ).eval()
    record["transformers"] = transformers.__version__
    for name in names:
        given = dict(OPTIONS[name.partition(",")[0]])
        if name.startswith("words"):
            forms = record["forms"]
            given["force_words_ids"] = [forms] if "either form" in name else forms[-1:]
        texts = record.setdefault(name, [])
        with ExitStack() as stack:
            for change in CHANGES[name]:
                stack.enter_context(change(model))
            for ids in record["prompts"][len(texts) : count]:
                texts.append(_text(model, ids, record["ends"], tokens, given))
                path.write_text(json.dumps(record))
        print(f"{name}: {len(texts)} texts", flush=True)


def _text(
    model: Any, ids: list[int], ends: list[int], tokens: int, options: dict[str, Any]
) -> list[int]:
    with torch.inference_mode():
        found = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0],
            **options,
        )[0, len(ids) :].tolist()
    # Groups and constraints write another end than the one that was found, so none is kept.
    return found[: next((i for i, token in enumerate(found) if token in ends), len(found))]


def compare(path: Path, tokens: int, names: list[str], count: int) -> None:
    """Print how many of our texts are equal, and of those with a word, whose are the likelier."""
    from idiolect.generate.generator import Generator

    record = json.loads(path.read_text())
    generator = Generator("smollm2")
    for strategy, options in OPTIONS.items():
        variants = [name for name in names if name.partition(",")[0] == strategy]
        if not variants:
            continue
        given = options | ({"force_words": [WORD.strip()]} if strategy.startswith("words") else {})
        rows = record["prompts"][: min(count, max(len(record[name]) for name in variants))]
        given |= {"max_new_tokens": tokens, "eos_token_id": record["ends"], "batch_size": 48}

        def ours_now(rows: list[list[int]] = rows, given: dict[str, Any] = given) -> Any:
            found = generator.generate(rows, **given)
            return [[t for t in one.ids if t not in record["ends"]] for one in found]

        ours = ours_now()
        for name in variants:
            pairs = list(zip(ours, record[name], strict=False))
            equal = sum(own == their for own, their in pairs)
            print(
                f"{name}: {equal} of {len(pairs)} equal those of {record['transformers']}",
                flush=True,
            )
            if strategy.startswith("words"):
                _compare_scores(generator, record, pairs, tokens)
                for form, what in ((None, ""), (record["forms"][-1], ", with one form,")):
                    with _not_pushed(form):
                        changed = list(zip(ours_now(), record[name], strict=False))
                    equal = sum(own == their for own, their in changed)
                    print(
                        f"  without the likeliest token of each beam{what} {equal} of "
                        f"{len(changed)} equal"
                    )
            for number, (own, their) in enumerate(pairs):
                if own != their and "," not in name:
                    print(f"  prompt {number}: {own} and {their}")


def _compare_scores(generator: Any, record: dict[str, Any], pairs: list[Any], tokens: int) -> None:
    """Print which texts hold the word, and have the higher mean log-probability."""
    higher = equal = lower = 0
    with_word = [0, 0]
    for ids, texts in zip(record["prompts"], pairs, strict=False):
        held = [any(_holds(text, form) for form in record["forms"]) for text in texts]
        with_word = [count + one for count, one in zip(with_word, held, strict=True)]
        own, their = (_score(generator, ids, text, record["ends"], tokens) for text in texts)
        higher += own > their + 1e-4
        lower += own < their - 1e-4
        equal += abs(own - their) <= 1e-4
    print(f"  the word is in {with_word[0]} of ours and {with_word[1]} of theirs")
    print(f"  the score of ours is higher in {higher}, equal in {equal}, lower in {lower}")


def _holds(text: list[int], form: list[int]) -> bool:
    return any(text[at : at + len(form)] == form for at in range(len(text)))


@torch.inference_mode()
def _score(generator: Any, prompt: list[int], text: list[int], ends: list[int], tokens: int) -> Any:
    """Return the mean log-probability of a text, with the likeliest end if it is not cut."""
    output = generator.model.network(torch.tensor([prompt + text]))
    logs = output.logits[0, len(prompt) - 1 :].float().log_softmax(-1)
    total = float(sum(logs[place, token] for place, token in enumerate(text)))
    if len(text) == tokens:
        return total / tokens
    return (total + float(logs[-1, ends].max())) / (len(text) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=("prompts", "write", "compare"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--only", nargs="*", choices=list(CHANGES), default=list(CHANGES))
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if given.part == "prompts":
        prompts(*given.paths, given.prompts)
    else:
        run = write if given.part == "write" else compare
        run(*given.paths, given.tokens, given.only, given.prompts)


if __name__ == "__main__":
    main()
