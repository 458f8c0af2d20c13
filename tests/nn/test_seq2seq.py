"""Recurrent encoder-decoders against loops of their equations; caches, batches and bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from idiolect.errors import ConfigError, InputError
from idiolect.nn.seq2seq.attention_scores import make_score
from idiolect.nn.seq2seq.seq2seq import Seq2Seq
from idiolect.nn.seq2seq.seq2seq_config import Seq2SeqConfig

SCORES = ("dot", "scaled_dot", "general", "additive", "concat", "cosine", "location")
KINDS: dict[str, dict[str, Any]] = {
    "sutskever": {"num_layers": 2, "reverse_source": True},
    "bahdanau": {
        "cell": "gru",
        "bidirectional": True,
        "attention": "additive",
        "query": "previous",
    },
    "luong": {"num_layers": 2, "attention": "general", "input_feeding": True},
    "pointer": {
        "bidirectional": True,
        "attention": "additive",
        "copy": True,
        "coverage_loss": 1.0,
    },
    "local": {"attention": "dot", "attention_range": "local-p", "attention_window": 2},
    "monotonic": {"attention": "cosine", "attention_range": "local-m", "attention_window": 1},
    "location": {"attention": "location", "max_position_embeddings": 9},
}


def network(**settings: Any) -> Seq2Seq:
    settings = {"vocab_size": 17, "hidden_size": 8, "pad_token_id": 0} | settings
    made = Seq2Seq(Seq2SeqConfig(decoder_start_token_id=1, **settings))
    made.init_weights(0)
    with torch.no_grad():
        for parameter in made.parameters():  # biases as well, so that leaving one out is seen
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(1)
            )
    return made.eval()


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """A source padded on the right, its mask, and what the decoder reads."""
    source = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 10, 11, 0, 0, 0], [12, 13, 14, 15, 0, 0]])
    target = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 10], [1, 11, 12, 13]])
    return source, (source > 0).long(), target


@pytest.mark.parametrize("name", SCORES)
def test_scores_equal_their_formulas(name: Any) -> None:
    torch.manual_seed(0)
    score = make_score(name, 4, positions=7)
    query, memory = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    found = score(query, score.keys(memory))
    weights = dict(score.named_parameters())
    for b in range(2):
        for t in range(3):
            for s in range(5):
                q, k = query[b, t], memory[b, s]
                if name in ("dot", "scaled_dot"):
                    wanted = q @ k / (2.0 if name == "scaled_dot" else 1.0)
                elif name == "general":
                    wanted = q @ weights["key.weight"] @ k
                elif name in ("additive", "concat"):
                    both = torch.cat([weights["query.weight"], weights["key.weight"]], 1)
                    wanted = weights["value.weight"][0] @ torch.tanh(both @ torch.cat([q, k]))
                elif name == "cosine":
                    beta = torch.log(1 + torch.exp(weights["sharpness"][0]))
                    wanted = beta * (q @ k) / (q.norm() * k.norm())
                else:
                    wanted = weights["place.weight"][s] @ q
                torch.testing.assert_close(found[b, t, s], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_cached_equals_uncached(kind: str) -> None:
    made = network(**KINDS[kind])
    source, mask, target = batch()
    whole = made(source, mask, decoder_input_ids=target)
    cache = made.new_cache()
    steps = [
        made(source, mask, decoder_input_ids=target[:, t : t + 1], cache=cache).logits
        for t in range(target.shape[1])
    ]
    torch.testing.assert_close(torch.cat(steps, 1), whole.logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
@torch.inference_mode()
def test_batched_equals_single(kind: str, side: str) -> None:
    made = network(**KINDS[kind])
    source, mask, target = batch()
    if side == "left":
        source, mask = source.flip(1), mask.flip(1)
    together = made(source, mask, decoder_input_ids=target)
    states = made.text_states(source, mask)
    for row, present in enumerate(mask.bool()):
        alone = source[row : row + 1, present]
        one = made(alone, decoder_input_ids=target[row : row + 1])
        torch.testing.assert_close(together.logits[row], one.logits[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(states[row, present], made.text_states(alone)[0])
        assert not states[row, ~present].any()


def cell_step(made: Seq2Seq, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """One step of the decoder's last layer, from the equations."""
    w, u, b, c = (
        getattr(made.decoder, f"{name}_l0")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    if isinstance(state, tuple):
        h, cell = state
        i, f, g, o = (w @ x + b + u @ h + c).chunk(4)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(cell)
        return h, (h, cell)
    r, z, n = (w @ x + b).chunk(3)
    rh, zh, nh = (u @ state + c).chunk(3)
    update = torch.sigmoid(z + zh)
    h = (1 - update) * torch.tanh(n + torch.sigmoid(r + rh) * nh) + update * state
    return h, h


def first_state(made: Seq2Seq, source: Tensor) -> tuple[Tensor, Any]:
    """The source's states, and the decoder's first one, of one text."""
    states, last = made.encoder(made.tokens(source)[None])
    if made.config.bidirectional:
        parts = last if isinstance(last, tuple) else (last,)
        mapped = [
            layer(torch.cat([part[0, 0], part[1, 0]]))
            for layer, part in zip(made.bridge, parts, strict=True)
        ]
        mapped[0] = torch.tanh(mapped[0])
        return states[0], (mapped[0], mapped[1]) if len(mapped) == 2 else mapped[0]
    return states[0], (last[0][0, 0], last[1][0, 0]) if isinstance(last, tuple) else last[0, 0]


@torch.inference_mode()
def test_input_feeding_equals_a_loop() -> None:
    made = network(attention="general", input_feeding=True)
    source, _, target = batch()
    memory, state = first_state(made, source[0])
    fed = torch.zeros(8)
    for t, token in enumerate(target[0]):
        h, state = cell_step(made, torch.cat([made.tokens(token), fed]), state)
        scores = torch.stack([h @ made.attention.score.key.weight @ k for k in memory])
        context = scores.softmax(0) @ memory
        fed = torch.tanh(made.readout.weight @ torch.cat([context, h]))
        found = made(source[:1], decoder_input_ids=target[:1]).hidden_states[0, t]
        torch.testing.assert_close(found, fed, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_bahdanau_equals_a_loop() -> None:
    made = network(**KINDS["bahdanau"])
    source, _, target = batch()
    found = made(source[:1], decoder_input_ids=target[:1])
    memory, state = first_state(made, source[0])
    score = made.attention.score
    for t, token in enumerate(target[0]):
        scores = torch.stack(
            [
                score.value.weight[0]
                @ torch.tanh(score.query.weight @ state + score.key.weight @ k)
                for k in memory
            ]
        )
        context = scores.softmax(0) @ memory
        x = made.tokens(token)
        h, state = cell_step(made, torch.cat([x, context]), state)
        pieces = made.readout.weight @ torch.cat([h, x, context]) + made.readout.bias
        output = torch.stack([pieces[2 * i : 2 * i + 2].max() for i in range(8)])
        torch.testing.assert_close(found.hidden_states[0, t], output, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.attentions[0, t], scores.softmax(0))


@pytest.mark.parametrize("kind", ["local-p", "local-m"])
@torch.inference_mode()
def test_local_attention_equals_a_loop(kind: str) -> None:
    made = network(attention="dot", attention_range=kind, attention_window=2)
    source, _, target = batch()
    found = made(source[:1], decoder_input_ids=target[:1])
    memory, state = first_state(made, source[0])
    seen = 0
    for t, token in enumerate(target[0]):
        h, state = cell_step(made, made.tokens(token), state)
        centre = torch.tensor(float(t))
        if kind == "local-p":
            attention = made.attention
            guess = attention.centre_value.weight[0] @ torch.tanh(attention.centre.weight @ h)
            centre = len(memory) * torch.sigmoid(guess)
        inside = [s for s in range(len(memory)) if abs(s - centre) <= 2]
        weights = torch.zeros(len(memory))
        weights[inside] = torch.stack([h @ memory[s] for s in inside]).softmax(0)
        if kind == "local-p":
            for s in inside:
                weights[s] *= torch.exp(-((s - centre) ** 2) / (2 * 1.0**2))  # σ = D/2
        torch.testing.assert_close(found.attentions[0, t], weights, atol=1e-6, rtol=1e-5)
        seen += len(inside) < len(memory)
    assert seen, "the window never cut anything"


@torch.inference_mode()
def test_coverage_equals_a_loop() -> None:
    made = network(attention="additive", coverage_loss=0.5)
    source, _, target = batch()
    found = made(source[:1], decoder_input_ids=target[:1])
    memory, state = first_state(made, source[0])
    score, coverage, loss = made.attention.score, torch.zeros(6), torch.zeros(())
    for t, token in enumerate(target[0]):
        h, state = cell_step(made, made.tokens(token), state)
        scores = torch.stack(
            [
                score.value.weight[0]
                @ torch.tanh(
                    score.query.weight @ h
                    + score.key.weight @ memory[s]
                    + score.coverage.weight[:, 0] * coverage[s]
                )
                for s in range(6)
            ]
        )
        weights = scores.softmax(0)
        torch.testing.assert_close(found.attentions[0, t], weights, atol=1e-5, rtol=1e-5)
        loss += torch.minimum(weights, coverage).sum()
        coverage += weights
    predicted = torch.ones(1, 4, dtype=torch.bool)
    torch.testing.assert_close(made.extra_loss(found, target[:1], predicted), 0.5 * loss)


@torch.inference_mode()
def test_the_source_is_read_from_its_end() -> None:
    forward, backward = network(attention="dot"), network(attention="dot", reverse_source=True)
    backward.load_state_dict(forward.state_dict())
    source, mask, target = batch()
    turned = torch.tensor([[8, 7, 6, 5, 4, 3], [11, 10, 9, 0, 0, 0], [15, 14, 13, 12, 0, 0]])
    one = forward(source, mask, decoder_input_ids=target)
    other = backward(turned, mask, decoder_input_ids=target)
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.attentions[0], other.attentions[0].flip(-1))


@torch.inference_mode()
def test_weights_are_in_the_order_of_a_source_that_is_padded_on_the_left() -> None:
    made = network(attention="dot")
    source, mask, target = batch()
    right = made(source, mask, decoder_input_ids=target).attentions
    cache, left = made.new_cache(), torch.zeros_like(source)
    lengths = mask.sum(1).tolist()
    for row, length in enumerate(lengths):
        left[row, source.shape[1] - length :] = source[row, :length]
    for place in range(target.shape[1]):
        step = target[:, place : place + 1]
        found = made(left, mask.flip(1), decoder_input_ids=step, cache=cache).attentions
        for row, length in enumerate(lengths):
            torch.testing.assert_close(found[row, 0, -length:], right[row, place, :length])
            assert not found[row, 0, : source.shape[1] - length].any()


@torch.inference_mode()
def test_copies_are_mixed_with_predictions() -> None:
    made = network(**KINDS["pointer"])
    source, mask, target = batch()
    source[0, 1] = source[0, 0]  # the weights of equal tokens add up
    output = made(source, mask, decoder_input_ids=target)
    torch.testing.assert_close(output.logits.exp().sum(-1), torch.ones(3, 4))
    own = made.score_vocabulary(output.hidden_states).softmax(-1)
    copied = torch.zeros(17)
    for place, token in enumerate(source[0]):
        copied[token] += output.attentions[0, 2, place]
    mixed = output.logits[0, 2].exp()
    share = (mixed[16] / own[0, 2, 16]).item()  # an id that the source does not hold
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * own[0, 2] + (1 - share) * copied)


def test_hard_attention_samples_in_training_and_learns_from_reward() -> None:
    made = network(attention="general", hard_attention=True)
    source, mask, target = batch()
    with torch.no_grad():
        chosen = made(source, mask, decoder_input_ids=target).attentions
    assert torch.equal(chosen.sum(-1), torch.ones(3, 4))
    assert set(chosen.flatten().tolist()) == {0.0, 1.0}
    made.train()
    torch.manual_seed(0)
    output = made(source, mask, decoder_input_ids=target)
    assert output.choice_log_probs is not None
    predicted = torch.ones(3, 4, dtype=torch.bool)
    extra = made.extra_loss(output, target, predicted)
    gained = output.logits.detach().log_softmax(-1).gather(-1, target[..., None])[..., 0]
    wanted = torch.zeros(())
    for t in range(4):
        reward = gained[:, t:].sum(1)
        wanted = wanted - ((reward - reward.mean()) * output.choice_log_probs[:, t]).sum()
    torch.testing.assert_close(extra, wanted)
    extra.backward()
    assert made.attention.score.key.weight.grad.abs().sum() > 0


def test_bad_input_is_refused() -> None:
    made = network(**KINDS["location"])
    source, mask, target = batch()
    with pytest.raises(InputError, match="10 tokens, but the model has 9 positions"):
        made(torch.full((1, 10), 3), decoder_input_ids=target[:1])
    with pytest.raises(InputError, match="source 1 of the batch is empty"):
        made(source, mask * torch.tensor([[1], [0], [1]]), decoder_input_ids=target)
    cache = made.new_cache()
    made(source, mask, decoder_input_ids=target[:, :1], cache=cache)
    with pytest.raises(InputError, match="a batch of 2 texts with the state of 3"):
        made(source[:2], mask[:2], decoder_input_ids=target[:2, :1], cache=cache)
    with pytest.raises(InputError, match="several documents"):
        made(source, mask + 1, decoder_input_ids=target)
    with pytest.raises(InputError, match="id 17 is outside the 17"):
        made(source % 2 + 16, None, decoder_input_ids=target)
    for settings in (
        {"attention": "dots"},
        {"input_feeding": True},
        {"attention": "location"},
        {"attention": "dot", "coverage_loss": 1.0},
        {"attention": "dot", "attention_range": "local-p", "copy": True},
        {"hidden_size": 7, "bidirectional": True},
        {"dropout": 1.0},
    ):
        with pytest.raises(ConfigError):
            Seq2SeqConfig(vocab_size=5, **settings)
