"""`RecurrentConfig`: the architecture of a recurrent network and its kinds of dropout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from idiolect.errors import ConfigError
from idiolect.nn.config import Task, TransformerConfig
from idiolect.nn.recurrent.recurrent_cells import CellKind

__all__ = ["DropoutShape", "RecurrentConfig"]

DropoutShape = Literal["element", "sequence"]
"""Whether dropout samples each `element` independently, or one mask per `sequence`."""

_RATES = (
    "embedding_dropout",
    "input_dropout",
    "hidden_dropout",
    "output_dropout",
    "weight_dropout",
)
_PENALTIES = (
    "activation_regularization",
    "temporal_activation_regularization",
    "vanishing_penalty",
)


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """The architecture of a recurrent language model.

    Raises:
        ConfigError: A value is unknown or out of range, or two values contradict each other.
    """

    vocab_size: int
    """Rows of the token embedding."""
    hidden_size: int
    """Size of the last layer's states, which are the input of the head and of an encoder."""
    inner_size: int
    """Size of the states of the layers before the last one."""
    embedding_size: int
    """Size of the token embedding."""
    num_layers: int
    """Number of stacked recurrent layers."""
    cell: CellKind = "lstm"
    """`lstm` (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000), `gru` (Cho et al.
    2014, 1406.1078), or a plain network with `tanh` (Elman 1990) or `relu` (Le et al. 2015,
    1504.00941)."""

    dropout_shape: DropoutShape = "element"
    """`element` (Zaremba et al. 2014, 1409.2329) or `sequence`, called variational (Gal &
    Ghahramani 2016, 1512.05287)."""
    embedding_dropout: float = 0.0
    """Share of vocabulary rows dropped in a training pass: all occurrences of a word are dropped
    together (Gal & Ghahramani 2016)."""
    input_dropout: float = 0.0
    """Dropout on the input of the first layer."""
    hidden_dropout: float = 0.0
    """Dropout between layers."""
    output_dropout: float = 0.0
    """Dropout on the last layer's output."""
    weight_dropout: float = 0.0
    """Dropout on the state-to-state matrices, sampled once per forward pass (DropConnect; Merity et
    al. 2017, 1708.02182)."""
    activation_regularization: float = 0.0
    """Weight of the mean square of the last layer's output after dropout (AR, Merity et al.)."""
    temporal_activation_regularization: float = 0.0
    """Weight of the mean squared change of that output, before dropout, from one token to the next
    (TAR, Merity et al.)."""

    vanishing_penalty: float = 0.0
    """Weight of Ω, which keeps gradients from vanishing in backpropagation through time (Pascanu et
    al. 2013, 1211.5063); only for plain networks, on texts without padding."""

    tasks: tuple[Task, ...] = ("language",)
    """Task heads on top of the network."""
    tie_word_embeddings: bool = True
    """Whether the language-model head shares the weights of the token embedding (Press & Wolf 2017,
    1608.05859); `hidden_size` is then `embedding_size`."""
    head_bias: bool = True
    """A bias on the vocabulary logits."""
    pad_token_id: int | None = None
    """Padding id; its embedding row receives no gradient."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "inner_size", "embedding_size", "num_layers"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} is {value!r}", hint="a whole number, at least 1")
        for name, choices in (("cell", CellKind), ("dropout_shape", DropoutShape)):
            if getattr(self, name) not in get_args(choices):
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}",
                    hint="one of " + ", ".join(get_args(choices)),
                )
        for name in _RATES:
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}", hint="at least 0, less than 1"
                )
        for name in _PENALTIES:
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}", hint="at least 0")
        if self.vanishing_penalty and (self.cell not in ("tanh", "relu") or self.weight_dropout):
            raise ConfigError(
                "vanishing_penalty is for plain networks without weight dropout",
                hint="use model_type rnn; gates keep gradients by themselves",
            )
        unsupported = [task for task in self.tasks if task != "language"]
        if unsupported:
            raise ConfigError(
                f"recurrent networks have no head for the task {unsupported[0]!r}",
                hint="tune an encoder of the network instead",
            )
        if self.tie_word_embeddings and self.hidden_size != self.embedding_size:
            raise ConfigError(
                f"a tied head needs states as wide as the embedding, and they have "
                f"{self.hidden_size} and {self.embedding_size} numbers",
                hint="set tie_word_embeddings to false",
            )

    @property
    def has_dropout(self) -> bool:
        """Whether any dropout rate is above zero."""
        return any(getattr(self, name) for name in _RATES)

    def layer_sizes(self, layer: int) -> tuple[int, int]:
        """Return the sizes of a layer's input and of its states."""
        last = layer == self.num_layers - 1
        return (
            self.embedding_size if layer == 0 else self.inner_size,
            self.hidden_size if last else self.inner_size,
        )

    @property
    def max_position_embeddings(self) -> int:
        """Maximum length: 0, which means unlimited."""
        return 0

    @property
    def head(self) -> TransformerConfig:
        """The configuration of the language-model head, in the form that all heads use."""
        return TransformerConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=1,
            num_attention_heads=1,
            num_decoder_layers=1,
            position="none",
            tie_word_embeddings=self.tie_word_embeddings,
            head_bias=self.head_bias,
        )

    # Properties that model families require of every configuration.
    gated: ClassVar[bool] = False
    has_position_table: ClassVar[bool] = False
    num_attention_heads: ClassVar[int] = 1
    num_encoder_layers: ClassVar[int] = 0
    position: ClassVar[str] = "recurrent"

    @property
    def num_decoder_layers(self) -> int:
        """Number of layers, which are causal like a decoder's."""
        return self.num_layers
