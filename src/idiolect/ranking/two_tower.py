"""`TwoTower`: query and document are encoded separately, so documents can be encoded in advance.

TwinBERT (Lu, Jiao & Zhang 2020, 2002.06275), with towers of any encoder:

    query ──► tower ──► weighted pooling ──┐
                                           ├─► crossing ──► score
    document ► tower ──► weighted pooling ─┘

- Weighted pooling: a learned weight for each token, from its hidden state. It starts as the mean,
  so towers of a tuned encoder start with its vectors.
- Crossing `cosine`: the cosine, scaled and shifted. Vectors have length one, so any
  nearest-neighbour index can search them. Crossing `residual`: the element-wise maximum of both
  vectors goes through a residual layer and a logistic regression. It can only rerank candidates.
- `distill` trains it on the soft labels of a teacher, such as a cross-encoder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts, by_length
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.models.weight_files import load_module
from idiolect.nn.network import Network
from idiolect.ranking.groups import QueryGroup, RankingLoss, check_loss, ranking_loss
from idiolect.ranking.rerank import Scorer, check_pairs
from idiolect.ranking.tower_head import Crossing, TowerHead
from idiolect.ranking.train_ranker import train_ranker
from idiolect.text.arguments import check_path, checked, list_of_texts, load_if_named
from idiolect.text.files import read_json, write_atomic
from idiolect.text.format_version import check_format, with_format
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.training_config import TrainingConfig

__all__ = ["TwoTower", "soft_labels"]

_TOKENS_PER_BATCH = 4096


class TwoTower:
    """Two encoders and a layer that scores their vectors.

    >>> student = TwoTower(Encoder.load("path/to/encoder"))             # doctest: +SKIP
    >>> student.distill(teacher.score, groups, output_dir="runs/student")       # doctest: +SKIP
    >>> vectors = student.encode(documents, prompt_name="document")            # doctest: +SKIP

    Args:
        encoder: Both towers, or the query tower if `documents` is passed. Its pooling and
            projection are not used.
        documents: The document tower; by default it shares the weights of the query tower.
        crossing: How to compute a score from two vectors; see above.

    Raises:
        ConfigError: The crossing is unknown, or the towers differ in width.
    """

    @checked
    def __init__(
        self,
        encoder: Encoder,
        documents: Encoder | None = None,
        *,
        crossing: Crossing = "cosine",
    ) -> None:
        encoder = load_if_named(encoder, Encoder, "encoder")
        documents = None if documents is None else load_if_named(documents, Encoder, "documents")
        if crossing not in get_args(Crossing):
            raise ConfigError(
                f"crossing={crossing!r}", hint="one of " + ", ".join(get_args(Crossing))
            )
        if documents is not None and documents.dimensions != encoder.dimensions:
            raise ConfigError(
                f"towers of {encoder.dimensions} and {documents.dimensions} dimensions",
                hint="use encoders with the same number of dimensions",
            )
        self.towers = {"query": encoder, "document": documents or encoder}
        """The encoders of queries and documents."""
        self.crossing: Crossing = crossing
        self.head = TowerHead(encoder.dimensions, crossing).to(encoder.model.network.device)
        """Pooling and crossing layers."""

    @property
    def shared(self) -> bool:
        """Whether both towers share their weights."""
        return self.towers["query"] is self.towers["document"]

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        return self.towers["query"].dimensions

    @property
    def fingerprint(self) -> str:
        """A hash of everything that determines scores."""
        towers = "-".join(tower.fingerprint for tower in self.towers.values())
        return f"{self.crossing}-{towers}-{fingerprint(self.head.state_dict())}"

    @classmethod
    @checked
    def load(cls, directory: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load a model that `save` wrote.

        Raises:
            CheckpointError: Files are missing, damaged or of different models.
        """
        directory = check_path(directory, "directory")
        path = directory / "two_tower.json"
        record = check_format(read_json(path), path, rebuild="train it again")
        encoder = Encoder.load(directory / "query", device=device)
        shared = record.get("shared") is True
        documents = None if shared else Encoder.load(directory / "document", device=device)
        model = cls(encoder, documents, crossing=record.get("crossing", "cosine"))
        load_module(model.head, directory / "head.safetensors")
        if model.fingerprint != record.get("fingerprint"):
            raise CheckpointError(
                f"the files in {directory} are of different models", hint="save it again"
            )
        return model

    @checked
    def save(self, directory: str | Path) -> None:
        """Write both towers as encoders, and the head.

        The record is written last, so `load` rejects an incomplete directory.

        Raises:
            InputError: The directory cannot be written to.
        """
        directory = check_path(directory, "directory")
        self.towers["query"].save(directory / "query")
        if not self.shared:
            self.towers["document"].save(directory / "document")
        tensors = {name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}
        write_atomic(directory / "head.safetensors", save(tensors))
        record = with_format(
            {
                "crossing": self.crossing,
                "shared": self.shared,
                "fingerprint": self.fingerprint,
            }
        )
        write_atomic(directory / "two_tower.json", f"{json.dumps(record, indent=2)}\n".encode())

    @checked
    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt_name: Literal["query", "document"],
        counts: EncodingCounts | None = None,
    ) -> NDArray[np.float32]:
        """Encode texts. The vector of an empty text is zero.

        Args:
            texts: The texts.
            prompt_name: Which tower to use.
            counts: Updated with the numbers of read and truncated texts.

        Returns:
            Vectors, of length one if the crossing is cosine. Shape: (texts, dimensions).
        """
        if prompt_name not in self.towers:
            raise InputError(f"no tower {prompt_name!r}", hint="one of query, document")
        texts = list_of_texts(texts)
        tower = self.towers[prompt_name]
        rows = tower.reader.read(texts, prompt_name, EncodingCounts() if counts is None else counts)
        vectors = np.zeros((len(rows), self.dimensions), np.float32)
        with torch.inference_mode():
            for batch in by_length(rows, _TOKENS_PER_BATCH):
                found = self._vectors([rows[i] for i in batch], prompt_name)
                vectors[batch] = found.float().cpu().numpy()
        return vectors

    def cross(
        self, queries: NDArray[np.float32], documents: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Score pairs of vectors. Shape: two of (pairs, dimensions) to (pairs,); logits."""
        device = self.towers["query"].model.network.device
        with torch.inference_mode():
            pair = (torch.from_numpy(vectors).to(device) for vectors in (queries, documents))
            scores: NDArray[np.float32] = self.head(*pair).float().cpu().numpy()
            return scores

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Score pairs of query and document; encodes each text once. Shape: (pairs,); logits."""
        pairs = check_pairs(pairs)
        places: dict[str, list[int]] = {}
        vectors: dict[str, NDArray[np.float32]] = {}
        for column, kind in enumerate(get_args(Literal["query", "document"])):
            texts = {text: i for i, text in enumerate(dict.fromkeys(p[column] for p in pairs))}
            places[kind] = [texts[pair[column]] for pair in pairs]
            vectors[kind] = self.encode(list(texts), prompt_name=kind)
        return self.cross(
            vectors["query"][places["query"]], vectors["document"][places["document"]]
        )

    @checked
    def distill(
        self,
        teacher: Scorer,
        groups: Iterable[QueryGroup],
        *,
        output_dir: str | Path,
        temperature: float = 1.0,
        loss: RankingLoss = "listwise",
        epochs: int = 1,
        config: TrainingConfig | None = None,
        tensorboard: bool = False,
    ) -> Self:
        """Train on a teacher's soft labels; no judgements are needed.

        Args:
            teacher: A function that scores pairs, such as `CrossEncoder.score`.
            groups: Queries with documents; their labels are ignored.
            output_dir: As in `train`.
            temperature: See `soft_labels`.
            loss: `pointwise`, as in the paper, fits the teacher's scores; `listwise` fits only its
                score differences within a query.
            epochs: As in `train`.
            config: As in `train`.
            tensorboard: As in `train`.

        Raises:
            InputError: There are no groups.
            CheckpointError: As in `train`.
            TrainingError: As in `train`.
        """
        labelled = soft_labels(teacher, groups, loss=loss, temperature=temperature)
        return self.train(
            labelled,
            output_dir=output_dir,
            loss=loss,
            epochs=epochs,
            config=config,
            tensorboard=tensorboard,
        )

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
            loss: The loss to minimize.
            epochs: Number of epochs over the groups.
            config: Training settings, by default `ranking_config()`. A batch row is a group.
            tensorboard: Write TensorBoard events to `output_dir/events`.

        Raises:
            InputError: There are no groups, or their labels are invalid.
            CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
            TrainingError: The loss is not finite or explodes.
        """
        check_loss(loss)
        query, document = (self.towers[kind].model for kind in ("query", "document"))
        modules: dict[str, nn.Module] = {"tower_head": self.head}
        if not self.shared:
            modules["document_tower"] = document.network
        train_ranker(
            query,
            lambda checked: _Distillation(self, checked, loss),
            groups,
            record={"two_tower": self.fingerprint, "loss": loss},
            save=self.save,
            output_dir=output_dir,
            epochs=epochs,
            config=config,
            tensorboard=tensorboard,
            modules=modules,
            heads=False,
        )
        document.network.eval()
        return self

    def _vectors(self, rows: Sequence[Sequence[int]], kind: str) -> Tensor:
        return self.head.pool(*self.towers[kind].read_rows(rows), kind)


def soft_labels(
    teacher: Scorer, groups: Iterable[QueryGroup], *, loss: RankingLoss, temperature: float = 1.0
) -> list[QueryGroup]:
    """Label the documents of each query with a teacher.

    Args:
        teacher: A function that scores pairs with logits.
        groups: Queries with documents.
        loss: `pointwise`: labels are probabilities of relevance. `listwise`: labels are a
            distribution over the documents of the query.
        temperature: Divides the logits; above 1, labels are softer (Hinton et al. 2015).

    Raises:
        ConfigError: The loss is unknown, or the temperature is not positive.
    """
    check_loss(loss)
    if not temperature > 0:
        raise ConfigError(f"temperature is {temperature}", hint="it must be positive")
    labeled = []
    for group in groups:
        scores = teacher([(group.query, text) for text in group.documents])
        logits = torch.from_numpy(np.asarray(scores, np.float32)) / temperature
        soft = logits.sigmoid() if loss == "pointwise" else logits.softmax(0)
        labeled.append(replace(group, labels=tuple(soft.tolist())))
    return labeled


@dataclass(frozen=True)
class _Batch:
    """A batch of tokenized groups."""

    queries: list[list[int]]
    documents: list[list[int]]
    labels: Tensor
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def count(self) -> int:
        return len(self.sizes)

    @property
    def tokens(self) -> int:
        return sum(map(len, self.queries)) + sum(map(len, self.documents))

    def part(self, rows: slice) -> _Batch:
        ends = np.cumsum((0, *self.sizes))
        first, last, _ = rows.indices(len(self.sizes))
        own = slice(int(ends[first]), int(ends[max(first, last)]))
        return _Batch(self.queries[rows], self.documents[own], self.labels[own], self.sizes[rows])

    def to(self, device: torch.device) -> _Batch:
        return replace(self, labels=self.labels.to(device))


class _Distillation(RowwiseObjective):
    """Fit the towers' scores to the labels."""

    def __init__(self, model: TwoTower, groups: Sequence[QueryGroup], loss: RankingLoss) -> None:
        self.model, self.groups, self.name = model, groups, loss

    def prepare(self, rows: EpochSample) -> _Batch:
        chosen = [self.groups[number] for number in rows.sources]
        texts = [text for group in chosen for text in group.documents]
        towers = self.model.towers
        return _Batch(
            towers["query"].reader.read(
                [group.query for group in chosen], "query", EncodingCounts()
            ),
            towers["document"].reader.read(texts, "document", EncodingCounts()),
            torch.tensor([label for group in chosen for label in group.labels]),
            tuple(len(group.documents) for group in chosen),
        )

    def loss(self, network: Network, batch: _Batch) -> Tensor:
        queries = self.model._vectors(batch.queries, "query")
        documents = self.model._vectors(batch.documents, "document")
        sizes = torch.tensor(batch.sizes, device=queries.device)
        scores = self.model.head(queries.repeat_interleave(sizes, dim=0), documents).float()
        return ranking_loss(self.name, scores, batch.labels, batch.sizes)
