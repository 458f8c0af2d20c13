"""Draw the figures of docs/generation.md: what each strategy draws from, and a beam's tree.

python examples/decoding_figures.py [--model smollm2] [--out docs]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from idiolect.generate.beam import BeamStep, beam_search
from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.generator import Generator
from idiolect.generate.token_sampling import Sampling

PROMPT = "The patient was given"
RULES = {
    "all tokens": Sampling(),
    "temperature 0.7": Sampling(temperature=0.7),
    "top_k 5": Sampling(top_k=5),
    "top_p 0.5": Sampling(top_p=0.5),
    "min_p 0.1": Sampling(min_p=0.1),
    "typical_p 0.5": Sampling(typical_p=0.5),
    "eta_cutoff 0.02": Sampling(eta_cutoff=0.02),
}
SHOWN = 12


def main() -> None:
    """Draw both figures, and print the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    generator = Generator(arguments.model)
    ids = generator.model.tokenizer.encode(PROMPT)
    draw_distributions(generator, ids, arguments.out / "generation_distributions.png")
    draw_tree(generator, ids, arguments.out / "generation_beam.png")


def draw_distributions(generator: Generator, ids: list[int], path: Path) -> None:
    """Draw the probability of the likeliest tokens under each rule."""
    scores = Decoding(generator.model.network, torch.tensor([ids])).start()
    tokens = scores[0].topk(SHOWN).indices
    names = [generator.model.tokenizer.decode([token]) for token in tokens.tolist()]
    rows = {}
    for name, rule in RULES.items():
        shares = rule.filter(scores).softmax(-1)[0]
        rows[name] = shares[tokens]
        print(f"| {name} | {int((shares > 0).sum()):,} | {float(shares.max()):.3f} |")
    figure, axes = plt.subplots(1, len(rows), figsize=(14, 3.6), sharey=True, sharex=True)
    for axis, (name, shares) in zip(axes, rows.items(), strict=True):
        axis.barh(range(SHOWN), shares, color="#3b6ea5")
        axis.set_title(name, fontsize=9)
        axis.set_yticks(range(SHOWN), names, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.suptitle(f"The next token after “{PROMPT}”: its probability under each rule")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def draw_tree(generator: Generator, ids: list[int], path: Path, steps: int = 5) -> None:
    """Draw which continuations a beam of 3 looked at, and which it kept."""
    seen: list[BeamStep] = []
    options = GenerationOptions(num_beams=3, max_new_tokens=steps)
    decoding = Decoding(generator.model.network, torch.tensor([ids]))
    best = beam_search(decoding, [ids], [steps], options, eos_token_id=[], watch=seen.append)[0][0]
    figure, axis = plt.subplots(figsize=(14, 5))
    places: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, 0.0)}
    axis.text(0, 0, PROMPT, ha="center", va="center", fontsize=9)
    for depth, step in enumerate(seen, 1):
        for rank, (before, token, score) in enumerate(step.candidates):
            text = (*before, token)
            place = (depth, (len(step.candidates) - 1) / 2 - rank)
            kept = list(text) in step.kept or (depth == steps and rank < options.num_beams)
            chosen = list(text) == best.ids[:depth]
            colour = "#b3402a" if chosen else "#3b6ea5" if kept else "#b0b0b0"
            start = places[tuple(before)]
            axis.plot(
                [start[0] + 0.28, place[0] - 0.28],
                [start[1], place[1]],
                color=colour,
                lw=1.8 if chosen else 0.9,
            )
            label = f"{generator.model.tokenizer.decode([token])!r} {score:.2f}"
            axis.text(*place, label, ha="center", va="center", fontsize=8, color=colour)
            places[text] = place
    axis.set_xlim(-0.4, steps + 0.4)
    axis.set_axis_off()
    axis.set_title(
        "Beam search with 3 beams: looked at (grey), kept (blue), the result (red);"
        " sums of log-probabilities"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
