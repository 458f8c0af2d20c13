"""Count the pre-tokens of a corpus, each as the ids of its pieces.

Training on a corpus needs only its distinct pre-tokens, their current pieces and their counts.
Whole documents are encoded, so pre-tokens are split in context.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tokenizers import Encoding
    from tokenizers import Tokenizer as Engine

__all__ = ["batches", "count_words", "fixed_ids"]

_BATCH = 1 << 22
"""Characters to encode at once; the result takes about 100 times the memory of the text."""


def fixed_ids(engine: Engine) -> set[int]:
    """Return the ids that cannot be merged with others or segmented.

    These are added tokens, the unknown token and, with byte fallback, the byte pieces of unknown
    characters.
    """
    model: dict[str, Any] = json.loads(engine.model.__getstate__())
    fixed = set(engine.get_added_tokens_decoder())
    unknown = model.get("unk_id")
    if isinstance(model.get("unk_token"), str):
        unknown = engine.token_to_id(model["unk_token"])
    if unknown is not None:
        fixed.add(unknown)
    if model.get("byte_fallback"):
        bytes_ = (engine.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        fixed.update(id_ for id_ in bytes_ if id_ is not None)
    return fixed


def count_words(engine: Engine, texts: Iterable[str]) -> Counter[tuple[int, ...]]:
    """Count the distinct pre-tokens of a corpus.

    Ids that cannot be merged with others split a pre-token and are left out. Some engines, such as
    some published for SentencePiece, have no pre-tokenizer. Then a word begins at each piece that
    begins with a space, except after pieces that consist of spaces.

    Args:
        engine: splits the pre-tokens into their current pieces.
        texts: the corpus.

    Returns:
        The ids of each distinct word, with the number of times it occurs.
    """
    vocab = engine.get_vocab(with_added_tokens=True)
    length = max(vocab.values(), default=-1) + 1
    fixed = np.zeros(length, bool)
    fixed[list(fixed_ids(engine))] = True
    begins, spaces = np.zeros(length, bool), np.zeros(length, bool)
    if engine.pre_tokenizer is None:
        begins[[id_ for token, id_ in vocab.items() if token.startswith("▁")]] = True
        spaces[[id_ for token, id_ in vocab.items() if not token.strip("▁")]] = True
    counts: Counter[bytes] = Counter()
    # The engine releases the GIL, so the next batch is encoded while this one is counted.
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for batch in batches(texts):
            encoded = pool.submit(engine.encode_batch, batch, add_special_tokens=False)
            if pending is not None:
                counts.update(_words(pending.result(), fixed, begins, spaces))
            pending = encoded
        if pending is not None:
            counts.update(_words(pending.result(), fixed, begins, spaces))
    return Counter(
        {tuple(np.frombuffer(word, np.int32).tolist()): count for word, count in counts.items()}
    )


def _words(encodings: list[Encoding], fixed: Any, begins: Any, spaces: Any) -> Iterator[bytes]:
    word_ids: list[int | None] = []
    ids: list[int] = []
    for encoding in encodings:
        ids += [*encoding.ids, -1]  # separates documents
        word_ids += [*encoding.word_ids, -1]
    stream = np.array(ids, np.int32)
    part = np.array(word_ids, np.int64)
    excluded = (stream < 0) | fixed[stream]
    change = (part[1:] != part[:-1]) | (begins[stream[1:]] & ~spaces[stream[:-1]])
    cuts = np.flatnonzero(np.concatenate([[True], change | excluded[1:] | excluded[:-1], [True]]))
    data = stream.tobytes()
    for start, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        if not excluded[start]:
            yield data[4 * start : 4 * end]


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Group texts of any length so that the memory for encoding a group is bounded.

    A lone surrogate, which the engine does not accept, becomes U+FFFD.
    """
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text if text.isascii() else _without_surrogates(text))
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _without_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
