"""Teach a language model your domain's words, then search, rank and recommend with it.

This module exports the public API. Each name is imported on first use (PEP 562), which keeps
``import idiolect`` fast.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder
    from idiolect.encoding.tune import tune
    from idiolect.generate.generator import Generator
    from idiolect.models.language_model import LanguageModel
    from idiolect.pipeline.publishing.push_to_hub import push_to_hub
    from idiolect.ranking.cross_encoder import CrossEncoder
    from idiolect.ranking.evaluation.metrics import evaluate
    from idiolect.ranking.two_tower import TwoTower
    from idiolect.recommend.recommender import Recommender
    from idiolect.search.index import Index
    from idiolect.search.items import Item
    from idiolect.serve.client import Client
    from idiolect.text.corpus import Corpus
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.training.pretrain import pretrain
    from idiolect.training.training_config import TrainingConfig
    from idiolect.vocabulary.audit.audit import audit
    from idiolect.vocabulary.extend.extend import extend
    from idiolect.vocabulary.rows.distill import distill
    from idiolect.words.word_vectors import WordVectors

__version__ = "0.1.0"

# Settings of libraries, which read them when they are loaded. What a user has set is kept.
# Torch: large tensors are in huge pages; in small ones, a processor reads weights more slowly.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# OpenMP: a waiting thread spins for about 0.1 ms before it sleeps, instead of several. Spinning
# takes the processor from those it waits for: on a busy machine, training took three times as long.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

_MODULES = {
    "Client": "idiolect.serve.client",
    "Corpus": "idiolect.text.corpus",
    "CrossEncoder": "idiolect.ranking.cross_encoder",
    "Encoder": "idiolect.encoding.encoder",
    "Generator": "idiolect.generate.generator",
    "Index": "idiolect.search.index",
    "Item": "idiolect.search.items",
    "LanguageModel": "idiolect.models.language_model",
    "Recommender": "idiolect.recommend.recommender",
    "TrainingConfig": "idiolect.training.training_config",
    "Tokenizer": "idiolect.text.tokenizers.tokenizer",
    "TwoTower": "idiolect.ranking.two_tower",
    "WordVectors": "idiolect.words.word_vectors",
    "audit": "idiolect.vocabulary.audit.audit",
    "distill": "idiolect.vocabulary.rows.distill",
    "evaluate": "idiolect.ranking.evaluation.metrics",
    "extend": "idiolect.vocabulary.extend.extend",
    "pretrain": "idiolect.training.pretrain",
    "push_to_hub": "idiolect.pipeline.publishing.push_to_hub",
    "tune": "idiolect.encoding.tune",
}

__all__ = [
    "Client",
    "Corpus",
    "CrossEncoder",
    "Encoder",
    "Generator",
    "Index",
    "Item",
    "LanguageModel",
    "Recommender",
    "Tokenizer",
    "TrainingConfig",
    "TwoTower",
    "WordVectors",
    "__version__",
    "audit",
    "distill",
    "evaluate",
    "extend",
    "pretrain",
    "push_to_hub",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first access."""
    if name not in _MODULES:
        raise AttributeError(f"module 'idiolect' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
