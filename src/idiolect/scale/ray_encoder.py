"""`RayEncoder`: an encoder whose texts are encoded on the nodes of a Ray cluster.

It has the attributes of an `Encoder` that an index and an evaluation need, so both run on a cluster
unchanged: this process reads, stores and ranks, and the nodes compute the vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.text_reader import EncodingCounts, check_texts
from idiolect.errors import VerificationError
from idiolect.nn.matrix_precision import ChosenPrecision, MatrixPrecision
from idiolect.scale.cluster import connect, run_task, run_tasks
from idiolect.scale.ray_encode import encoder_of_node
from idiolect.text.arguments import list_of_texts

__all__ = ["RayEncoder"]

_TASK_TEXTS = 256
"""Minimum number of texts per task; fewer are not worth the overhead."""


class RayEncoder:
    """Encodes texts on the nodes of a cluster.

    Args:
        model: Path, URI or name of the encoder; every node must be able to load it.
        address: Address of the cluster; see `connect`.
        precision: As for `Encoder`.
        gpus: GPUs per task; with 0, tasks run on CPUs.
    """

    def __init__(
        self, model: str, address: str, *, precision: MatrixPrecision = "fp32", gpus: float = 0
    ) -> None:
        connect(address)
        self._load = partial(encoder_of_node, model, precision, gpus > 0)
        self._gpus = gpus
        self.dimensions: int
        """Width of the vectors."""
        self.fingerprint: str
        """The fingerprint of the encoder."""
        self.published: bool
        self.precision: ChosenPrecision
        self.max_length: int
        self.normalize: bool
        described = run_task(partial(_describe, self._load))
        for name, value in described.items():
            setattr(self, name, value)

    def encode(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        dimensions: int | None = None,
        tokens_per_batch: int | None = None,
        progress: bool = False,
        counts: EncodingCounts | None = None,
    ) -> NDArray[np.float32]:
        """Encode texts; see `Encoder.encode`.

        Raises:
            InputError: As in `Encoder.encode`.
            VerificationError: A node has loaded another encoder for the same name.
        """
        check_texts(texts := list_of_texts(texts))
        work = partial(
            _encode, self._load, prompt_name=prompt_name, dimensions=dimensions,
            tokens_per_batch=tokens_per_batch,
        )  # fmt: skip
        batches = [texts[i : i + _TASK_TEXTS] for i in range(0, len(texts), _TASK_TEXTS)]
        counted = EncodingCounts()
        found = [np.zeros((0, dimensions or self.dimensions), np.float32)]
        for vectors, own, fingerprint in run_tasks(
            work, batches, gpus=self._gpus, progress=progress
        ):
            if fingerprint != self.fingerprint:
                raise VerificationError(
                    "nodes have different encoders under one name", hint="copy one to all of them"
                )
            found.append(vectors)
            counted.add(own)
        counted.add_to(counts, self.max_length)
        return np.concatenate(found)


def _describe(load: Callable[[], tuple[Encoder, str]]) -> dict[str, object]:
    encoder, fingerprint = load()
    names = ("dimensions", "published", "precision", "max_length", "normalize")
    return {name: getattr(encoder, name) for name in names} | {"fingerprint": fingerprint}


def _encode(
    load: Callable[[], tuple[Encoder, str]],
    texts: list[str],
    *,
    prompt_name: str | None,
    dimensions: int | None,
    tokens_per_batch: int | None,
) -> tuple[NDArray[np.float32], EncodingCounts, str]:
    encoder, fingerprint = load()
    counts = EncodingCounts()
    vectors = encoder.encode(
        texts,
        prompt_name=prompt_name,
        dimensions=dimensions,
        tokens_per_batch=tokens_per_batch,
        counts=counts,
    )
    return vectors, counts, fingerprint
