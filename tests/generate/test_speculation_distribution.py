"""Sampled speculation writes texts with the probabilities of the model alone (χ²)."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from idiolect.generate.decoding import Decoding
from idiolect.generate.generation_options import GenerationOptions
from idiolect.generate.speculative import AssistantGuesses, Guesses, LookupGuesses, speculate
from idiolect.nn.config import TransformerConfig
from idiolect.nn.transformer import Transformer

SIZE, LENGTH, DRAWS = 5, 3, 500
PROMPT = [1, 2, 3, 1, 2]  # what follows "1 2" is found again


def _network(seed: int) -> Transformer:
    config = TransformerConfig(
        vocab_size=SIZE,
        hidden_size=8,
        num_attention_heads=2,
        intermediate_size=8,
        num_decoder_layers=1,
        position="rotary",
    )
    network = Transformer(config).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.6)
    return network


def _expected(network: Transformer, options: GenerationOptions) -> np.ndarray[Any, Any]:
    """Return the probability of each text, from reading each of them whole. (SIZE ** LENGTH,)."""
    texts = torch.tensor(list(product(range(SIZE), repeat=LENGTH)))
    read = torch.cat([torch.tensor([PROMPT]).expand(len(texts), -1), texts], dim=1)
    with torch.no_grad():
        logits = network(read).logits[:, len(PROMPT) - 1 : -1]
    shares = options.sampling.filter(logits.flatten(0, 1)).softmax(-1).view(*texts.shape, SIZE)
    return shares.gather(2, texts[..., None]).prod(1)[:, 0].double().numpy()


@pytest.mark.parametrize(
    ("kind", "sampling"), [("assistant", {"temperature": 0.7, "top_k": 3}), ("lookup", {})]
)
def test_texts_have_the_probabilities_of_the_model(kind: str, sampling: dict[str, Any]) -> None:
    network, assistant = _network(3), _network(4)
    options = GenerationOptions(do_sample=True, num_assistant_tokens=2, **sampling)
    random, counts = np.random.default_rng(11), np.zeros(SIZE**LENGTH)
    for _ in range(DRAWS):
        prompt, guesses = torch.tensor([PROMPT]), _guesses(kind, assistant, options)
        found = speculate(
            Decoding(network, prompt),
            guesses,
            lambda scores, ids: scores,
            options,
            LENGTH,
            random,
        )
        number = 0
        for (_, token), _ in zip(found, range(LENGTH), strict=False):
            number = number * SIZE + token
        counts[number] += 1
    expected = DRAWS * _expected(network, options)
    assert expected.sum() == pytest.approx(DRAWS, rel=1e-4)
    assert counts[expected == 0].sum() == 0
    assert _surprise(counts, expected) > 1e-3
    # The test would notice the probabilities of the assistant.
    assert _surprise(counts, DRAWS * _expected(assistant, options)) < 1e-6


def _guesses(kind: str, assistant: Transformer, options: GenerationOptions) -> Guesses:
    if kind == "lookup":
        return LookupGuesses(PROMPT, 2)
    return AssistantGuesses(Decoding(assistant, torch.tensor([PROMPT])), options)


def _surprise(counts: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Return the p-value; texts that are expected less than five times are one class."""
    often = expected >= 5
    classes = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], max(expected[~often].sum(), 1e-9))
    return float(chisquare(classes, wanted * classes.sum() / wanted.sum()).pvalue)
