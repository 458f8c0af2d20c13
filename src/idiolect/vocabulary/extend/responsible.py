"""Find the terms that change the tokenization of the text around them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idiolect.vocabulary.extend.plan import draft_extension
from idiolect.vocabulary.extend.verification import compare_tokenizers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.vocabulary.forms import Form

__all__ = ["find_responsible_forms"]


def find_responsible_forms(
    base: Tokenizer, forms: Sequence[Form], method: str, document: str
) -> list[str]:
    """Find the forms that cause a change in a document, by adding fewer and fewer of them.

    Args:
        base: the original tokenizer.
        forms: the forms that were added.
        method: the method that added them.
        document: a document whose tokens change outside the forms, or that is decoded differently.

    Returns:
        The texts of the forms that have to be left out, usually one; empty if the document changes
        even without any of them.
    """

    def changes(some: Sequence[Form]) -> bool:
        draft = draft_extension(base, some, method)
        pieces = {token.id: token.pieces for token in draft.added}
        found = compare_tokenizers(base, draft.tokenizer, pieces, [document])
        return bool(found.check.changed or found.check.decoded_otherwise)

    if changes([]):
        return []
    folded = document.casefold()
    some = [form for form in forms if form.text.strip().casefold() in folded]
    if not changes(some):
        some = list(forms)
        if not changes(some):
            return []
    while len(some) > 1:
        halves = some[: len(some) // 2], some[len(some) // 2 :]
        responsible = next((half for half in halves if changes(half)), None)
        if responsible is None:  # they do it together
            break
        some = responsible
    return [form.text for form in some]
