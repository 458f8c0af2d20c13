"""Published translation models by name, as `config.json` fields, with sizes for a small corpus."""

from __future__ import annotations

from typing import Any

__all__ = ["TRANSLATORS"]

TRANSLATORS: dict[str, dict[str, Any]] = {
    # Sutskever et al. 2014: a deep LSTM, the source reversed, no attention.
    "sutskever": {
        "model_type": "seq2seq",
        "num_layers": 2,
        "reverse_source": True,
        "dropout": 0.3,
    },
    # Bahdanau et al. 2015: bidirectional encoder; additive score, the query is the previous state.
    "bahdanau": {
        "model_type": "seq2seq",
        "cell": "gru",
        "bidirectional": True,
        "attention": "additive",
        "query": "previous",
        "dropout": 0.3,
    },
    # Luong et al. 2015: the current state is the query of a bilinear score; input feeding.
    "luong": {
        "model_type": "seq2seq",
        "num_layers": 2,
        "attention": "general",
        "input_feeding": True,
        "dropout": 0.3,
    },
    # See et al. 2017: copies of source tokens, and coverage.
    "pointer": {
        "model_type": "seq2seq",
        "bidirectional": True,
        "attention": "additive",
        "copy": True,
        "coverage_loss": 1.0,
        "dropout": 0.3,
    },
    # Vaswani et al. 2017, in the size of Transformer-tiny (Wu et al. 2021, 2105.14462).
    "transformer": {
        "model_type": "transformer",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_encoder_layers": 4,
        "num_decoder_layers": 4,
        "dropout": 0.3,
    },
}
