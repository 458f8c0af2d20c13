"""`PairTemplate`: two texts in one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["PairTemplate"]


@dataclass(frozen=True)
class PairTemplate:
    """The special tokens before, between and after two texts."""

    before: tuple[int, ...]
    """Ids before the first text."""
    between: tuple[int, ...]
    """Ids between the two texts."""
    after: tuple[int, ...]
    """Ids after the second text."""
    segments: tuple[int, int, int, int, int]
    """The token type of each part: before, first text, between, second text, after."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> PairTemplate:
        """Read the tokenizer's pair template. If it has no separator, use a line break."""
        a, b = (tokenizer.encode(text, add_special_tokens=False) for text in ("a", "b"))
        pair = tokenizer.engine.encode("a", "b")
        first = _find(pair.ids, a, 0)
        second = _find(pair.ids, b, first + len(a))
        end = second + len(b)
        types = pair.type_ids
        between = pair.ids[first + len(a) : second]
        if between:
            middle = types[first + len(a)]
        else:
            between, middle = tokenizer.encode("\n", add_special_tokens=False), types[first]
        return cls(
            tuple(pair.ids[:first]),
            tuple(between),
            tuple(pair.ids[end:]),
            (types[0], types[first], middle, types[second], types[-1]),
        )

    @property
    def size(self) -> int:
        """Number of added tokens."""
        return len(self.before) + len(self.between) + len(self.after)

    def join(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the input ids and token type ids of two joined texts."""
        parts = (self.before, first, self.between, second, self.after)
        ids = [id_ for part in parts for id_ in part]
        types = [kind for kind, part in zip(self.segments, parts, strict=True) for _ in part]
        return ids, types


def _find(ids: Sequence[int], part: Sequence[int], start: int) -> int:
    """Return the position of a sublist. ([2, 7, 3], [7], 0) → 1."""
    places = range(start, len(ids) - len(part) + 1)
    return next((i for i in places if list(ids[i : i + len(part)]) == list(part)), start)
