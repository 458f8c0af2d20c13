"""A model's embedding matrix as `WordVectors`: the tokens that are words, with their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from idiolect.errors import InputError
from idiolect.words.word_vectors import WordVectors

if TYPE_CHECKING:
    from idiolect.models.language_model import LanguageModel

__all__ = ["vectors_of_model"]


def vectors_of_model(model: LanguageModel) -> WordVectors:
    """Return the embedding rows of a model's tokens that are words, in the order of their ids.

    A token is a word if it decodes to a text without inner spaces that contains a letter or a
    digit. If tokens differ only in spaces, such as ` heat` and `heat`, the one with a space is
    kept, because it is the form inside a sentence.

    Raises:
        InputError: No token is a word.
    """
    from idiolect.nn.embedding import joined_rows

    table = joined_rows(model.network.tokens.weight).detach().float().cpu().numpy()
    special = set(model.tokenizer.special_tokens.values())
    texts = model.tokenizer.decode_batch([[id_] for id_ in range(len(model.tokenizer))])
    places: dict[str, int] = {}
    for id_, text in enumerate(texts):
        word = text.strip()
        plain = word.split() == [word] and any(letter.isalnum() for letter in word)
        if not plain or id_ in special or "\ufffd" in word or word.startswith("##"):
            continue
        if word not in places or text[:1] == " ":
            places[word] = id_
    if not places:
        raise InputError("no token of the model is a word", hint="choose another model")
    order = sorted(places.items(), key=lambda entry: entry[1])
    return WordVectors([word for word, _ in order], table[[id_ for _, id_ in order]])
