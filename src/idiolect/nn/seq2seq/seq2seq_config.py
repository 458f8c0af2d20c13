"""The configuration of a recurrent encoder-decoder: one dataclass for all published variants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from idiolect.errors import ConfigError
from idiolect.nn.seq2seq.attention_scores import ScoreName

__all__ = ["AttentionRange", "CellName", "QueryState", "Seq2SeqConfig"]

CellName = Literal["lstm", "gru"]
AttentionRange = Literal["global", "local-m", "local-p"]
QueryState = Literal["previous", "current"]


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig:
    """A recurrent encoder, a recurrent decoder, and attention between them.

    Raises:
        ConfigError: A value is unknown or out of range, or two values contradict each other.
    """

    vocab_size: int
    """Rows of the token embedding, which both sides share."""
    hidden_size: int = 256
    """Size of embeddings, of the decoder's states and of both encoder directions together."""
    num_layers: int = 1
    """Layers of the encoder, and of the decoder."""
    cell: CellName = "lstm"
    """The recurrent cell."""
    bidirectional: bool = False
    """Whether the encoder reads in both directions, each with half of `hidden_size`."""
    reverse_source: bool = False
    """Whether the encoder reads the source from its end (Sutskever et al. 2014, 1409.3215)."""
    attention: ScoreName | Literal["none"] = "none"
    """The score function; see `attention_scores`."""
    query: QueryState = "current"
    """The decoder state that is the query: the `previous` one, whose context is an input of the
    step (Bahdanau), or the `current` one, whose context is combined with the output (Luong)."""
    attention_range: AttentionRange = "global"
    """All positions (global), a window around the step's number (`local-m`), or a window around a
    predicted position (`local-p`)."""
    attention_window: int = 10
    """D: positions on each side of the window's centre."""
    hard_attention: bool = False
    """Hard attention to one position instead of a weighted mean: sampled in training, with a
    REINFORCE loss (Xu et al. 2015, 1502.03044), otherwise the most probable one."""
    input_feeding: bool = False
    """Whether the attentional output of a step is an input of the next one (Luong)."""
    copy: bool = False
    """Mix the predictions with copies of source tokens (pointer-generator, See et al. 2017,
    1704.04368)."""
    coverage_loss: float = 0.0
    """Weight of See et al.'s coverage loss; above 0 the score also reads the sum of earlier
    weights."""
    max_position_embeddings: int = 0
    """Maximum length of a source, for location-based attention (0: unlimited)."""
    dropout: float = 0.0
    """Dropout on embeddings, between layers, and on the output."""
    tie_word_embeddings: bool = True
    """Whether the language-model head shares the weights of the token embedding."""
    pad_token_id: int | None = None
    """Padding id; its embedding row receives no gradient."""
    decoder_start_token_id: int | None = None
    """First id of the decoder (`None`: the source's last token)."""
    eos_token_id: int | None = None
    """Id of the token that ends a text."""
    tasks: tuple[Literal["language"], ...] = ("language",)
    """The heads."""

    # Properties that every configuration has, and those that heads use of `TransformerConfig`.
    position = "none"
    num_attention_heads = 1
    gated = False
    norm = "layer"
    norm_eps = 1e-5
    activation = "tanh"
    head_activation = None
    head_transform = False
    head_transform_bias = True
    head_bias = True
    output_scale = 1.0
    logit_softcap = None

    @property
    def num_encoder_layers(self) -> int:
        """Layers of the encoder."""
        return self.num_layers

    @property
    def num_decoder_layers(self) -> int:
        """Layers of the decoder."""
        return self.num_layers

    def __post_init__(self) -> None:
        for name, kind in (
            ("cell", CellName),
            ("query", QueryState),
            ("attention_range", AttentionRange),
        ):
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise ConfigError(f"{name} is {getattr(self, name)!r}", hint=f"one of {known}")
        if self.attention not in ("none", *get_args(ScoreName)):
            raise ConfigError(
                f"attention is {self.attention!r}",
                hint="one of " + ", ".join(("none", *get_args(ScoreName))),
            )
        for name, minimum in (
            ("vocab_size", 1),
            ("hidden_size", 1),
            ("num_layers", 1),
            ("attention_window", 1),
            ("max_position_embeddings", 0),
            ("coverage_loss", 0),
        ):
            if not getattr(self, name) >= minimum:
                raise ConfigError(f"{name} is {getattr(self, name)}", hint=f"at least {minimum}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}", hint="at least 0, less than 1")
        if self.bidirectional and self.hidden_size % 2:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is odd", hint="two directions share it"
            )
        self._check_attention()

    def _check_attention(self) -> None:
        if self.attention == "none":
            needed = {
                "query='previous'": self.query == "previous",
                "attention_range": self.attention_range != "global",
                "hard_attention": self.hard_attention,
                "input_feeding": self.input_feeding,
                "copy": self.copy,
                "coverage_loss": self.coverage_loss > 0,
            }
            if wrong := [name for name, used in needed.items() if used]:
                raise ConfigError(f"{wrong[0]} without attention", hint="choose a score function")
        if self.attention == "location" and not self.max_position_embeddings:
            raise ConfigError(
                "attention by location needs a length", hint="set max_position_embeddings"
            )
        if self.coverage_loss and self.attention not in ("additive", "concat"):
            raise ConfigError(
                f"coverage with the score {self.attention!r}", hint="choose attention='additive'"
            )
        if self.copy and self.attention_range == "local-p":
            raise ConfigError(
                "the weights of local-p do not add up to one, so tokens cannot be copied by them",
                hint="choose attention_range='global'",
            )
        if self.query == "previous" and self.input_feeding:
            raise ConfigError(
                "input_feeding with query='previous': the context is fed already",
                hint="choose query='current'",
            )
