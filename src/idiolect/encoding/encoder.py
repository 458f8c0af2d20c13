"""`Encoder`: convert texts to vectors with any `LanguageModel`.

- Texts are sorted by length and batched by the number of tokens, so there is little padding. The
  vectors are in the order of the texts.
- Truncated and empty texts are counted. Unless `counts` is passed, they are logged as a warning.
- The vector of a text without tokens is zero.
- Several threads may encode with one model: encoding changes no state of the network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from idiolect.encoding.encoder_fingerprint import hash_weights
from idiolect.encoding.encoder_forward import (
    check_finite,
    hidden_states,
    second_copy,
    usual_tokens_per_batch,
)
from idiolect.encoding.encoder_layout import LAYOUT_FILES, EncoderLayout, encoder_repr
from idiolect.encoding.int8 import encoding_precision, with_int8
from idiolect.encoding.matryoshka import VectorSample, check_dimensions, shortened
from idiolect.encoding.pooling import Pooling, check_pooling, pool
from idiolect.encoding.projection import Projection
from idiolect.encoding.projection_fitting import fit_projection, fold_projection
from idiolect.encoding.text_reader import (
    EncodingCounts,
    TextReader,
    by_length,
    check_length,
    check_texts,
)
from idiolect.encoding.vectors import DiskVectors, Vectors
from idiolect.errors import ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.models.model_directory import replacing
from idiolect.models.shallow import first_layers, quantize_table
from idiolect.nn.matrix_precision import ChosenPrecision, MatrixPrecision
from idiolect.text.arguments import checked, list_of_texts, load_if_named
from idiolect.text.corpus import documents_of
from idiolect.text.hub import locate
from idiolect.training.progress import show_progress

__all__ = ["Encoder"]

_BLOCK = 1 << 14
"""Texts tokenized at a time."""
_LOG = logging.getLogger(__name__)


class Encoder:
    """A model that maps a text to a vector.

    >>> encoder = Encoder.load("path/to/all-MiniLM-L6-v2")      # doctest: +SKIP
    >>> encoder.encode(["a text", "another"]).shape             # doctest: +SKIP
    (2, 384)

    Args:
        model: The model; of an encoder-decoder model only the encoder is used.
        pooling: How hidden states become a vector; see `idiolect.encoding.pooling`.
        projection: A linear map of the pooled vectors; see `project`.
        normalize: Whether to scale vectors to length one.
        prompts: Prompts by name; a prompt is prepended to a text.
        max_length: Maximum tokens of a text with special tokens; by default the model's, or 512.
        bidirectional: Use bidirectional attention in a causal model (LLM2Vec, BehnamGhader et al.
            2024, 2404.05961). The model must be tuned that way to produce good vectors.
        default_prompt_name: Name of the prompt for texts encoded without one.
        trained_dimensions: Shorter widths the model was trained for (Matryoshka).
        published: Whether it was published as an encoder; see `idiolect.search.hybrid_weight`.
        layers: Use only the first layers of the model. With 0, the encoder is static: a vector is
            the mean of the tokens' embedding rows, copied; see `idiolect.models.shallow`.
        precision: Format of matrix products while encoding; see `idiolect.nn.matrix_precision`.

    Raises:
        ConfigError: An unknown pooling, more tokens than the model has positions or more layers
            than it has, `bidirectional` if it is already, or no layers with a pooling but `mean`.
    """

    @checked
    def __init__(
        self,
        model: LanguageModel,
        pooling: Pooling = "mean",
        *,
        projection: Projection | None = None,
        normalize: bool = True,
        prompts: Mapping[str, str] | None = None,
        max_length: int | None = None,
        bidirectional: bool = False,
        default_prompt_name: str | None = None,
        trained_dimensions: Sequence[int] = (),
        published: bool = False,
        layers: int | str | None = None,
        precision: MatrixPrecision = "fp32",
    ) -> None:
        model = load_if_named(model, LanguageModel, "model")
        check_pooling(pooling)
        if layers is not None:
            model = first_layers(model, layers)
        if model.network.context_free and pooling != "mean":
            raise ConfigError(f"{pooling} pooling of a static encoder", hint="use mean")
        if bidirectional and model.network.kind != "causal":
            raise ConfigError("the model is already bidirectional", hint="omit bidirectional")
        self.model = model
        self.pooling: Pooling = pooling
        self.projection = projection and projection.to(model.network.device)
        self.normalize = normalize
        self.prompts = dict(prompts or {})
        self.bidirectional = bidirectional
        self.default_prompt_name = default_prompt_name
        self.trained_dimensions = tuple(trained_dimensions)
        self.published = published and layers is None
        self._warned: set[int] = set()
        self._float_fingerprint = ""
        """The fingerprint before `to_int8`; empty without quantization."""
        self.precision: ChosenPrecision = encoding_precision(model.network, precision)
        self.max_length = check_length(model, max_length)
        self.reader = TextReader(
            model.tokenizer,
            self.max_length,
            repeat=2 if pooling == "echo" else 1,
            prompts=self.prompts,
            default_prompt_name=default_prompt_name,
            add_special_tokens=not model.network.context_free,
        )
        """Converts texts to rows of ids."""
        if self.precision == "int8":
            self.to_int8()

    __repr__ = encoder_repr

    @classmethod
    @checked
    def load(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        precision: MatrixPrecision = "fp32",
    ) -> Self:
        """Load a sentence-transformers model, or a plain model with mean pooling.

        Args:
            source: A directory, or the id of a repository on the hub.
            device: The network's device.
            precision: As for `Encoder`.

        Raises:
            InputError: There is no such directory or repository.
            CheckpointError: Files are missing, damaged or of different models.
            ConfigError: An unsupported family, module or setting that would change vectors.
        """
        directory = locate(source, LAYOUT_FILES)
        layout = EncoderLayout.read(directory) or EncoderLayout(normalize=True)
        model = LanguageModel.load(source, device=device)
        return cls(model, **vars(layout), precision=precision)

    @checked
    def save(self, directory: str | Path, *, precision: str = "fp32") -> None:
        """Write the model atomically, so that `load` and sentence-transformers can load it.

        sentence-transformers computes the same vectors. It refuses the directory of an encoder that
        it does not support: echo pooling, a bidirectional causal model, or only the encoder of some
        encoder-decoder models.

        Args:
            directory: The directory.
            precision: `int8` stores a static encoder's rows in a quarter of the space.

        Raises:
            InputError: The directory cannot be written to, or `to_int8` quantized the weights.
            ConfigError: An unknown precision, or `int8` for an encoder that is not static.
        """
        if precision != "fp32" and not (self.model.network.context_free and precision == "int8"):
            raise ConfigError(f"precision {precision!r}", hint="int8 is for static encoders only")
        if self._float_fingerprint:
            raise InputError("quantized weights cannot be saved", hint="save before to_int8")
        with replacing(directory) as fresh:
            self.model.save(fresh)
            if precision == "int8":
                quantize_table(fresh)
            split = not self.reader.prompts_have_special_tokens
            self.layout.write(fresh, self.model, split_special_tokens=split)

    def to_int8(self) -> None:
        """Quantize the linear layers to 8-bit integers, as `precision="int8"` does from the start.

        The encoder can no longer be trained or saved, and its fingerprint changes.

        Raises:
            ConfigError: The model is not on a CPU, or has adapters.
            MissingDependencyError: This build of torch has no int8 kernels.
        """
        if self.model.network.device.type != "cpu":
            raise ConfigError("int8 needs a CPU", hint="load with device='cpu'")
        if not self._float_fingerprint:
            self._float_fingerprint = self.fingerprint
            self.model = self.model.with_changes(network=with_int8(self.model.network))
            self.precision = "int8"

    def with_changes(self, **changes: Any) -> Encoder:
        """Return an encoder that differs in some arguments and shares the rest.

        Args:
            changes: Arguments of `Encoder`, such as `model` or `max_length`.

        Raises:
            ConfigError: As for `Encoder`.
        """
        own = {"model": self.model, "precision": self.precision}
        return Encoder(**own | vars(self.layout) | changes)

    @property
    def layout(self) -> EncoderLayout:
        """All settings except the model."""
        return EncoderLayout(**{f.name: getattr(self, f.name) for f in fields(EncoderLayout)})

    @property
    def dimensions(self) -> int:
        """Width of the vectors."""
        hidden_size = int(self.model.network.config.hidden_size)
        return hidden_size if self.projection is None else self.projection.dimensions

    @property
    def fingerprint(self) -> str:
        """A hash of everything that determines vectors: 32 hexadecimal digits.

        It is computed at each access, since training changes the weights.
        """
        if self._float_fingerprint:
            return hash_weights(f"int8 {self._float_fingerprint}", {})
        settings = [self.model.tokenizer.fingerprint, self.pooling, self.normalize, self.max_length]
        settings += [self.bidirectional, sorted(self.prompts.items()), self.default_prompt_name]
        projection = {} if self.projection is None else self.projection.tensors
        return hash_weights(repr(settings), self.model.network.state_dict() | projection)

    @checked
    def encode(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        tokens_per_batch: int | None = None,
        progress: bool = False,
        counts: EncodingCounts | None = None,
    ) -> NDArray[np.float32]:
        """Encode texts. Safe to call from several threads.

        Args:
            texts: The texts, for example a list, a column of a table, or a generator.
            prompt_name: Name of a prompt: `document`, `query` or another one of the model.
            dimensions: Keep only this many dimensions (Matryoshka), and normalize again.
            tokens_per_batch: Tokens per forward pass; memory grows with it. By default it depends
                on the device.
            progress: Show the progress.
            counts: Updated with the numbers of texts; by default problems are logged as a warning.

        Returns:
            Shape (texts, dimensions).

        Raises:
            InputError: A single text, an element that is not a text, or an unknown prompt name.
            VerificationError: A vector is not finite.
        """
        width = check_dimensions(dimensions, self.dimensions)
        counted = EncodingCounts()
        check_texts(texts := list_of_texts(texts))
        vectors = np.zeros((len(texts), width), dtype=np.float32)
        untrained = width not in {*self.trained_dimensions, self.dimensions, *self._warned}
        sample = VectorSample(len(texts))
        tokens_per_batch = tokens_per_batch or usual_tokens_per_batch(self.model.network)
        shown = show_progress("encoding", len(texts), shown=progress)
        with torch.inference_mode(), shown as activity:
            for start in range(0, len(texts), _BLOCK):
                rows = self.reader.read(texts[start : start + _BLOCK], prompt_name, counted)
                for batch in by_length(rows, tokens_per_batch):
                    embedded = self.embed_rows([rows[i] for i in batch]).float()
                    numbers = [start + i for i in batch]
                    check_finite(embedded, numbers)
                    whole = embedded.cpu().numpy()
                    if untrained:
                        sample.add(whole, numbers)
                    vectors[numbers] = shortened(whole, width, normalize=self.normalize)
                    activity.advance(len(batch))
                activity.update(start + len(rows))
        if warning := sample.warning(width):
            self._warned.add(width)
            _LOG.warning(warning)
        counted.add_to(counts, self.max_length)
        return vectors

    @checked
    def encode_to(
        self,
        path: str | Path,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        tokens_per_batch: int | None = None,
        block: int = 8192,
        progress: bool = False,
        counts: EncodingCounts | None = None,
    ) -> Vectors:
        """Write the vectors of texts to a file; see `idiolect.encoding.vectors`.

        Memory does not grow with the number of texts. Call it again to resume an interrupted run;
        for a finished file it does nothing.

        Args:
            path: The `.npy` file.
            texts: The texts, iterated once. To resume, pass all of them again.
            prompt_name: As in `encode`.
            dimensions: As in `encode`.
            tokens_per_batch: As in `encode`.
            block: Number of texts that are sorted by length and written together.
            progress: As in `encode`.
            counts: As in `encode`.

        Raises:
            InputError: As in `encode`; or the file was started with other texts or settings.
            CheckpointError: The partial file is damaged.
            VerificationError: A vector is not finite.
        """
        width = check_dimensions(dimensions, self.dimensions)
        texts = documents_of(texts, "texts")
        settings = {"encoder": self.fingerprint, "kind": prompt_name, "precision": self.precision}
        file = DiskVectors(path, settings, width)
        counted = EncodingCounts(**file.counts)
        total = len(texts) if isinstance(texts, Sized) else 0
        with show_progress("encoding", total, shown=progress) as activity:
            activity.start_at(file.rows)
            for some in file.remaining(texts, block):
                vectors = self.encode(
                    some,
                    prompt_name=prompt_name,
                    dimensions=dimensions,
                    tokens_per_batch=tokens_per_batch,
                    counts=counted,
                )
                file.append(some, vectors, vars(counted))
                activity.advance(len(some))
        counted.add_to(counts, self.max_length)
        return file.finish()

    def embed(self, texts: Sequence[str], prompt_name: str | None = None) -> Tensor:
        """Encode texts with gradients, and with dropout if the network is in training mode.

        Shape: result (texts, dimensions), normalized if the encoder normalizes.
        """
        rows = self.reader.read(list_of_texts(texts), prompt_name, EncodingCounts())
        return self.embed_rows(rows)

    def project(self, texts: Sequence[str], *, whiten: bool = False) -> None:
        """Fit a projection to the vectors of some texts, and use it from then on.

        The projection orders dimensions by variance, so that vectors can be shortened. Whitening
        makes the vectors of a model that was not trained for encoding easier to distinguish. An
        existing projection is composed with the new one.

        Args:
            texts: Documents, of which a sample is used.
            whiten: Also scale, and center unless the encoder is static; see
                `idiolect.encoding.projection`.

        Raises:
            InputError: No text has a token; and as in `encode`.
            VerificationError: A vector is not finite.
        """
        self.use_projection(self.fit_projection(texts, whiten=whiten))

    def fit_projection(self, texts: Sequence[str], *, whiten: bool) -> Projection:
        """Return the projection that `project` would use."""
        fitted = fit_projection(self.model, self.reader, self.pooled_rows, texts, whiten=whiten)
        return fitted.after(self.projection)

    def use_projection(self, projection: Projection) -> None:
        """Apply a projection to all later vectors; a static encoder multiplies it into its rows."""
        self.projection = projection.to(self.model.network.device)
        if self.model.network.context_free:
            fold_projection(self.model, self.projection, normalized=self.normalize)
            self.projection = None

    def embed_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Encode rows of ids that `reader` returned; see `embed`."""
        vectors = self.pooled_rows(rows)
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    def pooled_rows(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Encode rows of ids without scaling vectors to length one."""
        if self.model.network.context_free:
            vectors = self.model.network.mean_states(rows)
        else:
            vectors = pool(self.pooling, *self.read_rows(rows))
        return vectors if self.projection is None else self.projection(vectors)

    def read_rows(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the hidden states of rows that `reader` returned, and the mask for pooling.

        Shape: (rows, longest, width) and (rows, longest).
        """
        network, both = self.model.network, self.bidirectional
        hidden, mask = hidden_states(network, rows, bidirectional=both, precision=self.precision)
        if self.pooling == "echo":
            mask = second_copy(mask, self.reader.template)
        return hidden, mask
