"""One model read by several threads: nothing that one of them sets reaches another."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import idiolect
from encoding.models import tiny_encoder

TEXTS = ["a b c", "d", "e f g h i j", "b a", "p o n m l k j i h g f e", "a", "c d e"]


@pytest.mark.parametrize("model_type", ["llama", "bert"])
def test_threads_encode_as_one_does(model_type: str) -> None:
    causal = tiny_encoder(model_type)
    encoders = [causal]
    if model_type == "llama":
        encoders.append(causal.with_changes(bidirectional=True))
        assert not np.allclose(causal.encode(TEXTS), encoders[1].encode(TEXTS))
    jobs = [(encoder, TEXTS[: 1 + i % 7]) for i in range(60) for encoder in encoders]
    expected = [encoder.encode(texts) for encoder, texts in jobs]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda job: job[0].encode(job[1]), jobs * 2))
    for own, one in zip(found, expected * 2, strict=True):
        np.testing.assert_array_equal(own, one)


def test_attention_is_that_of_the_call_and_not_of_the_network() -> None:
    """Another encoder reads with the same network between a call's start and its attention."""
    causal = tiny_encoder("llama")
    both = causal.with_changes(bidirectional=True)
    expected, busy = both.encode(TEXTS), []

    def read_meanwhile(*_: Any) -> None:
        if not busy:
            busy.append(True)
            causal.encode(TEXTS)
            busy.pop()

    network = causal.model.network
    for module in (network, network.tokens):
        module.register_forward_pre_hook(read_meanwhile)
    np.testing.assert_array_equal(both.encode(TEXTS), expected)


def test_a_network_in_training_is_read_without_dropout_and_stays_in_training() -> None:
    encoder = tiny_encoder()
    network = encoder.model.network
    assert network.config.dropout
    assert network.config.attention_dropout
    expected = encoder.encode(TEXTS)
    network.train()
    modes = set()
    for module in network.modules():
        module.register_forward_hook(lambda module, *_: modes.add(module.training))
    np.testing.assert_array_equal(encoder.encode(TEXTS), expected)
    assert modes == {True}, "another thread would train without dropout"
    assert not torch.allclose(encoder.embed(TEXTS), encoder.embed(TEXTS)), "training has dropout"
    with torch.no_grad():  # as the first pass over a batch in two passes (GradCache) does
        assert not torch.allclose(encoder.embed(TEXTS), encoder.embed(TEXTS))


def test_every_dropout_is_the_one_that_inference_mode_turns_off() -> None:
    """A dropout of torch's would put noise into vectors made in the middle of a training run."""
    package = Path(idiolect.__file__).parent
    found = [
        path.name
        for path in package.rglob("*.py")
        if re.search(r"nn\.Dropout|dropout\(.*self\.training\)$", path.read_text(encoding="utf-8"))
    ]
    assert not found
