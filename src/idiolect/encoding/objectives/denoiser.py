"""A text written again from one vector of its damaged self (TSDAE, Wang et al. 2021, 2104.06979).

The decoder reads nothing of the text but that vector, so whatever it needs has to be in it:

    text            he took metformin daily
    damaged         took daily                  most words are taken away
    encoder    ──►  one vector
    decoder    ──►  he took metformin daily     each token from those before it, and the vector

Its layers are the encoder's own, read from left to right; only the attention to the vector is new,
and is thrown away afterwards.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.heads import LanguageHead
from idiolect.nn.layer import Layer
from idiolect.nn.stack import Stack
from idiolect.nn.transformer import Transformer
from idiolect.training.objectives.cross_entropy import cross_entropy, vocabulary_blocks

__all__ = ["Denoiser", "damage"]


def damage(words: list[str], chance: list[float], *, share: float = 0.6) -> list[str]:
    """Take words away; the one with the greatest chance always stays.

    >>> damage(["he", "took", "metformin"], [0.2, 0.9, 0.7])
    ['took', 'metformin']

    Args:
        words: The words of a text.
        chance: A number from 0 to 1 for each; those below `share` go.
        share: How many go, on average.
    """
    most = max(chance, default=0.0)
    return [word for word, one in zip(words, chance, strict=True) if one >= min(share, most)]


class Denoiser(nn.Module):
    """The decoder: a network's own layers, and attention to a vector between them.

    Args:
        network: Its side that reads texts lends its layers; they are shared and not copied.
    """

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        own = network.encoder or network.decoder
        assert own is not None
        config = network.config
        self.stack = Stack(config, layers=len(own.layers), causal=True, cross=True)
        self.head: LanguageHead | None = None
        if "language" not in network.heads:
            self.head = LanguageHead(
                replace(config, tied=True, head_transform=True, head_bias=False)
            )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        self.stack.table, self.stack.embedding_norm = own.table, own.embedding_norm
        self.stack.final_norm = own.final_norm
        for layer, shared in zip(self.stack.layers, own.layers, strict=True):
            assert isinstance(layer, Layer)
            assert isinstance(shared, Layer)
            layer.attention, layer.attention_norm = shared.attention, shared.attention_norm
            layer.feed_forward = shared.feed_forward
            layer.feed_forward_norm = shared.feed_forward_norm

    def loss(self, network: Transformer, ids: Tensor, mask: Tensor, vectors: Tensor) -> Tensor:
        """Return the cross-entropy summed over the tokens that have one before them.

        Shape: ids and mask (texts, length), vectors (texts, width).
        """
        hidden = network.decode(self.stack, ids[:, :-1], mask[:, :-1], memory=vectors[:, None])
        wanted = mask[:, 1:]
        states, targets = hidden[wanted], ids[:, 1:][wanted]
        if self.head is None:
            head = network.heads["language"]
            assert isinstance(head, LanguageHead)
            return cross_entropy(head.transform(states), targets, vocabulary_blocks(network))
        rows = network.tokens.weight
        weights = rows.blocks() if isinstance(rows, ExtendedRows) else [rows]
        return cross_entropy(
            self.head.transform(states), targets, [(weight, None) for weight in weights]
        )
