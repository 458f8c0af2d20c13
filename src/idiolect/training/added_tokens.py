"""Add the special tokens that an objective needs and a model lacks: mask, sentinels, end of text.

They get new rows, sampled around the mean of the existing ones. The original rows are unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import tokenizers
import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from idiolect.errors import CheckpointError
from idiolect.models.language_model import LanguageModel
from idiolect.models.registry import find_family
from idiolect.nn.embedding import joined_rows
from idiolect.nn.network import Network
from idiolect.text.tokenizers.extension import Added
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["add_tokens", "new_model", "with_special_tokens"]

_ROLES = {"<mask>": "mask_token", "</s>": "eos_token", "<pad>": "pad_token"}


def new_model(settings: Mapping[str, Any], tokenizer: Tokenizer, *, seed: int = 0) -> LanguageModel:
    """Create an untrained model whose special ids are those of its tokenizer.

    For an encoder-decoder, padding and end-of-text tokens are added to the tokenizer if it has
    none, because the decoder starts with one of them.

    Args:
        settings: The fields of a `config.json`, as for `LanguageModel.new`.
        tokenizer: The tokenizer.
        seed: Random seed of the weights.

    Raises:
        ConfigError: The settings are not supported.
    """
    kind = find_family(settings).kind
    if kind == "causal":
        return LanguageModel.new(settings, tokenizer, seed=seed)
    if kind == "encoder-decoder":
        end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
        missing = ["<pad>"] if padding in (None, end) else []
        tokenizer = with_special_tokens(tokenizer, [*missing, *(["</s>"] if end is None else [])])
    roles = {f"{role}_token_id": tokenizer.token_id(role) for role in ("pad", "bos", "eos")}
    known = {name: id_ for name, id_ in roles.items() if id_ is not None}
    return LanguageModel.new({**known, **settings}, tokenizer, seed=seed)


def with_special_tokens(tokenizer: Tokenizer, names: Sequence[str]) -> Tokenizer:
    """Return a tokenizer with more special tokens, whose ids follow the existing ones.

    Raises:
        CheckpointError: The tokenizer cannot assign these ids.
    """
    if not names:
        return tokenizer
    engine = tokenizers.Tokenizer.from_str(tokenizer.engine.to_str())
    engine.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    ids = range(len(tokenizer), len(tokenizer) + len(names))
    if [engine.token_to_id(name) for name in names] != list(ids):
        raise CheckpointError(
            f"the tokenizer has unused ids, so {names[0]} cannot be added after them",
            hint="learn a tokenizer that has it",
        )
    settings = dict(tokenizer.settings)
    for name in names:
        if name in _ROLES:
            settings[_ROLES[name]] = name
    extra = settings.get("additional_special_tokens")
    listed = list(extra) if isinstance(extra, list) else []
    if more := [name for name in names if name not in _ROLES]:
        settings["additional_special_tokens"] = [*listed, *more]
    record = tokenizer.extension
    if record is not None:
        added = (Added(id_, name, (), "part") for id_, name in zip(ids, names, strict=True))
        record = replace(record, added=(*record.added, *added))
    return Tokenizer.from_engine(engine, settings, record)


def add_tokens(
    model: LanguageModel, names: Sequence[str], *, seed: int = 0, frozen: bool = True
) -> LanguageModel:
    """Return a model with more special tokens; its network gets new rows, in place.

    Args:
        model: The model.
        names: The tokens.
        seed: Random seed of the rows.
        frozen: Keep the original rows separate and frozen, as for a published model. Otherwise all
            rows become one matrix.

    Raises:
        CheckpointError: The tokenizer cannot assign ids to the tokens.
    """
    tokenizer = with_special_tokens(model.tokenizer, names)
    first, network = len(model.tokenizer), model.network
    generator = torch.Generator().manual_seed(seed)
    added = {}
    for name, rows in network.vocabulary_rows().items():
        known = joined_rows(rows)[:first].detach().float().cpu()
        spread = known.std(0) * torch.randn(len(names), *known.shape[1:], generator=generator)
        drawn = known.mean(0) + (spread if known.dim() > 1 else 0.0 * spread)
        added[name] = drawn.to(network.device)
    if frozen:
        network.add_rows(first, added)
    else:
        _append_rows(network, first, added)
    return model.with_changes(tokenizer=tokenizer)


@torch.no_grad()
def _append_rows(network: Network, first: int, added: dict[str, Tensor]) -> None:
    """Append rows after the first `first` ones, as one trainable matrix."""
    for name, rows in network.vocabulary_rows().items():
        whole = torch.cat([joined_rows(rows)[:first], added[name].to(network.dtype)])
        if name == "tokens.weight":
            padding = network.padding_row
            network.tokens = nn.Embedding(
                len(whole), whole.shape[1], padding_idx=padding, _weight=whole
            )
        else:
            head, tensor = network.language_head, name.rpartition(".")[2]
            delattr(head, tensor)
            setattr(head, tensor, nn.Parameter(whole))
    network.config = replace(network.config, vocab_size=len(network.tokens.weight))
