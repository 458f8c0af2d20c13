"""Recurrent encoder-decoders. The layout of `config.json` is our own.

{"model_type": "seq2seq", "attention": "general", "input_feeding": true}
"""

from __future__ import annotations

from dataclasses import fields as fields_of
from typing import Any

from idiolect.models.family import Architecture, Family, Fields
from idiolect.models.weight_names import Rule
from idiolect.nn.seq2seq.seq2seq import Seq2Seq
from idiolect.nn.seq2seq.seq2seq_config import Seq2SeqConfig

__all__ = ["FAMILIES"]

_OWN = {
    field.name: field.default
    for field in fields_of(Seq2SeqConfig)
    if field.name not in ("vocab_size", "tasks", "tie_word_embeddings")
    and not field.name.endswith("_token_id")
}
_WEIGHTS = (
    "tokens.weight",
    *(
        f"{side}.{kind}_{of}_l{{n}}{direction}"
        for side in ("encoder", "decoder")
        for kind in ("weight", "bias")
        for of in ("ih", "hh")
        for direction in ("", "_reverse")
    ),
    "bridge.{n}.*",
    *(f"attention.score.{name}.weight" for name in ("query", "key", "value", "coverage", "place")),
    "attention.score.sharpness",
    "attention.centre.weight",
    "attention.centre_value.weight",
    "readout.*",
    "copy_gate.*",
    "heads.language.*",
)


def _configure(fields: Fields) -> dict[str, Any]:
    values = {name: fields.get(name, default) for name, default in _OWN.items()}
    return values | {
        "decoder_start_token_id": fields.get_int("decoder_start_token_id"),
        "eos_token_id": fields.get_int("eos_token_id"),
    }


def _make_config(*, num_labels: int, **values: Any) -> Seq2SeqConfig:
    """Build the configuration; no head of the family has labels."""
    return Seq2SeqConfig(**values)


FAMILIES = (
    Family(
        model_type="seq2seq",
        title="Seq2Seq",
        paper="Sutskever et al. 2014, 1409.3215; Bahdanau et al. 2015, 1409.0473",
        configure=_configure,
        rules=tuple(Rule(name, name) for name in _WEIGHTS),
        architectures={"Seq2SeqForTranslation": Architecture(tasks=("language",))},
        synonyms={"num_hidden_layers": "num_layers"},
        has_own_layout=True,
        network=Seq2Seq,
        make_config=_make_config,
    ),
)
