"""Word vectors as a model for `Encoder`: a static model whose tokens are words.

A text's vector is the mean of its words' vectors. With `sif`, words have the weight a / (a +
p(word)), and the common direction of all texts is removed (Arora, Liang and Ma 2017, "A simple but
tough-to-beat baseline for sentence embeddings").
"""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Regex
from tokenizers import Tokenizer as Engine
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Split

from idiolect.models.language_model import LanguageModel
from idiolect.nn.static_network import StaticNetwork
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.words.word_stream import WORD_PATTERN
from idiolect.words.word_vectors import WordVectors

__all__ = ["word_model"]

_SIF = 1e-3
_UNKNOWN = "[UNK]"


def word_model(vectors: WordVectors, *, sif: bool = False) -> LanguageModel:
    """Make a static model of word vectors; `Encoder(word_model(vectors))` can be indexed and tuned.

    Unknown words have a vector of zeros and weight zero.

    Args:
        vectors: The vectors.
        sif: Weight words by their rarity, and remove the common direction of the word vectors,
            computed with frequency weights. Without counts, frequency is estimated from the rank
            (Zipf's law).
    """
    rows = np.concatenate([np.zeros((1, vectors.dimensions), np.float32), vectors.vectors])
    weights = np.ones(len(rows), np.float32)
    weights[0] = 0
    if sif:
        counts = vectors.counts
        seen = 1 / np.arange(1, len(vectors) + 1) if counts is None else counts.astype(float)
        share = seen / max(1e-12, seen.sum())
        weights[1:] = _SIF / (_SIF + share)
        weighted = vectors.vectors * np.sqrt(weights[1:] * share)[:, None]
        common = np.linalg.eigh((weighted.T @ weighted).astype(np.float64))[1][:, -1]
        rows = rows - np.outer(rows @ common, common).astype(np.float32)
    engine = Engine(
        WordLevel({_UNKNOWN: 0, **{word: i + 1 for i, word in enumerate(vectors.words)}}, _UNKNOWN)
    )
    engine.normalizer = Lowercase()
    engine.pre_tokenizer = Split(Regex(WORD_PATTERN), "removed", invert=True)
    engine.add_special_tokens([_UNKNOWN])
    settings = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "hidden_dim": vectors.dimensions,
        "normalize": True,
    }
    model = LanguageModel.new(settings, Tokenizer.from_engine(engine))
    network = model.network
    assert isinstance(network, StaticNetwork)
    network.tokens.weight.data = torch.from_numpy(np.ascontiguousarray(rows, np.float32))
    network.token_weights.values.data = torch.from_numpy(weights)
    return model
