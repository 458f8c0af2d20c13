"""Check that transformers, if installed, reads a saved tokenizer with the same ids.

transformers may choose the tokenizer class by the model type, and some classes rebuild parts of the
pipeline in their own code. Another release may read the same directory differently, so an extended
vocabulary is checked against the installed one.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["find_reader_changes"]

_TERMS = 200
"""Number of new terms to check; if transformers drops a part of the pipeline, most are affected."""
_TEXTS = (
    "It's 12345 items, they'll cost $3.50 (tax incl.); we've 2 left — naïve café!",
    "def f(x):\n    return x  # two\n\n\n\tthree   spaces  \n",
    "Привет, мир 2024. 你好，世界。こんにちは 안녕하세요 مرحبا नमस्ते 👩‍👩‍👧 𝕏",
    "  leading, trailing  ",
)


def find_reader_changes(directory: Path, tokenizer: Tokenizer) -> list[str]:
    """Return texts for which transformers returns other ids; empty if it is not installed.

    Args:
        directory: A saved model.
        tokenizer: Its tokenizer.
    """
    try:
        # Imported by name, because transformers is not a dependency.
        library = importlib.import_module("transformers")
    except Exception:  # a broken installation may raise any error
        return []
    added = tokenizer.extension.added if tokenizer.extension else ()
    terms = [token.text for token in added[:: -(-len(added) // _TERMS) or 1]]
    texts = [*_TEXTS, *terms, *(f"one{text} two, 3{text}." for text in terms)]
    expected = tokenizer.encode_batch(texts)
    try:
        theirs = library.AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        found = theirs(texts)["input_ids"]
    except Exception as error:  # any error of the other library
        return [f"{type(error).__name__}: {error}"]
    return [text for text, own, other in zip(texts, expected, found, strict=True) if own != other]
