"""The decoder of TSDAE: it reconstructs a text from one vector (Wang et al. 2021, 2104.06979).

    text            he took metformin daily
    damaged         took daily                  most words deleted
    encoder    ──►  one vector
    decoder    ──►  he took metformin daily     each token from the tokens before it and the vector

The decoder sees the damaged text only through the vector, so the vector must contain what the
decoder needs. The decoder uses the encoder's layers with causal attention. Only the cross-attention
to the vector is new, and it is discarded after training.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from idiolect.errors import InputError
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.heads import LanguageHead
from idiolect.nn.layer import Layer
from idiolect.nn.network import Network
from idiolect.nn.stack import Stack
from idiolect.nn.transformer import Transformer
from idiolect.training.objectives.cross_entropy import cross_entropy, vocabulary_blocks

__all__ = ["Denoiser", "damage"]


def damage(words: list[str], draws: list[float], *, share: float = 0.6) -> list[str]:
    """Delete words at random; the word with the highest draw is always kept.

    >>> damage(["he", "took", "metformin"], [0.2, 0.9, 0.7])
    ['took', 'metformin']

    Args:
        words: The words of a text.
        draws: A uniform number from 0 to 1 for each word; words below `share` are deleted.
        share: Share of deleted words, on average.
    """
    highest = max(draws, default=0.0)
    return [word for word, one in zip(words, draws, strict=True) if one >= min(share, highest)]


class Denoiser(nn.Module):
    """A network's own layers with cross-attention to a vector.

    Args:
        network: A Transformer; the layers that read its texts are shared, not copied.

    Raises:
        InputError: The network is not a Transformer.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        if not isinstance(network, Transformer):
            raise InputError(
                "TSDAE's decoder is made of Transformer layers, which this network does not have",
                hint="choose the objective 'simcse', or train on pairs",
            )
        own = network.encoder or network.decoder
        assert own is not None
        config = network.config
        self.stack = Stack(config, layers=len(own.layers), causal=True, cross=True)
        self.head: LanguageHead | None = None
        if not network.has_language_head:
            self.head = LanguageHead(
                replace(config, tie_word_embeddings=True, head_transform=True, head_bias=False)
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
            layer.attention_output_norm = shared.attention_output_norm
            layer.feed_forward_output_norm = shared.feed_forward_output_norm

    def loss(self, network: Network, ids: Tensor, mask: Tensor, vectors: Tensor) -> Tensor:
        """Return the cross-entropy summed over all tokens but the first of each text.

        Shape: ids and mask (texts, length), vectors (texts, width).
        """
        assert isinstance(network, Transformer)
        hidden = network.decode(self.stack, ids[:, :-1], mask[:, :-1], memory=vectors[:, None])
        predicted = mask[:, 1:]
        states, targets = hidden[predicted], ids[:, 1:][predicted]
        if self.head is None:
            head = network.language_head
            frozen = next(head.parameters(), states).dtype  # trained layers may be in float32
            states = head.transform(states.to(frozen))
            return cross_entropy(states, targets, vocabulary_blocks(network), softcap=head.softcap)
        rows = network.tokens.weight
        weights = rows.blocks() if isinstance(rows, ExtendedRows) else [rows]
        return cross_entropy(
            self.head.transform(states),
            targets,
            [(weight, None) for weight in weights],
            softcap=self.head.softcap,
        )
