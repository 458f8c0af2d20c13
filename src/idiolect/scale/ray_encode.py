"""`encode` on a Ray cluster: nodes encode parts of the corpus and write a shard for each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts
from idiolect.errors import InputError, VerificationError
from idiolect.nn.matrix_precision import MatrixPrecision
from idiolect.scale.cluster import connect, map_parts, run_task
from idiolect.scale.corpus_parts import (
    CorpusPart,
    ReadingOptions,
    UnreadableRows,
    divide_corpus,
)
from idiolect.scale.storage import Storage, local_copy
from idiolect.scale.vector_shards import (
    VectorShards,
    finish_shards,
    finished_shard,
    start_shards,
    write_shard,
)
from idiolect.text.skipped import Skipped
from idiolect.training.progress import show_progress

__all__ = ["encode_on_ray", "encoder_of_node"]

_PART_BYTES = 4 << 20


def encode_on_ray(
    model: str,
    sources: Sequence[str | Path],
    out: str | Path,
    address: str,
    *,
    options: ReadingOptions | None = None,
    prompt_name: str | None = None,
    dimensions: int | None = None,
    precision: MatrixPrecision = "fp32",
    tokens_per_batch: int | None = None,
    gpus: float = 0,
    part_bytes: int = _PART_BYTES,
    progress: bool = False,
    counts: EncodingCounts | None = None,
    skipped: Skipped | None = None,
) -> VectorShards:
    """Encode a corpus of any size on a Ray cluster. Run it again to resume.

    The driver holds neither texts nor vectors. Vectors equal those of `Encoder.encode` up to
    rounding, about 1e-6, since batches differ.

    Args:
        model: Path, URI or name of the encoder; every node must be able to load it.
        sources: Files, folders, globs or URIs.
        out: Folder or URI of the shards; see `idiolect.scale.vector_shards`.
        address: Address of the cluster; see `connect`.
        options: How documents are read.
        prompt_name: As in `Encoder.encode`.
        dimensions: As in `Encoder.encode`.
        precision: As for `Encoder`.
        tokens_per_batch: As in `Encoder.encode`.
        gpus: GPUs per task; with 0, tasks run on CPUs.
        part_bytes: Size of a part, which one task encodes in memory.
        progress: Show the progress.
        counts: Updated with the numbers of texts.
        skipped: Updated with the records that were left out.

    Raises:
        InputError: No documents, files that cannot be read, or a folder with other vectors.
        VerificationError: Nodes load different encoders for the same name.
    """
    if str(out).endswith(".npy"):
        raise InputError(
            f"{out} is one file; a cluster writes a folder of Parquet shards",
            hint="name a folder or a URI",
        )
    connect(address)
    options = options or ReadingOptions()
    parts = divide_corpus(sources, options, part_bytes)
    folder = Storage.of(out)
    load = partial(encoder_of_node, model, precision, gpus > 0)
    fingerprint, width, used = run_task(partial(_describe, load))
    settings = {
        "encoder": fingerprint,
        "kind": prompt_name,
        "precision": used,
        "dimensions": dimensions or width,
        "parts": _digest(parts, options),
    }
    start_shards(folder, settings)
    work = partial(
        _encode_part, load, options, folder.uri, fingerprint, prompt_name, dimensions,
        tokens_per_batch,
    )  # fmt: skip
    total, left_out, shards = EncodingCounts(), Skipped(), list[int]()
    unreadable = UnreadableRows()
    with show_progress("encoding parts", len(parts), shown=progress) as activity:
        for part, outcome in zip(parts, map_parts(work, parts, gpus=gpus), strict=True):
            if outcome["encoder"] != fingerprint:
                raise VerificationError(
                    f"nodes have different encoders under {model}", hint="copy one to all of them"
                )
            total.add(EncodingCounts(**outcome["counts"]))
            unreadable.add(part, outcome["counts"]["texts"], _restored(outcome))
            left_out.update(_restored(outcome))
            shards.append(outcome["counts"]["texts"])
            activity.advance(1)
    unreadable.check(options.max_unreadable)
    if not total.texts:
        raise InputError("there are no documents to encode", hint="check the path and the field")
    if counts is not None:
        counts.add(total)
    if skipped is not None:
        skipped.update(left_out)
    return finish_shards(folder, settings, shards, vars(total), left_out)


def _describe(load: Any) -> tuple[str, int, str]:
    encoder, fingerprint = load()
    return fingerprint, encoder.dimensions, encoder.precision


def _encode_part(
    load: Any,
    options: ReadingOptions,
    out: str,
    fingerprint: str,
    prompt_name: str | None,
    dimensions: int | None,
    tokens_per_batch: int | None,
    part: CorpusPart,
) -> dict[str, Any]:
    folder = Storage.of(out)
    if (done := finished_shard(folder, part.number)) is not None:
        return done
    encoder, own = load()
    counts, skipped = EncodingCounts(), Skipped()
    outcome: dict[str, Any] = {"encoder": own}
    if own == fingerprint:
        texts = list(part.documents(options, skipped))
        vectors = encoder.encode(
            texts,
            prompt_name=prompt_name,
            dimensions=dimensions,
            tokens_per_batch=tokens_per_batch,
            counts=counts,
        )
        outcome |= {"counts": vars(counts), "skipped": dict(skipped), "places": skipped.places}
        write_shard(folder, part.number, np.asarray(vectors), outcome)
    return outcome


@lru_cache(1)
def encoder_of_node(model: str, precision: MatrixPrecision, gpu: bool) -> tuple[Encoder, str]:
    """Return the encoder of this process and its fingerprint; it is loaded on the first call."""
    device = "cuda" if gpu else "cpu"
    encoder = Encoder.load(local_copy(model), device=device, precision=precision)
    return encoder, encoder.fingerprint


def _digest(parts: list[CorpusPart], options: ReadingOptions) -> str:
    text = json.dumps([[part.record() for part in parts], options.fields, options.per])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _restored(outcome: dict[str, Any]) -> Skipped:
    skipped = Skipped(outcome["skipped"])
    skipped.places.update(outcome["places"])
    return skipped
