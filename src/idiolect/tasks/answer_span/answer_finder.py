"""`AnswerFinder`: find the answer to a question in a passage, with any network.

    question + window of the passage ──► encoder ──► state of each token ──► linear ──► start, end
                                                └──► state of the whole ───► linear ──► no answer

A passage that does not fit is read in overlapping windows (Devlin et al. 2019, 1810.04805). "No
answer" is scored from the state of the first token or, in a causal network, of the last token, the
only one that has seen the whole input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.encoder_forward import hidden_states
from idiolect.encoding.text_reader import by_length
from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.nn.lora import LoraConfig
from idiolect.nn.network import Network
from idiolect.tasks.answer_span.squad_files import PassageQuestion, fingerprint_questions
from idiolect.tasks.answer_span.squad_metrics import best_threshold
from idiolect.tasks.task_model import Adaptation, TaskModel
from idiolect.tasks.windows import windows
from idiolect.text.arguments import checked, load_if_named
from idiolect.text.templates.pair_template import PairTemplate
from idiolect.training.data.shuffled_epochs import EpochSample
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.progress import show_progress
from idiolect.training.training_config import TrainingConfig

__all__ = ["AnswerFinder", "FoundAnswer"]

_TOKENS_PER_BATCH = 4096
_LONGEST = 384
"""Default limit of question plus window, in tokens, for encoders with longer inputs."""
_MOST_QUESTION = 64
"""Maximum tokens of a question; the rest is cut, as in BERT's script."""
_NOWHERE = -1e9


@dataclass(frozen=True)
class FoundAnswer:
    """The best answer to a question."""

    text: str
    """The answer; empty if "no answer" wins by more than the finder's threshold."""
    start: int
    """Its first character in the passage."""
    best: str
    """The best span, even if `text` is empty."""
    score: float
    """Sum of the span's start and end score."""
    doubt: float
    """Score of "no answer" minus the score of the span."""


class AnswerFinder(TaskModel):
    """An encoder and a layer that scores where an answer starts and ends.

    >>> finder = AnswerFinder(Encoder.load("minilm"))            # doctest: +SKIP
    >>> finder.train(questions, output_dir="runs/answers")       # doctest: +SKIP
    >>> finder.predict(questions)[0].text                        # doctest: +SKIP
    'Paris'

    Args:
        encoder: Any encoder; its pooling is not used.
        unanswerable: Whether a passage may have no answer; otherwise one is always found.
        stride: Tokens that neighbouring windows of a passage share.
        max_answer_length: Tokens of the longest answer.
        seed: Random seed of the head.

    Raises:
        ConfigError: A static encoder, or numbers out of their range.
    """

    name = "answer_finder"

    @checked
    def __init__(
        self,
        encoder: Encoder,
        *,
        unanswerable: bool = False,
        stride: int = 128,
        max_answer_length: int = 30,
        seed: int = 0,
    ) -> None:
        encoder = load_if_named(encoder, Encoder, "encoder")
        if encoder.model.network.context_free:
            raise ConfigError(
                "a static encoder reads each token alone", hint="choose a network with layers"
            )
        if stride < 0 or max_answer_length < 1:
            raise ConfigError(
                f"stride is {stride}, max_answer_length {max_answer_length}",
                hint="at least 0, and at least 1",
            )
        self.unanswerable, self.stride = unanswerable, stride
        self.max_answer_length = max_answer_length
        self.null_threshold = 0.0
        """If `doubt` is above this threshold, the answer is empty; see `fit_threshold`."""
        self._template = PairTemplate.of(encoder.model.tokenizer)
        if min(encoder.max_length, _LONGEST) - self._template.size < 16:
            raise ConfigError(
                f"{encoder.max_length} tokens are too few", hint="raise max_length to 24 or more"
            )
        width = int(encoder.model.network.config.hidden_size)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))
        super().__init__(encoder, head)

    @property
    def settings(self) -> dict[str, Any]:
        """Input options, and the threshold."""
        return {
            "unanswerable": self.unanswerable,
            "stride": self.stride,
            "max_answer_length": self.max_answer_length,
            "null_threshold": self.null_threshold,
        }

    @property
    def identity(self) -> str:
        """The settings without the threshold, as text."""
        return f"{self.unanswerable}-{self.stride}-{self.max_answer_length}"

    @classmethod
    def of_record(cls, encoder: Encoder, record: Mapping[str, Any], path: Path) -> Self:
        """Create an untrained finder from saved settings.

        Raises:
            CheckpointError: The record is damaged.
        """
        numbers = [record.get(name) for name in ("stride", "max_answer_length")]
        threshold = record.get("null_threshold")
        if not all(type(n) is int and n >= 0 for n in numbers) or not isinstance(threshold, float):
            raise CheckpointError(f"{path} is damaged", hint="save it again")
        stride, longest = (int(n or 0) for n in numbers)
        unanswerable = record.get("unanswerable") is True
        model = cls(encoder, unanswerable=unanswerable, stride=stride, max_answer_length=longest)
        model.null_threshold = threshold
        return model

    def train(
        self,
        questions: Sequence[PassageQuestion],
        *,
        output_dir: str | Path,
        adaptation: Adaptation = "full",
        epochs: int = 3,
        lora: LoraConfig | None = None,
        config: TrainingConfig | None = None,
    ) -> Self:
        """Train on questions. Run it again to resume. Original embedding rows stay unchanged.

        The target is a question's first answer. A window that does not contain all of it has the
        target "no answer".

        Args:
            questions: Questions with answers.
            output_dir: The run's folder. The finished model is in `output_dir/model`.
            adaptation: Parameters that train in addition to the head.
            epochs: Number of epochs over the windows of all passages.
            lora: Rank and target modules of the adapters, with `adaptation="lora"`.
            config: Training settings, by default `task_config(adaptation)`.

        Raises:
            InputError: No question has an answer, or a question has none and `unanswerable` is
                False.
            CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
            TrainingError: The loss is not finite or explodes.
        """
        if not any(question.answers for question in questions):
            raise InputError("no question has an answer", hint="check the field answers")
        if not self.unanswerable and not all(question.answers for question in questions):
            raise InputError(
                "some questions have no answer in their passage",
                hint="make the finder with unanswerable=True",
            )
        self.add_virtual_tokens(adaptation, config)
        pieces = self.read(questions)
        self.fit(
            _Spans(self, pieces, [_target(piece, questions[piece.question]) for piece in pieces]),
            len(pieces),
            {"questions": fingerprint_questions(questions)},
            output_dir=output_dir,
            adaptation=adaptation,
            epochs=epochs,
            lora=lora,
            config=config,
        )
        return self

    def fit_threshold(self, questions: Sequence[PassageQuestion]) -> float:
        """Set the threshold of "no answer" to the one with the best F1 on held-out questions."""
        found = self.predict(questions)
        best = [one.best for one in found]
        self.null_threshold = best_threshold(questions, best, [one.doubt for one in found])
        return self.null_threshold

    def predict(
        self, questions: Sequence[PassageQuestion], *, progress: bool = False
    ) -> list[FoundAnswer]:
        """Find the answer to each question: the best span over all windows of its passage."""
        pieces = self.read(questions)
        spans: list[tuple[float, int, int]] = [(_NOWHERE, 0, 0)] * len(questions)
        nulls = [-_NOWHERE] * len(questions)
        self.encoder.model.network.eval()
        shown = show_progress("reading", len(pieces), shown=progress)
        with torch.inference_mode(), shown as activity:
            for batch in by_length([piece.ids for piece in pieces], _TOKENS_PER_BATCH):
                own = [pieces[number] for number in batch]
                for piece, scores in zip(own, self.score_tokens(own).float().cpu(), strict=True):
                    nulls[piece.question] = min(nulls[piece.question], float(scores[:, 0].sum()))
                    score, first, last = self._best_span(scores, piece)
                    if score > spans[piece.question][0]:
                        place = piece.offsets[first][0], piece.offsets[last][1]
                        spans[piece.question] = (score, *place)
                activity.advance(len(batch))
        found = []
        for question, (score, start, end), null in zip(questions, spans, nulls, strict=True):
            # Some tokenizers include the space before a word in its offsets.
            text = question.context[start:end]
            start += len(text) - len(text.lstrip())
            text = text.strip()
            given = not self.unanswerable or null - score <= self.null_threshold
            found.append(FoundAnswer(text if given else "", start, text, score, null - score))
        return found

    def read(self, questions: Sequence[PassageQuestion]) -> list[_Window]:
        """Return the windows of each question's passage."""
        tokenizer, template = self.encoder.model.tokenizer, self._template
        texts = [question.question.strip() for question in questions]
        asked = tokenizer.encode_batch(texts, add_special_tokens=False)
        contexts = list(dict.fromkeys(question.context for question in questions))
        known = dict(
            zip(
                contexts,
                tokenizer.encode_with_offsets(contexts, add_special_tokens=False),
                strict=True,
            )
        )
        pieces = []
        room = min(self.encoder.max_length, _LONGEST) - template.size
        for number, (question, ids) in enumerate(zip(questions, asked, strict=True)):
            ids = ids[: min(_MOST_QUESTION, room // 2)]
            tokens, offsets = known[question.context]
            size = room - len(ids)
            first = len(template.before) + len(ids) + len(template.between)
            for start, end in windows(len(tokens), size, min(self.stride, size // 2)):
                if start == end:  # a passage without tokens has no answer
                    continue
                row, types = template.join(ids, tokens[start:end])
                pieces.append(_Window(number, row, types, first, list(offsets[start:end])))
        return pieces

    def score_tokens(self, pieces: Sequence[_Window]) -> Tensor:
        """Score "no answer" and each passage token, as start and as end of the answer.

        Shape: (pieces, 2, 1 + longest window).
        """
        encoder = self.encoder
        hidden, mask = hidden_states(
            encoder.model.network,
            [piece.ids for piece in pieces],
            bidirectional=encoder.bidirectional,
            token_types=[piece.types for piece in pieces],
        )
        scores = self.head(hidden.float())
        rows = torch.arange(len(pieces), device=hidden.device)
        causal = encoder.model.network.kind == "causal" and not encoder.bidirectional
        null = scores[rows, mask.sum(1) - 1 if causal else torch.zeros_like(rows), 2]
        longest = max(len(piece.offsets) for piece in pieces)
        places = torch.tensor(
            [[min(p.first + i, len(p.ids) - 1) for i in range(longest)] for p in pieces]
        ).to(hidden.device)
        inside = torch.arange(longest) < torch.tensor([len(p.offsets) for p in pieces])[:, None]
        spans = scores[..., :2].gather(1, places.unsqueeze(2).expand(-1, -1, 2))
        spans = spans.masked_fill(~inside.to(hidden.device).unsqueeze(2), _NOWHERE)
        return torch.cat([null[:, None, None].expand(-1, 2, 1), spans.transpose(1, 2)], 2)

    def _best_span(self, scores: Tensor, piece: _Window) -> tuple[float, int, int]:
        """Return the score of a window's best span, and its first and last token."""
        count = len(piece.offsets)
        starts, ends = scores[:, 1 : count + 1]
        joined = starts[:, None] + ends[None, :]
        allowed = torch.ones(count, count, dtype=torch.bool).triu()
        allowed &= ~torch.ones_like(allowed).triu(self.max_answer_length)
        joined = joined.masked_fill(~allowed, _NOWHERE)
        first, last = divmod(int(joined.argmax()), count)
        return float(joined[first, last]), first, last


@dataclass(frozen=True)
class _Window:
    """A question with a part of its passage."""

    question: int
    """Index of the question."""
    ids: list[int]
    types: list[int]
    first: int
    """Index of the passage's first token in `ids`."""
    offsets: list[tuple[int, int]]
    """Character range of each passage token."""


def _target(piece: _Window, question: PassageQuestion) -> tuple[int, int]:
    """Return the answer's first and last token, from 1; zeros if it is not in the window."""
    if not question.answers:
        return 0, 0
    start = question.answers[0].start
    end = start + len(question.answers[0].text)
    covered = [i for i, (a, b) in enumerate(piece.offsets) if a < end and b > start]
    if not covered or piece.offsets[0][0] > start or piece.offsets[-1][1] < end:
        return 0, 0
    return covered[0] + 1, covered[-1] + 1


@dataclass(frozen=True)
class _Batch:
    pieces: list[_Window]
    targets: Tensor
    """(pieces, 2)."""

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def count(self) -> int:
        return len(self.pieces)

    @property
    def tokens(self) -> int:
        return sum(len(piece.ids) for piece in self.pieces)

    def part(self, rows: slice) -> _Batch:
        return _Batch(self.pieces[rows], self.targets[rows])

    def to(self, device: torch.device) -> _Batch:
        return replace(self, targets=self.targets.to(device))


class _Spans(RowwiseObjective):
    """Mean of the cross-entropies of the start and of the end."""

    def __init__(
        self, finder: AnswerFinder, pieces: Sequence[_Window], targets: Sequence[tuple[int, int]]
    ) -> None:
        self.finder, self.pieces, self.targets = finder, pieces, targets

    def prepare(self, rows: EpochSample) -> _Batch:
        numbers = rows.sources
        targets = torch.tensor([self.targets[number] for number in numbers])
        return _Batch([self.pieces[number] for number in numbers], targets)

    def loss(self, network: Network, batch: _Batch) -> Tensor:
        scores = self.finder.score_tokens(batch.pieces).float()
        return F.cross_entropy(scores.flatten(0, 1), batch.targets.flatten(), reduction="sum") / 2
