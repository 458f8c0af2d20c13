"""`LinearChainCrf`: score whole sequences of tags, and find the best one.

A sequence scores the sum of its emissions and of its transitions; its probability is a softmax over
all sequences (Lafferty et al. 2001; on neural emissions, Lample et al. 2016, 1603.01360).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["LinearChainCrf"]


class LinearChainCrf(nn.Module):
    """A linear-chain conditional random field.

    Args:
        tags: Number of tags.
    """

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.starts = nn.Parameter(torch.zeros(tags))
        """Score of each tag at the beginning. (tags,)."""
        self.transitions = nn.Parameter(torch.zeros(tags, tags))
        """Score of the second tag after the first. (tags, tags)."""
        self.ends = nn.Parameter(torch.zeros(tags))
        """Score of each tag at the end. (tags,)."""

    def score(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Score sequences of tags. Shape: (batch, words, tags), (batch, words) twice; (batch,).

        Args:
            emissions: Score of each tag for each word.
            tags: The tag of each word; any number at padding.
            mask: True for words; padding is on the right.
        """
        starts, transitions, ends = self._scores_on(emissions.device)
        tags = tags.masked_fill(~mask, 0)
        chosen = emissions.gather(2, tags.unsqueeze(2)).squeeze(2)
        steps = transitions[tags[:, :-1], tags[:, 1:]]
        last = tags.gather(1, mask.sum(1, keepdim=True) - 1).squeeze(1)
        within = (chosen * mask).sum(1) + (steps * mask[:, 1:]).sum(1)
        return starts[tags[:, 0]] + within + ends[last]

    def log_partition(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the log of the summed exponentials of all sequences' scores. Shape: (batch,)."""
        total = self.starts + emissions[:, 0]
        for place in range(1, emissions.shape[1]):
            joined = total.unsqueeze(2) + self.transitions + emissions[:, place].unsqueeze(1)
            total = torch.where(mask[:, place, None], joined.logsumexp(1), total)
        return (total + self.ends).logsumexp(1)

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Return the negative log-likelihood of each sequence. Shape: (batch,)."""
        return self.log_partition(emissions, mask) - self.score(emissions, tags, mask)

    @torch.no_grad()
    def decode(
        self, emissions: Tensor, allowed: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> list[int]:
        """Return the best sequence for one text (Viterbi). Shape: (words, tags).

        Args:
            emissions: Score of each tag for each word.
            allowed: Which tags may begin, follow one another, and end; by default all. Shapes as
                those of `starts`, `transitions` and `ends`.
        """
        scores = self._scores_on(emissions.device)
        if allowed is not None:
            scores = [s.masked_fill(~a, -torch.inf) for s, a in zip(scores, allowed, strict=True)]
        starts, transitions, ends = scores
        total, origins = starts + emissions[0], []
        for emission in emissions[1:]:
            best, origin = (total.unsqueeze(1) + transitions).max(0)
            total = best + emission
            origins.append(origin)
        path = [int((total + ends).argmax())]
        for origin in reversed(origins):
            path.append(int(origin[path[-1]]))
        return path[::-1]

    def _scores_on(self, device: torch.device) -> list[Tensor]:
        """Return the parameters on a device: the emissions of predictions are kept on the CPU."""
        return [scores.to(device) for scores in (self.starts, self.transitions, self.ends)]
