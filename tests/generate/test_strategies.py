"""Greedy decoding against `generate`, and sampling: batches, padding, stops, encoder-decoders."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
import transformers

from idiolect.errors import ConfigError, InputError
from idiolect.generate.guided_decoding import LayerContrast
from idiolect.generate.strategies import greedy, sample
from idiolect.generate.token_sampling import Sampling
from idiolect.nn.transformer import Transformer
from parity.reference import batch, make

CASES = [
    ("gpt2", "GPT2LMHeadModel"),
    ("llama", "LlamaForCausalLM"),
    ("t5", "T5ForConditionalGeneration"),
    ("bart", "BartForConditionalGeneration"),
    ("mbart", "MBartForConditionalGeneration"),
]


@pytest.mark.parametrize(("model_type", "architecture"), CASES, ids=[c[0] for c in CASES])
def test_greedy_matches_generate(tmp_path: Path, model_type: str, architecture: str) -> None:
    extra = {"forced_eos_token_id": None} if "bart" in model_type else {}
    if model_type == "mbart":
        extra["decoder_start_token_id"] = 7
    reference = make(tmp_path, model_type, architecture, **extra)
    ids, mask = batch()
    if reference.network.encoder is None:
        ids, mask = ids.flip(1), mask.flip(1)
    theirs = reference.model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=12,
        min_new_tokens=12,
        do_sample=False,
        num_beams=1,
        pad_token_id=1,
    )
    new = theirs[:, -12:]
    ours = greedy(reference.network, ids, mask, max_new_tokens=12)
    # `generate` may not choose the end while the minimum is not reached; compare up to there.
    for row in range(len(ids)):
        end = (ours[row] == 2).nonzero()
        until = int(end[0]) if len(end) else 12
        assert until > 3
        assert ours[row, :until].tolist() == new[row, :until].tolist()


def test_stops_end_a_text(tmp_path: Path) -> None:
    reference = make(tmp_path, "gpt2", "GPT2LMHeadModel")
    ids = torch.randint(3, 90, (2, 5))
    free = greedy(reference.network, ids, max_new_tokens=10)
    stop = int(free[0, 3])
    first = free[0].tolist().index(stop)
    stopped = greedy(reference.network, ids, max_new_tokens=10, eos_token_id=[stop])
    assert stopped[0, : first + 1].tolist() == free[0, : first + 1].tolist()
    assert set(stopped[0, first:].tolist()) == {stop}


def test_bad_input(tmp_path: Path) -> None:
    network = make(tmp_path / "gpt2", "gpt2", "GPT2LMHeadModel").network
    ids = torch.randint(3, 90, (1, 4))
    with pytest.raises(InputError, match="padded on the right"):
        greedy(network, ids, torch.tensor([[1, 1, 1, 0]]), max_new_tokens=2)
    bert = make(tmp_path / "bert", "bert", "BertForMaskedLM").network
    body = make(tmp_path / "body", "gpt2", "GPT2Model").network
    for other in (bert, body):
        with pytest.raises(InputError, match="does not predict the next token"):
            greedy(other, ids, max_new_tokens=2)
    with pytest.raises(InputError, match="the text is empty"):
        greedy(network, ids[:, :0], max_new_tokens=2)
    assert greedy(network, ids, max_new_tokens=0).shape == (1, 0)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(0.7, top_k=5), Sampling(1.3, top_p=0.6), Sampling(0.9, 7, 0.8)],
    ids=repr,
)
def test_draws_have_the_probabilities_of_transformers(sampling: Sampling) -> None:
    scores = torch.randn(1, 12, generator=torch.Generator().manual_seed(3)) * 2
    expected = transformers.TemperatureLogitsWarper(sampling.temperature)(None, scores)
    if sampling.top_k:
        expected = transformers.TopKLogitsWarper(sampling.top_k)(None, expected)
    expected = transformers.TopPLogitsWarper(sampling.top_p)(None, expected).softmax(-1)[0]
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    drawn = sampling.draw(scores.expand(len(uniform), -1), uniform)
    shares = drawn.bincount(minlength=12) / len(uniform)
    assert torch.allclose(shares, expected, atol=1e-3)
    assert int(sampling.draw(scores, torch.tensor([1.0]))) in expected.nonzero()


def test_impossible_sampling_is_refused() -> None:
    for options in ({"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            Sampling(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("model_type", "architecture"), CASES, ids=[c[0] for c in CASES])
def test_the_most_likely_draws_are_those_of_greedy(
    tmp_path: Path, model_type: str, architecture: str
) -> None:
    network = make(tmp_path, model_type, architecture).network
    ids, mask = batch()
    if network.kind == "causal":
        ids, mask = ids.flip(1), mask.flip(1)
    free = greedy(network, ids, mask, max_new_tokens=8)
    stops = [int(free[0, 2]), int(free[-1, 5])]
    plain = greedy(network, ids, mask, max_new_tokens=8, eos_token_id=stops)
    drawn = sample(
        network,
        ids,
        mask,
        max_new_tokens=8,
        seeds=range(2 * len(ids)),
        eos_token_id=stops,
        sampling=Sampling(top_k=1),
    )
    assert torch.equal(drawn[0::2], plain)
    assert torch.equal(drawn[1::2], plain)


def test_a_seed_alone_determines_its_row(tmp_path: Path) -> None:
    network = make(tmp_path, "llama", "LlamaForCausalLM").network
    ids = torch.randint(3, 90, (3, 5), generator=torch.Generator().manual_seed(1))
    whole = sample(network, ids, max_new_tokens=12, seeds=[7, 8, 9], eos_token_id=range(0, 60, 2))
    for row, seed in enumerate([7, 8, 9]):
        alone = sample(
            network,
            ids[row : row + 1],
            max_new_tokens=12,
            seeds=[seed],
            eos_token_id=range(0, 60, 2),
        )[0].tolist()
        assert whole[row, : len(alone)].tolist() == alone
        assert set(whole[row, len(alone) :].tolist()) <= {alone[-1]}
    assert not torch.equal(whole, sample(network, ids, max_new_tokens=12, seeds=[1, 2, 3]))
    with pytest.raises(InputError, match="4 seeds for 3 texts"):
        sample(network, ids, max_new_tokens=2, seeds=range(4))


def test_texts_go_on_after_a_prompt_that_was_read_before(tmp_path: Path) -> None:
    network = make(tmp_path, "llama", "LlamaForCausalLM").network
    prompt, texts = torch.tensor([[5, 6, 7]]), [[11, 12, 13, 14], [21, 22]]
    cache = network.new_cache()
    with torch.inference_mode():
        network(prompt, cache=cache, return_logits=False)
    cache.select(torch.zeros(2, dtype=torch.long))
    ids = torch.tensor([texts[0], [0, 0, *texts[1]]])
    mask = torch.tensor([[1] * 7, [1, 1, 1, 0, 0, 1, 1]])
    found = sample(network, ids, mask, max_new_tokens=6, seeds=[3, 4], cache=cache)
    for row, seed in enumerate([3, 4]):
        joined = torch.cat([prompt, torch.tensor([texts[row]])], dim=1)
        assert torch.equal(found[row], sample(network, joined, max_new_tokens=6, seeds=[seed])[0])


@torch.no_grad()
def test_dola_counts_tokens_whose_shares_are_rounded_to_zero(tmp_path: Path) -> None:
    network = make(tmp_path, "bart", "BartForConditionalGeneration").network
    decoding = LayerContrast(network, *batch(), layers=[0, 1])
    width = decoding.start().shape[-1]
    final, near, far = (torch.zeros(2, width) for _ in range(3))
    final[:, 0], near[:, 0], far[:, 1] = 300.0, 299.0, 300.0  # e^-300 is zero in float32
    decoding._early = torch.stack([near, far])
    decoding.network = mock.Mock(score_vocabulary=lambda states: states)
    found = decoding.score(final)
    assert torch.allclose(found[:, 0], (final.log_softmax(-1) - far.log_softmax(-1))[:, 0])


@torch.no_grad()
def test_dola_contrasts_layers_of_the_decoder(tmp_path: Path) -> None:
    network = make(tmp_path, "bart", "BartForConditionalGeneration").network
    assert isinstance(network, Transformer)
    assert network.decoder is not None
    layer = network.decoder.layers[0]
    ids, mask = batch()
    decoding = LayerContrast(network, ids, mask, layers=[0, 1])
    read, scores = network.start_ids(ids, mask), decoding.start()
    states: list[torch.Tensor] = []
    layer.register_forward_hook(lambda *args: states.extend([args[1][0], args[2]]))
    for _ in range(4):
        states.clear()
        p = network(ids, mask, decoder_input_ids=read).logits[:, -1].softmax(-1)
        early = [network.score_vocabulary(state[:, -1]).softmax(-1) for state in states]
        means = [(p + q) / 2 for q in early]
        divergence = torch.stack(
            [
                (mean * (mean / p).log() + mean * (mean / q).log()).sum(-1)
                for q, mean in zip(early, means, strict=True)
            ]
        )
        chosen = torch.where((divergence[0] >= divergence[1])[:, None], *early)
        expected = (p / chosen).log().masked_fill(p < 0.1 * p.amax(-1, keepdim=True), -torch.inf)
        assert torch.allclose(scores, expected, atol=1e-3)
        tokens = scores.argmax(-1)
        states.clear()
        read, scores = torch.cat([read, tokens[:, None]], 1), decoding.step(tokens)
