"""The `merges` method: add terms as BPE merges, for runtimes that support nothing else.

New merges are appended after all existing ones. Text is therefore tokenized as before and then
merged further: it never gets longer, and each new token maps back to its original pieces.

A term of more than two pieces needs intermediate tokens. For `met|form|in`, the merges are either
`met+form` and `metform+in`, or `form+in` and `met+formin`. The intermediate token (`metform` or
`formin`) takes an embedding row too, and occurs in text without the term. The merge order that
produces the intermediate tokens least frequent in general text is chosen.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from idiolect.text.tokenizers.append import append_pieces
from idiolect.text.tokenizers.extension import Added, Refused
from idiolect.text.tokenizers.word_counts import count_words
from idiolect.vocabulary.extend.methods import DraftExtension

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.forms import Form

__all__ = ["PieceSpan", "add_merges"]

PieceSpan = tuple[int, ...]
"""Consecutive original ids."""


def add_merges(
    tokenizer: Tokenizer, forms: Sequence[Form], general: Iterable[str] | None, rows: int | None
) -> DraftExtension:
    """Add forms by appending merges.

    Args:
        tokenizer: a BPE tokenizer.
        forms: most useful first, all of which `entries.refusals` accepts.
        general: text in which intermediate tokens should be rare.
        rows: maximum number of new ids, including intermediate tokens.
    """
    builder = _MergeBuilder(tokenizer, forms, general)
    added: list[Added] = []
    refused: list[Refused] = []
    for form in forms:
        reason = builder.add(form, rows)
        if reason:
            refused.append(Refused(form.text, reason))
    texts = {form.pieces: form.text for form in forms}
    for id_ in builder.new.values():
        pieces = builder.spans[id_]
        if pieces in texts:
            added.append(Added(id_, texts[pieces], pieces, "word"))
        else:
            added.append(Added(id_, tokenizer.decode(list(pieces)), pieces, "part"))
    larger = append_pieces(tokenizer, list(builder.new), merges=builder.merges)
    return DraftExtension(larger, added, refused=refused)


class _MergeBuilder:
    """The growing vocabulary and merge list."""

    def __init__(
        self, tokenizer: Tokenizer, forms: Sequence[Form], general: Iterable[str] | None
    ) -> None:
        vocab = tokenizer.engine.get_vocab(with_added_tokens=True)
        self.old = vocab
        self.names = {id_: piece for piece, id_ in vocab.items()}
        self.first = len(tokenizer)
        self.new: dict[str, int] = {}
        self.spans: dict[int, PieceSpan] = {}
        """Original ids of each new id."""
        self.merges: list[tuple[str, str]] = []
        self.ranks: dict[tuple[int, int], tuple[int, int]] = {}
        """Rank and resulting id of each new merge."""
        self.frequency = _count_spans(tokenizer, forms, general)

    def add(self, form: Form, rows: int | None) -> str:
        """Append the merges for a form. Return why it is refused, or an empty string."""
        parts = self.merge(list(form.pieces))
        if len(parts) == 1:
            return "identical to another new token"
        steps = self._steps(tuple(parts))
        if steps is None:
            return "it or every intermediate token is a vocabulary entry that is never produced"
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
        """Apply the new merges to original ids in rank order, as the engine does."""
        while True:
            ranked = [
                (*self.ranks[pair], i) for i, pair in enumerate(pairwise(ids)) if pair in self.ranks
            ]
            if not ranked:
                return ids
            _, id_, place = min(ranked, key=lambda found: (found[0], found[2]))
            ids[place : place + 2] = [id_]

    def _span(self, id_: int) -> PieceSpan:
        return self.spans.get(id_, (id_,))

    def _steps(self, parts: PieceSpan) -> list[tuple[int, int, str]] | None:
        """Find the cheapest binary merge tree: left id, right id and piece of each merge.

        An entry of the original vocabulary cannot be an intermediate token: its id would occur
        in new places, and could not be mapped back to the original pieces.

        Returns:
            The merges in order, or None if every tree needs such an entry.
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
            # The cost of a step is its occurrences in general text, plus 1 for its row if new.
            row = 0 if piece in self.new else 1
            return cost + row + self.frequency[base], middle

        steps: list[tuple[int, int, str]] = []
        planned = dict(self.new)

        def plan(start: int, end: int) -> int:
            if end - start == 1:
                return parts[start]
            found = best(start, end)
            assert found is not None
            left, right = plan(start, found[1]), plan(found[1], end)
            piece = "".join(self.names[i] for i in parts[start:end])
            steps.append((left, right, piece))
            return planned.setdefault(piece, self.first + len(planned))

        if best(0, len(parts)) is None:
            return None
        plan(0, len(parts))
        return steps


def _count_spans(
    tokenizer: Tokenizer, forms: Sequence[Form], general: Iterable[str] | None
) -> Counter[PieceSpan]:
    """Count in general text every span of original ids that a form could need as a step."""
    counts: Counter[PieceSpan] = Counter()
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
