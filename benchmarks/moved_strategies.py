"""Strategies that transformers 5 no longer has, beside transformers 4.55.4, on SmolLM2 in float32.

    python benchmarks/moved_strategies.py prompts FOLDER TEXTS.json      # with idiolect installed
    python benchmarks/moved_strategies.py write TEXTS.json               # with transformers 4.55.4
    python benchmarks/moved_strategies.py compare TEXTS.json             # with idiolect installed

Contrastive search, DoLa, diverse beams, and beams with a word that must occur. The middle command
runs in an environment of its own (`pip install torch transformers==4.55.4 gguf accelerate`). FOLDER
holds `harness/lambada_openai.jsonl.gz`; each prompt is 4 to 23 words of a passage. Prompts are
written one at a time: 4.55.4 chooses DoLa's layer for a whole batch, and we for each text.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

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
}


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
        "word": tokenizer.encode(WORD, **plain),
    }
    out.write_text(json.dumps(record))


def write(path: Path, tokens: int) -> None:
    """Add what transformers writes."""
    import transformers

    record = json.loads(path.read_text())
    file = Path(record["model"])
    model = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, torch_dtype=torch.float32
    ).eval()
    record["transformers"] = transformers.__version__
    for name, options in OPTIONS.items():
        given = options | ({"force_words_ids": [record["word"]]} if name == "words" else {})
        texts = []
        for ids in record["prompts"]:
            with torch.inference_mode():
                found = model.generate(
                    torch.tensor([ids]),
                    attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                    max_new_tokens=tokens,
                    do_sample=False,
                    eos_token_id=record["ends"],
                    pad_token_id=record["ends"][0],
                    **given,
                )[0, len(ids) :].tolist()
            # Groups and constraints write another end than the one that was found, so none is kept.
            ended = next((i for i, t in enumerate(found) if t in record["ends"]), len(found))
            texts.append(found[:ended])
        record[name] = texts
        path.write_text(json.dumps(record))
        print(f"{name}: {len(texts)} texts", flush=True)


def compare(path: Path, tokens: int) -> None:
    """Print how many of our texts are equal."""
    from idiolect.generate.generator import Generator

    record = json.loads(path.read_text())
    generator = Generator("smollm2")
    for name, options in OPTIONS.items():
        given = options | ({"force_words": [WORD.strip()]} if name == "words" else {})
        found = generator.generate(
            record["prompts"],
            max_new_tokens=tokens,
            eos_token_id=record["ends"],
            batch_size=1,
            **given,
        )
        ours = [[t for t in one.ids if t not in record["ends"]] for one in found]
        pairs = list(zip(ours, record[name], strict=True))
        equal = sum(own == their for own, their in pairs)
        print(f"{name}: {equal} of {len(pairs)} equal those of {record['transformers']}")
        for number, (own, their) in enumerate(pairs):
            if own != their:
                print(f"  prompt {number}: {own} and {their}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=("prompts", "write", "compare"))
    parser.add_argument("paths", type=Path, nargs="+")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if given.part == "prompts":
        prompts(*given.paths, given.prompts)
    else:
        (write if given.part == "write" else compare)(*given.paths, given.tokens)


if __name__ == "__main__":
    main()
