"""`TextTemplate`: the special tokens around a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["TextTemplate"]


@dataclass(frozen=True)
class TextTemplate:
    """The special tokens around a text."""

    before: tuple[int, ...]
    """Ids before each text, and before each continuation of a text that was split."""
    after: tuple[int, ...]
    """Ids after the end of each text."""
    after_cut: tuple[int, ...] = ()
    """Ids after a part of a text that continues in the next row."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, *, causal: bool) -> TextTemplate:
        """Return the tokenizer's own template.

        For a causal model, a start and an end token are added if the template lacks them: the first
        token is predicted from the start token. A tokenizer that has only an end token uses it for
        both (GPT-2's <|endoftext|>).

        Args:
            tokenizer: The tokenizer.
            causal: Whether the model predicts the next token.
        """
        bare = tokenizer.encode("a", add_special_tokens=False)
        full = tokenizer.encode("a")
        start = next(
            (i for i in range(len(full)) if bare and full[i : i + len(bare)] == bare), len(full)
        )
        before, after = tuple(full[:start]), tuple(full[start + len(bare) :])
        if not causal:
            return cls(before, after, after)
        end = tokenizer.eos_token_id
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
        if not before and first is not None:
            before = (first,)
        if not after and end is not None:
            after = (end,)
        return cls(before, after)
