"""One helper for every family: a tiny random model of `transformers`, and what it must agree on.

The reference's weights are randomised all over: fresh models have norms of one and biases of zero,
and a network that forgot them would agree with such a model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from idiolect.models.family import Fields
from idiolect.models.network_files import export_weights, read_network
from idiolect.models.registry import FAMILIES
from idiolect.nn.transformer import Transformer

VOCABULARY = 97
LENGTHS = (9, 5, 7)
TOLERANCE = 1e-5

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_labels": 3,
    # BERT and its kin
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    # XLM
    "emb_dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    # DistilBERT
    "dim": 32,
    "hidden_dim": 48,
    # GPT
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    # Llama
    "num_key_value_heads": 2,
    "head_dim": 8,
    # T5, BART, XGLM
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "attention_heads": 4,
    "ffn_dim": 48,
    # ids that exist in so small a vocabulary
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
}


@dataclass
class Reference:
    """A saved model of `transformers` and the same one loaded here."""

    model: Any
    network: Transformer
    settings: dict[str, Any]
    directory: Path

    @property
    def pad(self) -> int:
        return 1


def make(directory: Path, model_type: str, architecture: str, **fields: Any) -> Reference:
    """Build the reference, save it and load it here."""
    torch.manual_seed(hash_of(architecture))
    known = transformers.AutoConfig.for_model(model_type)
    names = set(known.to_dict()) | set(known.attribute_map.values()) | {"num_labels"}
    if known.is_encoder_decoder:
        names.add("decoder_start_token_id")
    shape = {k: v for k, v in _SHAPE.items() if k in names}
    config = type(known)(**shape | fields)
    model = getattr(transformers, architecture)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and ("norm" in name.lower() or ".ln_" in name):
                parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.3)
            elif parameter.dim() == 1:
                parameter.normal_(0.0, 0.3)
            else:
                parameter.normal_(0.0, 0.15)
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.normal_()
    model.eval()
    model.save_pretrained(directory)
    settings = json.loads((directory / "config.json").read_text())
    return Reference(model, read_network(directory, settings), settings, directory)


def hash_of(text: str) -> int:
    """A seed from a name, the same in every process."""
    return sum(map(ord, text))


def batch(*, pad: int = 1, seed: int = 0, end: int | None = None) -> tuple[Tensor, Tensor]:
    """Random texts of several lengths, padded on the right. Shape: two of (3, 9)."""
    torch.manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (len(LENGTHS), max(LENGTHS)))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
        if end is not None:
            ids[row, length - 1] = end
    return ids.masked_fill(mask == 0, pad), mask


def assert_close(ours: Tensor, theirs: Tensor, mask: Tensor | None = None) -> None:
    """Compare, at real tokens only; relative to the reference's largest value."""
    assert ours.shape == theirs.shape
    if mask is not None:
        ours, theirs = ours[mask > 0], theirs[mask > 0]
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error < TOLERANCE, f"relative error {error:.1e}"


def assert_round_trip(reference: Reference) -> dict[str, Tensor]:
    """Every tensor of the checkpoint comes back bit for bit, and no other."""
    from safetensors.torch import load_file

    stored = load_file(reference.directory / "model.safetensors")
    exported = export_weights(reference.network, reference.settings)
    assert set(exported) == set(stored)
    for name, tensor in stored.items():
        assert torch.equal(exported[name], tensor), name
    return exported


def known_settings(model_type: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without those that a layout of our own would refuse as misspelt."""
    family, fields = FAMILIES[model_type], Fields({})
    if not family.has_own_layout:
        return settings
    family.configure(fields)
    known = {*fields.asked, "vocab_size"}
    return {k: v for k, v in settings.items() if k in known or k.endswith("_token_id")}
