"""How the weights of a new Transformer begin."""

from __future__ import annotations

import torch
from torch import nn

from idiolect.nn.basic import RMSNorm
from idiolect.nn.config import TransformerConfig

__all__ = ["init_parameters"]

_STD = 0.02


@torch.no_grad()
def init_parameters(network: nn.Module, config: TransformerConfig, seed: int) -> None:
    """Initialize all weights, reproducibly for a seed. Norms multiply by one, biases are zero.

    Matrices are normal with standard deviation 0.02. The last matrix of each residual branch has
    0.02 / √(2·layers), so that the sum over the branches does not grow with their number (Radford
    et al. 2019).

    In an encoder-decoder whose norms follow the sums, the sum cannot grow, and a branch that begins
    small hardly counts beside it: small translators then never learn to attend to their source.
    Their layers begin as the original Transformer's did, uniform with the variance of Glorot &
    Bengio (2010), and rows that are multiplied by √width on their way in with the size of a
    position's sinusoids.

    Args:
        network: The network.
        config: Its configuration.
        seed: Random seed.
    """
    layers = config.num_encoder_layers + config.num_decoder_layers
    both = bool(config.num_encoder_layers and config.num_decoder_layers)
    is_original = both and config.norm_placement == "after_sum"
    rows_std = 1 / config.embedding_scale if is_original and config.embedding_scale > 1 else _STD
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for name, parameter in network.named_parameters():
            if parameter.dim() < 2:
                norm = "norm" in name and name.endswith("weight")
                owner = network.get_submodule(name.rpartition(".")[0])
                offset = owner.offset if isinstance(owner, RMSNorm) else 0.0
                parameter.fill_(1.0 - offset if norm else 0.0)
            elif is_original and ".layers." in name:
                nn.init.xavier_uniform_(parameter)
            elif name == "tokens.weight":
                parameter.normal_(std=rows_std)
            else:
                ends = name.endswith((".output.weight", ".down.weight")) and ".layers." in name
                parameter.normal_(std=_STD / (2 * layers) ** 0.5 if ends else _STD)
