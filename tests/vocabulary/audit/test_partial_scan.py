"""Scans of parts, merged, are the scan of the whole corpus."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from idiolect.errors import InputError
from idiolect.vocabulary.audit.corpus_scan import scan_corpus
from idiolect.vocabulary.audit.partial_scan import ScanMerger, must_encode_whole, scan_part
from vocabulary.conftest import make

WORDS = ["metformin", "HbA1c", "", "type-2", "diabetes\nthe", "of", "500", "naïve", "XR-2000B"]


def _texts() -> list[str]:
    random = np.random.default_rng(5)
    return [" ".join(random.choice(WORDS, random.integers(1, 40))) or "a" for _ in range(400)]


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bert"])
@pytest.mark.parametrize("max_stream", [1 << 25, 1500])
def test_merged_parts_are_the_whole(kind: str, max_stream: int) -> None:
    tokenizer, texts = make(kind), _texts()
    whole = scan_corpus(tokenizer, texts, max_stream=max_stream)
    encode_whole = must_encode_whole(tokenizer, texts)
    merger = ScanMerger(tokenizer, encode_whole=encode_whole, max_stream=max_stream)
    for begin, end in [(0, 7), (7, 7), (7, 150), (150, 151), (151, 400)]:
        merger.add(scan_part(tokenizer, texts[begin:end], encode_whole=encode_whole))
    merged = merger.finish()
    assert asdict(merged.statistics) == asdict(whole.statistics)
    assert (merged.chunks, merged.texts) == (whole.chunks, whole.texts)
    assert (merged.stride, merged.additive) == (whole.stride, whole.additive)
    assert max_stream > 2000 or merged.stride > 1
    assert np.array_equal(merged.counts, whole.counts)
    assert np.array_equal(merged.stream, whole.stream)


def test_no_documents_are_an_error() -> None:
    tokenizer = make("gpt2")
    merger = ScanMerger(tokenizer, encode_whole=False)
    merger.add(scan_part(tokenizer, [], encode_whole=False))
    with pytest.raises(InputError, match="no documents"):
        merger.finish()
