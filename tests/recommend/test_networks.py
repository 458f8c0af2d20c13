"""Networks equal plain references, losses their definitions, and a killed run its twin."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from idiolect.errors import CheckpointError
from idiolect.nn.network import Network
from idiolect.recommend.histories import Histories
from idiolect.recommend.networks.item_networks import make_network
from idiolect.recommend.networks.next_item_losses import bpr_max, gbce, sampled_softmax
from idiolect.recommend.networks.next_item_objective import NextItem, windows
from idiolect.recommend.networks.sequence_scorer import SequenceScorer
from idiolect.recommend.networks.train_network import train_network
from idiolect.recommend.splits import Split, split
from idiolect.training.data.batch import Batch
from idiolect.training.data.shuffled_epochs import EpochSample

ITEMS = 12


def _cycle(users: int = 40) -> Histories:
    """Histories in which each item is followed by the next number."""
    rows = [[(user + i) % ITEMS for i in range(6)] for user in range(users)]
    names = tuple(map(str, range(ITEMS)))
    return Histories.of_numbers(tuple(map(str, range(users))), names, rows)


def test_sasrec_forward_equals_a_plain_reference() -> None:
    network = make_network("sasrec", ITEMS, 8, seed=1)
    weights = {name: w.double() for name, w in network.state_dict().items()}
    ids = torch.tensor([[3, 1, 7, 2]])
    found = network(ids, return_logits=False).hidden_states

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        w, b = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(x, (64,), w, b, 1e-8)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = weights["tokens.weight"][ids] * math.sqrt(64) + weights["decoder.table.weight"][:4]
    causal = torch.full((4, 4), float("-inf"), dtype=torch.double).triu(1)
    for number in range(2):
        layer = f"decoder.layers.{number}"
        y = norm(x, f"{layer}.attention_norm")
        q, k, v = (linear(y, f"{layer}.attention.{one}") for one in ("query", "key", "value"))
        attention = (q @ k.transpose(1, 2) / 8 + causal).softmax(-1) @ v
        x = x + linear(attention, f"{layer}.attention.output")
        y = norm(x, f"{layer}.feed_forward_norm")
        y = F.relu(linear(y, f"{layer}.feed_forward.up"))
        x = x + linear(y, f"{layer}.feed_forward.down")
    expected = norm(x, "decoder.final_norm")
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_bpr_max_and_its_gradient_equal_the_official_arithmetic() -> None:
    # The official code masks the target with a large number before a softmax of its own.
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 9, generator=generator, dtype=torch.double, requires_grad=True)
    equal = torch.zeros(4, 8, dtype=torch.bool)
    equal[0, 2] = True
    loss = bpr_max(scores[:, 0], scores[:, 1:], equal, penalty=0.5)
    (gradient,) = torch.autograd.grad(loss, scores)
    own = scores.detach().clone().requires_grad_()
    keep = (~equal).double()
    exps = (own[:, 1:] - own[:, 1:].max(1, keepdim=True).values).exp() * keep
    softmax = exps / exps.sum(1, keepdim=True)
    ranked = (softmax * torch.sigmoid(own[:, :1] - own[:, 1:])).sum(1)
    expected = (-(ranked + 1e-24).log() + 0.5 * (softmax * own[:, 1:] ** 2).sum(1)).sum()
    (wanted,) = torch.autograd.grad(expected, own)
    assert loss.item() == pytest.approx(expected.item())
    torch.testing.assert_close(gradient, wanted)


def test_sampled_softmax_of_all_items_is_the_full_one() -> None:
    scores = torch.randn(5, ITEMS, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(5)
    equal = targets[:, None] == torch.arange(ITEMS)
    flat = torch.full((ITEMS,), -math.log(ITEMS))
    positive = scores[torch.arange(5), targets]
    loss = sampled_softmax(positive, scores, equal, flat[targets], flat)
    assert float(loss) == pytest.approx(float(F.cross_entropy(scores, targets, reduction="sum")))


def test_gbce_of_all_negatives_is_binary_cross_entropy() -> None:
    positive, negative = torch.tensor([0.3]), torch.tensor([[0.1, -2.0, 1.0]])
    equal = torch.zeros(1, 3, dtype=torch.bool)
    expected = F.softplus(-positive).sum() + F.softplus(negative).sum()
    assert float(gbce(positive, negative, equal, 4)) == pytest.approx(float(expected))
    # With one negative of three, t = 0.75: β = 1/3 · (0.75 · (1 − 3) + 3) = 0.5.
    half = gbce(positive, negative[:, :1], equal[:, :1], 4)
    wanted = 0.5 * F.softplus(-positive).sum() + F.softplus(negative[:, :1]).sum()
    assert float(half) == pytest.approx(float(wanted))


def test_bert4rec_hides_the_last_item_of_some_rows_and_something_in_each() -> None:
    rows = _cycle().rows
    objective = NextItem(rows, np.ones(ITEMS), loss="cross-entropy", hidden_share=0.3)  # type: ignore[arg-type]
    batch = objective.prepare(EpochSample(list(range(40)), 0))
    hidden = batch.labels >= 0
    assert hidden.any(1).all()
    assert (batch.input_ids[hidden] == ITEMS + 1).all()
    assert (hidden[:, -1] & (hidden.sum(1) == 1)).any()
    again = objective.prepare(EpochSample(list(range(40)), 0))
    assert torch.equal(batch.input_ids, again.input_ids)


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "two-tower"])
def test_short_histories_have_grids_of_their_own(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(ITEMS, size=length) for length in (2, 3, 3, 40, 50, 5, 2, 2, 3, 7)]
    objective = NextItem(rows, np.ones(ITEMS, np.int64), loss="cross-entropy")
    batch = objective.prepare(EpochSample(list(range(len(rows))), 0))
    network, losses, sizes = make_network(name, ITEMS, 50), list[torch.Tensor](), list[int]()
    network.register_forward_pre_hook(lambda _, given: sizes.append(given[0].numel()))
    for grids in (1, 8):
        monkeypatch.setattr(f"{NextItem.__module__}._GRIDS", grids)
        losses.append(objective.loss(network, batch).detach())
    torch.testing.assert_close(losses[1], losses[0])
    assert sum(sizes[1:]) < sizes[0] / 3


def test_windows_cut_long_histories() -> None:
    row = np.arange(8)
    assert [w.tolist() for w in windows([row, row[:1]], 3)] == [[4, 5, 6, 7], [1, 2, 3, 4], [0, 1]]


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "bert4rec"])
def test_networks_learn_a_cycle(name: str, tmp_path: Path) -> None:
    parts = split(_cycle())
    epochs = {"sasrec": 40, "gru4rec": 60, "bert4rec": 80}[name]
    scorer = train_network(name, parts, tmp_path / name, epochs=epochs)
    first = make_network(name, ITEMS, scorer.max_length, seed=0).tokens.weight
    moved = (scorer.network.tokens.weight - first).abs().amax(1)
    assert (moved[1 : ITEMS + 1] > 0.01).all()  # every item's vector is learned
    scores = scorer.score([np.array([2, 3, 4]), np.array([], np.int64)])
    assert scores[0].argmax() == 5
    assert scores.shape == (2, ITEMS)
    again = type(scorer).of_arrays(scorer.arrays()).score([np.array([2, 3, 4])])
    np.testing.assert_allclose(again[0], scores[0], rtol=1e-5)


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    train_network("gru4rec", split(_cycle()), tmp_path / "run", epochs=1)
    with pytest.raises(CheckpointError):
        train_network("gru4rec", split(_cycle(30)), tmp_path / "run", epochs=1)


def test_a_run_resumes_after_its_last_checkpoint_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{train_network.__module__}._SAVE_STEPS", 5)
    parts = split(_cycle())
    whole = train_network("sasrec", parts, tmp_path / "whole", epochs=20)
    loss, calls = NextItem.loss, []

    def stopped(self: NextItem, network: Network, batch: Batch) -> torch.Tensor:
        calls.append(None)
        if len(calls) == 18:
            raise MemoryError
        return loss(self, network, batch)

    monkeypatch.setattr(NextItem, "loss", stopped)
    with pytest.raises(MemoryError):
        train_network("sasrec", parts, tmp_path / "run", epochs=20)
    kept = sorted((tmp_path / "run").glob("checkpoint-*"))
    assert [path.name for path in kept] == ["checkpoint-00000010", "checkpoint-00000015"]
    (kept[-1] / "weights.safetensors").write_bytes(b"lost")
    resumed = train_network("sasrec", parts, tmp_path / "run", epochs=20)
    assert len(calls) == 18 + 10
    for name, weight in whole.arrays().items():
        np.testing.assert_array_equal(resumed.arrays()[name], weight)


def test_a_network_that_no_longer_improves_ends_early(tmp_path: Path) -> None:
    scorer = train_network("sasrec", split(_cycle()), tmp_path, epochs=1000)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) < 500
    assert scorer.score([np.array([2, 3, 4])])[0].argmax() == 5


@pytest.mark.parametrize("killed", [False, True])
def test_the_weights_that_validate_best_remain(
    killed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of an evaluation before the checkpoint from which a run resumes."""
    losses, seen = [0.9, 0.7, 0.8, 0.7, 0.8, 0.1], list[torch.Tensor]()

    def validator(scorer: SequenceScorer, parts: Split) -> Callable[[], float]:
        def validate() -> float:
            if killed and len(seen) == 3 and not (tmp_path / "again").exists():
                raise MemoryError
            weight = scorer.network.tokens.weight
            assert isinstance(weight, torch.Tensor)
            seen.append(weight.detach().clone())
            return losses[len(seen) - 1]

        return validate

    for name, value in (("validator", validator), ("PATIENCE", 3), ("EVAL_STEPS", 1)):
        monkeypatch.setattr(f"{train_network.__module__}._{name}", value)
    monkeypatch.setattr(f"{train_network.__module__}._SAVE_STEPS", 3)
    if killed:
        with pytest.raises(MemoryError):
            train_network("sasrec", split(_cycle()), tmp_path / "run", epochs=9)
        (tmp_path / "again").touch()
    scorer = train_network("sasrec", split(_cycle()), tmp_path / "run", epochs=9)
    assert len(seen) == 5  # three evaluations after the best one
    assert torch.equal(scorer.network.tokens.weight, seen[1])
    again = train_network("sasrec", split(_cycle()), tmp_path / "run", epochs=9)
    assert len(seen) == 5  # a finished run is loaded
    assert torch.equal(again.network.tokens.weight, seen[1])
