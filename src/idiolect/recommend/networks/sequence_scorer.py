"""`SequenceScorer`: a trained network as a recommender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.errors import InputError
from idiolect.nn.network import Network, Output
from idiolect.recommend.histories import Histories
from idiolect.recommend.networks.item_networks import make_network
from idiolect.recommend.scorer import ItemScorer
from idiolect.training.data.batch import pad_rows

__all__ = ["SEQUENCE_SCORERS", "Bert4Rec", "Gru4Rec", "SasRec", "SequenceScorer"]

_SIZES = "idiolect.sizes"
"""Items and longest history, beside the weights."""


class SequenceScorer(ItemScorer):
    """The state after a history, multiplied with the embedding of each item.

    Args:
        network: The network.
        items: How many items there are.
        max_length: The longest history; of a longer one, the last items are read.
    """

    hides: ClassVar[bool] = False
    """Whether a mask stands where the next item is predicted."""

    def __init__(self, network: Network, items: int, max_length: int) -> None:
        self.network, self.items, self.max_length = network.eval(), items, max_length

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Refuse: networks are trained in a run's folder."""
        raise InputError("a network is trained in a folder", hint="use train_recommender")

    def states(self, contexts: Sequence[NDArray[np.int64]]) -> Tensor:
        """Return the user vectors: products with item vectors are scores.

        Shape: (contexts, width). The vector of an empty history is zero.
        """
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
            states[filled] = last.float()
        return states

    def item_vectors(self) -> Tensor:
        """Return the item vectors. Shape: (items, width)."""
        rows = self.network.tokens.weight
        assert isinstance(rows, Tensor)
        return rows[1 : self.items + 1].detach()

    def score(self, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Multiply user vectors and item vectors."""
        scores: NDArray[np.float32] = (self.states(contexts) @ self.item_vectors().t()).numpy()
        return scores

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the weights."""
        weights = {name: w.float().cpu().numpy() for name, w in self.network.state_dict().items()}
        return {**weights, _SIZES: np.array([self.items, self.max_length])}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Make a network of its weights.

        Raises:
            ValueError: They are of another network.
        """
        items, length = map(int, arrays[_SIZES])
        network = make_network(cls.name, items, length)
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
    """A bidirectional Transformer that fills in hidden items."""

    name: ClassVar[str] = "bert4rec"
    hides: ClassVar[bool] = True


SEQUENCE_SCORERS: dict[str, type[SequenceScorer]] = {
    one.name: one for one in (SasRec, Gru4Rec, Bert4Rec)
}
"""The networks by name."""
