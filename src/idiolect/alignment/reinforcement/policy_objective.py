"""`PolicyObjective`: PPO, RLOO and GRPO, one objective with different advantages and losses.

The first step of a rollout samples completions with the `Generator` and the policy's current
weights, and scores them with the reward. The rollout is kept until its last step. A checkpoint
includes it, so that a killed run resumes in the middle of a rollout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from idiolect.alignment.preference.completion_batch import EncodedCompletion
from idiolect.alignment.reinforcement.advantages import (
    adapted_beta,
    generalised_advantages,
    group_advantages,
    leave_one_out,
    token_rewards,
    whitened,
)
from idiolect.alignment.reinforcement.policy_losses import (
    clipped_policy_loss,
    clipped_value_loss,
    divergence_estimate,
)
from idiolect.alignment.reinforcement.policy_settings import PolicySettings
from idiolect.alignment.reinforcement.prompts import PolicyPrompt, RolloutTurn
from idiolect.alignment.reinforcement.rewards import Reward, checked_rewards
from idiolect.alignment.reinforcement.rollouts import PolicyBatch, TokenScores, score_tokens
from idiolect.generate.generator import Generation, Generator
from idiolect.models.language_model import LanguageModel
from idiolect.nn.lora import without_adapters
from idiolect.nn.matrix_precision import ChosenPrecision, autocast
from idiolect.nn.network import Network
from idiolect.training.objectives.objective import RowwiseObjective, StepContext
from idiolect.training.objectives.objective_registry import check_kind, find_objective
from idiolect.training.progress import notice
from idiolect.training.seeds import derive_seed

__all__ = ["PolicyObjective", "WrittenText", "frozen_copy"]

_AT_ONCE = 32
"""Completions that are generated or scored in one batch."""


@dataclass(frozen=True)
class WrittenText:
    """A completion and its reward, for inspection."""

    rollout: int
    prompt: int
    """Index of the prompt."""
    text: str
    reward: float
    judge: float | None
    """Reward by the held-out judge, if there is one."""


class PolicyObjective(RowwiseObjective):
    """Increase the reward of a language model's completions.

    Args:
        model: The policy.
        prompts: The prompts.
        prompt_ids: The token ids of each prompt.
        reward: Scores completions.
        settings: The algorithm and its sizes.
        value: PPO's value head: a linear map from a hidden state to one number, trained as well.
        reference: The reference network; None for the policy without its adapters.
        judge: A reward that is only reported: if it falls while the reward rises, the policy
            exploits the reward (reward hacking).
        seed: Random seed of samples and mini-batches.
        precision: Numeric format of the training steps.
        on_rollout: Called with the texts of each rollout.

    Raises:
        ConfigError: The network does not read from left to right.
    """

    has_steady_loss = False

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[PolicyPrompt],
        prompt_ids: Sequence[list[int]],
        reward: Reward,
        settings: PolicySettings,
        *,
        value: nn.Linear | None = None,
        reference: Network | None = None,
        judge: Reward | None = None,
        seed: int = 0,
        precision: ChosenPrecision = "fp32",
        on_rollout: Callable[[Sequence[WrittenText]], None] | None = None,
    ) -> None:
        check_kind(find_objective("align", settings.algorithm), model.network.kind)
        self.model, self.prompts, self.prompt_ids = model, prompts, prompt_ids
        self.reward, self.judge, self.settings = reward, judge, settings
        self.value, self.reference = value, reference
        self.seed, self.precision, self.on_rollout = seed, precision, on_rollout
        self.generator = Generator(model)
        self.beta = settings.kl_weight
        self._rollout: PolicyBatch | None = None
        self._measured: dict[str, float] = {}
        self._step: dict[str, list[Tensor]] = defaultdict(list)
        self._told = set[str]()

    def prepare(self, rows: RolloutTurn) -> PolicyBatch:
        """Make the batch of a step; the first step of a rollout samples the rollout."""
        if rows.step == 0 or self._rollout is None:
            self._rollout = self._write(rows)
        passes, part = divmod(rows.step, self.settings.mini_batches)
        size = len(self._rollout) // self.settings.mini_batches
        order = np.arange(len(self._rollout))
        if self.settings.mini_batches > 1:
            seed = derive_seed(self.seed, rows.rollout, passes)
            order = np.random.default_rng(seed).permutation(order)
        batch = self._rollout.rows(order[part * size : (part + 1) * size].tolist())
        return self._weighed(batch)

    def loss(self, network: Network, batch: PolicyBatch) -> Tensor:
        """Return the summed loss over tokens, or over completions for RLOO."""
        network.eval()
        settings = self.settings
        scores = score_tokens(network, batch, settings.temperature)
        own = batch.predicted
        ratio = scores.log_probs - batch.old_log_probs[own]
        advantages, weight = batch.advantages[own], batch.weight[own]
        if settings.algorithm == "rloo":
            # A whole completion is one action.
            rows = own.nonzero()[:, 0]
            sums = ratio.new_zeros(len(batch)).index_add(0, rows, ratio)
            ratio, weight = sums, torch.ones_like(sums)
            advantages = batch.advantages.sum(1) / own.sum(1).clamp(min=1)
        ratio = ratio.exp()
        loss = (clipped_policy_loss(ratio, advantages, settings.clip) * weight).sum()
        if settings.algorithm == "grpo" and self.beta:
            divergence = divergence_estimate(scores.log_probs, batch.reference[own])
            loss = loss + self.beta * (divergence * weight).sum()
        if self.value is not None:
            loss = loss + self._value_loss(scores, batch, own)
        clipped = (ratio - 1).abs() > settings.clip
        self._note(entropy=scores.entropy, ratio=ratio, clip_share=clipped.float())
        return loss

    def accumulate(self, batch: PolicyBatch, step: StepContext) -> float:  # type: ignore[override]
        """Add the gradients of this process's completions."""
        self._step.clear()
        return super().accumulate(batch, step)

    def metrics(self) -> dict[str, float]:
        """Return metrics of the rollout and the step, which reveal reward hacking."""
        step = {name: float(torch.cat(parts).mean()) for name, parts in self._step.items()}
        return {**self._measured, **step}

    def carried(self) -> dict[str, Tensor]:
        """Return the current rollout, its metrics, and the KL weight."""
        kept = {} if self._rollout is None else self._rollout.tensors()
        numbers = {f"metric:{name}": value for name, value in self._measured.items()}
        numbers["beta"] = self.beta
        return kept | {n: torch.tensor(v, dtype=torch.float64) for n, v in numbers.items()}

    def restore_carried(self, carried: Mapping[str, Tensor]) -> None:
        """Restore the rollout of a checkpoint."""
        kept = dict(carried)
        self.beta = float(kept.pop("beta"))
        names = [name for name in kept if name.startswith("metric:")]
        self._measured = {name.removeprefix("metric:"): float(kept.pop(name)) for name in names}
        self._rollout = PolicyBatch.from_tensors(kept) if kept else None

    def _write(self, turn: RolloutTurn) -> PolicyBatch:
        """Sample completions, score them, and compute their advantages."""
        settings, group = self.settings, self.settings.group
        network = self.model.network
        training = network.training
        network.eval()
        written = self.generator.generate(
            [self.prompt_ids[number] for number in turn.sources],
            do_sample=True,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            num_return_sequences=group,
            seed=derive_seed(self.seed, turn.rollout) % 2**63,
            batch_size=_AT_ONCE,
        )
        numbers = [number for number in turn.sources for _ in range(group)]
        rewards, judged = self._score(turn, numbers, written)
        batch = PolicyBatch.of(
            [
                EncodedCompletion(self.prompt_ids[number], one.ids)
                for number, one in zip(numbers, written, strict=True)
            ],
            pad_id=self.model.tokenizer.batch_pad_token_id or 0,
        )
        batch = self._with_scores(batch)
        network.train(training)
        return self._with_advantages(batch, rewards, written, judged)

    def _score(
        self, turn: RolloutTurn, numbers: Sequence[int], written: Sequence[Generation]
    ) -> tuple[Tensor, Tensor | None]:
        """Return the rewards of completions, and the judge's rewards."""
        prompts = [self.prompts[number] for number in numbers]
        texts = [one.text for one in written]
        rewards = checked_rewards(self.reward(prompts, texts), prompts, texts)
        judged = None
        if self.judge is not None:
            found = self.judge(prompts, texts)
            judged = checked_rewards(found, prompts, texts, name="judge's reward")
        if self.on_rollout is not None:
            self.on_rollout(
                [
                    WrittenText(turn.rollout, number, text, value, judged[i] if judged else None)
                    for i, (number, text, value) in enumerate(
                        zip(numbers, texts, rewards, strict=True)
                    )
                ]
            )
        missing = self.settings.missing_end_reward
        if missing is not None:
            rewards = [
                value if one.finish_reason == "end" else missing
                for value, one in zip(rewards, written, strict=True)
            ]
        return torch.tensor(rewards), None if judged is None else torch.tensor(judged)

    @torch.no_grad()
    def _with_scores(self, batch: PolicyBatch) -> PolicyBatch:
        """Add the log-probabilities of policy and reference, and the values, to a batch."""
        old, reference, values = (torch.zeros(batch.input_ids.shape) for _ in range(3))
        network, own = self.model.network, batch.predicted
        with autocast(self.precision, network.device):
            for start in range(0, len(batch), _AT_ONCE):
                rows = slice(start, start + _AT_ONCE)
                part = batch.part(rows).to(network.device)
                scores = score_tokens(network, part, self.settings.temperature)
                old[rows][own[rows]] = scores.log_probs.float().cpu()
                if self.value is not None:
                    values[rows][own[rows]] = self._values(scores).float().cpu()
                if self.reference is None:
                    with without_adapters(network):
                        base = score_tokens(network, part, self.settings.temperature)
                else:
                    base = score_tokens(self.reference, part, self.settings.temperature)
                reference[rows][own[rows]] = base.log_probs.float().cpu()
        return replace(batch, old_log_probs=old, reference=reference, values=values)

    def _with_advantages(
        self,
        batch: PolicyBatch,
        rewards: Tensor,
        written: Sequence[Generation],
        judged: Tensor | None,
    ) -> PolicyBatch:
        settings, own = self.settings, batch.predicted
        divergence = (batch.old_log_probs - batch.reference) * own
        returns = torch.zeros_like(divergence)
        if settings.algorithm == "ppo":
            dense = token_rewards(rewards, divergence, own, self.beta)
            if settings.whiten_rewards:
                dense = whitened(dense, own, keep_mean=True)
            advantages, returns = generalised_advantages(
                dense, batch.values, own, gamma=settings.gamma, gae_lambda=settings.gae_lambda
            )
            advantages = whitened(advantages, own)
        elif settings.algorithm == "rloo":
            total = rewards - self.beta * divergence.sum(1)
            advantages = leave_one_out(total, settings.group)[:, None] * own
        else:
            scaled = settings.loss != "dr_grpo"
            each = group_advantages(rewards, settings.group, scaled=scaled)
            advantages = each[:, None] * own
        self._measure(batch, rewards, divergence, written, judged)
        if settings.kl_target is not None:
            self.beta = adapted_beta(
                self.beta,
                self._measured["kl"],
                target=settings.kl_target,
                completions=len(batch),
                horizon=settings.kl_horizon,
            )
        return replace(batch, advantages=advantages, returns=returns)

    def _weighed(self, batch: PolicyBatch) -> PolicyBatch:
        """Add the weight of each token, and the divisor of the summed loss."""
        own = batch.predicted
        weight, targets = own.float(), max(1, int(own.sum()))
        if self.settings.algorithm == "rloo":
            targets = len(batch)
        elif self.settings.algorithm == "grpo" and self.settings.loss == "grpo":
            weight, targets = weight / own.sum(1, keepdim=True).clamp(min=1), len(batch)
        elif self.settings.algorithm == "grpo" and self.settings.loss == "dr_grpo":
            targets = len(batch) * self.settings.max_new_tokens
        return replace(batch, weight=weight, targets=targets)

    def _values(self, scores: TokenScores) -> Tensor:
        assert self.value is not None
        found: Tensor = self.value(scores.hidden.float()).squeeze(-1)
        return found

    def _value_loss(self, scores: TokenScores, batch: PolicyBatch, own: Tensor) -> Tensor:
        values = self._values(scores)
        loss = clipped_value_loss(
            values, batch.values[own], batch.returns[own], self.settings.value_clip
        )
        self._note(value_loss=loss)
        return self.settings.value_weight * loss.sum()

    def _note(self, **values: Tensor) -> None:
        for name, value in values.items():
            self._step[name].append(value.detach())

    def _measure(
        self,
        batch: PolicyBatch,
        rewards: Tensor,
        divergence: Tensor,
        written: Sequence[Generation],
        judged: Tensor | None,
    ) -> None:
        """Compute the metrics of the rollout; print a notice if it cannot teach anything."""
        group = self.settings.group
        grouped = rewards.view(-1, group)
        if group == 1:
            grouped = rewards[None]
        constant = (grouped == grouped[:, :1]).all(1)
        estimate = divergence_estimate(batch.old_log_probs, batch.reference) * batch.predicted
        lengths = torch.tensor([float(len(one.ids)) for one in written])
        ended = sum(one.finish_reason == "end" for one in written) / len(written)
        self._measured = {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(unbiased=False)),
            "kl": float(divergence.sum(1).mean()),
            "kl_estimate": float(estimate.sum(1).mean()),
            "beta": self.beta,
            "length": float(lengths.mean()),
            "ended_share": ended,
            "unique_share": len({tuple(one.ids) for one in written}) / len(written),
            "constant_share": float(constant.float().mean()),
        }
        if judged is not None:
            self._measured["judge"] = float(judged.mean())
        if bool((rewards == rewards[0]).all()):
            self._tell(
                f"all {len(rewards):,} completions of a rollout have the reward {rewards[0]:g}, "
                "which teaches nothing; see constant_share in metrics.jsonl"
            )
        if not ended:
            self._tell(
                f"none of {len(written):,} completions ended within max_new_tokens="
                f"{self.settings.max_new_tokens}; see ended_share in metrics.jsonl"
            )

    def _tell(self, text: str) -> None:
        """Print a notice, once for each kind."""
        kind = text.split()[0]
        if kind not in self._told:
            self._told.add(kind)
            notice(text)


def frozen_copy(network: Network) -> Network:
    """Return a frozen copy of a network, as a reference."""
    copied = deepcopy(network).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return copied
