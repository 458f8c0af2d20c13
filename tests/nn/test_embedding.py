"""Original rows that nothing moves, and new rows that are trained as a dense matrix would be."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.errors import InputError
from idiolect.nn.config import TransformerConfig
from idiolect.nn.embedding import ExtendedEmbedding, ExtendedRows
from idiolect.nn.network import Network
from idiolect.nn.recurrent import RecurrentConfig, RecurrentNetwork
from idiolect.nn.seq2seq.seq2seq import Seq2Seq
from idiolect.nn.seq2seq.seq2seq_config import Seq2SeqConfig
from idiolect.nn.transformer import Transformer

WIDTH = 6
# Rows of the original matrix, first new id, new rows: none of the rows is padding; the new ids
# take some of the padding rows; all of them; more than there are.
CASES = [(20, 20, 5), (24, 20, 3), (24, 20, 4), (24, 20, 7)]
SHAPES = pytest.mark.parametrize(("rows", "first", "count"), CASES)


def make(rows: int, first: int, count: int) -> ExtendedRows:
    torch.manual_seed(0)
    return ExtendedRows(torch.randn(rows, WIDTH), torch.randn(count, WIDTH), first_id=first)


def dense(extended: ExtendedRows) -> Tensor:
    """What a dense matrix would be, written down row by row."""
    total = max(len(extended.original), extended.first_id + len(extended.added))
    matrix = torch.empty(total, *extended.original.shape[1:])
    for id_ in range(total):
        place = id_ - extended.first_id
        new = 0 <= place < len(extended.added)
        matrix[id_] = (extended.added[place] if new else extended.original[id_]).detach()
    return matrix


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()


@SHAPES
def test_joined_and_blocks_are_the_dense_matrix(rows: int, first: int, count: int) -> None:
    extended = make(rows, first, count)
    assert torch.equal(extended.joined(), dense(extended))
    assert torch.equal(torch.cat(extended.blocks()), dense(extended))
    assert len(extended) == len(dense(extended))
    for block in extended.blocks():
        storage = block.untyped_storage().data_ptr()
        assert storage in {p.untyped_storage().data_ptr() for p in extended.parameters()}


@SHAPES
def test_lookup_and_gradient_are_those_of_a_dense_matrix(rows: int, first: int, count: int) -> None:
    extended = make(rows, first, count)
    embedding = ExtendedEmbedding(extended)
    matrix = dense(extended).requires_grad_()
    ids = torch.randint(0, len(extended), (3, 17))
    out, expected = embedding(ids), F.embedding(ids, matrix)
    assert torch.equal(out, expected)
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad)
    assert matrix.grad is not None
    assert extended.original.grad is None
    assert extended.added.grad is not None
    assert torch.allclose(extended.added.grad, matrix.grad[first : first + count])


@SHAPES
def test_unfrozen_original_rows_get_their_gradient(rows: int, first: int, count: int) -> None:
    extended = make(rows, first, count)
    extended.original.requires_grad_(True)
    matrix = dense(extended).requires_grad_()
    ids = torch.randint(0, len(extended), (3, 17))
    loss = lambda x: (x**3).sum()  # noqa: E731
    loss(extended.lookup(ids, padding_idx=1)).backward()
    loss(F.embedding(ids, matrix, 1)).backward()
    assert extended.original.grad is not None
    assert matrix.grad is not None
    shadowed = torch.zeros(rows, dtype=torch.bool)
    shadowed[first : first + count] = True
    assert torch.allclose(extended.original.grad[~shadowed], matrix.grad[:rows][~shadowed])
    assert not extended.original.grad[shadowed].any()


@SHAPES
@pytest.mark.parametrize("with_bias", [False, True])
def test_scores_are_those_of_a_dense_head(
    rows: int, first: int, count: int, with_bias: bool
) -> None:
    extended = make(rows, first, count)
    bias = ExtendedRows(torch.randn(rows), torch.randn(count), first_id=first)
    matrix = dense(extended).requires_grad_()
    dense_bias = dense(bias).requires_grad_()
    hidden = torch.randn(2, 5, WIDTH, requires_grad=True)
    other = hidden.detach().clone().requires_grad_()

    scores = extended.score(hidden, bias if with_bias else None)
    expected = F.linear(other, matrix, dense_bias if with_bias else None)
    assert torch.allclose(scores, expected, atol=1e-6)
    old = F.linear(hidden, extended.original, bias.original if with_bias else None)
    outside = [i for i in range(min(rows, len(extended))) if not first <= i < first + count]
    assert torch.equal(scores[..., outside], old[..., outside])

    grad = torch.randn_like(scores)
    scores.backward(grad)
    expected.backward(grad)
    assert matrix.grad is not None
    assert torch.allclose(hidden.grad, other.grad, atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(extended.added.grad, matrix.grad[first : first + count], atol=1e-5)  # type: ignore[arg-type]
    assert extended.original.grad is None
    if with_bias:
        assert dense_bias.grad is not None
        assert torch.allclose(bias.added.grad, dense_bias.grad[first : first + count])  # type: ignore[arg-type]
        assert bias.original.grad is None


def test_finer_new_rows_over_coarse_original_ones() -> None:
    torch.manual_seed(0)
    extended = ExtendedRows(
        torch.randn(20, WIDTH).bfloat16(), torch.randn(4, WIDTH, dtype=torch.float32), first_id=20
    )
    out = extended.lookup(torch.tensor([3, 21]))
    assert out.dtype == torch.bfloat16
    scores = extended.score(out)
    assert scores.dtype == torch.bfloat16
    scores.sum().backward()
    assert extended.added.grad is not None
    assert extended.added.grad.dtype == torch.float32
    assert extended.joined().dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("original", "added", "first"),
    [((20, 6), (0, 6), 20), ((20, 6), (3, 5), 20), ((20, 6), (3, 6), 21), ((20, 6), (3, 6), 0)],
)
def test_rows_that_do_not_fit(
    original: tuple[int, ...], added: tuple[int, ...], first: int
) -> None:
    with pytest.raises(InputError):
        ExtendedRows(torch.zeros(original), torch.zeros(added), first_id=first)


def network(*, tied: bool, padded: int = 0) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=40 + padded,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=24,
        num_decoder_layers=2,
        max_position_embeddings=16,
        tie_word_embeddings=tied,
        head_bias=True,
        head_transform=True,
        output_scale=0.5,
        embedding_scale=2.0,
    )
    made = Transformer(config)
    nn.init.normal_(made.vocabulary_rows()["heads.language.bias"])  # type: ignore[arg-type]
    return made


def grow(made: Transformer, count: int) -> Transformer:
    made = copy.deepcopy(made)
    first = made.config.vocab_size if made.config.vocab_size == 40 else 40
    added = {
        name: torch.randn(count, *rows.shape[1:]) for name, rows in made.vocabulary_rows().items()
    }
    made.add_rows(first, added)
    return made


def joined(made: Transformer) -> Transformer:
    """The same network with dense matrices."""
    from dataclasses import replace

    other = Transformer(replace(made.config))
    state = made.state_dict()
    for name, rows in made.vocabulary_rows().items():
        assert isinstance(rows, ExtendedRows)
        del state[f"{name}.original"], state[f"{name}.added"]
        state[name] = dense(rows)
    other.load_state_dict(state)
    return other


NETWORKS = pytest.mark.parametrize(
    ("tied", "padded"), [(True, 0), (False, 0), (True, 8), (False, 8)]
)


@NETWORKS
def test_term_free_scores_are_the_base_models_to_the_bit(tied: bool, padded: int) -> None:
    base = network(tied=tied, padded=padded)
    grown = grow(base, 5)
    ids = torch.randint(0, 40, (4, 12))
    for run in (torch.no_grad, torch.enable_grad):
        with run():
            assert torch.equal(grown(ids).logits[..., :40], base(ids).logits[..., :40])


@NETWORKS
def test_network_and_gradients_equal_a_dense_one(tied: bool, padded: int) -> None:
    grown = grow(network(tied=tied, padded=padded), 5)
    other = joined(grown)
    ids = torch.randint(0, 45, (4, 12))
    for made in (grown, other):
        logits = made(ids).logits
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    assert torch.allclose(grown(ids).logits, other(ids).logits, atol=1e-5)
    dense_grads = dict(other.named_parameters())
    for name, rows in grown.vocabulary_rows().items():
        assert isinstance(rows, ExtendedRows)
        expected = dense_grads[name].grad
        assert expected is not None
        assert rows.added.grad is not None
        assert torch.allclose(rows.added.grad, expected[40:45], atol=1e-6), name
    for name, parameter in grown.named_parameters():
        if name in dense_grads:
            assert torch.allclose(parameter.grad, dense_grads[name].grad, atol=1e-6), name  # type: ignore[arg-type]


@NETWORKS
def test_original_rows_outlive_decay_to_the_bit(tied: bool, padded: int) -> None:
    """200 steps of AdamW with decay 0.1 over all that can be trained."""
    grown = grow(network(tied=tied, padded=padded), 5)
    rows = grown.vocabulary_rows()
    before = {name: digest(r.original) for name, r in rows.items()}  # type: ignore[union-attr]
    added = {name: r.added.detach().clone() for name, r in rows.items()}  # type: ignore[union-attr]
    trained = [p for p in grown.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1)
    ids = torch.randint(0, 45, (2, 8))
    for _ in range(200):
        optimizer.zero_grad()
        logits = grown(ids).logits
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
    for name, r in grown.vocabulary_rows().items():
        assert isinstance(r, ExtendedRows)
        assert digest(r.original) == before[name], name
        assert not torch.equal(r.added, added[name]), name


def test_growing_again_keeps_rows_that_were_added() -> None:
    once = grow(network(tied=False), 5)
    first = {name: dense(r) for name, r in once.vocabulary_rows().items()}  # type: ignore[arg-type]
    more = {n: torch.randn(3, *r.original.shape[1:]) for n, r in once.vocabulary_rows().items()}  # type: ignore[union-attr]
    once.add_rows(45, more)
    assert once.config.vocab_size == 48
    for name, rows in once.vocabulary_rows().items():
        assert isinstance(rows, ExtendedRows)
        assert len(rows.original) == 40
        assert torch.equal(dense(rows), torch.cat([first[name], more[name]]))


def test_rows_must_be_given_for_every_matrix() -> None:
    with pytest.raises(InputError, match=r"heads\.language\.bias"):
        network(tied=True).add_rows(40, {"tokens.weight": torch.zeros(2, 16)})


@pytest.mark.parametrize("kind", ["transformer", "recurrent", "seq2seq"])
def test_padding_starts_with_a_row_of_zeros(kind: str) -> None:
    size: dict[str, Any] = {"vocab_size": 6, "hidden_size": 4, "pad_token_id": 2}
    network: Network
    if kind == "transformer":
        size |= {"intermediate_size": 4, "num_attention_heads": 1, "position": "none"}
        network = Transformer(TransformerConfig(**size, num_decoder_layers=1))
    elif kind == "recurrent":
        shape = {"inner_size": 4, "embedding_size": 4, "num_layers": 1}
        network = RecurrentNetwork(RecurrentConfig(**size, **shape))
    else:
        network = Seq2Seq(Seq2SeqConfig(**size))
    network.init_weights(0)
    rows = network.tokens.weight
    assert isinstance(rows, torch.Tensor)
    assert rows.any(1).tolist() == [True, True, False, True, True, True]
