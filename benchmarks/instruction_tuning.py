"""Fine-tune SmolLM2 on Dolly's conversations: held-out loss, and instructions that rules can check.

    python benchmarks/instruction_tuning.py DATA OUT [--model smollm2] [--epochs 2] [--lr 2e-4]

DATA/sft has 1,000 conversations of Dolly and HH-RLHF; every tenth is held out. Adapters train; the
original embedding rows stay as they are, which is checked bit by bit. The held-out loss is that of
the answers, in nats a token. Afterwards both models answer 15 held-out questions under each of
eight instructions about the form of the answer, such as "in capital letters", by greedy search. The
rules are in the manner of IFEval (Zhou et al. 2023, 2311.07911), whose own prompts are not used.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from idiolect.alignment.chat.chat_encoding import (
    EncodedText,
    encode_conversation,
    encode_prompt,
)
from idiolect.alignment.chat.conversations import Conversation
from idiolect.alignment.chat.fine_tune import alignment_config, fine_tune
from idiolect.alignment.chat.supervised import SupervisedTuning
from idiolect.generate.generator import Generator
from idiolect.models.language_model import LanguageModel
from idiolect.nn.lora import LoraConfig

QUESTIONS, NEW_TOKENS, LONGEST_QUESTION = 15, 96, 200
MAX_LENGTH = 384
_INSTRUCTION = re.compile(r"### Instruction:\n(.*?)\n\n### Response:", re.DOTALL)
RULES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "capital letters": ("Answer in capital letters only.", str.isupper),
    "small letters": ("Answer in small letters only, without capitals.", str.islower),
    "at most 15 words": ("Answer in at most 15 words.", lambda text: 0 < len(text.split()) <= 15),
    "at least 40 words": ("Answer in at least 40 words.", lambda text: len(text.split()) >= 40),
    "no commas": ("Do not use any commas in your answer.", lambda text: "," not in text),
    "three bullet points": (
        "Answer with exactly three bullet points, each on a line that begins with *.",
        lambda text: len(re.findall(r"^\s*\* ", text, re.MULTILINE)) == 3,
    ),
    "quotation marks": (
        "Put your whole answer in double quotation marks.",
        lambda text: len(text) > 2 and text[0] == '"' and text[-1] == '"',
    ),
    "an ending": (
        'End your answer with the exact words "That is all."',
        lambda text: text.endswith("That is all."),
    ),
}


def read(data: Path) -> list[tuple[str, str]]:
    """Return instructions and answers."""
    raw = gzip.decompress((data / "sft" / "dolly_hhrlhf_train_small.jsonl.gz").read_bytes())
    pairs = []
    for record in map(json.loads, raw.decode("utf-8").splitlines()):
        found = _INSTRUCTION.search(record["prompt"])
        if found and record["response"].strip():
            pairs.append((found[1].strip(), record["response"].strip()))
    return pairs


def conversation(pair: tuple[str, str]) -> Conversation:
    """Return a conversation of one turn."""
    question, answer = pair
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Conversation(messages=turns)


def held_out_loss(model: LanguageModel, conversations: Sequence[Conversation]) -> float:
    """Return the mean loss of the answers' tokens, in nats."""
    texts = []
    for one in conversations:
        (text,) = encode_conversation(model.tokenizer, one, loss_on="completion")
        text = EncodedText(text.ids[:MAX_LENGTH], text.written[:MAX_LENGTH])
        if any(text.written[1:]):
            texts.append(text)
    rows = [[number] for number in range(len(texts))]
    pad_id = model.tokenizer.batch_pad_token_id or 0
    return SupervisedTuning(model.network, texts, rows, pad_id=pad_id).mean_loss(model.network)


def follows(model: LanguageModel, questions: Sequence[str]) -> dict[str, float]:
    """Return, for each rule, the share of answers that obey it."""
    generator, shares = Generator(model), {}
    for name, (instruction, obeys) in RULES.items():
        turns = ([{"role": "user", "content": f"{one} {instruction}"}] for one in questions)
        asked = [encode_prompt(model.tokenizer, one) for one in turns]
        answers = generator.generate(asked, max_new_tokens=NEW_TOKENS)
        shares[name] = sum(obeys(one.text.strip()) for one in answers) / len(answers)
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=2e-4)
    given = parser.parse_args()
    pairs = read(given.data)
    held_out = pairs[::10]
    train = [pair for number, pair in enumerate(pairs) if number % 10]
    asked = [conversation(pair) for pair in held_out]
    base, tuned = LanguageModel.load(given.model), LanguageModel.load(given.model)
    print(f"before training: held-out loss {held_out_loss(base, asked):.4f}", flush=True)
    tuned = fine_tune(
        tuned,
        [conversation(pair) for pair in train],
        output_dir=given.out / "run",
        epochs=given.epochs,
        validation=asked,
        packing=True,
        train="rows+lora",
        lora=LoraConfig(),
        config=alignment_config(
            max_length=MAX_LENGTH,
            batch_size=4,
            learning_rate=given.lr,
            precision="auto",
            eval_steps=50,
        ),
    )
    rows = base.network.tokens.weight, tuned.network.tokens.weight
    print(f"original rows identical: {torch.equal(*rows)}")
    for line in (given.out / "run" / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "validation_loss" in record:
            print(f"step {record['step']}: held-out loss {record['validation_loss']:.4f}")
    questions = [one for one, _ in held_out if len(one) <= LONGEST_QUESTION][:QUESTIONS]
    before, after = follows(base, questions), follows(tuned, questions)
    print(f"{len(questions)} questions\n| rule | SmolLM2 | after tuning |\n|---|--:|--:|")
    for name in RULES:
        print(f"| {name} | {before[name]:.2f} | {after[name]:.2f} |")
    means = (sum(found.values()) / len(RULES) for found in (before, after))
    print("| mean | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")


if __name__ == "__main__":
    main()
