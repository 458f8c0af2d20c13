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
    "NormPlacement",
    "PoolKind",
    "PositionKind",
    "QueryKeyNorm",
    "RotaryScaling",
    "Task",
    "TransformerConfig",
]

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh"]
NormKind = Literal["layer", "rms"]
NormPlacement = Literal["before", "after_sum", "after", "before_and_after"]
QueryKeyNorm = Literal["none", "per_head", "all_heads"]
PositionKind = Literal[
    "none",
    "learned",
    "sinusoidal",
    "rotary",
    "buckets",
    "learned_buckets",
    "shaw",
    "alibi",
    "untied",
]
PoolKind = Literal["none", "first", "last", "end", "mean"]
Task = Literal["language", "next_sentence", "sequence", "token", "span", "reward"]


_MINIMUM = {
    "vocab_size": 1,
    "hidden_size": 1,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "key_value_heads": 1,
    "attention_head_size": 1,
    "num_encoder_layers": 0,
    "num_decoder_layers": 0,
    "max_position_embeddings": 0,
    "position_offset": 0,
    "relative_buckets": 0,
    "relative_distance": 0,
    "type_vocab_size": 0,
    "num_languages": 0,
    "norm_eps": 0,
    "num_labels": 1,
}


# Bounds on forged configurations, a hundred times what published networks have.
_MAXIMUM = {
    "num_encoder_layers": 10_000,
    "num_decoder_layers": 10_000,
    "hidden_size": 1_000_000,
    "attention_head_size": 1_000_000,
}


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """How rotary frequencies are scaled for texts longer than in pre-training."""

    kind: Literal["linear", "yarn", "llama3"]
    """`linear`: every frequency is divided by `factor` (Chen et al. 2023, position interpolation);
    `yarn`: only low frequencies are, and scores are rescaled (Peng et al. 2023, 2309.00071);
    `llama3`: only wavelengths above a band are (Llama 3.1)."""
    factor: float
    """Ratio of the supported length to the trained one."""
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
            raise ConfigError(f"the rotary scaling factor is {self.factor}", hint="at least 1")
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

    vocab_size: int
    """Rows of the token embedding, padding rows included."""
    hidden_size: int
    """Size of the hidden states."""
    num_attention_heads: int
    """Attention heads (query heads)."""
    intermediate_size: int
    """Size of the feed-forward layer's intermediate activations."""
    num_encoder_layers: int = 0
    """Layers with bidirectional attention."""
    num_decoder_layers: int = 0
    """Layers with causal attention; with an encoder, also with cross-attention to its output."""
    num_key_value_heads: int | None = None
    """Key/value heads, each shared by `num_attention_heads / num_key_value_heads` attention heads
    (`None`: `num_attention_heads`)."""
    head_dim: int | None = None
    """Size of one attention head (`None`: `hidden_size / num_attention_heads`)."""

    norm: NormKind = "layer"
    """`layer`: mean and variance; `rms`: root mean square only, no bias."""
    norm_eps: float = 1e-5
    """Added to the variance before the root."""
    norm_bias: bool = True
    """A bias in layer norms (ModernBERT: none)."""
    norm_offset: float = 0.0
    """Added to the stored weights of RMS norms (Gemma: 1)."""
    norm_placement: NormPlacement = "before"
    """Norm `before` each sub-layer (pre-norm), `after_sum` of sub-layer and residual (post-norm),
    `after` the sub-layer and before the sum (OLMo 2), or `before_and_after` the sub-layer
    (Gemma)."""
    first_attention_norm: bool = True
    """Norm before the first layer's attention (ModernBERT has none: its embeddings are normed)."""
    parallel_residual: bool = False
    """Attention and feed-forward layer both read the layer's input, and both outputs are added to
    it (GPT-NeoX)."""
    embedding_norm: bool = False
    """Norm over the summed embeddings."""
    final_norm: bool = True
    """Norm after the last layer."""
    qk_norm: QueryKeyNorm = "none"
    """RMS norm over the queries and over the keys, `per_head` (Qwen3, Gemma 3) or over
    `all_heads` together (OLMo 2)."""

    activation: Activation = "gelu"
    """`gelu` by the error function, `gelu_tanh` by its tanh approximation, and others."""
    gated: bool = False
    """Gated linear unit, activation(x·G) · (x·U), before the last matrix (Shazeer 2020,
    2002.05202)."""
    query_bias: bool = True
    """Biases on the query, key and value projections."""
    output_bias: bool = True
    """Bias on the attention's output projection."""
    feed_forward_bias: bool = True
    """Biases in the feed-forward layer."""

    position: PositionKind = "learned"
    """`learned` and `sinusoidal` are added to the embeddings; `rotary` rotates queries and keys;
    `buckets` (T5), `alibi` and `untied` (TUPE) add to the scores; `learned_buckets` (MPNet)
    combines `learned` and `buckets`; `shaw` adds relative keys and values inside each layer."""
    max_position_embeddings: int = 0
    """Rows of the learned table, without the offset; for other kinds the maximum length in
    pre-training (0: unlimited)."""
    position_offset: int = 0
    """First row used by the first token (2 in RoBERTa, BART, XGLM)."""
    sinusoid_interleaved: bool = True
    """Alternate sines and cosines, as in the paper; otherwise all sines, then all cosines, with the
    slightly different frequencies of tensor2tensor and fairseq."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies (theta)."""
    rope_scaling: RotaryScaling | None = None
    """Scaling for longer texts."""
    local_rope_theta: float | None = None
    """Base of the rotary frequencies of layers with a window, which are then not scaled (`None`: as
    in the other layers)."""
    partial_rotary_factor: float = 1.0
    """Share of each head's dimensions that rotary positions rotate, beginning with the first."""
    rotary_layers: tuple[bool, ...] = ()
    """Whether each layer uses rotary positions, repeated over the layers; by default all do."""
    relative_buckets: int = 32
    """T5 and TUPE: number of relative position buckets; Shaw: 2·k + 1 for distances clipped at
    ±k."""
    relative_distance: int = 128
    """T5 and TUPE: all distances from this one on share the last bucket."""
    windows: tuple[int | None, ...] = ()
    """Attention window of each layer: the number of keys a query attends to, counting itself
    (`None`: all). Repeated over the layers: `(None, 128)` alternates dense and locally banded
    attention, as in GPT-3."""

    score_scale: float | None = None
    """Factor on query·key (`None`: attention_head_size^-0.5; T5: 1)."""
    score_softcap: float | None = None
    """Bound c of the scores: c·tanh(score / c) (Gemma 2; without fused attention kernels)."""
    logit_softcap: float | None = None
    """Bound c of the vocabulary logits: c·tanh(logit / c) (Gemma 2)."""
    embedding_scale: float = 1.0
    """Factor on the token embeddings."""
    output_scale: float = 1.0
    """Factor on the hidden states before the language-model head."""
    type_vocab_size: int = 0
    """Rows of the segment embedding (BERT's sentence A and B)."""
    num_languages: int = 0
    """Rows of the language embedding (XLM)."""
    dropout: float = 0.0
    """On embeddings and on each sub-layer's output."""
    attention_dropout: float = 0.0
    """On attention weights."""
    activation_dropout: float = 0.0
    """Inside the feed-forward layer, after the activation."""

    tasks: tuple[Task, ...] = ("language",)
    """Task heads on top of the network; the first computes `logits`."""
    tie_word_embeddings: bool = True
    """Whether the language-model head shares the weights of the token embedding."""
    head_transform: bool = False
    """A dense layer, activation and norm before the language-model, token and span heads (BERT)."""
    head_transform_bias: bool = True
    """A bias in that dense layer and in the pooler's (ModernBERT: none)."""
    head_activation: Activation | None = None
    """The activation in that transform (`None`: `activation`; RoBERTa: always gelu)."""
    head_bias: bool = False
    """A bias on the vocabulary logits (BERT, XLM, BART)."""
    pool: PoolKind = "none"
    """Pooling of a text's hidden states: its `first` token, the `last` real one, the last `end`
    token, or the `mean` of all."""
    pool_dense: bool = False
    """A dense layer and an activation after pooling (BERT's pooler)."""
    pool_activation: Activation = "tanh"
    """The activation of the pooler."""
    pool_norm: bool = False
    """A norm after that activation (ModernBERT)."""
    num_labels: int = 2
    """Classes of the sequence or token classification head."""
    label_bias: bool = True
    """A bias on the sequence classification head."""
    eos_token_id: int | None = None
    """Id of the token that `pool="end"` looks for."""
    pad_token_id: int | None = None
    """Padding id; its embedding row receives no gradient."""
    decoder_start_token_id: int | None = None
    """First id of the decoder of an encoder-decoder network (`None`: the text's last token)."""
    shift_last: bool = False
    """Start the default decoder input with the text's last token instead of the start id (mBART,
    where that token is the language code)."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("activation", Activation),
            ("head_activation", Activation),
            ("pool_activation", Activation),
            ("norm", NormKind),
            ("norm_placement", NormPlacement),
            ("qk_norm", QueryKeyNorm),
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
        for name, maximum in _MAXIMUM.items():
            if getattr(self, name) > maximum:
                raise ConfigError(f"{name} is {getattr(self, name):,}", hint=f"{maximum:,} at most")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", hint="at least 0, less than 1"
                )
        if self.num_encoder_layers + self.num_decoder_layers < 1:
            raise ConfigError(
                "the Transformer has no layers", hint="set num_encoder_layers or num_decoder_layers"
            )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.key_value_heads:
            raise ConfigError(
                f"{self.num_attention_heads} attention heads cannot share {self.key_value_heads} "
                "key/value heads evenly"
            )
        self._check_layers()
        self._check_positions()
        if not all(w is None or (isinstance(w, int) and w >= 1) for w in self.windows):
            raise ConfigError(
                f"windows is {self.windows}", hint="at least 1 each, or None for all keys"
            )
        if self.pool == "end" and self.eos_token_id is None:
            raise ConfigError("pool='end' needs an end token", hint="set eos_token_id")

    def _check_layers(self) -> None:
        if self.norm_offset and self.norm != "rms":
            raise ConfigError(f"norm_offset is {self.norm_offset}", hint="only RMS norms have one")
        if self.parallel_residual and (
            self.norm_placement != "before" or (self.num_encoder_layers and self.num_decoder_layers)
        ):
            raise ConfigError(
                "parallel_residual needs norms before the sub-layers and no cross-attention",
                hint="set norm_placement='before', and only an encoder or only a decoder",
            )
        if not self.first_attention_norm and self.norm_placement != "before":
            raise ConfigError(
                "first_attention_norm is off, and norms are not before the sub-layers",
                hint="set norm_placement='before'",
            )
        for name in ("score_softcap", "logit_softcap", "local_rope_theta"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}", hint="above 0, or None")

    def _check_positions(self) -> None:
        if self.has_position_table and self.max_position_embeddings < 1:
            raise ConfigError(
                f"{self.position} positions need a length", hint="set max_position_embeddings"
            )
        if not 0 < self.partial_rotary_factor <= 1:
            raise ConfigError(
                f"partial_rotary_factor is {self.partial_rotary_factor}",
                hint="above 0, at most 1",
            )
        if self.position == "rotary" and (self.rotary_size % 2 or not self.rotary_size):
            raise ConfigError(
                f"rotary positions need an even attention head size, not {self.rotary_size}"
            )
        if self.position == "shaw" and self.relative_buckets % 2 == 0:
            raise ConfigError(
                f"relative_buckets is {self.relative_buckets}",
                hint="Shaw's positions need an odd number: left, right and zero distances",
            )
        relative = self.position == "untied" and self.relative_buckets > 0
        # A quarter of the buckets (half in a decoder) contain a single distance.
        if (relative or self.has_buckets) and not (
            4 <= self.relative_buckets < 2 * self.relative_distance
        ):
            raise ConfigError(
                f"relative_buckets is {self.relative_buckets} and relative_distance is "
                f"{self.relative_distance}",
                hint="at least 4 classes, and a distance of more than half of them",
            )

    @property
    def key_value_heads(self) -> int:
        """Key/value heads: `num_key_value_heads`, by default `num_attention_heads`."""
        return (
            self.num_attention_heads
            if self.num_key_value_heads is None
            else self.num_key_value_heads
        )

    @property
    def attention_head_size(self) -> int:
        """Size of one attention head: `head_dim`, by default `hidden_size /
        num_attention_heads`.
        """
        return (
            self.hidden_size // self.num_attention_heads if self.head_dim is None else self.head_dim
        )

    @property
    def has_position_table(self) -> bool:
        """Whether texts are bounded by the rows of a position table."""
        return self.position in ("learned", "learned_buckets", "untied")

    @property
    def has_buckets(self) -> bool:
        """Whether scores depend on T5's relative position buckets."""
        return self.position in ("buckets", "learned_buckets")

    @property
    def rotary_size(self) -> int:
        """Number of dimensions of each attention head that rotary positions rotate."""
        return int(self.attention_head_size * self.partial_rotary_factor)

    def window(self, layer: int) -> int | None:
        """Return a layer's attention window, counting the query itself; `None` for all keys."""
        return self.windows[layer % len(self.windows)] if self.windows else None
