"""GRU4Rec's batches, losses and gradients equal a plain computation of the published formulas."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ROOT
from idiolect.errors import ConfigError
from idiolect.recommend.histories import Histories
from idiolect.recommend.history_files import read_histories
from idiolect.recommend.model_kinds import ItemLoss
from idiolect.recommend.networks.item_networks import make_network
from idiolect.recommend.networks.session_parallel import SessionParallel, SessionSteps
from idiolect.recommend.networks.train_network import train_network
from idiolect.recommend.splits import split
from idiolect.recommend.train_recommender import train_recommender

DATA = ROOT.parent / "shared" / "data" / "sequential-recommendation"
ALPHA, ELU = 0.5, 0.5


def _gru(x: torch.Tensor, h: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """One step of a GRU, gate by gate."""
    own = x @ weights["ih"].T + weights["bias_ih"]
    past = h @ weights["hh"].T + weights["bias_hh"]
    size = h.shape[1]
    reset = torch.sigmoid(own[:, :size] + past[:, :size])
    update = torch.sigmoid(own[:, size : 2 * size] + past[:, size : 2 * size])
    new = torch.tanh(own[:, 2 * size :] + reset * past[:, 2 * size :])
    return (1 - update) * new + update * h


def _published_loss(loss: str, scores: torch.Tensor, log_share: torch.Tensor) -> torch.Tensor:
    """The losses row by row. Columns: the targets of all rows, then the samples."""
    total = torch.zeros((), dtype=scores.dtype)
    for row in range(len(scores)):
        if loss == "cross-entropy":
            corrected = scores[row] - log_share
            total = total - torch.log(torch.exp(corrected[row]) / torch.exp(corrected).sum())
            continue
        r = torch.where(scores[row] > 0, scores[row], ELU * (torch.exp(scores[row]) - 1))
        others = torch.tensor([column for column in range(len(r)) if column != row])
        weights = torch.exp(r[others]) / torch.exp(r[others]).sum()
        ranked = (weights * torch.sigmoid(r[row] - r[others])).sum()
        total = total - torch.log(ranked + 1e-24) + (weights * r[others] ** 2).sum()
    return total


def _equal_the_formulas(histories: Histories, loss: ItemLoss, rows: int, steps: int) -> None:
    network = make_network("gru4rec", len(histories.items), 50).train()
    network.config = network.config.__class__(**{**vars(network.config), "input_dropout": 0.0})
    objective = SessionParallel(histories.counts, loss=loss, samples=7)
    source = SessionSteps(histories.rows, rows=rows)
    share = torch.from_numpy(histories.counts / histories.counts.sum())
    table = network.tokens.weight.detach().double().requires_grad_()  # type: ignore[union-attr]
    layer: Any = network.blocks[0]
    named = {
        "ih": layer.weight_ih, "hh": layer.weight_hh,
        "bias_ih": layer.bias_ih, "bias_hh": layer.bias_hh,
    }  # fmt: skip
    weights = {name: one.detach().double().requires_grad_() for name, one in named.items()}
    state = torch.zeros(rows, 100, dtype=torch.float64)
    for _ in range(steps):
        step = source.take()
        torch.manual_seed(0)
        network.zero_grad()
        found = objective.loss(network, objective.prepare(step))
        found.backward()
        torch.manual_seed(0)
        sampled = torch.multinomial(objective.share**ALPHA, 7, replacement=True)
        items, targets = torch.from_numpy(step.items), torch.from_numpy(step.targets)
        before = torch.where(torch.from_numpy(step.starts)[:, None], 0.0, state)
        after = _gru(table[items + 1], before, weights)
        state = after.detach()
        scores = after @ table[torch.cat([targets, sampled]) + 1].T
        log_share = torch.cat([share[targets].log(), (share[sampled] ** ALPHA).log()])
        expected = _published_loss(loss, scores, log_share)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
        gradients = torch.autograd.grad(expected, [table, *weights.values()])
        own = [network.tokens.weight.grad, *(one.grad for one in named.values())]  # type: ignore[union-attr]
        for mine, theirs in zip(own, gradients, strict=True):
            theirs[0] = 0 if theirs.shape == table.shape else theirs[0]  # padding
            torch.testing.assert_close(mine.double(), theirs, rtol=1e-3, atol=1e-5)


def _sessions() -> Histories:
    rng = np.random.default_rng(0)
    rows = [rng.integers(12, size=rng.integers(2, 6)) for _ in range(20)]
    names = tuple(map(str, range(12)))
    return Histories.of_numbers(tuple(map(str, range(20))), names, rows)


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
def test_losses_and_gradients_equal_the_formulas(loss: ItemLoss) -> None:
    _equal_the_formulas(_sessions(), loss, rows=4, steps=6)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross-entropy", "bpr-max"])
def test_losses_and_gradients_on_yoochoose(loss: ItemLoss, tmp_path: Path) -> None:
    packed = sorted(DATA.glob("yoochoose-100k_*train*.txt.gz"))
    if not packed:
        pytest.skip("yoochoose-100k is not on this machine")
    path = tmp_path / "sessions.tsv"
    path.write_bytes(gzip.decompress(packed[0].read_bytes()))
    _equal_the_formulas(read_histories(path), loss, rows=32, steps=8)


def test_rows_read_sessions_one_after_another() -> None:
    sessions = _sessions().rows
    source = SessionSteps(sessions, rows=3)
    open_at = [(-1, -1)] * 3
    begun = set()
    for _ in range(source.steps):
        step = source.take()
        for row, session in enumerate(step.sources):
            place = 0 if step.starts[row] else open_at[row][1] + 1
            if step.starts[row]:
                last = open_at[row]
                assert last[0] < 0 or last[1] == len(sessions[last[0]]) - 2  # it was read whole
                assert session not in begun
                begun.add(session)
            else:
                assert session == open_at[row][0]
            assert step.items[row] == sessions[session][place]
            assert step.targets[row] == sessions[session][place + 1]
            open_at[row] = (session, place)
    assert len(begun) > len(sessions) - 3  # an epoch ends when no session is left to begin
    assert source.place == source.steps
    again = SessionSteps(sessions, rows=3)
    again.restore({"epoch": 0, "place": source.place})
    assert again.take().items.tolist() == source.take().items.tolist()


def test_what_sessions_side_by_side_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not train with gbce"):
        train_network("gru4rec", split(_sessions()), tmp_path, session_parallel=True, loss="gbce")
    with pytest.raises(ConfigError, match="transitions does not read sessions side by side"):
        train_recommender(
            _sessions(), model="transitions", output_dir=tmp_path, session_parallel=True
        )
    assert not list(tmp_path.iterdir())


def test_gru4rec_learns_from_sessions_side_by_side(tmp_path: Path) -> None:
    rows = [[(u + n) % 9 for n in range(6)] for u in range(90)]
    names = tuple(map(str, range(9)))
    histories = Histories.of_numbers(tuple(map(str, range(90))), names, rows)
    scorer = train_network("gru4rec", split(histories), tmp_path, session_parallel=True, epochs=60)
    assert scorer.score([np.array([2, 3])])[0].argmax() == 4
