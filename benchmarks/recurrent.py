"""Speed of training recurrent language models, beside code that many people write.

    python benchmarks/recurrent.py

1. An LSTM of two layers, beside `torch.nn.LSTM`, `nn.Linear` and `cross_entropy`: forward,
   backward, clipping and an SGD step, on the same segments with the state carried.
2. An AWD-LSTM, beside a loop over time steps with `torch.nn.LSTMCell`-like equations, as weight
   drop is often written.

Both sides run in alternation in one process on one thread; the ratio is of medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.nn.recurrent import CellWeights, RecurrentConfig, RecurrentNetwork, unroll
from idiolect.training.data.segment_stream import Segments
from idiolect.training.objectives.causal import CausalStream

VOCABULARY, ROWS, LENGTH = 10_000, 20, 35


class PlainLSTM(nn.Module):
    """A language model as in PyTorch's examples."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, size)
        self.lstm = nn.LSTM(size, size, 2, batch_first=True, dropout=dropout)
        self.head = nn.Linear(size, VOCABULARY)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, object]:
        hidden, state = self.lstm(self.embedding(ids), state)
        return self.head(hidden), tuple(part.detach() for part in state)


def network(
    size: int, *, inner_size: int = 0, num_layers: int = 2, **rates: float
) -> RecurrentNetwork:
    made = RecurrentNetwork(
        RecurrentConfig(
            vocab_size=VOCABULARY,
            hidden_size=size,
            inner_size=inner_size or size,
            embedding_size=size,
            num_layers=num_layers,
            dropout_shape="sequence" if rates else "element",
            **rates,
        )
    )
    made.init_weights(0)
    return made.train()


def ours(model: RecurrentNetwork, ids: Tensor, labels: Tensor) -> Callable[[], None]:
    objective, parameters = CausalStream(model), list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    segments = Segments(ids, labels, False, 1.0, [0])

    def step() -> None:
        batch = objective.prepare(segments)
        (objective.loss(model, batch) / batch.count).backward()
        nn.utils.clip_grad_norm_(parameters, 0.25)
        optimizer.step()
        optimizer.zero_grad()

    return step


def plain(model: PlainLSTM, ids: Tensor, labels: Tensor) -> Callable[[], None]:
    parameters, state = list(model.parameters()), None
    optimizer = torch.optim.SGD(parameters, lr=0.1)

    def step() -> None:
        nonlocal state
        logits, state = model(ids, state)
        F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        nn.utils.clip_grad_norm_(parameters, 0.25)
        optimizer.step()
        optimizer.zero_grad()

    return step


def loop(model: RecurrentNetwork, ids: Tensor, labels: Tensor) -> Callable[[], None]:
    """AWD-LSTM with the same weights and rates, one time step after another."""
    parameters, states = (
        list(model.parameters()),
        [layer.first_state(ROWS) for layer in model.layers],
    )
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    config = model.config

    def step() -> None:
        x = model._embed(ids)
        x = x * F.dropout(torch.ones_like(x[:, :1]), config.input_dropout)
        for number, layer in enumerate(model.layers):
            if number:
                x = x * F.dropout(torch.ones_like(x[:, :1]), config.hidden_dropout)
            dropped = F.dropout(layer.weight_hh, config.weight_dropout)
            weights = CellWeights(layer.weight_ih, dropped, layer.bias_ih, layer.bias_hh)
            own = unroll("lstm", x, states[number], weights)
            states[number] = tuple(part.detach() for part in own[-1])
            x = torch.stack([state[0] for state in own], 1)
        dropped = x * F.dropout(torch.ones_like(x[:, :1]), config.output_dropout)
        loss = F.cross_entropy(model.score_vocabulary(dropped).flatten(0, 1), labels.flatten())
        loss = loss + 2 * dropped.square().mean() + (x[:, 1:] - x[:, :-1]).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 0.25)
        optimizer.step()
        optimizer.zero_grad()

    return step


def compare(
    name: str, one: Callable[[], None], other: Callable[[], None], repeats: int, tokens: int
) -> None:
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for number in range(2 + repeats):
        for side, step in enumerate((one, other)):
            started = time.perf_counter()
            step()
            if number >= 2:
                seconds[side].append(time.perf_counter() - started)
    medians = [statistics.median(own) for own in seconds.values()]
    speeds = [tokens / median for median in medians]
    ratio = medians[1] / medians[0]
    print(
        f"{name}: {speeds[0]:,.0f} and {speeds[1]:,.0f} tokens a second, ratio {ratio:.2f}",
        flush=True,
    )


def segments(length: int) -> tuple[Tensor, Tensor]:
    """Return random ids, and the id after each."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (ROWS, length + 1), generator=random)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def main() -> None:
    global VOCABULARY
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--vocab-size", type=int, default=VOCABULARY)
    arguments = parser.parse_args()
    VOCABULARY, repeats = arguments.vocab_size, arguments.repeats
    ids, labels = segments(LENGTH)
    for size in (200, 650):
        torch.manual_seed(0)
        both = (ours(network(size), ids, labels), plain(PlainLSTM(size, 0.0), ids, labels))
        compare(f"LSTM {size} beside torch.nn.LSTM", *both, repeats, ids.numel())
    rates = {
        "embedding_dropout": 0.1,
        "input_dropout": 0.4,
        "hidden_dropout": 0.25,
        "output_dropout": 0.4,
        "weight_dropout": 0.5,
        "activation_regularization": 2.0,
        "temporal_activation_regularization": 1.0,
    }
    shapes: list[tuple[str, int, int, dict[str, int]]] = [
        ("200 × 2", 200, LENGTH, {}),
        ("400 × 2", 400, LENGTH, {}),
        ("400, 1,150 × 3", 400, 70, {"inner_size": 1150, "num_layers": 3}),
    ]
    for name, size, length, shape in shapes:
        ids, labels = segments(length)
        both = (
            ours(network(size, **shape, **rates), ids, labels),
            loop(network(size, **shape, **rates), ids, labels),
        )
        compare(f"AWD-LSTM {name} beside a loop over steps", *both, repeats, ids.numel())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
