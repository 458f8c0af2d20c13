"""Beyond the limit of distinct chunks, further ones are left out and take nothing else's place."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from idiolect.vocabulary.audit import corpus_scan
from idiolect.vocabulary.audit.corpus_scan import scan_corpus
from idiolect.vocabulary.audit.ngrams import UnitStream
from idiolect.vocabulary.audit.partial_scan import ScanMerger, scan_part
from vocabulary.conftest import make

LATER = [f"metformin new{chr(97 + i)}x HbA1c" for i in range(20)]
TEXTS = [*["metformin of HbA1c last"] * 1100, *LATER, *[f"{text} first" for text in LATER]]


def test_chunks_beyond_the_limit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_scan, "MAX_DISTINCT", 4)
    monkeypatch.setattr(corpus_scan, "batches", lambda texts: ([text] for text in texts))
    whole = scan_corpus(make("gpt2"), TEXTS)
    assert whole.statistics.words == sum(len(text.split()) for text in TEXTS)
    stream = UnitStream(whole)
    found = "".join(stream.units[number] for number in stream.numbers)
    assert found.count(" last") == 1100
    assert found.count("metformin") == found.count(corpus_scan.DOCUMENT_START) - 1 == len(TEXTS)
    assert "metformin HbA1c" not in found  # what is left out still lies between its neighbours
    assert whole.counts[whole.chunks.index(" last")] == 1100
    assert sum(whole.statistics.pieces.values()) == 1100 * 4 + 40 * 2

    merger = ScanMerger(make("gpt2"), encode_whole=False)
    for begin, end in [(0, 1100), (1100, 1110), (1110, 1140)]:
        merger.add(scan_part(make("gpt2"), TEXTS[begin:end], encode_whole=False))
    merged = merger.finish()
    assert asdict(merged.statistics) == asdict(whole.statistics)
    assert merged.chunks == whole.chunks
    assert np.array_equal(merged.counts, whole.counts)
    assert np.array_equal(merged.stream, whole.stream)
