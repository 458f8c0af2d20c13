"""The configuration of a Transformer: one frozen dataclass that describes every family.

A family is a set of values; no code branches on a model's name. The defaults describe a pre-norm
decoder with learned positions, as in GPT-2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from idiolect.errors import ConfigError

__all__ = [
    "Activation",
    "NormKind",
    "PoolKind",
    "PositionKind",
    "RotaryScaling",
    "Task",
    "TransformerConfig",
]

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
NormKind = Literal["layer", "rms"]
PositionKind = Literal[
    "none", "learned", "sinusoidal", "rotary", "buckets", "shaw", "alibi", "untied"
]
PoolKind = Literal["none", "first", "last", "end"]
Task = Literal["language", "next_sentence", "sequence", "token", "span", "reward"]


_MINIMUM = {
    "vocabulary": 1,
    "width": 1,
    "heads": 1,
    "inner": 1,
    "key_heads": 1,
    "score_width": 1,
    "encoder_layers": 0,
    "decoder_layers": 0,
    "max_positions": 0,
    "position_offset": 0,
    "relative_buckets": 0,
    "relative_distance": 0,
    "token_types": 0,
    "languages": 0,
    "norm_epsilon": 0,
    "labels": 1,
}


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """How rotary frequencies are scaled for texts longer than in pre-training."""

    kind: Literal["linear", "yarn", "llama3"]
    """`linear`: every frequency is divided by `factor` (Chen et al. 2023, position interpolation);
    `yarn`: only low frequencies are, and scores are rescaled (Peng et al. 2023, 2309.00071);
    `llama3`: only wavelengths above a band are (Llama 3.1)."""
    factor: float
    """By how much the length of texts may grow."""
    trained_length: int = 0
    """The length of pre-training, in tokens (yarn and llama3)."""
    fast: float = 32.0
    """Rotations within `trained_length` above which a frequency is unchanged (yarn: beta_fast,
    llama3: `high_freq_factor`)."""
    slow: float = 1.0
    """Rotations below which a frequency is fully divided (yarn: beta_slow, llama3:
    `low_freq_factor`)."""
    attention_factor: float | None = None
    """yarn: factor on cosines and sines (`None`: 0.1·ln(factor) + 1)."""
    rounded: bool = True
    """yarn: whether the ends of the ramp are rounded to whole dimensions."""

    def __post_init__(self) -> None:
        if not self.factor >= 1:
            raise ConfigError(f"a rotary scaling by {self.factor}", hint="at least 1")
        if self.kind != "linear" and not (self.trained_length > 0 and self.fast > self.slow > 0):
            raise ConfigError(
                f"rotary scaling {self.kind} with trained_length {self.trained_length}, slow "
                f"{self.slow} and fast {self.fast}",
                hint="set trained_length, and fast above slow",
            )


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The architecture of a Transformer: encoder, decoder, or both.

    Raises:
        ConfigError: A value is unknown or out of range, or two values contradict each other.
    """

    vocabulary: int
    """Rows of the token embedding, padding rows included."""
    width: int
    """Size of the hidden states."""
    heads: int
    """Attention heads (query heads)."""
    inner: int
    """Size of the feed-forward layer's intermediate activations."""
    encoder_layers: int = 0
    """Layers with bidirectional attention."""
    decoder_layers: int = 0
    """Layers with causal attention; with an encoder, also with cross-attention to its output."""
    kv_heads: int | None = None
    """Key/value heads, each shared by `heads / kv_heads` attention heads (`None`: `heads`)."""
    head_width: int | None = None
    """Size of one attention head (`None`: `width / heads`)."""

    norm: NormKind = "layer"
    """`layer`: mean and variance; `rms`: root mean square only, no bias."""
    norm_epsilon: float = 1e-5
    """Added to the variance before the root."""
    norm_first: bool = True
    """Norm before each sub-layer (pre-norm) or after its residual sum (post-norm)."""
    embedding_norm: bool = False
    """Norm over the summed embeddings."""
    final_norm: bool = True
    """Norm after the last layer."""
    qk_norm: bool = False
    """RMS norm over the queries and keys of each attention head (Qwen3)."""

    activation: Activation = "gelu"
    """`gelu` by the error function, `gelu_tanh` by its tanh approximation, `relu`, `silu`."""
    gated: bool = False
    """Gated linear unit, activation(x·G) · (x·U), before the last matrix (Shazeer 2020,
    2002.05202)."""
    query_bias: bool = True
    """Biases on the query, key and value projections."""
    output_bias: bool = True
    """Bias on the attention's output projection."""
    inner_bias: bool = True
    """Biases in the feed-forward layer."""

    position: PositionKind = "learned"
    """`learned` and `sinusoidal` are added to the embeddings; `rotary` turns queries and keys;
    `buckets` (T5), `alibi` and `untied` (TUPE) add to the scores; `shaw` adds relative keys and
    values inside each layer."""
    max_positions: int = 0
    """Rows of the learned table, without the offset; for other kinds the length of pre-training
    (0: unlimited)."""
    position_offset: int = 0
    """First row used by the first token (2 in RoBERTa, BART, XGLM)."""
    sinusoid_interleaved: bool = True
    """Alternate sines and cosines, as in the paper; otherwise all sines, then all cosines, with the
    slightly different frequencies of tensor2tensor and fairseq."""
    rotary_base: float = 10_000.0
    """Base of the rotary frequencies (theta)."""
    rotary_scaling: RotaryScaling | None = None
    """Scaling for longer texts."""
    relative_buckets: int = 32
    """T5 and TUPE: number of distance classes; Shaw: 2·k + 1 with distances clipped at ±k."""
    relative_distance: int = 128
    """T5 and TUPE: the distance from which all are in the last class."""
    windows: tuple[int | None, ...] = ()
    """Attention window of each layer: the number of keys a query attends to, counting itself
    (`None`: all). Repeated over the layers: `(None, 128)` alternates dense and locally banded
    attention, as in GPT-3."""

    score_scale: float | None = None
    """Factor on query·key (`None`: head_width^-0.5; T5: 1)."""
    embedding_scale: float = 1.0
    """Factor on the token embeddings."""
    output_scale: float = 1.0
    """Factor on the hidden states before the language-model head."""
    token_types: int = 0
    """Rows of the segment embedding (BERT's sentence A and B)."""
    languages: int = 0
    """Rows of the language embedding (XLM)."""
    dropout: float = 0.0
    """On embeddings and on each sub-layer's output."""
    attention_dropout: float = 0.0
    """On attention weights."""
    inner_dropout: float = 0.0
    """Inside the feed-forward layer, after the activation."""

    tasks: tuple[Task, ...] = ("language",)
    """Task heads on top of the network; the first computes `logits`."""
    tied: bool = True
    """Whether the language-model head shares the weights of the token embedding."""
    head_transform: bool = False
    """Dense, activation and norm before the language-model head (BERT)."""
    head_activation: Activation | None = None
    """The activation in that transform (`None`: `activation`; RoBERTa: always gelu)."""
    head_bias: bool = False
    """A bias on the vocabulary logits (BERT, XLM, BART)."""
    pool: PoolKind = "none"
    """Which token represents a text: the `first`, the `last` real one, or the last `end` token."""
    pool_dense: bool = False
    """A dense layer with tanh on that token (BERT's pooler)."""
    labels: int = 2
    """Classes of the sequence or token classification head."""
    label_bias: bool = True
    """A bias on the sequence classification head."""
    end_id: int | None = None
    """Id of the token that `pool="end"` looks for."""
    pad_id: int | None = None
    """Padding id; its embedding row receives no gradient."""
    start_id: int | None = None
    """First id of the decoder of an encoder-decoder network (`None`: the text's last token)."""
    shift_last: bool = False
    """Start the default decoder input with the text's last token instead of the start id (mBART,
    where that token is the language code)."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("activation", Activation),
            ("head_activation", Activation),
            ("norm", NormKind),
            ("position", PositionKind),
            ("pool", PoolKind),
        ):
            value = getattr(self, name)
            if value not in get_args(kind) and not (name == "head_activation" and value is None):
                raise ConfigError(
                    f"{name} is {value!r}", hint="one of " + ", ".join(get_args(kind))
                )
        for task in self.tasks:
            if task not in get_args(Task):
                raise ConfigError(
                    f"unknown task {task!r}", hint="one of " + ", ".join(get_args(Task))
                )
        for name, minimum in _MINIMUM.items():
            if not getattr(self, name) >= minimum:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint=f"at least {minimum}")
        for name in ("dropout", "attention_dropout", "inner_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", hint="at least 0, less than 1"
                )
        if self.encoder_layers + self.decoder_layers < 1:
            raise ConfigError(
                "a Transformer without layers", hint="set encoder_layers or decoder_layers"
            )
        if self.head_width is None and self.width % self.heads:
            raise ConfigError(
                f"width {self.width} is not a multiple of the {self.heads} attention heads"
            )
        if self.heads % self.key_heads:
            raise ConfigError(
                f"{self.heads} attention heads cannot share {self.key_heads} key/value heads evenly"
            )
        self._check_positions()
        if not all(w is None or (isinstance(w, int) and w >= 1) for w in self.windows):
            raise ConfigError(
                f"attention windows {self.windows}", hint="at least 1, or None for all"
            )
        if self.pool == "end" and self.end_id is None:
            raise ConfigError("pooling by the end token without an end token", hint="set end_id")

    def _check_positions(self) -> None:
        if self.position in ("learned", "untied") and self.max_positions < 1:
            raise ConfigError(
                f"{self.position} positions without a length", hint="set max_positions"
            )
        if self.position == "rotary" and self.score_width % 2:
            raise ConfigError(
                f"rotary positions need an even attention head size, not {self.score_width}"
            )
        if self.position == "shaw" and self.relative_buckets % 2 == 0:
            raise ConfigError(
                f"relative_buckets is {self.relative_buckets}",
                hint="Shaw's positions need an odd number: left, right and zero distances",
            )
        relative = self.position == "untied" and self.relative_buckets > 0
        # A quarter of the classes (half in a decoder) hold one distance each.
        if (relative or self.position == "buckets") and not (
            4 <= self.relative_buckets < 2 * self.relative_distance
        ):
            raise ConfigError(
                f"{self.relative_buckets} distance classes up to {self.relative_distance}",
                hint="at least 4 classes, and a distance of more than half of them",
            )

    @property
    def key_heads(self) -> int:
        """Key/value heads: `kv_heads`, by default `heads`."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def score_width(self) -> int:
        """Size of one attention head: `head_width`, by default `width / heads`."""
        return self.width // self.heads if self.head_width is None else self.head_width

    def window(self, layer: int) -> int | None:
        """Return a layer's attention window, counting the query itself; `None` for all keys."""
        return self.windows[layer % len(self.windows)] if self.windows else None
