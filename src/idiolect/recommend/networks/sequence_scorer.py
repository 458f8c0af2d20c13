"""`SequenceScorer`: a trained network as a recommender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from idiolect.errors import InputError
from idiolect.nn.network import Network, Output
from idiolect.recommend.histories import Histories
from idiolect.recommend.networks.item_networks import make_network
from idiolect.recommend.networks.item_table import match
from idiolect.recommend.scorer import VectorScorer
from idiolect.training.data.batch import pad_rows

__all__ = [
    "SEQUENCE_SCORERS",
    "Bert4Rec",
    "Gru4Rec",
    "SasRec",
    "SequenceScorer",
    "TwoTowerItems",
    "UniSRec",
]

_SIZES = "idiolect.sizes"
"""Name of the array with the number of items and the maximum history length."""
_VECTORS, _OWN = "tokens.vectors", "tokens.own"
"""Names of weights of a network that uses text embeddings."""


class SequenceScorer(VectorScorer):
    """Scores are inner products of the hidden state after a history and the item embeddings.

    Args:
        network: The network.
        items: Number of items.
        max_length: Maximum history length; only the last items of a longer history are used.
    """

    hides: ClassVar[bool] = False
    """Whether a mask token is appended to the history to predict the next item (BERT4Rec)."""

    def __init__(self, network: Network, items: int, max_length: int) -> None:
        self.network, self.items, self.max_length = network.eval(), items, max_length

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Raise an error: networks are trained by `train_network`."""
        raise InputError("a network is trained in a folder", hint="use train_recommender")

    def user_vectors(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return the state after each history; zero after an empty one."""
        rows = [context[-self.max_length :] + 1 for context in contexts]
        if self.hides:
            rows = [np.append(row, self.items + 1) for row in rows]
        filled = [i for i, row in enumerate(rows) if len(row)]
        states = torch.zeros(len(rows), self.network.config.hidden_size)
        if filled:
            ids, mask = pad_rows([rows[i] for i in filled])
            with torch.inference_mode():
                visible = None if self.network.kind == "causal" else mask
                output: Output = self.network(ids, visible, return_logits=False)
                last = output.hidden_states[torch.arange(len(ids)), mask.sum(1) - 1]
                states[filled] = match(self.network.tokens, last)[0].float()
        return states.numpy()

    def item_vectors(self) -> NDArray[np.float32]:
        """Return the item embeddings."""
        with torch.inference_mode():
            _, rows = match(self.network.tokens, torch.zeros(1, self.network.config.hidden_size))
            return rows[1 : self.items + 1].detach().numpy()

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the weights."""
        weights = {name: w.float().cpu().numpy() for name, w in self.network.state_dict().items()}
        return {**weights, _SIZES: np.array([self.items, self.max_length])}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Create a network from its weights.

        Raises:
            ValueError: The weights are those of another network.
        """
        items, length = map(int, arrays[_SIZES])
        vectors = arrays.get(_VECTORS)
        network = make_network(
            cls.name,
            items,
            length,
            vectors=None if vectors is None else torch.from_numpy(vectors.copy()),
            item_text=None if vectors is None else "added" if _OWN in arrays else "alone",
        )
        weights = {n: torch.from_numpy(a.copy()) for n, a in arrays.items() if n != _SIZES}
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[0]) from error
        return cls(network, items, length)


class SasRec(SequenceScorer):
    """A causal Transformer over items."""

    name: ClassVar[str] = "sasrec"


class Gru4Rec(SequenceScorer):
    """A GRU over items."""

    name: ClassVar[str] = "gru4rec"


class Bert4Rec(SequenceScorer):
    """A bidirectional Transformer that predicts masked items."""

    name: ClassVar[str] = "bert4rec"
    hides: ClassVar[bool] = True


class UniSRec(SequenceScorer):
    """A causal Transformer over text embeddings of items, without item embeddings."""

    name: ClassVar[str] = "unisrec"


class TwoTowerItems(SequenceScorer):
    """A two-tower model: a user tower and the item embedding."""

    name: ClassVar[str] = "two-tower"


SEQUENCE_SCORERS: dict[str, type[SequenceScorer]] = {
    one.name: one for one in (SasRec, Gru4Rec, Bert4Rec, UniSRec, TwoTowerItems)
}
"""The networks by name."""
