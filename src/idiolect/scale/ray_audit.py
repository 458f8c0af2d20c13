"""`audit` on a Ray cluster: nodes scan parts of the corpus, and the driver merges the counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

from idiolect.scale.cluster import connect, map_parts, run_task
from idiolect.scale.corpus_parts import (
    CorpusPart,
    ReadingOptions,
    UnreadableRows,
    divide_corpus,
)
from idiolect.scale.storage import local_copy
from idiolect.text.skipped import Skipped
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.progress import show_progress
from idiolect.vocabulary.audit.audit import Audit, audit_scans
from idiolect.vocabulary.audit.corpus_scan import CorpusScan
from idiolect.vocabulary.audit.partial_scan import (
    PartialScan,
    ScanMerger,
    must_encode_whole,
    scan_part,
)

__all__ = ["audit_on_ray"]

_PART_BYTES = 32 << 20


def audit_on_ray(
    tokenizer: str,
    sources: Sequence[str | Path],
    address: str,
    *,
    general: Sequence[str | Path] | None = None,
    glossary: Sequence[str] = (),
    options: ReadingOptions | None = None,
    part_bytes: int = _PART_BYTES,
    progress: bool = False,
    skipped: Skipped | None = None,
) -> Audit:
    """Audit a corpus of any size on a Ray cluster, with the same result as `audit`.

    The driver needs as much memory as one process: the distinct chunks and a bounded sample of the
    corpus are kept.

    Args:
        tokenizer: Path, URI or name of the tokenizer; every node must be able to load it.
        sources: Files, folders, globs or URIs.
        address: Address of the cluster; see `connect`.
        general: General text, as for `audit`. `Audit.choose` with the method `merges` reads it
            again on this machine, so it must then be local.
        glossary: As in `audit`.
        options: How documents are read.
        part_bytes: Size of a part, which one task scans.
        progress: Show the progress.
        skipped: Updated with the records that were left out, of all sources.

    Raises:
        InputError: No documents, or files that cannot be read.
    """
    connect(address)
    options = options or ReadingOptions()
    skipped = Skipped() if skipped is None else skipped
    scans = [
        None if one is None else _scan(tokenizer, one, options, part_bytes, progress, skipped)
        for one in (sources, general)
    ]
    assert scans[0] is not None
    return audit_scans(
        Tokenizer.load(local_copy(tokenizer)),
        scans[0],
        scans[1],
        glossary,
        general_texts=None if general is None else _Documents(general, options),
    )


class _Documents:
    """Documents that can be read repeatedly, also from an object store."""

    def __init__(self, sources: Sequence[str | Path], options: ReadingOptions) -> None:
        self._sources, self._options = sources, options

    def __iter__(self) -> Iterator[str]:
        for part in divide_corpus(self._sources, self._options, _PART_BYTES):
            yield from part.documents(self._options, Skipped())


def _scan(
    tokenizer: str,
    sources: Sequence[str | Path],
    options: ReadingOptions,
    part_bytes: int,
    progress: bool,
    skipped: Skipped,
) -> CorpusScan:
    parts = divide_corpus(sources, options, part_bytes)
    encode_whole = run_task(partial(_decide, tokenizer, parts, options))
    merger = ScanMerger(Tokenizer.load(local_copy(tokenizer)), encode_whole=encode_whole)
    work = partial(_scan_part, tokenizer, options, encode_whole)
    unreadable = UnreadableRows()
    with show_progress("scanning parts", len(parts), shown=progress) as activity:
        for part, (scan, left_out) in zip(parts, map_parts(work, parts), strict=True):
            unreadable.add(part, len(scan.lengths), left_out)
            merger.add(scan)
            skipped.update(left_out)
            activity.advance(1)
    unreadable.check(options.max_unreadable)
    return merger.finish()


def _decide(tokenizer: str, parts: list[CorpusPart], options: ReadingOptions) -> bool:
    documents = (text for part in parts for text in part.documents(options, Skipped()))
    return must_encode_whole(_tokenizer(tokenizer), documents)


def _scan_part(
    tokenizer: str, options: ReadingOptions, encode_whole: bool, part: CorpusPart
) -> tuple[PartialScan, Skipped]:
    skipped = Skipped()
    documents = part.documents(options, skipped)
    return scan_part(_tokenizer(tokenizer), documents, encode_whole=encode_whole), skipped


@lru_cache(1)
def _tokenizer(source: str) -> Tokenizer:
    return Tokenizer.load(local_copy(source))
