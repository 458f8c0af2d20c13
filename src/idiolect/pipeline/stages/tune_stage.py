"""The stage `tune`: train the encoder on pairs of texts that belong together."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from pydantic import Field, field_validator

# Registers the objectives of `tune`.
import idiolect.encoding.objectives  # noqa: F401
from idiolect.errors import ConfigError, InputError
from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import Control, Stage, Work
from idiolect.pipeline.stage_models import is_encoder, load_encoder, needs_whitening
from idiolect.pipeline.systems import MeasuredSystem
from idiolect.pipeline.training_summary import SAVE_STEPS, summarize_training
from idiolect.text.files import read_json, read_text, write_atomic
from idiolect.training.objectives.objective_registry import find_objective

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.pairs import Pair
    from idiolect.pipeline.data import Data

__all__ = [
    "STAGE",
    "TuneMetrics",
    "TuneSettings",
    "held_out_queries",
    "items_trained_on",
    "tune",
    "without_tests",
]

_HELD_OUT_PAIRS = "kept.jsonl"
"""File of the held-out queries with their relevant items, in the stage's folder."""
_TRAINED_ON = "trained_on.json"
"""File of the ids of the items in training pairs, in the stage's folder."""
_MAXIMUM_HELD_OUT = 200
_ENCODER_RATE, _MODEL_RATE = 2e-5, 5e-4


class TuneSettings(SettingsTable):
    """Contrastive training on pairs, or on the items' texts alone."""

    objective: str | None = None
    """Train on the items' texts with this objective, such as `crops`, `titles` or `headings`, even
    if there are pairs; see `idiolect tune encoder --help`."""

    steps: int = Field(default=200, ge=1)
    """Number of training steps."""
    train: Literal["rows", "rows+lora", "body", "all"] = "all"
    """Which parameters train: the added rows, these and adapters, everything except the
    vocabulary's rows, or everything except the original rows. With `rows`, an encoder without
    layers keeps the language model's rows and learns a projection instead."""
    batch_size: int | None = Field(default=None, ge=2)
    """Pairs per step; the documents of the other pairs are negatives (in-batch negatives). By
    default 32, and 512 for an encoder without layers."""
    max_length: int | None = Field(default=None, ge=8)
    """Maximum tokens per text in training; by default the encoder's own limit."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """By default 2e-5 for a base that was published as an encoder, otherwise 5e-4; 1e-2 for an
    encoder without layers."""
    dimensions: tuple[int, ...] = ()
    """Shorter vector sizes to train for (Matryoshka)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Numeric format of matrix products; `auto` measures which is faster."""

    @field_validator("objective")
    @classmethod
    def _check_objective(cls, name: str | None) -> str | None:
        if name is not None and find_objective("tune", name).data != "text":
            raise ValueError(f"{name!r} does not train on text alone")
        return name


class TuneMetrics(TypedDict):
    """Metrics of the stage."""

    pairs: int
    supervised: bool
    """False without pairs: parts of the same text are then used as positive pairs."""
    notes: list[str]
    """Notes for readers."""
    steps: int
    loss_first: float
    loss_last: float
    left_out: int
    """Pairs left out because they occur in the tests."""
    kept_apart: int
    """Held-out queries, used to choose the index's encoder and to fit hybrid search."""
    items_trained_on: int
    """Items of the catalogue that occur in training pairs."""


def tune(work: Work[TuneSettings]) -> TuneMetrics:
    """Train the encoder.

    Without pairs, the titles and texts of items are used as pairs; without titles, the encoder is
    trained on texts alone.
    """
    from idiolect.encoding.pairs import PairTable

    data = work.data
    given = data.pairs() if data.settings.pairs else data.title_pairs()
    pairs, left_out = without_tests(given, data)
    notes = []
    if not data.settings.pairs:
        source = "titles and texts of the items" if pairs else "the items' texts alone"
        notes.append(f"no pairs were given, so the encoder was tuned on {source}")
    elif not pairs:
        raise InputError(
            f"all {left_out} pairs of {data.settings.pairs} occur in the tests",
            hint="add pairs whose queries are not in the tests",
        )
    pairs, kept = _hold_out(pairs, data, work.config.seed)
    lines = [json.dumps(question, ensure_ascii=False) + "\n" for question in kept.items()]
    write_atomic(work.folder / _HELD_OUT_PAIRS, "".join(lines).encode())
    if work.settings.objective:
        notes = [f"tuned on the items' texts alone, with the objective {work.settings.objective}"]
        pairs = []
    seen = _items_of(pairs, data) if data.settings.pairs else []
    write_atomic(
        work.folder / _TRAINED_ON, json.dumps({"items": seen}, ensure_ascii=False).encode()
    )
    _train(work, pairs)
    curve = summarize_training(work.folder)
    return {
        "pairs": len(PairTable.of(pairs)) if pairs else 0,
        "supervised": bool(data.settings.pairs and pairs),
        "notes": notes,
        "steps": curve["steps"],
        "loss_first": curve["loss_first"],
        "loss_last": curve["loss_last"],
        "left_out": left_out,
        "kept_apart": len(kept),
        "items_trained_on": len(seen),
    }


def held_out_queries(folder: Path) -> dict[str, list[str]]:
    """Return the held-out queries, each with the ids of its relevant items.

    Args:
        folder: The folder of the stage, or of one of its controls, which hold out the same queries.
    """
    # Not `splitlines`: a query may contain other line breaks, such as U+2028.
    lines = read_text(folder / _HELD_OUT_PAIRS).split("\n")
    return dict(json.loads(line) for line in lines if line)


def items_trained_on(folder: Path) -> set[str]:
    """Return the ids of the items that occur in training pairs.

    Args:
        folder: As in `held_out_queries`.
    """
    return set(read_json(folder / _TRAINED_ON)["items"])


def _train(work: Work[TuneSettings], pairs: list[Pair]) -> None:
    """Train on pairs, or on the items' texts if there are none."""
    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.encoding.tune import tune as train_on_pairs
    from idiolect.encoding.tune_on_text import tune_on_text

    settings = work.settings
    choose = work.config.encoder.layers == "auto"
    if choose and not pairs:
        raise ConfigError(
            "layers cannot be chosen without pairs", hint="set encoder.layers to a number or all"
        )
    encoder = load_encoder(work, work.model, whole=choose)
    given: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "max_length": settings.max_length or encoder.max_length,
    }
    adapted = settings.train in ("rows", "rows+lora")  # decides the learning rates
    if not (choose or adapted or encoder.model.network.context_free):
        given["learning_rate"] = settings.learning_rate or (
            _ENCODER_RATE if is_encoder(work.base) else _MODEL_RATE
        )
    config = {
        **{name: value for name, value in given.items() if value is not None},
        "precision": settings.precision,
        "save_steps": SAVE_STEPS,
        "seed": work.config.seed,
    }
    if pairs:
        train_on_pairs(
            encoder,
            pairs,
            output_dir=work.folder,
            layers="auto" if choose else None,
            dimensions=settings.dimensions,
            whiten=needs_whitening(work),
            steps=settings.steps,
            train=settings.train,
            config=config,
            counts=EncodingCounts(),  # the metrics of the index count truncated texts
        )
    else:
        tune_on_text(
            encoder,
            work.data.texts.values(),
            output_dir=work.folder,
            objective=settings.objective or _objective_for(encoder),
            whiten=needs_whitening(work),
            steps=settings.steps,
            train=settings.train,
            config=config,
        )


def _objective_for(encoder: Encoder) -> str:
    network = encoder.model.network
    if network.context_free:  # neither dropout nor a decoder would teach it anything
        return "crops"
    return "simcse" if network.config.dropout else "tsdae"


def without_tests(pairs: list[Pair], data: Data) -> tuple[list[Pair], int]:
    """Leave out pairs that occur in the tests, ignoring case and spaces.

    Returns:
        The remaining pairs, and the number of pairs left out.
    """
    tested = {_plain(text) for text in data.queries.values()}
    texts = {name: _plain(text) for name, text in data.texts.items()}
    alike = {
        (texts[one], texts[other])
        for one, grades in data.similar.items()
        for other in grades
        if one in texts and other in texts
    }
    kept = [
        pair
        for pair in pairs
        if (query := _plain(pair.query)) not in tested
        and (query, document := _plain(pair.document)) not in alike
        and (document, query) not in alike
    ]
    return kept, len(pairs) - len(kept)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _hold_out(pairs: list[Pair], data: Data, seed: int) -> tuple[list[Pair], dict[str, list[str]]]:
    """Hold out some items, with the queries that they answer.

    Items are held out, not queries: in training, an encoder learns an item, and would then find it
    too easily for its other queries. Only pairs of a query and an item can be held out, not pairs
    of two items.
    """
    ids = {text: name for name, text in data.texts.items()}
    answering = sorted({p.document for p in pairs if p.query not in ids and p.document in ids})
    count = min(_MAXIMUM_HELD_OUT, len(answering) // 10)
    chosen = set(random.Random(seed).sample(answering, count))
    kept: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.document in chosen and pair.query not in ids:
            kept.setdefault(pair.query, []).append(ids[pair.document])
    left = [pair for pair in pairs if pair.document not in chosen and pair.query not in kept]
    return left, kept


def _items_of(pairs: list[Pair], data: Data) -> list[str]:
    """Return the ids of the items whose texts occur in pairs."""
    texts = {text for pair in pairs for text in (pair.query, pair.document)}
    return [name for name, text in data.texts.items() if text in texts]


def _control(name: str, label: str) -> MeasuredSystem:
    return MeasuredSystem(name=name, label=label, control=True, finished=True)


STAGE = Stage(
    name="tune",
    run=tune,
    settings=TuneSettings,
    metrics=TuneMetrics,
    inputs=("items", "pairs", "queries", "similar"),
    shared=("encoder",),
    model_from="pretrain",
    systems=(
        MeasuredSystem(
            name="tuning",
            label="+ tuning",
            finished=True,
            against=("pretraining", "base", "bm25", "plain.tuning", "random.tuning"),
        ),
    ),
    controls=(
        Control(
            name="plain",
            model_from="plain.pretrain",
            systems=(_control("plain.tuning", "no new tokens, tuned"),),
        ),
        Control(
            name="random",
            model_from="random.pretrain",
            systems=(_control("random.tuning", "random tokens, tuned"),),
        ),
    ),
)
