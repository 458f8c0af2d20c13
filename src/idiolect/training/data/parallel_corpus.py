"""`ParallelCorpus`: pairs of translations and their two languages, iterated as single texts.

The documents of its token file alternate: document 2i is a text, document 2i + 1 its translation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from idiolect.errors import InputError
from idiolect.text.parallel_text import TextPair

__all__ = ["ParallelCorpus"]

_FORM = 'a list of (text, translation), or a dict of lists such as {"en-de": pairs}'


class ParallelCorpus:
    """Pairs of texts in two languages.

    Args:
        pairs: The texts and their translations.
        languages: The language of the texts, and of the translations; `None` if not known.

    Raises:
        InputError: There are no pairs, or a side of one is empty or not a string.
    """

    def __init__(
        self, pairs: Iterable[Any], languages: tuple[str | None, str | None] = (None, None)
    ) -> None:
        self.pairs = [_pair(one, number) for number, one in enumerate(pairs, 1)]
        self.languages = languages
        if not self.pairs:
            raise InputError("there are no pairs of texts", hint=f"pass {_FORM}")

    @classmethod
    def of(cls, source: Any, name: str = "corpus") -> list[Self]:
        """Return the parallel corpora of an argument: pairs, or a dict of pairs by languages.

        Raises:
            InputError: The source is neither.
        """
        if isinstance(source, cls):
            return [source]
        if isinstance(source, Mapping):
            made = []
            for key, pairs in source.items():
                one, dash, other = str(key).partition("-")
                if not dash or not one or not other:
                    raise InputError(
                        f"{name}: {key!r} names no two languages", hint='such as "en-de"'
                    )
                made.append(cls(pairs, (one, other)))
            if made:
                return made
        elif not isinstance(source, str) and hasattr(source, "__iter__"):
            listed = list(source)
            if listed and all(isinstance(one, cls) for one in listed):
                return listed
            return [cls(listed)]
        raise InputError(f"{name} holds no pairs of texts", hint=f"pass {_FORM}")

    def __iter__(self) -> Iterator[str]:
        for pair in self.pairs:
            yield pair.source
            yield pair.target

    def __repr__(self) -> str:
        mark = hashlib.blake2b(digest_size=6)
        for text in self:
            data = text.encode("utf-8", "surrogatepass")
            mark.update(len(data).to_bytes(8, "little") + data)
        languages = "-".join(one or "?" for one in self.languages)
        return f"ParallelCorpus({len(self.pairs)} pairs, {languages}, {mark.hexdigest()})"


def _pair(one: Any, number: int) -> TextPair:
    if isinstance(one, TextPair):
        pair = one
    else:
        both = tuple(one) if isinstance(one, tuple | list) else ()
        if len(both) != 2 or not all(isinstance(text, str) for text in both):
            raise InputError(f"pair {number} is {one!r:.60}", hint=f"pass {_FORM}")
        pair = TextPair(*both)
    if not pair.source.strip() or not pair.target.strip():
        raise InputError(f"pair {number} has an empty side", hint="leave it out")
    return pair
