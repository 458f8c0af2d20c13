"""`PreferenceObjective`: DPO, IPO, KTO, ORPO and SimPO, one objective with different losses."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from idiolect.alignment.preference.completion_batch import (
    CompletionBatch,
    EncodedCompletion,
    TextScores,
    score_texts,
)
from idiolect.alignment.preference.preference_losses import (
    dpo_loss,
    ipo_loss,
    kto_loss,
    orpo_loss,
    simpo_loss,
)
from idiolect.errors import ConfigError
from idiolect.nn.network import Network
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.objectives.objective import RowwiseObjective, StepContext
from idiolect.training.objectives.objective_registry import check_kind, find_objective

__all__ = ["PreferenceLoss", "PreferenceObjective", "PreferenceSettings"]

PreferenceLoss = Literal["dpo", "ipo", "kto", "orpo", "simpo"]

_BETAS: dict[str, float] = {"dpo": 0.1, "ipo": 0.1, "kto": 0.1, "orpo": 0.1, "simpo": 2.0}


@dataclass(frozen=True, kw_only=True)
class PreferenceSettings:
    """The loss of preference tuning and its parameters.

    Raises:
        ConfigError: A value is out of its range, or does not belong to the loss.
    """

    loss: PreferenceLoss = "dpo"
    beta: float | None = None
    """Scale of the difference in log-probability; 2 for SimPO, 0.1 for the others by default. With
    a reference, the larger it is, the closer the policy stays to it."""
    gamma: float = 1.0
    """SimPO's target margin γ."""
    label_smoothing: float = 0.0
    """DPO: the assumed share of wrong labels."""
    desirable_weight: float = 1.0
    """KTO: weight of good completions."""
    undesirable_weight: float = 1.0
    """KTO: weight of bad completions."""

    def __post_init__(self) -> None:
        if self.loss not in get_args(PreferenceLoss):
            raise ConfigError(
                f"unknown loss {self.loss!r}", hint="one of " + ", ".join(get_args(PreferenceLoss))
            )
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"beta is {self.beta}", hint="it is positive; usual is 0.1")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(
                f"label_smoothing is {self.label_smoothing}", hint="at least 0, below 0.5"
            )
        for name in ("gamma", "desirable_weight", "undesirable_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="it is at least 0")

    @property
    def scale(self) -> float:
        """`beta`, or its default."""
        return _BETAS[self.loss] if self.beta is None else self.beta

    @property
    def has_reference(self) -> bool:
        """Whether the loss uses a reference model."""
        return self.loss in ("dpo", "ipo", "kto")


class PreferenceObjective(RowwiseObjective):
    """Train a policy to prefer the chosen completions.

    Dropout is off, so that policy and reference differ only in their weights.

    Args:
        network: A causal network with a language-model head.
        examples: The sides of each: chosen and rejected; for KTO the completion, and one of another
            prompt.
        settings: The loss.
        reference: The reference model's log-probability of each completion. (examples, sides).
        good: Whether each example is good, for KTO.
        pad_id: Padding token id.

    Raises:
        ConfigError: The network is not causal.
        InputError: The network has no language-model head.
    """

    def __init__(
        self,
        network: Network,
        examples: Sequence[Sequence[EncodedCompletion]],
        settings: PreferenceSettings,
        *,
        reference: Tensor | None = None,
        good: Sequence[bool] = (),
        pad_id: int = 0,
    ) -> None:
        check_kind(find_objective("align", settings.loss), network.kind)
        _ = network.language_head
        self.examples, self.settings, self.pad_id = examples, settings, pad_id
        self.reference, self.good = reference, good
        self._measured: dict[str, list[Tensor]] = defaultdict(list)

    def prepare(self, rows: EpochSample) -> CompletionBatch:
        """Make a batch of examples."""
        return self.batch(rows.sources)

    def batch(self, numbers: Sequence[int]) -> CompletionBatch:
        """Make a batch of the examples with these indices."""
        return CompletionBatch.of(
            [self.examples[number] for number in numbers],
            pad_id=self.pad_id,
            label_prompts=self.settings.loss == "orpo",
            reference=None if self.reference is None else self.reference[list(numbers)],
            good=[self.good[number] for number in numbers] if self.good else (),
        )

    def accumulate(self, batch: CompletionBatch, step: StepContext) -> float:  # type: ignore[override]
        """Add the gradients of this process's examples; KTO first measures the step's KL estimate.

        The estimate is the mean log-ratio of mismatched completions over the whole step, clamped at
        zero. It has no gradient, so it is computed before the loss.
        """
        self._measured.clear()
        if self.settings.loss == "kto":
            batch = batch.with_divergence(self._divergence(batch, step))
        return super().accumulate(batch, step)

    def loss(self, network: Network, batch: CompletionBatch) -> Tensor:
        """Return the loss summed over the examples."""
        network.eval()
        if batch.measured:
            return (score_texts(network, batch).log_probs - batch.reference).sum()
        if self.settings.loss == "kto":
            batch = batch.side(0)
        scores = score_texts(network, batch)
        losses, rewards = self._losses(batch, scores)
        self._note(batch, scores, rewards)
        return losses.sum()

    def metrics(self) -> dict[str, float]:
        """Return the last step's mean rewards, their margin and the share of positive margins.

        DPO usually lowers the log-probability of chosen completions as well, so monitor it.
        """
        joined = {name: torch.cat(parts) for name, parts in sorted(self._measured.items())}
        return {name: float(values.mean()) for name, values in joined.items() if len(values)}

    def _divergence(self, batch: CompletionBatch, step: StepContext) -> float:
        own = batch.part(step.workers.share(len(batch)))
        size, total = step.micro_batch or max(1, len(own)), 0.0
        with torch.no_grad():
            for start in range(0, len(own), size):
                part = own.part(slice(start, start + size)).to(step.device).side(1)
                total += float(step.compute_loss(replace(part, measured=True)))
        (summed,) = step.workers.sum(total, device=step.device)
        return max(0.0, summed / len(batch))

    def _losses(self, batch: CompletionBatch, scores: TextScores) -> tuple[Tensor, Tensor]:
        """Return the loss of each example, and the implicit reward of each side."""
        settings, beta = self.settings, self.settings.scale
        ratios = scores.log_probs - batch.reference
        means = scores.log_probs / scores.lengths.clamp(min=1)
        if settings.loss == "dpo":
            smoothing = settings.label_smoothing
            loss = dpo_loss(*ratios.unbind(1), beta=beta, label_smoothing=smoothing)
            return loss, beta * ratios
        if settings.loss == "ipo":
            averaged = ratios / scores.lengths.clamp(min=1)
            return ipo_loss(*averaged.unbind(1), beta=beta), beta * averaged
        if settings.loss == "kto":
            loss = kto_loss(
                ratios[:, 0],
                batch.good,
                batch.divergence,
                beta=beta,
                desirable_weight=settings.desirable_weight,
                undesirable_weight=settings.undesirable_weight,
            )
            return loss, beta * ratios
        if settings.loss == "simpo":
            loss = simpo_loss(*means.unbind(1), beta=beta, gamma=settings.gamma)
            return loss, beta * means
        written = -scores.labelled[:, 0] * batch.token_weight
        return written + orpo_loss(*means.unbind(1), beta=beta), beta * means

    def _note(self, batch: CompletionBatch, scores: TextScores, rewards: Tensor) -> None:
        rewards, log_probs = rewards.detach(), scores.log_probs.detach()
        self._measured["entropy"].append(scores.entropy.mean(1))
        if self.settings.loss == "kto":
            for name, chosen in (("good", batch.good), ("bad", ~batch.good)):
                self._measured[f"rewards/{name}"].append(rewards[chosen, 0])
                self._measured[f"logps/{name}"].append(log_probs[chosen, 0])
            self._measured["kl"].append(batch.divergence)
            return
        margin = rewards[:, 0] - rewards[:, 1]
        for side, name in enumerate(("chosen", "rejected")):
            self._measured[f"rewards/{name}"].append(rewards[:, side])
            self._measured[f"logps/{name}"].append(log_probs[:, side])
        self._measured["rewards/margins"].append(margin)
        self._measured["rewards/accuracies"].append((margin > 0).float())
