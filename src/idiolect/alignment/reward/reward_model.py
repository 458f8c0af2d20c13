"""`RewardModel`: a language model with a scalar head that scores an answer to a prompt.

The body of the base model is kept, with its family's classification head for one score, so that
`AutoModelForSequenceClassification` of transformers loads a saved model with the same scores. A
bidirectional model reads prompt and answer as a pair of texts. A decoder reads the conversation in
its chat template, and is scored at the last token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from idiolect.alignment.chat.chat_encoding import encode_completion
from idiolect.alignment.preference.preferences import Preference, Prompt, prompt_text
from idiolect.encoding.text_reader import by_length
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.generate.prompts.chat_template import find_chat_template
from idiolect.models.language_model import LanguageModel
from idiolect.nn.network import Network
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.ranking.text_pairs import TextPairBatch
from idiolect.text.arguments import check_path, check_whole
from idiolect.text.files import read_json, write_atomic
from idiolect.text.format_version import check_format, with_format
from idiolect.text.templates.pair_template import PairTemplate
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.progress import notice, track

__all__ = ["RewardModel"]

_RECORD = "reward.json"
_TOKENS_PER_BATCH = 4096


class RewardModel:
    """Scores answers to prompts.

    >>> model = RewardModel.load("runs/reward/model")       # doctest: +SKIP
    >>> model.score([("How are you?", "Fine, thank you.")])  # doctest: +SKIP
    array([0.83])

    Args:
        model: A model with a classification head for one score; see `of`.
        max_length: Maximum tokens of prompt and answer; by default the model's positions, at most
            512. A longer text loses first the beginning of the prompt, then the end of the answer.

    Raises:
        ConfigError: The model has no such head, or too few positions for `max_length`.
    """

    def __init__(self, model: LanguageModel, *, max_length: int | None = None) -> None:
        config = model.network.config
        if "sequence" not in config.tasks or config.num_labels != 1:
            raise ConfigError(
                "the model has no head for one score", hint="train one: idiolect align reward"
            )
        positions = config.max_position_embeddings or 512
        if max_length is not None and not 8 <= max_length <= positions:
            raise ConfigError(
                f"max_length is {max_length}", hint=f"choose a number from 8 to {positions}"
            )
        self.model, self.max_length = model, max_length or min(positions, 512)
        self.mean, self.std = 0.0, 1.0
        """Mean and standard deviation of the training answers' scores, used to normalise scores."""
        self._pairs = None
        if model.network.kind == "bidirectional":
            self._pairs = PairTemplate.of(model.tokenizer)

    @classmethod
    def of(cls, model: LanguageModel, *, max_length: int | None = None, seed: int = 0) -> Self:
        """Copy a model and add an untrained head with small weights (Ziegler et al. 2019).

        Args:
            model: Any model whose family has a class with a classification head.
            max_length: As for `RewardModel`.
            seed: Random seed of the head.

        Raises:
            ConfigError: The family has no such class.
        """
        made = CrossEncoder.of(model, seed=seed).model
        output = made.network.heads["sequence"].output
        assert isinstance(output, nn.Linear)
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(seed)
            output.weight.normal_(std=1 / math.sqrt(output.in_features + 1))
        return cls(made, max_length=max_length)

    @classmethod
    def load(cls, source: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load a model that `save` wrote, or a published one with a head for one score.

        Raises:
            InputError: There is no such directory or repository.
            CheckpointError: Files are missing or damaged.
            ConfigError: The model has no head for one score.
        """
        path = Path(source) / _RECORD
        record = check_format(read_json(path), path) if path.exists() else {}
        mean, std = record.get("mean", 0.0), record.get("std", 1.0)
        sound = all(isinstance(value, float) and math.isfinite(value) for value in (mean, std))
        if not sound or not std > 0:
            raise _damaged(path)
        loaded = cls(LanguageModel.load(source, device=device))
        if (length := record.get("max_length")) is not None:
            try:
                loaded = cls(loaded.model, max_length=check_whole(length, "max_length"))
            except (ConfigError, InputError) as error:
                raise _damaged(path) from error
        loaded.mean, loaded.std = mean, std
        return loaded

    def save(self, directory: str | Path) -> None:
        """Write the model, and the mean and standard deviation of its scores.

        Raises:
            InputError: The directory cannot be written to.
        """
        directory = check_path(directory, "directory")
        self.model.save(directory)
        record = with_format({"max_length": self.max_length, "mean": self.mean, "std": self.std})
        write_atomic(directory / _RECORD, f"{json.dumps(record, indent=2)}\n".encode())

    @property
    def fingerprint(self) -> str:
        """A hash of everything that determines raw scores."""
        weights = fingerprint(self.model.network.state_dict())
        return f"{weights}-{self.model.tokenizer.fingerprint}-{self.max_length}"

    def score(self, answers: Sequence[tuple[Prompt, str]]) -> NDArray[np.float64]:
        """Score answers, normalised by the mean and standard deviation of the training answers.

        Args:
            answers: Prompts and answers.

        Returns:
            Scores. The probability that one answer is better than another of the same prompt is
            σ((a − b)·`std`). Shape: (answers,).
        """
        rows = [self.read(prompt, answer) for prompt, answer in answers]
        network, found = self.model.network, np.zeros(len(rows))
        network.eval()
        with torch.inference_mode():
            for batch in by_length([ids for ids, _ in rows], _TOKENS_PER_BATCH):
                grid = self.grid([rows[i] for i in batch]).to(network.device)
                found[batch] = self.raw_scores(network, grid).double().cpu().numpy()
        return (found - self.mean) / self.std

    def margins(self, preferences: Sequence[Preference]) -> NDArray[np.float64]:
        """Return each pair's difference of raw scores: chosen minus rejected."""
        sides = [(p.prompt, text) for p in preferences for text in (p.chosen, p.rejected)]
        scores = self.score(sides).reshape(-1, 2) * self.std
        found: NDArray[np.float64] = scores[:, 0] - scores[:, 1]
        return found

    def normalise(self, answers: Sequence[tuple[Prompt, str]]) -> None:
        """Set mean and standard deviation so that these answers' scores are standardised.

        If all scores are equal, the standard deviation is not changed.
        """
        self.mean, self.std = 0.0, 1.0
        scores = self.score(answers)
        self.mean = float(scores.mean())
        self.std = float(scores.std()) or 1.0

    def read(self, prompt: Prompt, answer: str) -> tuple[list[int], list[int]]:
        """Return the ids of a prompt with its answer, and their token type ids."""
        return self._fitting(*self._parts(prompt, answer))

    def report_cut(self, preferences: Sequence[Preference]) -> None:
        """Print how many pairs are too long, and how many of them have equal sides when cut."""
        room = self.max_length - (self._pairs.size if self._pairs is not None else 0)
        cut = alike = 0
        for one in track(preferences, "measuring the answers", len(preferences)):
            parts = [self._parts(one.prompt, text) for text in (one.chosen, one.rejected)]
            if any(len(before) + len(after) > room for before, after in parts):
                cut += 1
                chosen, rejected = (self._fitting(*part) for part in parts)
                alike += chosen == rejected
        if cut:
            told = f", {alike:,} of which have equal sides then" if alike else ""
            notice(
                f"{cut:,} of {len(preferences):,} pairs are cut to {self.max_length} tokens{told}"
            )

    def _parts(self, prompt: Prompt, answer: str) -> tuple[list[int], list[int]]:
        """Return the ids of a prompt and of its answer, however many they are."""
        tokenizer = self.model.tokenizer
        if self._pairs is not None:
            first, second = tokenizer.encode_batch(
                [prompt_text(prompt), answer], add_special_tokens=False
            )
            return first, second
        if find_chat_template(tokenizer) is None:
            prompt = prompt_text(prompt) + ("" if isinstance(prompt, str) else "\n\n")
        elif isinstance(prompt, str):
            prompt = ({"role": "user", "content": prompt},)
        return encode_completion(tokenizer, prompt, answer)

    def _fitting(self, before: list[int], after: list[int]) -> tuple[list[int], list[int]]:
        """Return at most `max_length` ids, and their token type ids."""
        if self._pairs is not None:
            first, second = before, after
            room = self.max_length - self._pairs.size
            second = second[:room]
            return self._pairs.join(first[max(0, len(first) + len(second) - room) :], second)
        end, after = after[-1:], after[: self.max_length - 1]
        if after[-1:] != end:
            after = [*after[: self.max_length - 1], *end]
        before = before[max(0, len(before) + len(after) - self.max_length) :]
        ids = before + after
        return ids, [0] * len(ids)

    def grid(
        self, rows: Sequence[tuple[list[int], list[int]]], margins: Sequence[float] = ()
    ) -> TextPairBatch:
        """Pad rows from `read`; with margins, two rows for each preference."""
        pad_id = self.model.tokenizer.batch_pad_token_id or 0
        return TextPairBatch.of(rows, pad_id, margins, [2] * len(margins))

    def raw_scores(self, network: Network, batch: TextPairBatch) -> Tensor:
        """Return the raw scores of a batch. Shape: (rows,)."""
        types = batch.token_type_ids if network.config.type_vocab_size > 1 else None
        logits: Tensor = network(batch.input_ids, batch.attention_mask, token_type_ids=types).logits
        return logits[:, 0].float()


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is damaged", hint="train the reward model again")
