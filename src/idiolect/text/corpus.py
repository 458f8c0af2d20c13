"""`Corpus`: documents streamed from files in bounded memory, split and mixed reproducibly.

- Every iteration reads the files again from the start. So several stages can share a corpus, and
  only one document is in memory.
- Nothing is dropped silently: `skipped` counts the skipped records of an iteration by reason.
- A document's side of a split depends on its text alone. So the same text is never on both sides,
  and adding files moves no document.

>>> train, held_out = Corpus.from_texts(["a", "b", "c", "d"]).split(0.5)
>>> sorted([*train, *held_out])
['a', 'b', 'c', 'd']
"""

from __future__ import annotations

import hashlib
from glob import glob, has_magic
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from idiolect.errors import InputError
from idiolect.text.arguments import check_path, check_whole, checked, iterate, iterate_texts
from idiolect.text.records import (
    DEFAULT_LIMIT,
    KNOWN_TYPES,
    is_readable,
    read_documents,
    unusable,
)
from idiolect.text.skipped import MAX_UNREADABLE, Skipped, skip, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Corpus", "documents_of", "source_files"]


class Corpus:
    """A stream of documents (`str`) that can be read repeatedly.

    Args:
        source: a file (`.txt`, `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`, or one of these with
            `.gz`, `.bz2`, `.xz` or `.zst` after it), a folder (all such files in it and its
            subfolders, in order of their paths), a glob, or a list of any of these.
        field: the field that holds the text, or several to join by a line break, in files that
            have fields. By default title and text under their usual names (see
            `text.fields.text_fields`), or the only field with text.
        per: in `.txt` files, whether a document is a line or the whole file.
        limit: the largest document in bytes; longer ones are skipped as `oversized`.
        max_unreadable: the share of a file's lines or rows that may be unreadable.

    Raises:
        InputError: a file is missing, of an unknown type, damaged as a whole, or has no
            field that can be chosen; or, when iterated, more than `max_unreadable` of a file
            cannot be read, or no document was found.
    """

    skipped: Skipped
    """Number of records that the latest iteration skipped by reason, with their first locations."""

    @checked
    def __init__(
        self,
        source: str | Path | Sequence[str | Path],
        field: str | Sequence[str] | None = None,
        *,
        per: Literal["line", "file"] = "line",
        limit: int = DEFAULT_LIMIT,
        max_unreadable: float = MAX_UNREADABLE,
    ) -> None:
        sources = [source] if isinstance(source, str | Path) else list(_paths(source))
        paths = [path for one in sources for path in source_files(one)]
        field = () if field is None else field
        fields = (field,) if isinstance(field, str) else tuple(iterate_texts(field, "field"))
        if per not in ("line", "file"):
            raise InputError(f"per is {per!r}", hint="one of line, file")
        check_whole(limit, "limit", least=1)
        self._name, self._mark = ", ".join(str(one) for one in sources), ""
        self._read: Callable[[Skipped], Iterator[str]] = lambda skipped: chain.from_iterable(
            read_documents(path, fields, per, limit, skipped, max_unreadable) for path in paths
        )
        self.skipped = Skipped()

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> Self:
        """Make a corpus of texts in memory; empty ones are skipped and counted.

        Raises:
            InputError: `texts` is not a sequence of strings.
        """
        texts = list(iterate_texts(texts))

        def read(skipped: Skipped) -> Iterator[str]:
            for number, text in enumerate(texts, 1):
                reason = unusable(text)
                if reason is None:
                    yield text
                else:
                    skip(skipped, reason, f"text {number:,}")

        return cls._of(f"{len(texts)} texts", read, texts)

    @classmethod
    def of(cls, source: Any, name: str = "corpus") -> Self:
        """Make a corpus of a path or of texts in memory; a corpus is returned unchanged.

        Args:
            source: A corpus, a path as for `Corpus`, or several texts.
            name: What to call it in an error message.

        Raises:
            InputError: The source is none of these.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, str | Path):
            return cls(source)
        return cls.from_texts(list(iterate_texts(source, name)))

    @classmethod
    def _of(cls, name: str, read: Callable[[Skipped], Iterator[str]], parts: Iterable[str]) -> Self:
        """Make a corpus with a hash of its parts, since its name alone may not identify them."""
        corpus = cls.__new__(cls)
        mark = hashlib.blake2b(digest_size=6)
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            mark.update(len(data).to_bytes(8, "little") + data)
        corpus._mark = f", {mark.hexdigest()}"
        corpus._name, corpus._read, corpus.skipped = name, read, Skipped()
        return corpus

    def __iter__(self) -> Iterator[str]:
        self.skipped = skipped = Skipped()
        empty = True
        for document in self._read(skipped):
            empty = False
            yield document
        if empty:
            raise InputError(
                f"no documents in {self._name}",
                hint=f"skipped: {summary(skipped)}" if skipped else "the source holds no text",
            )

    def __repr__(self) -> str:
        return f"Corpus({self._name}{self._mark})"

    @checked
    def split(self, fraction: float = 0.1, *, seed: int = 0) -> tuple[Self, Self]:
        """Divide into a training part and a held-out part of about `fraction` of the documents.

        The side is decided by a hash of the document and the seed.

        Raises:
            InputError: the fraction is not between 0 and 1.
        """
        if not 0 < fraction < 1:
            raise InputError(
                f"a fraction of {fraction} leaves one side empty", hint="choose one between 0 and 1"
            )
        threshold = int(fraction * 2**64)
        parts = (repr(self), str(fraction), str(seed))

        def held_out(document: str) -> bool:
            key = seed.to_bytes(8, "little", signed=True)
            digest = hashlib.blake2b(document.encode(), digest_size=8, key=key).digest()
            return int.from_bytes(digest, "little") < threshold

        return (
            self._of(
                f"the training part of {self._name}",
                lambda skipped: (text for text in self._read(skipped) if not held_out(text)),
                parts,
            ),
            self._of(
                f"the held-out {fraction:.0%} of {self._name}",
                lambda skipped: (text for text in self._read(skipped) if held_out(text)),
                parts,
            ),
        )

    @checked
    def mix(self, other: Corpus, share: float) -> Self:
        """Interleave documents of `other`, so that they make up `share` of all characters.

        Every document of this corpus occurs once and in order; the other is truncated or
        repeated as needed. The order is not random: a document of the other corpus follows whenever
        its share is too small. Replaying general text in this way reduces forgetting.

        Raises:
            InputError: the share is not between 0 and 1.
        """
        other = Corpus.of(other, "other")
        if not 0 < share < 1:
            raise InputError(f"a share of {share} mixes nothing", hint="choose one between 0 and 1")

        def read(skipped: Skipped) -> Iterator[str]:
            replay = _repeat(other)
            own = replayed = 0
            for document in self:
                own += len(document)
                yield document
                while replayed < (own + replayed) * share:
                    again = next(replay)
                    replayed += len(again)
                    yield again
            skipped.update(self.skipped)
            skipped.update(other.skipped)

        return self._of(
            f"{self._name} with {share:.0%} of {other._name}",
            read,
            (repr(self), str(share), repr(other)),
        )


def documents_of(source: Any, name: str) -> Iterable[str]:
    """Return the documents of a corpus, a path or an iterable of texts, checked as they are read.

    Raises:
        InputError: It is none of these.
    """
    if isinstance(source, Corpus | str | Path):
        return Corpus.of(source)
    if isinstance(source, list | tuple):
        return list(iterate_texts(source, name))
    iterate(source, name, "a corpus or a list of texts")
    return iterate_texts(source, name)


def _paths(sources: Any) -> Iterator[str | Path]:
    for source in iterate(sources, "source", "a path or a list of paths"):
        yield check_path(source, "source")


def _repeat(corpus: Corpus) -> Iterator[str]:
    """Repeat a corpus endlessly, counting its skipped records once; an empty one is an error."""
    yield from corpus
    while True:
        yield from corpus._read(Skipped())


def source_files(source: str | Path) -> list[Path]:
    """Return the files of a path, a folder or a glob, in order of their paths.

    Raises:
        InputError: there are none.
    """
    path = check_path(source, "source")
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and is_readable(p))
    elif path.exists():
        found = [path]
    elif has_magic(str(source)):
        found = sorted(Path(name) for name in glob(str(source), recursive=True))
        found = [p for p in found if p.is_file()]
    else:
        raise InputError(f"no such file or folder: {source}", hint="check the path")
    if not found:
        raise InputError(f"no text files in {source}", hint=f"known: .txt {KNOWN_TYPES}")
    return found
