"""Products of few rows by compiled loops: equal to torch's, and used where texts are written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from idiolect.generate.products import few_row_products
from idiolect.generate.products.few_row_products import few_row_product, reads_few_rows
from idiolect.models.gguf.gguf_blocks import recovered_blocks
from idiolect.nn.basic import linear
from idiolect.nn.quantization import Int8Matrix

OUT, IN = 1039, 512
"""A number of rows that no tile and no share of a thread divides, large enough for threads."""


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """A number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def _rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("outer", [(1,), (1, 1), (2,), (3, 1), (5,), (32,), (1, 64)])
@pytest.mark.parametrize("biased", [True, False])
def test_products_equal_those_in_float64(
    outer: tuple[int, ...], biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_row_products, "_MOST_FLOAT_ROWS", 64)  # on every processor
    weight, x = _rows(OUT, IN), _rows(*outer, IN, seed=1)
    bias = _rows(OUT, seed=2) if biased else None
    with torch.inference_mode():
        found = few_row_product(x, weight, bias)
    assert found is not None
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(found, exact.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("biased", [True, False])
def test_integers_are_read_as_they_are(rows: int, biased: bool) -> None:
    matrix = Int8Matrix(_rows(OUT, IN))
    x, bias = _rows(rows, IN, seed=1), _rows(OUT, seed=2) if biased else None
    for part, rows_of_part in ((matrix, slice(0, OUT)), (matrix.part(100, 900), slice(100, 900))):
        added = None if bias is None else bias[rows_of_part]
        with torch.inference_mode():
            found = few_row_product(x, part, added)
        assert found is not None
        exact = F.linear(x.double(), part[:].double(), added if added is None else added.double())
        torch.testing.assert_close(found, exact.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("biased", [True, False])
def test_blocks_of_gguf_are_read_as_they_are(rows: int, biased: bool) -> None:
    gguf = pytest.importorskip("gguf")
    packed = gguf.quantize(_rows(OUT, IN).numpy(), gguf.GGMLQuantizationType.Q8_0)
    values = torch.from_numpy(gguf.dequantize(packed, gguf.GGMLQuantizationType.Q8_0))
    matrix = recovered_blocks(values)
    assert matrix is not None
    assert matrix.format == "Q8_0"
    x, bias = _rows(rows, IN, seed=1), _rows(OUT, seed=2) if biased else None
    for part, rows_of_part in ((matrix, slice(0, OUT)), (matrix.part(100, 900), slice(100, 900))):
        added = None if bias is None else bias[rows_of_part]
        with torch.inference_mode():
            found = few_row_product(x, part, added)
        assert found is not None
        exact = F.linear(x, values[rows_of_part], added)
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (_rows(65, IN), _rows(OUT, IN)),
        (_rows(0, IN), _rows(OUT, IN)),
        (_rows(1, 8), _rows(16, 8)),
        (_rows(1, IN), _rows(IN, OUT).t()),
        (_rows(1, IN).bfloat16(), _rows(OUT, IN).bfloat16()),
        (_rows(1, IN), _rows(OUT, IN).bfloat16()),
    ],
    ids=["many rows", "no rows", "small", "transposed", "bfloat16", "mixed"],
)
def test_other_products_are_left_to_torch(x: torch.Tensor, weight: torch.Tensor) -> None:
    with torch.inference_mode():
        assert few_row_product(x, weight, None) is None


def test_many_threads_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert few_row_product(_rows(1, IN), _rows(OUT, IN), None) is None


def test_layers_ask_while_a_text_is_read_and_not_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(few_row_products, "few_row_product", lambda *given: asked.append(given))
    weight, x = _rows(OUT, IN), _rows(1, IN)

    @reads_few_rows
    def read() -> torch.Tensor:
        return linear(x, weight)

    torch.testing.assert_close(read(), F.linear(x, weight), rtol=1e-4, atol=1e-4)
    assert len(asked) == 1
    linear(x, weight)
    with torch.inference_mode():
        linear(x, weight)
    assert len(asked) == 1
