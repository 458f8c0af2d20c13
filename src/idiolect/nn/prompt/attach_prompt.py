"""Add virtual tokens to a network, and remove them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from idiolect.errors import ConfigError
from idiolect.nn.attention import Attention
from idiolect.nn.network import Network
from idiolect.nn.prompt.prompt_config import PromptConfig
from idiolect.nn.prompt.prompted_stack import read_prompt
from idiolect.nn.prompt.virtual_tokens import PrefixTokens, PromptTokens, VirtualTokens
from idiolect.nn.stack import Stack
from idiolect.nn.transformer import Transformer

__all__ = ["add_prompt", "prompt_of", "remove_prompt", "set_prompt"]


def add_prompt(network: Network, config: PromptConfig, *, seed: int = 0) -> VirtualTokens:
    """Add virtual tokens to a network, in place; its own weights are unchanged.

    Args:
        network: A decoder or an encoder.
        config: Kind, number and initialization of the virtual tokens.
        seed: Random seed of their initialization.

    Raises:
        ConfigError: The network already has a prompt, or does not support one.
    """
    transformer, stack = _prompted(network)
    if transformer.prompt is not None:
        raise ConfigError("the network already has a prompt", hint="remove_prompt first")
    generator = torch.Generator().manual_seed(seed)
    count = config.num_virtual_tokens
    like = torch.empty(0, dtype=network.dtype, device=network.device)
    heads, width = _key_shape(stack)
    layers = len(stack.layers)
    virtual: VirtualTokens
    if config.method == "prompt":
        rows = (
            torch.randn(count, network.config.hidden_size, generator=generator)
            if config.init == "random"
            else _token_rows(transformer, config, generator)
        )
        virtual = PromptTokens(rows.to(like))
    elif config.prefix_projection:
        hidden = config.encoder_hidden_size or heads * width
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            rows = torch.randn(count, heads * width).to(like)
            virtual = PrefixTokens(rows, key_heads=heads, layers=layers, hidden_size=hidden)
    else:
        rows = (
            torch.randn(count, layers * 2 * heads * width, generator=generator)
            if config.init == "random"
            else _token_prefix(transformer, stack, config, generator)
        )
        virtual = PrefixTokens(rows.to(like), key_heads=heads, layers=layers)
    transformer.prompt = virtual.train(network.training)
    return virtual


def set_prompt(network: Network, table: Tensor, *, prefix: bool) -> None:
    """Set a network's virtual tokens to given values, replacing existing ones.

    Shape: table (tokens, hidden size) of a prompt, (tokens, layers · 2 · key width) of a prefix.

    Raises:
        ConfigError: The table has the wrong shape, or the network does not support a prompt.
    """
    transformer, stack = _prompted(network)
    heads, width = _key_shape(stack)
    wanted = 2 * len(stack.layers) * heads * width if prefix else network.config.hidden_size
    if table.dim() != 2 or table.shape[1] != wanted or not len(table):
        raise ConfigError(
            f"the {'prefix' if prefix else 'prompt'} has the shape {tuple(table.shape)}, but the "
            f"network needs rows of {wanted} numbers",
            hint="use a prompt of this model",
        )
    table = table.to(dtype=network.dtype, device=network.device)
    transformer.prompt = (
        PrefixTokens(table, key_heads=heads, layers=len(stack.layers))
        if prefix
        else PromptTokens(table)
    ).train(network.training)


def prompt_of(network: nn.Module) -> VirtualTokens | None:
    """Return a network's virtual tokens, or None."""
    return network.prompt if isinstance(network, Transformer) else None


def remove_prompt(network: nn.Module) -> None:
    """Remove a network's virtual tokens, if it has any."""
    if isinstance(network, Transformer):
        network.prompt = None


def _prompted(network: Network) -> tuple[Transformer, Stack]:
    stack = network.encoder or network.decoder if isinstance(network, Transformer) else None
    if not isinstance(network, Transformer) or network.kind == "encoder-decoder" or stack is None:
        raise ConfigError(
            "only a Transformer encoder or decoder can have a prompt",
            hint="choose such a model, or LoRA",
        )
    return network, stack


def _key_shape(stack: Stack) -> tuple[int, int]:
    """Return the number of key/value heads, and their width."""
    attention = stack.layers[0].attention
    assert isinstance(attention, Attention)
    return attention.key_heads, attention.width


@torch.no_grad()
def _token_rows(
    transformer: Transformer, config: PromptConfig, generator: torch.Generator
) -> Tensor:
    """Return the token embeddings that initialize a prompt. (tokens, hidden size)."""
    count, size = config.num_virtual_tokens, transformer.config.vocab_size
    ids = torch.tensor(config.init_ids, dtype=torch.long)
    if not len(ids):
        ids = torch.randint(0, size, (count,), generator=generator)
    ids = ids.repeat(-(-count // len(ids)))[None, :count].to(transformer.device)
    transformer.check_ids(ids)
    # Without the shift that the network adds to every embedding; it is added in the forward pass.
    return transformer.scaled_rows(ids)[0]


@torch.no_grad()
def _token_prefix(
    transformer: Transformer, stack: Stack, config: PromptConfig, generator: torch.Generator
) -> Tensor:
    """Return the keys and values of real tokens. (tokens, layers · 2 · key width)."""
    rows = _token_rows(transformer, config, generator)
    was_training = stack.training
    stack.eval()
    shift = transformer.embedding_shift
    prefix = read_prompt(stack, rows if shift is None else rows + shift)
    stack.train(was_training)
    both = torch.stack([part for pair in prefix for part in pair])
    return both.permute(2, 0, 1, 3).flatten(1)
