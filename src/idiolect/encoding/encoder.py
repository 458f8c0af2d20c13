"""`Encoder`: texts to vectors, with any `LanguageModel`.

What is notable:

- Texts are sorted by length and batched by tokens, not by number, so that hardly anything is
  padding; vectors come back in the order of the texts.
- Nothing is cut silently: texts that are too long, and empty ones, are counted, and told where the
  caller does not count them.
- A text without a single token of its own has the zero vector: it is like no other text.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from idiolect.encoding.encoder_forward import (
    check_finite,
    hidden_states,
    second_reading,
)
from idiolect.encoding.encoder_layout import LAYOUT_FILES, EncoderLayout
from idiolect.encoding.int8 import to_int8
from idiolect.encoding.matryoshka import tell_untrained
from idiolect.encoding.pooling import Pooling, check_pooling, pool
from idiolect.encoding.projection import Projection
from idiolect.encoding.text_reader import (
    EncodingCounts,
    TextReader,
    by_length,
    check_length,
    check_texts,
)
from idiolect.encoding.vectors import VectorFile, Vectors
from idiolect.errors import ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.models.model_directory import replacing
from idiolect.text.hub import locate

__all__ = ["Encoder"]

_TOKENS_PER_BATCH = 2048
"""On a CPU: what stays in its caches."""
_TOKENS_ELSEWHERE = 1 << 15
"""On an accelerator, which wants to be filled."""
_BLOCK = 1 << 14
"""Texts whose ids are held at once."""
_SAMPLE = 512
_FITTED = 4
"""Texts for each dimension that a projection is fitted to."""
_TELL = logging.getLogger(__name__)


class Encoder:
    """A model that makes one vector of a text.

    >>> encoder = Encoder.load("path/to/all-MiniLM-L6-v2")      # doctest: +SKIP
    >>> encoder.encode(["a text", "another"]).shape             # doctest: +SKIP
    (2, 384)

    Args:
        model: The model. Of one with an encoder and a decoder, the encoder is used.
        pooling: How hidden states become a vector; see `idiolect.encoding.pooling`.
        projection: What maps the pooled vectors, if anything does; see `project`.
        normalise: Whether vectors have length one.
        instructions: Text put before a text, by the kind of text.
        length: Tokens read of a text, those of the template counted; by default as many as model
            and tokenizer name, and 512 where both are silent.
        both_ways: Let a causal model attend to what follows as well (LLM2Vec, BehnamGhader et al.
            2024, 2404.05961). It has to be trained for that before it gives good vectors.
        default_kind: The kind of texts whose kind is not told.
        trained_dimensions: Shorter widths the model was trained for (Matryoshka).

    Raises:
        ConfigError: An unknown pooling, a length the model has no positions for, or a model that
            attends both ways already.
    """

    def __init__(
        self,
        model: LanguageModel,
        pooling: Pooling = "mean",
        *,
        projection: Projection | None = None,
        normalise: bool = True,
        instructions: Mapping[str, str] | None = None,
        length: int | None = None,
        both_ways: bool = False,
        default_kind: str | None = None,
        trained_dimensions: Sequence[int] = (),
    ) -> None:
        check_pooling(pooling)
        if both_ways and model.network.encoder is not None:
            raise ConfigError("the model attends both ways already", hint="leave both_ways out")
        self.model = model
        self.pooling: Pooling = pooling
        self.projection = projection and projection.to(model.network.device)
        self.normalise = normalise
        self.instructions = dict(instructions or {})
        self.both_ways = both_ways
        self.default_kind = default_kind
        self.trained_dimensions = tuple(trained_dimensions)
        self._told: set[int] = set()
        self._rounded = ""
        """The fingerprint before `to_int8`."""
        self.length = check_length(model, length)
        self.reader = TextReader(
            model.tokenizer,
            self.length,
            twice=pooling == "echo",
            instructions=self.instructions,
            default_kind=default_kind,
        )
        """Makes a row of ids of each text."""

    @classmethod
    def load(cls, source: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load a model of sentence-transformers, or a plain one, whose tokens are averaged.

        Args:
            source: A directory, or the id of a repository on the hub.
            device: Where to put the network.

        Raises:
            InputError: There is no such directory or repository.
            CheckpointError: Files are missing or damaged, or do not fit together.
            ConfigError: A family, step or setting that is not supported and would change vectors.
        """
        directory = locate(source, LAYOUT_FILES)
        layout = EncoderLayout.read(directory) or EncoderLayout(normalise=True)
        return cls(LanguageModel.load(source, device=device), **vars(layout))

    def save(self, directory: str | Path) -> None:
        """Write the model where `load` and sentence-transformers find it; whole, or not at all.

        sentence-transformers gives the same vectors, or refuses the directory: echo pooling and
        causal models that read both ways are nothing it knows.

        Raises:
            InputError: The directory cannot be written to, or weights were rounded by `to_int8`.
        """
        if self._rounded:
            raise InputError("rounded weights are not saved", hint="save before to_int8")
        with replacing(directory) as fresh:
            self.model.save(fresh)
            self.layout.write(fresh, self.model.network.config.width)

    def to_int8(self) -> None:
        """Compute the dense maps in 8-bit integers from now on; see `idiolect.encoding.int8`.

        Several times as fast on a CPU, and a little less exact. The encoder can then no longer be
        trained or saved, and its fingerprint is another one.

        Raises:
            ConfigError: The model is not on a CPU, or carries adapters.
            MissingDependencyError: This build of torch computes nothing in int8.
        """
        if self.model.network.device.type != "cpu":
            raise ConfigError("int8 is computed on a CPU only", hint="load with device='cpu'")
        if not self._rounded:
            self._rounded = self.fingerprint
            to_int8(self.model.network)

    def altered(self, **changes: Any) -> Encoder:
        """Return an encoder that reads as this one does but for some arguments.

        Args:
            changes: Arguments of `Encoder`, such as `model` or `length`.

        Raises:
            ConfigError: As for a new one.
        """
        return Encoder(**{"model": self.model} | vars(self.layout) | changes)

    @property
    def layout(self) -> EncoderLayout:
        """What is to be known of it beside the model."""
        return EncoderLayout(
            pooling=self.pooling,
            projection=self.projection,
            normalise=self.normalise,
            length=self.length,
            both_ways=self.both_ways,
            instructions=self.instructions,
            default_kind=self.default_kind,
            trained_dimensions=self.trained_dimensions,
        )

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        if self.projection is not None:
            return self.projection.dimensions
        return self.model.network.config.width

    @property
    def fingerprint(self) -> str:
        """A hash of all that determines vectors: 32 hexadecimal digits.

        Computed whenever it is asked for, since weights change in training.
        """
        if self._rounded:
            return hashlib.blake2b(f"int8 {self._rounded}".encode(), digest_size=16).hexdigest()
        settings = [self.model.tokenizer.fingerprint, self.pooling, self.normalise, self.length]
        settings += [self.both_ways, sorted(self.instructions.items()), self.default_kind]
        digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
        tensors = self.model.network.state_dict()
        if self.projection is not None:
            tensors |= self.projection.tensors
        for name, tensor in sorted(tensors.items()):
            if not name.startswith(("heads.", "pooler.")):
                digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def encode(
        self,
        texts: Sequence[str],
        *,
        kind: str | None = None,
        dimensions: int | None = None,
        tokens_per_batch: int | None = None,
        progress: bool = False,
        counts: EncodingCounts | None = None,
    ) -> NDArray[np.float32]:
        """Make a vector of each text.

        Args:
            texts: The texts.
            kind: `document`, `query` or another kind the model has an instruction for.
            dimensions: Keep only so many of the first dimensions (Matryoshka), and normalise again.
            tokens_per_batch: Tokens read at once; memory grows with it. By default what suits the
                device.
            progress: Show how far it is, on a terminal.
            counts: Added to. Where it is not given, cut and empty texts are told as a warning.

        Returns:
            Shape (texts, dimensions), in the order of the texts.

        Raises:
            InputError: One text instead of several, something that is no text, or an unknown kind.
            VerificationError: A vector is not finite.
        """
        width = self._check_dimensions(dimensions)
        counted = EncodingCounts()
        check_texts(texts)
        vectors = np.zeros((len(texts), width), dtype=np.float32)
        untrained = width not in {*self.trained_dimensions, self.dimensions, *self._told}
        sample: list[Tensor] = []
        bar = Progress(console=Console(stderr=True), disable=not progress)
        if tokens_per_batch is None:
            on_cpu = self.model.network.device.type == "cpu"
            tokens_per_batch = _TOKENS_PER_BATCH if on_cpu else _TOKENS_ELSEWHERE
        with torch.inference_mode(), bar:
            task = bar.add_task("encoding", total=len(texts))
            for start in range(0, len(texts), _BLOCK):
                rows = self.reader.read(texts[start : start + _BLOCK], kind, counted)
                for batch in by_length(rows, tokens_per_batch):
                    found = self.embed_rows([rows[i] for i in batch]).float()
                    places = [start + i for i in batch]
                    check_finite(found, places)
                    if untrained:
                        step = -(-len(texts) // _SAMPLE)
                        sample.append(found[[j for j, i in enumerate(places) if i % step == 0]])
                    if width < self.dimensions:
                        found = found[:, :width]
                        found = F.normalize(found, dim=-1) if self.normalise else found
                    vectors[places] = found.cpu().numpy()
                    bar.advance(task, len(batch))
                bar.update(task, completed=start + len(rows))
        if sample:
            self._told.add(width)
            _TELL.warning(tell_untrained(torch.cat(sample).cpu().numpy(), width))
        if counts is None:
            counted.tell(self.length)
        else:
            counts.add(counted)
        return vectors

    def encode_to(
        self,
        path: str | Path,
        texts: Iterable[str],
        *,
        kind: str | None = None,
        dimensions: int | None = None,
        tokens_per_batch: int | None = None,
        block: int = 8192,
        progress: bool = False,
        counts: EncodingCounts | None = None,
    ) -> Vectors:
        """Write a vector of each text to a file; see `idiolect.encoding.vectors`.

        Memory does not grow with the number of texts. The same call goes on where one that was
        ended stopped, and does nothing where one has finished.

        Args:
            path: Of the `.npy` file.
            texts: The texts; read once, in order. To go on, give the same ones from the start.
            kind: As in `encode`.
            dimensions: As in `encode`.
            tokens_per_batch: As in `encode`.
            block: Texts that are sorted by length and written together.
            progress: Show how far it is, on a terminal.
            counts: Added to. Where it is not given, cut and empty texts are told as a warning.

        Raises:
            InputError: As in `encode`; or the file was begun with other texts or settings.
            CheckpointError: What was written before is damaged.
            VerificationError: A vector is not finite.
        """
        width = self._check_dimensions(dimensions)
        settings = {"encoder": self.fingerprint, "kind": kind}
        file = VectorFile(path, settings, width)
        counted = EncodingCounts(**file.counts)
        columns = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=Console(stderr=True), disable=not progress)
        with bar:
            total = len(texts) if isinstance(texts, Sized) else None
            task = bar.add_task("", total=total, completed=file.rows)
            for some in file.remaining(texts, block):
                vectors = self.encode(
                    some,
                    kind=kind,
                    dimensions=dimensions,
                    tokens_per_batch=tokens_per_batch,
                    counts=counted,
                )
                file.append(some, vectors, vars(counted))
                bar.advance(task, len(some))
        if counts is None:
            counted.tell(self.length)
        else:
            counts.add(counted)
        return file.finish()

    def embed(self, texts: Sequence[str], kind: str | None = None) -> Tensor:
        """Make a vector of each text, differentiable; in the mode the network is in.

        Shape: result (texts, dimensions), normalised if the encoder normalises.
        """
        return self.embed_rows(self.reader.read(texts, kind, EncodingCounts()))

    def project(self, texts: Sequence[str], *, whiten: bool = False) -> None:
        """Fit a map of the vectors to those of some texts, and use it from now on.

        The first dimensions then say the most, and whitened, vectors of a model that was never
        trained to make any can be told apart. A map that is there already is fitted further.

        Args:
            texts: Documents; of many, some are read.
            whiten: Also centre and scale; see `idiolect.encoding.projection`.

        Raises:
            InputError: No text has a token; and as in `encode`.
            VerificationError: A vector is not finite.
        """
        step = max(1, len(texts) // (_FITTED * self.dimensions))
        rows = self.reader.read(texts[::step], "document", EncodingCounts())
        parts: list[Tensor] = []
        with torch.inference_mode():
            for batch in by_length(rows, _TOKENS_PER_BATCH):
                parts.append(self._pooled([rows[i] for i in batch]).float().cpu())
                check_finite(parts[-1], [step * i for i in batch])
        if not parts:
            raise InputError("there is no text to fit a projection to")
        fitted = Projection.fit(torch.cat(parts).numpy(), whiten=whiten)
        self.projection = fitted.to(self.model.network.device).after(self.projection)

    def _check_dimensions(self, dimensions: int | None) -> int:
        if dimensions is None:
            return self.dimensions
        if not 1 <= dimensions <= self.dimensions:
            raise InputError(
                f"{dimensions} dimensions; the model has {self.dimensions}",
                hint=f"give a number from 1 to {self.dimensions}",
            )
        return dimensions

    def embed_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Do as `embed` does, with what `reader` has made of the texts."""
        vectors = self._pooled(rows)
        return F.normalize(vectors, dim=-1) if self.normalise else vectors

    def _pooled(self, rows: Sequence[Sequence[int]]) -> Tensor:
        vectors = pool(self.pooling, *self.read_rows(rows))
        return vectors if self.projection is None else self.projection(vectors)

    def read_rows(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the hidden states of what `reader` has made of texts, and which are to be pooled.

        Shape: (rows, longest, width) and (rows, longest), the latter true for those.
        """
        hidden, mask = hidden_states(self.model.network, rows, both_ways=self.both_ways)
        if self.pooling == "echo":
            mask = second_reading(mask, self.reader.frame)
        return hidden, mask
