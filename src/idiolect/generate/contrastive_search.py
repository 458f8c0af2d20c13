"""Contrastive search: likely tokens whose hidden states differ from earlier ones.

Su et al. 2022, 2202.06417: (1 - α) · probability - α · largest cosine to an earlier state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions

__all__ = ["contrastive_search"]


def contrastive_search(
    decoding: Decoding, options: GenerationOptions, process: Callable[[Tensor, list[int]], Tensor]
) -> Iterator[tuple[Tensor, int]]:
    """Continue one text indefinitely; the caller stops.

    Args:
        decoding: The text, not started.
        options: `top_k` and `penalty_alpha`.
        process: Changes the scores of the next token, given the generated ids.

    Yields:
        The log-probabilities of the network, and the token that was chosen.
    """
    alpha, ids = options.penalty_alpha, list[int]()
    scores = decoding.start()[0]
    context = F.normalize(decoding.hidden_states[0], dim=-1)
    while True:
        count = min(options.top_k, len(scores))
        shares, candidates = process(scores, ids).softmax(-1).topk(count)
        # Tokens that processors forbid are not candidates, however different their states are.
        shares, candidates = shares[shares > 0], candidates[shares > 0]
        decoding.select(torch.zeros(len(candidates), dtype=torch.long, device=scores.device))
        states = decoding.read(candidates[:, None])[:, 0]
        similar = (F.normalize(states, dim=-1) @ context.T).amax(-1)
        best = int(((1 - alpha) * shares - alpha * similar).argmax())
        yield scores.log_softmax(-1), int(candidates[best])
        ids.append(int(candidates[best]))
        context = torch.cat([context, F.normalize(states[best : best + 1], dim=-1)])
        scores = decoding.score_row(best)
        decoding.select(torch.tensor([best], device=scores.device))
