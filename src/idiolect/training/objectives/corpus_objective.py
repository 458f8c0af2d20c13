"""`CorpusObjective`: the base class of objectives that train on text.

An objective defines the special tokens it needs, the template around a text, and the source of its
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from idiolect.nn.network import Network
from idiolect.text.templates.text_template import TextTemplate
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.packed_documents import PackedDocuments
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.objective import RowwiseObjective
from idiolect.training.training_config import TrainingConfig

__all__ = ["CorpusObjective"]


class CorpusObjective(RowwiseObjective):
    """A loss over rows of text."""

    needs_sentences: bool = False
    """Whether the source needs sentence boundaries."""
    languages_are: ClassVar[Literal["tokens", "embeddings"] | None] = None
    """How a network receives the language of a text, if it can: as a `tokens` id at the end of the
    text (mBART), or as an id of its language `embeddings` for each token (XLM)."""

    @classmethod
    def create(cls, network: Network, tokenizer: Tokenizer, *, seed: int, **settings: Any) -> Self:
        """Make the objective for a run.

        Args:
            network: The network.
            tokenizer: Its tokenizer.
            seed: Random seed.
            settings: The objective's own settings.
        """
        return cls(network, tokenizer, seed=seed, **settings)  # type: ignore[call-arg]

    @staticmethod
    def missing_tokens(tokenizer: Tokenizer, *, max_length: int, **settings: Any) -> Sequence[str]:
        """Return the tokens that a run needs and the tokenizer lacks, in the order of new ids."""
        del tokenizer, max_length, settings
        return ()

    def template(self, tokenizer: Tokenizer, language: str | None = None) -> TextTemplate:
        """Return the special tokens around each text."""
        del language
        return TextTemplate.of(tokenizer, causal=False)

    def row_length(self, max_length: int) -> int:
        """Return the number of text tokens for a row of `max_length` tokens."""
        return max_length

    def make_source(
        self,
        tokens: TokenFile,
        tokenizer: Tokenizer,
        config: TrainingConfig,
        *,
        name: str = "the corpus",
        language: str | None = None,
    ) -> Any:
        """Return the source of a run's rows.

        Args:
            tokens: The text.
            tokenizer: Its tokenizer.
            config: Sizes and seed.
            name: Name of the text in messages.
            language: Its language, if known.

        Raises:
            InputError: There is too little text.
        """
        return PackedDocuments(
            tokens,
            self.template(tokenizer, language),
            length=self.row_length(config.max_length),
            rows=config.batch_size,
            seed=config.seed,
            pad_id=tokenizer.pad_token_id,
            name=name,
            language=language,
        )
