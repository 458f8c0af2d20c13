"""Small models, and groups that such can learn to rank."""

from __future__ import annotations

import random
from typing import Any

from idiolect.encoding.encoder import Encoder
from idiolect.models.language_model import LanguageModel
from idiolect.ranking.groups import QueryGroup
from training import models

WORDS = models.OLD[len(models.SPECIAL) :]
GOOD, BAD, OTHER = WORDS[:4], WORDS[4:8], WORDS[8:]


def model(model_type: str = "bert", **options: Any) -> LanguageModel:
    return models.model(model_type, grown=False, **options)


def encoder(model_type: str = "bert", **options: Any) -> Encoder:
    return Encoder(model(model_type), **options)


def groups(count: int = 24, *, documents: int = 4, seed: int = 0) -> list[QueryGroup]:
    """The first document, the right one, begins with a good word; the others do not."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        firsts = [draw.choice(GOOD), *draw.choices(BAD, k=documents - 1)]
        texts = tuple(f"{word} {draw.choice(OTHER)}" for word in firsts)
        made.append(QueryGroup(draw.choice(OTHER), texts, (1.0, *(0.0 for _ in firsts[1:]))))
    return made


def share_first(score: Any, chosen: list[QueryGroup]) -> float:
    """How many groups have their right document, which stands first, on top."""
    tops = [
        int(score([(group.query, text) for text in group.documents]).argmax()) for group in chosen
    ]
    return tops.count(0) / len(tops)
