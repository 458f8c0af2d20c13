"""`Summariser`: write summaries with a decoder, a recurrent network or an encoder-decoder.

    decoder            text + prompt ──► summary      (the prompt is "TL;DR:", Radford et al. 2019)
    encoder-decoder    text ──► encoder ──► decoder ──► summary

A text that does not fit is split at sentences into parts. The parts are summarised, and then their
concatenated summaries (Wu et al. 2021, 2109.10862), until all fits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.generate.generator import Generator
from idiolect.models.language_model import LanguageModel
from idiolect.nn.lora import LoraConfig
from idiolect.nn.network import Network
from idiolect.tasks.summarise.summarised_texts import SummarisedText, split_sentences
from idiolect.text.arguments import check_path, check_whole, checked, load_if_named
from idiolect.text.files import read_json, write_atomic
from idiolect.text.format_version import check_format, with_format
from idiolect.text.templates.text_template import TextTemplate
from idiolect.training.data.batch import IGNORE_INDEX, Batch, pad_rows
from idiolect.training.data.sentence_pairs import PairRows, SentencePairs
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.objectives.causal import language_loss
from idiolect.training.objectives.objective import Objective, RowwiseObjective
from idiolect.training.objectives.translation import Translation
from idiolect.training.progress import notice, show_progress
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig
from idiolect.training.translate import encode_texts, end_id

__all__ = ["Summariser", "summary_config"]

_RECORD = "summariser.json"
_RATES = {"full": 5e-5, "lora": 5e-4}
_LONGEST = 1024
"""Default limit of `max_length`, for models with a longer context."""


def summary_config(adaptation: Literal["full", "lora"] = "full", **values: Any) -> TrainingConfig:
    """Return the default training settings.

    Args:
        adaptation: Which parameters train.
        values: Fields of `TrainingConfig` to override.
    """
    if adaptation not in _RATES:
        raise ConfigError(f"unknown adaptation {adaptation!r}", hint="one of full, lora")
    usual = {"learning_rate": _RATES[adaptation], "min_lr_ratio": 0.0, "weight_decay": 0.01}
    return TrainingConfig.from_dict(usual | values)


class Summariser:
    """Writes summaries.

    >>> summariser = Summariser("smollm2")                                # doctest: +SKIP
    >>> summariser.train(texts, output_dir="runs/tldr", adaptation="lora")       # doctest: +SKIP
    >>> summariser.summarise(["a long text"])                                    # doctest: +SKIP

    Args:
        model: The model, or its name: a decoder or an encoder-decoder.
        prompt: Text after the input, for a decoder.
        max_length: Maximum tokens of text and prompt; by default the model's context, at most
            1,024, minus `max_new_tokens` for a decoder.
        max_new_tokens: Maximum tokens of a summary.

    Raises:
        InputError: The model does not write texts, or has no token that ends a text.
        ConfigError: There is no room for a text.
    """

    @checked
    def __init__(
        self,
        model: LanguageModel,
        *,
        prompt: str = "\n\nTL;DR:",
        max_length: int | None = None,
        max_new_tokens: int = 64,
    ) -> None:
        self.model = load_if_named(model, LanguageModel, "model")
        self.generator = Generator(self.model)
        self.prompt = prompt
        self.max_new_tokens = check_whole(max_new_tokens, "max_new_tokens", 1)
        self._is_decoder = self.model.network.kind == "causal"
        end = end_id(self.model)
        if end is None:
            raise InputError("the model has no token that ends a text", hint="set eos_token_id")
        self.end = end
        context = self.generator.context_length
        # A decoder writes the summary into the same context as the text.
        room = None if context is None else context - (max_new_tokens if self._is_decoder else 0)
        usual = min(_LONGEST, _LONGEST if room is None else room)
        self.max_length = usual if max_length is None else max_length
        if room is not None and self.max_length > room:
            raise ConfigError(
                f"max_length is {self.max_length}, and the model has room for {room} tokens",
                hint="choose a smaller max_length or max_new_tokens",
            )
        self._before, self._after = self._frame()
        self._room = self.max_length - len(self._before) - len(self._after)
        if self._room < 8:
            raise ConfigError(
                f"{self.max_length} tokens leave no room for a text", hint="raise max_length"
            )

    @classmethod
    @checked
    def load(cls, directory: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load a summariser that `save` wrote.

        Raises:
            CheckpointError: Files are missing or damaged.
        """
        directory = check_path(directory, "directory")
        record = check_format(read_json(directory / _RECORD), directory / _RECORD)
        prompt, numbers = record.get("prompt"), (record.get("max_length"), record.get("new"))
        if not isinstance(prompt, str) or not all(type(n) is int for n in numbers):
            raise CheckpointError(f"{directory / _RECORD} is damaged", hint="save it again")
        model = LanguageModel.load(directory, device=device)
        longest, new = (int(n or 0) for n in numbers)
        return cls(model, prompt=prompt, max_length=longest, max_new_tokens=new)

    @checked
    def save(self, directory: str | Path) -> None:
        """Write the model as an ordinary language model, with the settings in its directory.

        Raises:
            InputError: The directory cannot be written to.
        """
        directory = check_path(directory, "directory")
        self.model.save(directory)
        record = {
            "prompt": self.prompt,
            "max_length": self.max_length,
            "new": self.max_new_tokens,
        }
        write_atomic(directory / _RECORD, f"{json.dumps(with_format(record), indent=2)}\n".encode())

    def train(
        self,
        texts: Sequence[SummarisedText],
        *,
        output_dir: str | Path,
        adaptation: Literal["full", "lora"] = "full",
        epochs: int = 3,
        batch_tokens: int = 4096,
        lora: LoraConfig | None = None,
        config: TrainingConfig | None = None,
    ) -> Self:
        """Train on texts with summaries; each reference is an example. Run it again to resume.

        A text that does not fit is cut at its end, and counted. Original embedding rows stay
        unchanged.

        Args:
            texts: Texts with summaries.
            output_dir: The run's folder. The finished model is in `output_dir/model`.
            adaptation: Which parameters train: the network except its original rows, or LoRA
                adapters.
            epochs: Number of epochs over the examples.
            batch_tokens: Size of a batch: number of examples times the longest length.
            lora: Rank and target modules of the adapters, with `adaptation="lora"`.
            config: Training settings, by default `summary_config(adaptation)`. `batch_size` has no
                effect.

        Raises:
            InputError: There are no texts with summaries.
            ConfigError: A setting is out of its range.
            CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
            TrainingError: The loss is not finite or explodes.
        """
        config = summary_config(adaptation) if config is None else config
        sources, targets = self._examples(texts)
        source = SentencePairs(sources, targets, batch_tokens=batch_tokens, seed=config.seed)
        session = TrainingSession(
            self.model,
            out=output_dir,
            config=config,
            steps=check_whole(epochs, "epochs", 1) * len(source),
            train="all" if adaptation == "full" else "rows+lora",
            lora=lora,
        )
        session.begin(
            {
                "model": fingerprint(self.model.network.state_dict()),
                "tokenizer": self.model.tokenizer.fingerprint,
                "examples": hashlib.blake2b(repr((sources, targets)).encode()).hexdigest()[:32],
                "objective": "summary",
                "batch_tokens": batch_tokens,
            }
        )
        pad = self.model.tokenizer.pad_token_id or 0
        objective: Objective = (
            _Continuation(pad)
            if self._is_decoder
            else Translation(self.model.network, pad_id=pad, label_smoothing=0.1)
        )
        session.train(objective, source)
        session.publish(self.save)
        return self

    def summarise(
        self,
        texts: Sequence[str],
        *,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        no_repeat_ngram_size: int = 3,
        batch_size: int = 16,
        progress: bool = False,
    ) -> list[str]:
        """Return a summary of each text, an empty one of an empty text.

        Args:
            texts: The texts.
            num_beams: Beams of the search; 1 is greedy.
            length_penalty: Beam scores are divided by the length to this power.
            no_repeat_ngram_size: No n-gram of this size occurs twice in a summary; 0 for no limit.
            batch_size: Texts that are summarised together.
            progress: Show the progress.
        """
        options: dict[str, Any] = {
            "num_beams": num_beams,
            "length_penalty": length_penalty if num_beams > 1 else 1.0,
            "no_repeat_ngram_size": no_repeat_ngram_size,
            "max_new_tokens": self.max_new_tokens,
        }
        results = [""] * len(texts)
        waiting = [(i, " ".join(text.split())) for i, text in enumerate(texts) if text.strip()]
        with show_progress("summarising", len(texts), shown=progress) as activity:
            while waiting:
                now, waiting = waiting[:batch_size], waiting[batch_size:]
                parts = [self._parts(text) for _, text in now]
                rows = [row for own in parts for row in own]
                made = self.generator.generate(rows, batch_size=batch_size, **options)
                found = [self._text(one.ids) for one in made]
                for (number, text), own in zip(now, parts, strict=True):
                    written, found = " ".join(found[: len(own)]).strip(), found[len(own) :]
                    if len(own) > 1 and written:  # summarise the joined summaries of the parts
                        waiting.insert(0, (number, self._shorter(written, text)))
                    else:
                        results[number] = written
                        activity.advance(1)
        return results

    def _text(self, ids: list[int]) -> str:
        written = ids[: ids.index(self.end)] if self.end in ids else ids
        return " ".join(self.model.tokenizer.decode(written).split())

    def _shorter(self, summary: str, text: str) -> str:
        """Return the summary, cut to half a part if it is as long as the text or longer."""
        ids = self._ids(summary)
        if len(ids) < len(self._ids(text)):
            return summary
        return self.model.tokenizer.decode(ids[: self._room // 2])

    def _parts(self, text: str) -> list[list[int]]:
        """Return the input rows of a text: one, or several if it is too long."""
        pieces = [text] if len(self._ids(text)) <= self._room else split_sentences(text)
        rows, current = list[list[int]](), list[int]()
        for piece in pieces:
            ids = self._ids(f" {piece}" if current else piece)
            if current and len(current) + len(ids) > self._room:
                rows.append(current)
                current, ids = [], self._ids(piece)
            while len(ids) > self._room:  # a single sentence that is too long
                rows.append(ids[: self._room])
                ids = ids[self._room :]
            current = current + ids
        rows.append(current)
        return [self._row(ids) for ids in rows if ids]

    def _ids(self, text: str) -> list[int]:
        return self.model.tokenizer.encode(text, add_special_tokens=False)

    def _frame(self) -> tuple[list[int], list[int]]:
        """Return the ids that precede and follow a text."""
        if self._is_decoder:
            template = TextTemplate.of(self.model.tokenizer, causal=False)
            return list(template.before), self._ids(self.prompt)
        full, bare = encode_texts(self.model, ["a"])[0], self._ids("a")
        start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return full[:start], full[start + len(bare) :]

    def _row(self, ids: list[int]) -> list[int]:
        return [*self._before, *ids, *self._after]

    def _examples(self, texts: Sequence[SummarisedText]) -> tuple[list[list[int]], list[list[int]]]:
        sources, targets, cut = list[list[int]](), list[list[int]](), 0
        for text in texts:
            ids = self._ids(text.text)
            cut += len(ids) > self._room
            row = self._row(ids[: self._room])
            for summary in text.summaries:
                # A decoder writes the summary after the prompt, so it begins with a space.
                target = self._ids(f" {summary}" if self._is_decoder else summary)
                sources.append(row)
                targets.append([*target[: self.max_new_tokens - 1], self.end])
        if not sources:
            raise InputError("no text has a summary", hint="name the field: --summary")
        if cut:
            notice(f"{cut:,} of {len(texts):,} texts have more than {self._room:,} tokens; cut")
        return sources, targets


class _Continuation(RowwiseObjective):
    """Predict the summary after the text; the text's own tokens have no loss."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def prepare(self, rows: PairRows) -> Batch:
        joined = [[*s, *t] for s, t in zip(rows.source_ids, rows.target_ids, strict=True)]
        input_ids, attention_mask = pad_rows(joined, self.pad_id)
        labels = torch.full_like(input_ids, IGNORE_INDEX)
        for row, (source, target) in enumerate(zip(rows.source_ids, rows.target_ids, strict=True)):
            start = len(source) - 1  # the last token of the prompt predicts the first of these
            labels[row, start : start + len(target)] = torch.tensor(target)
        return Batch(input_ids=input_ids, attention_mask=attention_mask, labels=labels)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        return language_loss(network, batch)
