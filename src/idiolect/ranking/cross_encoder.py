"""`CrossEncoder`: one network reads query and document together and scores their relevance.

It is precise, since the tokens of both attend to each other, and slow, since it runs once per pair
(Nogueira & Cho 2019, 1901.04085). Use it to rerank search results, or as a teacher of faster
models.

Any `LanguageModel` can become a cross-encoder: the body is kept, and the head is replaced by the
classification head of its family. transformers' `AutoModelForSequenceClassification` loads a saved
one with the same scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from idiolect.encoding.text_reader import EncodingCounts, by_length
from idiolect.errors import ConfigError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.embedding import ExtendedEmbedding
from idiolect.nn.network import Network
from idiolect.ranking.groups import QueryGroup, RankingLoss, check_loss, ranking_loss
from idiolect.ranking.rerank import check_pairs
from idiolect.ranking.text_pairs import TextPairBatch
from idiolect.ranking.train_ranker import train_ranker
from idiolect.text.arguments import checked, load_if_named
from idiolect.text.templates.pair_template import PairTemplate
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.training_config import TrainingConfig

__all__ = ["CrossEncoder"]

_TOKENS_PER_BATCH = 4096


class CrossEncoder:
    """A model with a classification head for one score or two classes.

    >>> model = CrossEncoder.of(LanguageModel.load("path/to/bert"))     # doctest: +SKIP
    >>> model.train(groups, output_dir="runs/ranker", epochs=2)                # doctest: +SKIP
    >>> model.score([("a query", "a document")])                        # doctest: +SKIP
    array([1.73], dtype=float32)

    Args:
        model: The model.
        max_length: Maximum tokens of a pair, including special tokens. Default: the positions of
            the model, at most 512.

    Raises:
        ConfigError: The model has no such head, or too few positions for the length.
    """

    @checked
    def __init__(self, model: LanguageModel, *, max_length: int | None = None) -> None:
        model = load_if_named(model, LanguageModel, "model")
        config = model.network.config
        if "sequence" not in config.tasks or config.num_labels > 2:
            raise ConfigError(
                "the model has no classification head for one score or two classes",
                hint="make one with CrossEncoder.of(model), and train it",
            )
        positions = config.max_position_embeddings or 512
        if max_length is not None and not 8 <= max_length <= positions:
            raise ConfigError(
                f"max_length is {max_length}", hint=f"choose a number from 8 to {positions}"
            )
        self.model = model
        self.max_length = max_length or min(positions, 512)
        self._template = PairTemplate.of(model.tokenizer)

    @classmethod
    @checked
    def of(cls, model: LanguageModel, *, max_length: int | None = None, seed: int = 0) -> Self:
        """Copy a model and add an untrained head for one score.

        Args:
            model: Any model whose family has a class with a classification head.
            max_length: As for `CrossEncoder`.
            seed: Random seed of the head.

        Raises:
            ConfigError: The family has no such class.
        """
        model = load_if_named(model, LanguageModel, "model")
        return cls(_with_head(model, seed), max_length=max_length)

    @classmethod
    @checked
    def load(
        cls, source: str | Path, *, max_length: int | None = None, device: str = "cpu"
    ) -> Self:
        """Load a published or saved cross-encoder.

        Raises:
            InputError: There is no such directory or repository.
            CheckpointError: Files are missing, damaged or inconsistent.
            ConfigError: It has no classification head for one score or two classes.
        """
        return cls(LanguageModel.load(source, device=device), max_length=max_length)

    @checked
    def save(self, directory: str | Path) -> None:
        """Write a directory that `load` and transformers can read. The write is atomic.

        Raises:
            InputError: The directory cannot be written to.
        """
        self.model.save(directory)

    @property
    def fingerprint(self) -> str:
        """A hash of everything that determines scores."""
        weights = fingerprint(self.model.network.state_dict())
        return f"{weights}-{self.model.tokenizer.fingerprint}-{self.max_length}"

    def score(
        self, pairs: Sequence[tuple[str, str]], *, counts: EncodingCounts | None = None
    ) -> NDArray[np.float32]:
        """Score pairs of a query and a document.

        Args:
            pairs: Query and document texts.
            counts: Updated with the numbers of read and truncated pairs.

        Returns:
            Logits. After pointwise training, their sigmoid is the probability of relevance.
            Shape: (pairs,).
        """
        network = self.model.network
        rows = self._read(check_pairs(pairs), counts)
        scores = np.zeros(len(rows), np.float32)
        with torch.inference_mode():
            for batch in by_length([ids for ids, _ in rows], _TOKENS_PER_BATCH):
                grid = TextPairBatch.of(
                    [rows[i] for i in batch], self.model.tokenizer.pad_token_id or 0
                )
                scores[batch] = self._logits(network, grid.to(network.device)).float().cpu().numpy()
        return scores

    @checked
    def train(
        self,
        groups: Iterable[QueryGroup],
        *,
        output_dir: str | Path,
        loss: RankingLoss = "listwise",
        epochs: int = 1,
        config: TrainingConfig | None = None,
        tensorboard: bool = False,
    ) -> Self:
        """Train on query groups. Run it again to resume. Original embedding rows stay unchanged.

        Args:
            groups: Queries with documents and labels.
            output_dir: The run's folder; see `RunFolder`. The finished model is in
                `output_dir/model`.
            loss: The loss to minimize; use `pointwise` if groups have one document only.
            epochs: Number of epochs over the groups.
            config: Training settings, by default `ranking_config()`. A batch row is a group.
            tensorboard: Write TensorBoard events to `output_dir/events`.

        Raises:
            InputError: There are no groups, or their labels are invalid.
            CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
            TrainingError: The loss is not finite or explodes.
        """
        check_loss(loss)
        train_ranker(
            self.model,
            lambda checked: _Ranking(self, checked, loss),
            groups,
            record={"cross_encoder": self.fingerprint, "loss": loss},
            save=self.save,
            output_dir=output_dir,
            epochs=epochs,
            config=config,
            tensorboard=tensorboard,
        )
        return self

    def _logits(self, network: Network, batch: TextPairBatch) -> Tensor:
        types = batch.token_type_ids if network.config.type_vocab_size > 1 else None
        logits: Tensor = network(batch.input_ids, batch.attention_mask, token_type_ids=types).logits
        # The second of two classes is "relevant"; the difference is the log-odds.
        return logits[:, -1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]

    def _read(
        self, pairs: Sequence[tuple[str, str]], counts: EncodingCounts | None = None
    ) -> list[tuple[list[int], list[int]]]:
        """Return ids and segment types of each pair. The document is truncated first."""
        tokenizer = self.model.tokenizer
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        known = dict(
            zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True)
        )
        available = self.max_length - self._template.size
        rows = []
        for query, document in pairs:
            first, second = known[query], known[document]
            query_ids = first[: max(available // 2, available - len(second))]
            document_ids = second[: available - len(query_ids)]
            if counts is not None:
                lost = len(first) + len(second) - len(query_ids) - len(document_ids)
                counts.texts += 1
                counts.tokens += len(query_ids) + len(document_ids) + self._template.size
                counts.truncated += lost > 0
                counts.lost += lost
            rows.append(self._template.join(query_ids, document_ids))
        return rows


class _Ranking(RowwiseObjective):
    """Fit the network's scores to the labels."""

    def __init__(
        self, ranker: CrossEncoder, groups: Sequence[QueryGroup], loss: RankingLoss
    ) -> None:
        self.ranker, self.groups, self.name = ranker, groups, loss

    def prepare(self, rows: EpochSample) -> TextPairBatch:
        """Make a batch of groups."""
        chosen = [self.groups[number] for number in rows.sources]
        pairs = [(group.query, text) for group in chosen for text in group.documents]
        return TextPairBatch.of(
            self.ranker._read(pairs),
            self.ranker.model.tokenizer.pad_token_id or 0,
            [label for group in chosen for label in group.labels],
            [len(group.documents) for group in chosen],
        )

    def loss(self, network: Network, batch: TextPairBatch) -> Tensor:
        """Return the loss summed over the groups."""
        scores = self.ranker._logits(network, batch).float()
        return ranking_loss(self.name, scores, batch.labels, batch.sizes)


def _with_head(model: LanguageModel, seed: int) -> LanguageModel:
    """Copy a model's body and add its family's head for one score."""
    family = model.family
    found = [name for name, a in family.architectures.items() if a.tasks == ("sequence",)]
    if not found:
        raise ConfigError(
            f"{family.title} models have no class with a classification head",
            hint="choose a model of another family",
        )
    # The base may itself be a classifier: remove its settings.
    kept_settings = model.settings.keys() - {"num_labels", "problem_type"}
    settings = {key: model.settings[key] for key in sorted(kept_settings)} | {
        "architectures": found[:1],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "vocab_size": model.network.config.vocab_size,
    }
    if settings.get("pad_token_id") is None:
        # transformers uses it to find the last token of a padded text.
        settings["pad_token_id"] = model.tokenizer.batch_pad_token_id
    source = model.network
    network = family.network(family.config(settings))
    network.init_weights(seed)
    if isinstance(source.tokens, ExtendedEmbedding):
        network.tokens = deepcopy(source.tokens)
        network.config = replace(network.config, vocab_size=source.config.vocab_size)
    own, theirs = network.state_dict(), source.state_dict()
    kept = {n: t for n, t in theirs.items() if n in own and not n.startswith("heads.")}
    network.load_state_dict(kept, strict=False)
    network = network.to(device=source.device, dtype=source.dtype)
    return model.with_changes(
        network=network.eval(),
        settings=settings,
        companions=model.companions.without_modules(),  # modules make an encoder
    )
