"""A corpus as token ids on disk: tokenised once, then memory-mapped for random access.

There are two files of little-endian numbers: `ids.bin` (int32, all documents concatenated, without
special tokens) and `ends.bin` (int64, the end of each document in `ids.bin`). `tokens.json`
describes them. For objectives that read sentences, `sentences.bin` marks the last token of each
sentence except a document's last (one byte per token). Tokenising needs bounded memory, and a
resumed run does not tokenise again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from idiolect.errors import CheckpointError, InputError
from idiolect.text.files import read_json, working_folder, write_atomic
from idiolect.text.sentences import sentence_ends
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["TokenFile"]

_CHUNK = 1024
"""Number of documents tokenised at once."""


class TokenFile:
    """The token ids of a corpus, by document.

    >>> tokens = TokenFile.write("run/tokens", ["one text", "another"], tokenizer)  # doctest: +SKIP
    >>> tokens[1]                                                                   # doctest: +SKIP
    array([29214], dtype=int32)

    Args:
        folder: A folder written by `write`.
        tokenizer: The tokenizer that produced the ids.

    Raises:
        CheckpointError: A file is missing or truncated, or another tokenizer produced the ids.
    """

    def __init__(self, folder: str | Path, tokenizer: Tokenizer) -> None:
        folder = Path(folder)
        self.record: dict[str, Any] = read_json(folder / "tokens.json")
        """`tokens.json`: numbers of documents, tokens and bytes; hashes of ids and tokenizer."""
        if self.record.get("tokenizer") != tokenizer.fingerprint:
            raise CheckpointError(
                f"the tokens in {folder} were made with another tokenizer", hint="start a new run"
            )
        self._ids = _map(folder / "ids.bin", np.dtype("<i4"), int(self.record["tokens"]))
        self._ends = _map(folder / "ends.bin", np.dtype("<i8"), int(self.record["documents"]))
        self._marks = None
        if "sentences" in self.record:
            path = folder / "sentences.bin"
            self._marks = _map(path, np.dtype(np.bool_), int(self.record["tokens"]))

    @classmethod
    def write(
        cls,
        folder: str | Path,
        documents: Iterable[str],
        tokenizer: Tokenizer,
        *,
        sentences: bool = False,
    ) -> Self:
        """Tokenise documents into a new folder, atomically.

        Args:
            folder: The folder, which must not exist.
            documents: The documents.
            tokenizer: The tokenizer.
            sentences: Mark the ends of sentences.

        Raises:
            InputError: The folder cannot be written, for example because the disk is full.
        """
        folder = Path(folder)
        try:
            with working_folder(folder.parent, f".{folder.name}.") as temporary:
                with (
                    (temporary / "ids.bin").open("wb") as ids,
                    (temporary / "ends.bin").open("wb") as ends,
                    (temporary / "sentences.bin").open("wb") as marks,
                ):
                    wanted = marks if sentences else None
                    record = _write_ids(documents, tokenizer, ids, ends, wanted)
                    for file in (ids, ends, marks):
                        file.flush()
                        os.fsync(file.fileno())
                if not sentences:
                    (temporary / "sentences.bin").unlink()
                text = json.dumps(record | {"tokenizer": tokenizer.fingerprint}, indent=2)
                write_atomic(temporary / "tokens.json", f"{text}\n".encode())
                temporary.chmod(0o755)
                temporary.rename(folder)
        except OSError as error:
            raise InputError(
                f"cannot write the tokens of the corpus to {folder}: {error.strerror}",
                hint="make room on that disk, or choose another folder",
            ) from error
        return cls(folder, tokenizer)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._ends)

    def __getitem__(self, document: int) -> NDArray[np.int32]:
        """Return the ids of a document, as a view of the file. (length,), int32."""
        start = int(self._ends[document - 1]) if document else 0
        ids: NDArray[np.int32] = self._ids[start : int(self._ends[document])]
        return ids

    @property
    def has_sentences(self) -> bool:
        """Whether the ends of sentences are marked."""
        return self._marks is not None

    def sentence_ends(self, document: int) -> NDArray[np.bool_]:
        """Return a mask of the tokens that end a sentence, except the last one. (length,), bool.

        Raises:
            CheckpointError: Sentences are not marked.
        """
        if self._marks is None:
            raise CheckpointError("the tokens have no sentence ends", hint="start a new run")
        start = int(self._ends[document - 1]) if document else 0
        marks: NDArray[np.bool_] = self._marks[start : int(self._ends[document])]
        return marks

    @property
    def bytes_per_token(self) -> float:
        """Mean number of UTF-8 bytes per token."""
        return float(self.record["bytes"] / max(1, self.record["tokens"]))


def _write_ids(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    ids: BinaryIO,
    ends: BinaryIO,
    marks: BinaryIO | None,
) -> dict[str, Any]:
    counts = {"documents": 0, "tokens": 0, "bytes": 0}
    sentences = 0
    digest = hashlib.blake2b(digest_size=16)
    for texts in _chunks(documents):
        if marks is None:
            batch = tokenizer.encode_batch(texts, add_special_tokens=False)
        else:
            located = tokenizer.encode_with_offsets(texts, add_special_tokens=False)
            batch = [one for one, _ in located]
            for text, (_, offsets) in zip(texts, located, strict=True):
                found = _mark_sentences(text, offsets)
                sentences += int(found.sum())
                marks.write(found.tobytes())
        lengths = np.array([len(one) for one in batch], dtype="<i8")
        flat = np.fromiter((id_ for one in batch for id_ in one), dtype="<i4")
        digest.update(flat.tobytes())
        digest.update(lengths.tobytes())
        ids.write(flat.tobytes())
        ends.write((counts["tokens"] + lengths.cumsum()).astype("<i8").tobytes())
        counts["documents"] += len(batch)
        counts["tokens"] += len(flat)
        counts["bytes"] += sum(len(text.encode()) for text in texts)
    if marks is not None:
        counts["sentences"] = sentences
    return {**counts, "digest": digest.hexdigest()}


def _mark_sentences(text: str, offsets: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Mark the token with the last character of each sentence, except the text's last sentence."""
    marks = np.zeros(len(offsets), np.bool_)
    stops = np.array([stop for _, stop in offsets], np.int64)
    for end in sentence_ends(text):
        token = int(np.searchsorted(stops, end))
        if token < len(marks) - 1:
            marks[token] = True
    return marks


def _chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(documents)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _map(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    if not path.is_file() or path.stat().st_size != count * dtype.itemsize:
        raise CheckpointError(f"{path} is missing or truncated", hint="start the run again")
    if not count:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")
