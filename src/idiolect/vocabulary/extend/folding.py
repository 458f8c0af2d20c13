"""Terms as BPE merges, for runtimes that know nothing else.

The new merges come after all old ones, so text is first cut as before and then joined further: it
never gets longer, and every new token can be taken apart again. A term of more than two pieces
needs steps on the way, which are tokens too, take rows, and fire in text that does not hold the
term. The order of merging is therefore chosen to make steps that general text holds least often.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from idiolect.text.tokenizers.append import append_pieces
from idiolect.text.tokenizers.extension import Added, Refused
from idiolect.text.tokenizers.word_counts import count_words, fixed_ids
from idiolect.vocabulary.extend.methods import Built

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.forms import Form

__all__ = ["MergeSpan", "fold"]

MergeSpan = tuple[int, ...]


def fold(
    tokenizer: Tokenizer, forms: Sequence[Form], general: Iterable[str] | None, rows: int | None
) -> Built:
    """Add forms by merges appended to the list.

    Args:
        tokenizer: of BPE.
        forms: in order of their worth; one that crosses a border of the pre-tokenizer is refused.
        general: text in which steps should occur as little as possible.
        rows: how many ids may be added, steps included.
    """
    folder = _Folder(tokenizer, forms, general)
    added: list[Added] = []
    refused: list[Refused] = []
    for form in forms:
        reason = folder.add(form, rows)
        if reason:
            refused.append(Refused(form.text, reason))
    texts = {form.pieces: form.text for form in forms}
    for id_ in folder.new.values():
        pieces = folder.spans[id_]
        if pieces in texts:
            added.append(Added(id_, texts[pieces], pieces, "word"))
        else:
            added.append(Added(id_, tokenizer.decode(list(pieces)), pieces, "part"))
    larger = append_pieces(tokenizer, list(folder.new), merges=folder.merges)
    return Built(larger, added, refused)


class _Folder:
    """The vocabulary as it grows."""

    def __init__(
        self, tokenizer: Tokenizer, forms: Sequence[Form], general: Iterable[str] | None
    ) -> None:
        vocab = tokenizer.engine.get_vocab(with_added_tokens=True)
        self.old = vocab
        self.names = {id_: piece for piece, id_ in vocab.items()}
        self.fixed = fixed_ids(tokenizer.engine)
        self.first = len(tokenizer)
        self.new: dict[str, int] = {}
        self.spans: dict[int, MergeSpan] = {}
        """Base pieces of each new id."""
        self.merges: list[tuple[str, str]] = []
        self.ranks: dict[tuple[int, int], tuple[int, int]] = {}
        """Rank and result of each new merge."""
        self.frequency = _count_spans(tokenizer, forms, general)

    def add(self, form: Form, rows: int | None) -> str:
        """Append the merges for a form; say why not where that cannot be done."""
        if form.phrase:
            return "crosses a border of the pre-tokenizer, which no merge can"
        if self.fixed.intersection(form.pieces):
            return "holds characters outside the vocabulary"
        parts = self.merge(list(form.pieces))
        if len(parts) == 1:
            return "spelt like another new token"
        steps = self._steps(tuple(parts))
        if steps is None:
            return "it, or every step on the way to it, is in the vocabulary but never reached"
        fresh = [step for step in steps if step[2] not in self.new]
        if rows is not None and len(self.new) + len(fresh) > rows:
            return f"no row left in a budget of {rows}"
        for left, right, piece in steps:
            id_ = self.new.setdefault(piece, self.first + len(self.new))
            self.names[id_] = piece
            self.spans[id_] = (*self._span(left), *self._span(right))
            self.merges.append((self.names[left], self.names[right]))
            self.ranks[left, right] = len(self.ranks), id_
        return ""

    def merge(self, ids: list[int]) -> list[int]:
        """Apply the new merges to base pieces, the earliest first, as the engine does."""
        while True:
            ranked = [
                (*self.ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in self.ranks
            ]
            if not ranked:
                return ids
            _, id_, place = min(ranked, key=lambda found: (found[0], found[2]))
            ids[place : place + 2] = [id_]

    def _span(self, id_: int) -> MergeSpan:
        return self.spans.get(id_, (id_,))

    def _steps(self, parts: MergeSpan) -> list[tuple[int, int, str]] | None:
        """Find the best binary tree over parts: left id, right id and piece of each merge.

        An entry of the old vocabulary cannot be a step: it would be a known id in a new place,
        which could not be told from the old uses of it.
        """

        @cache
        def best(start: int, end: int) -> tuple[float, int] | None:
            if end - start == 1:
                return 0.0, start
            piece = "".join(self.names[i] for i in parts[start:end])
            if piece in self.old:
                return None
            options = []
            for middle in range(start + 1, end):
                left, right = best(start, middle), best(middle, end)
                if left and right:
                    options.append((left[0] + right[0], middle))
            if not options:
                return None
            cost, middle = min(options)
            base = tuple(b for i in parts[start:end] for b in self._span(i))
            # A step costs its row and its false uses; the one row counts as much as one use.
            row = 0 if piece in self.new else 1
            return cost + row + self.frequency[base], middle

        steps: list[tuple[int, int, str]] = []
        planned = dict(self.new)

        def walk(start: int, end: int) -> int:
            if end - start == 1:
                return parts[start]
            found = best(start, end)
            assert found is not None
            left, right = walk(start, found[1]), walk(found[1], end)
            piece = "".join(self.names[i] for i in parts[start:end])
            steps.append((left, right, piece))
            return planned.setdefault(piece, self.first + len(planned))

        if best(0, len(parts)) is None:
            return None
        walk(0, len(parts))
        return steps


def _count_spans(
    tokenizer: Tokenizer, forms: Sequence[Form], general: Iterable[str] | None
) -> Counter[MergeSpan]:
    """Count in general text every run of base pieces that some form could need as a step."""
    counts: Counter[MergeSpan] = Counter()
    if general is None:
        return counts
    wanted = {
        form.pieces[start:end]
        for form in forms
        for start in range(len(form.pieces))
        for end in range(start + 2, len(form.pieces) + 1)
    }
    longest = max(map(len, wanted), default=0)
    for word, count in count_words(tokenizer.engine, general).items():
        for start in range(len(word) - 1):
            for end in range(start + 2, min(len(word), start + longest) + 1):
                if word[start:end] in wanted:
                    counts[word[start:end]] += count
    return counts
