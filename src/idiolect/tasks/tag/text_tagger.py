"""`TextTagger`: find labelled spans in texts, with any network.

    text ──► encoder ──► state of each word ──► norm ─► linear ─► softmax, or CRF ──► tags ──► spans

A word's state is that of its first token or, in a causal network, of its last token, the only one
that has seen the whole word. A text that is longer than the encoder's input is split into
overlapping windows, and each word is read in the window in which it has the most context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.encoder_forward import hidden_states
from idiolect.encoding.text_reader import by_length
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.nn.basic import Dropout
from idiolect.nn.lora import LoraConfig
from idiolect.tasks.finetuning.frozen_states import FrozenObjective, StatesBatch, frozen_states
from idiolect.tasks.tag.linear_chain_crf import LinearChainCrf
from idiolect.tasks.tag.tag_schemes import (
    TagScheme,
    check_scheme,
    follows,
    invalid_transitions,
    strict_spans,
    tag_names,
    write_tags,
)
from idiolect.tasks.tag.tagged_texts import TaggedText, TextSpan, fingerprint_tagged
from idiolect.tasks.tag.tagging_objective import TaggedWindow, TaggingObjective, tagging_loss
from idiolect.tasks.task_model import Adaptation, TaskModel, task_config
from idiolect.tasks.windows import most_context, windows
from idiolect.text.arguments import checked, load_if_named
from idiolect.training.progress import show_progress
from idiolect.training.training_config import TrainingConfig

__all__ = ["TagPrediction", "TextTagger"]

_TOKENS_PER_BATCH = 4096
_WINDOW = 512
"""Default maximum window, in tokens, for encoders with longer inputs."""


@dataclass(frozen=True)
class TagPrediction:
    """Predictions for one text."""

    spans: tuple[TextSpan, ...]
    """Spans whose tags follow the scheme exactly."""
    invalid: int
    """Places where a tag may not follow the one before."""
    margin: float | None = None
    """Score of the found tags minus that of the true tags, in nats, if the latter are known."""


class TextTagger(TaskModel):
    """An encoder and a layer that scores the tags of words.

    >>> tagger = TextTagger(Encoder.load("minilm"), ["Disease"], crf=True)   # doctest: +SKIP
    >>> tagger.train(texts, output_dir="runs/tagger")                        # doctest: +SKIP
    >>> tagger.predict(texts)[0].spans                                       # doctest: +SKIP
    (TextSpan(start=34, end=66, label='Disease'),)

    Args:
        encoder: Any encoder; its pooling is not used.
        labels: The labels of spans.
        crf: Score sequences of tags with a CRF, instead of each tag alone.
        scheme: How spans are written as tags: `iob2` or `bioes`.
        stride: Tokens that neighbouring windows of a long text share, at most half a window.
        seed: Random seed of the head.

    Raises:
        ConfigError: No labels, duplicates, an unsuitable scheme, or a stride that is too long.
    """

    name = "tagger"

    @checked
    def __init__(
        self,
        encoder: Encoder,
        labels: Sequence[str],
        *,
        crf: bool = False,
        scheme: TagScheme = "iob2",
        stride: int = 64,
        seed: int = 0,
    ) -> None:
        encoder = load_if_named(encoder, Encoder, "encoder")
        self.labels = tuple(labels)
        if len(set(self.labels)) != len(self.labels) or not self.labels:
            raise ConfigError(f"labels are {list(labels)}", hint="at least one, each once")
        check_scheme(scheme)
        if scheme == "iob1":
            raise ConfigError("a tagger does not write IOB1", hint="choose iob2 or bioes")
        self.scheme: TagScheme = scheme
        self.tags = tag_names(self.labels, scheme)
        self.stride = stride
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            width = int(encoder.model.network.config.hidden_size)
            head = _Head(width, len(self.tags), crf)
        super().__init__(encoder, head.eval())

    @property
    def crf(self) -> LinearChainCrf | None:
        """The CRF, if there is one."""
        assert isinstance(self.head, _Head)
        return self.head.crf

    @property
    def settings(self) -> dict[str, Any]:
        """Labels, scheme, stride, and whether there is a CRF."""
        return {
            "labels": self.labels,
            "crf": self.crf is not None,
            "scheme": self.scheme,
            "stride": self.stride,
        }

    @property
    def identity(self) -> str:
        """The settings as text."""
        return "|".join((self.scheme, str(self.stride), *self.labels))

    @classmethod
    def of_record(cls, encoder: Encoder, record: Mapping[str, Any], path: Path) -> Self:
        """Create an untrained tagger from saved settings.

        Raises:
            CheckpointError: The record is damaged.
        """
        labels, scheme, stride = (record.get(name) for name in ("labels", "scheme", "stride"))
        known = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        if not known or scheme not in ("iob2", "bioes") or type(stride) is not int or stride < 0:
            raise CheckpointError(f"{path} is damaged", hint="save it again")
        crf = record.get("crf") is True
        return cls(encoder, list(labels or ()), crf=crf, scheme=scheme, stride=stride)

    def train(
        self,
        texts: Sequence[TaggedText],
        *,
        output_dir: str | Path,
        adaptation: Adaptation = "full",
        epochs: int = 3,
        lora: LoraConfig | None = None,
        config: TrainingConfig | None = None,
    ) -> Self:
        """Train on tagged texts. Run it again to resume. Original embedding rows stay unchanged.

        Args:
            texts: Tagged texts.
            output_dir: The run's folder. The finished model is in `output_dir/model`.
            adaptation: Parameters that train in addition to the head.
            epochs: Number of epochs over the texts.
            lora: Rank and target modules of the adapters, with `adaptation="lora"`.
            config: Training settings, by default `task_config(adaptation)`.

        Raises:
            InputError: There are no texts, or a span's label is not of this tagger.
            CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
            TrainingError: The loss is not finite or explodes.
        """
        self.check_labels(texts)
        self.add_virtual_tokens(adaptation, config)
        pieces = [piece for piece in self.read(texts) if piece.places]
        numbers = self._numbers(texts)
        if not pieces:
            raise InputError("the texts have no words", hint="check the file and its columns")
        config = config or task_config(adaptation)
        tags = [numbers[piece.text][piece.words] for piece in pieces]
        kept = self._on_frozen_states(pieces, tags, config) if adaptation == "frozen" else None
        self.fit(
            kept or TaggingObjective(self.score_words, self.crf, pieces, tags),
            len(pieces),
            {"texts": fingerprint_tagged(texts)},
            output_dir=output_dir,
            adaptation=adaptation,
            epochs=epochs,
            lora=lora,
            config=config,
        )
        return self

    def check_labels(self, texts: Sequence[TaggedText]) -> None:
        """Reject texts with labels that the tagger does not know.

        Raises:
            InputError: The message names the first such label and its text.
        """
        known = set(self.labels)
        for number, text in enumerate(texts, 1):
            for span in text.spans or ():
                if span.label not in known:
                    raise InputError(
                        f"text {number:,} has the unknown label {span.label!r}: "
                        f"{text.text[span.start : span.end]!r}",
                        hint=f"the tagger knows {', '.join(self.labels)}",
                    )

    def predict(
        self, texts: Sequence[TaggedText], *, progress: bool = False
    ) -> list[TagPrediction]:
        """Find the spans of texts.

        Args:
            texts: The texts; their spans are read for the margins only.
            progress: Show the progress.
        """
        allowed = self._allowed()
        true = self._numbers(texts)
        emissions = self.emissions(texts, progress=progress)
        found = []
        for text, scores, own in zip(texts, emissions, true, strict=True):
            if not len(scores):
                found.append(TagPrediction((), 0))
                continue
            crf = self.crf
            path = scores.argmax(1).tolist() if crf is None else crf.decode(scores, allowed)
            tags = [self.tags[number] for number in path]
            spans = text.text_spans(strict_spans(tags, self.scheme))
            margin = None
            if text.spans is not None:
                margin = self._score(scores, np.array(path)) - self._score(scores, own)
            found.append(TagPrediction(spans, invalid_transitions(tags, self.scheme), margin))
        return found

    def emissions(self, texts: Sequence[TaggedText], *, progress: bool = False) -> list[Tensor]:
        """Return the scores of all tags for the words of each text. Shape: (words, tags) each."""
        pieces = self.read(texts)
        scores = [torch.zeros(len(text.words), len(self.tags)) for text in texts]
        self.encoder.model.network.eval()
        self.head.eval()
        shown = show_progress("tagging", len(pieces), shown=progress)
        with torch.inference_mode(), shown as activity:
            for batch in by_length([piece.ids for piece in pieces], _TOKENS_PER_BATCH):
                own = [pieces[number] for number in batch]
                found, _ = self.score_words(own)
                for piece, rows in zip(own, found.float().cpu(), strict=True):
                    scores[piece.text][piece.words] = rows[: len(piece.places)]
                activity.advance(len(batch))
        return scores

    def read(self, texts: Sequence[TaggedText]) -> list[TaggedWindow]:
        """Return the windows of each text that have words to tag."""
        tokenizer, template = self.encoder.model.tokenizer, self.encoder.reader.template
        encoded = tokenizer.encode_with_offsets(
            [text.text for text in texts], add_special_tokens=False
        )
        pieces = []
        size = min(self.encoder.max_length, _WINDOW) - len(template.before) - len(template.after)
        for number, (text, (ids, offsets)) in enumerate(zip(texts, encoded, strict=True)):
            if not ids or not text.words:
                continue
            places = self._places(text, offsets)
            spans = windows(len(ids), size, min(self.stride, size // 2))
            chosen = most_context(spans, len(ids))[places]
            for window, (start, end) in enumerate(spans):
                own = np.flatnonzero(chosen == window)
                if not len(own):
                    continue
                row = [*template.before, *ids[start:end], *template.after]
                shifted = places[own] - start + len(template.before)
                words = slice(int(own[0]), int(own[-1]) + 1)
                pieces.append(TaggedWindow(number, row, words, shifted.tolist()))
        return pieces

    def score_words(self, pieces: Sequence[TaggedWindow]) -> tuple[Tensor, Tensor]:
        """Score the tags of the words of some pieces, and return the mask of the words.

        Shape: (pieces, words, tags) and (pieces, words).
        """
        return self._score_states(self.word_states(pieces))

    def word_states(self, pieces: Sequence[TaggedWindow]) -> list[Tensor]:
        """Return the states of the words of some pieces. Shape: (words, width) each."""
        encoder = self.encoder
        hidden, _ = hidden_states(
            encoder.model.network, [p.ids for p in pieces], bidirectional=encoder.bidirectional
        )
        return [row[piece.places] for row, piece in zip(hidden, pieces, strict=True)]

    def _score_states(self, states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        padded = pad_sequence(list(states), batch_first=True)
        lengths = torch.tensor([len(row) for row in states])
        mask = torch.arange(padded.shape[1]) < lengths[:, None]
        return self.head(padded.float()), mask.to(padded.device)

    def _on_frozen_states(
        self,
        pieces: Sequence[TaggedWindow],
        tags: Sequence[NDArray[np.int64]],
        config: TrainingConfig,
    ) -> FrozenObjective | None:
        """Return an objective on precomputed word states, or None if they need too much memory."""
        network = self.encoder.model.network

        def loss(batch: StatesBatch) -> Tensor:
            scores, mask = self._score_states(batch.states)
            true = pad_sequence([torch.from_numpy(tags[n]) for n in batch.examples], True, 0)
            return tagging_loss(scores, true.to(scores.device), mask, self.crf)

        kept = frozen_states(
            network,
            [piece.ids for piece in pieces],
            lambda numbers: self.word_states([pieces[n] for n in numbers]),
            numbers=sum(map(len, tags)) * int(network.config.hidden_size),
            precision=config.precision,
        )
        return None if kept is None else FrozenObjective(kept, loss)

    def _places(self, text: TaggedText, offsets: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
        """Return the token that represents each word; a neighbour's for a word without tokens."""
        words, tokens = np.array(text.words), np.array(offsets)
        if self.encoder.model.network.kind == "causal" and not self.encoder.bidirectional:
            found = np.searchsorted(tokens[:, 0], words[:, 1], "left") - 1
        else:
            found = np.searchsorted(tokens[:, 1], words[:, 0], "right")
        # A word without tokens must not be placed before the word that precedes it.
        kept: NDArray[np.int64] = np.maximum.accumulate(found.clip(0, len(tokens) - 1))
        return kept

    def _numbers(self, texts: Sequence[TaggedText]) -> list[NDArray[np.int64]]:
        number = {tag: i for i, tag in enumerate(self.tags)}
        return [
            np.array(
                [
                    number.get(tag, 0)
                    for tag in write_tags(text.word_spans(), len(text.words), self.scheme)
                ],
                np.int64,
            )
            for text in texts
        ]

    def _allowed(self) -> tuple[Tensor, Tensor, Tensor]:
        tags, scheme = self.tags, self.scheme
        starts = torch.tensor([follows(None, tag, scheme) for tag in tags])
        steps = torch.tensor([[follows(a, b, scheme) for b in tags] for a in tags])
        ends = torch.tensor([follows(tag, None, scheme) for tag in tags])
        return starts, steps, ends

    def _score(self, scores: Tensor, path: NDArray[np.int64]) -> float:
        tags = torch.from_numpy(path)
        if self.crf is None:
            logs = scores.log_softmax(1)
            return float(logs[torch.arange(len(tags)), tags].sum())
        mask = torch.ones(1, len(tags), dtype=torch.bool)
        with torch.no_grad():
            return float(self.crf.score(scores[None], tags[None], mask))


class _Head(nn.Module):
    """Scores tags from the states of words; an optional CRF scores the transitions."""

    def __init__(self, width: int, tags: int, crf: bool) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(width), Dropout(0.1)
        self.output = nn.Linear(width, tags)
        self.crf = LinearChainCrf(tags) if crf else None

    def forward(self, states: Tensor) -> Tensor:
        scores: Tensor = self.output(self.dropout(self.norm(states)))
        return scores
