"""Packed rows: no token lost or repeated, and an order that can be resumed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from idiolect.errors import CheckpointError, InputError
from idiolect.text.templates.text_template import TextTemplate
from idiolect.training.data.packed_documents import PackedDocuments, PackedRows
from idiolect.training.data.token_file import TokenFile
from training import models


def _tokens(folder: Path, texts: list[str]) -> TokenFile:
    folder.mkdir(exist_ok=True)
    return TokenFile.write(folder / "tokens", texts, models.tokenizer())


def _source(folder: Path, texts: list[str], **options: int) -> PackedDocuments:
    template = TextTemplate.of(models.tokenizer(), causal=True)
    settings = {"length": 16, "rows": 2, "seed": 3} | options
    return PackedDocuments(_tokens(folder, texts), template, **settings)  # type: ignore[arg-type]


def _pieces(rows: PackedRows) -> list[list[int]]:
    """The texts of packed rows, in order."""
    found = []
    for ids, documents in zip(rows.input_ids, rows.document_ids, strict=True):
        for number in range(1, int(documents.max()) + 1):
            found.append(ids[documents == number].tolist())
    return found


def test_a_token_file_returns_the_ids(tmp_path: Path) -> None:
    texts = models.texts(7)
    tokens = _tokens(tmp_path, texts)
    assert len(tokens) == 7
    for i, ids in enumerate(models.tokenizer().encode_batch(texts, add_special_tokens=False)):
        assert tokens[i].tolist() == ids
    size = sum(len(text.encode()) for text in texts)
    assert tokens.bytes_per_token == size / sum(len(tokens[i]) for i in range(7))


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    _tokens(tmp_path, models.texts(7))
    with pytest.raises(CheckpointError, match="another tokenizer"):
        TokenFile(tmp_path / "tokens", models.tokenizer(grown=False))
    (tmp_path / "tokens" / "ids.bin").write_bytes(b"1234")
    with pytest.raises(CheckpointError, match="truncated"):
        TokenFile(tmp_path / "tokens", models.tokenizer())


def test_templates() -> None:
    assert TextTemplate.of(models.tokenizer(), causal=True) == TextTemplate((1,), (2,), ())
    assert TextTemplate.of(models.tokenizer(), causal=False) == TextTemplate((), (), ())
    template = models.tokenizer(template=True)
    assert TextTemplate.of(template, causal=False) == TextTemplate((1,), (2,), (2,))


def test_an_epoch_reads_every_document_once(tmp_path: Path) -> None:
    texts = models.texts(40)
    source = _source(tmp_path, texts)
    plain = models.tokenizer().encode_batch(texts, add_special_tokens=False)
    seen: Counter[int] = Counter()
    while source.position.epochs == 0:
        rows = source.take()
        for piece in _pieces(rows):
            assert piece[0] == 1, "every text starts with the start token, also a continued one"
            seen.update(i for i in piece if i > 2)
    # The last rows reach into the second epoch; add the part of it that was used.
    at = source.position
    extra = [int(source._order[i]) for i in range(at.document)]
    expected = Counter(i for ids in plain for i in ids)
    for document in extra:
        expected.update(plain[document])
    if at.offset:
        expected.update(plain[int(source._order[at.document])][: at.offset])
    assert seen == expected


def test_a_long_document_continues_in_the_next_row(tmp_path: Path) -> None:
    text = " ".join(f"w{i % 36}" for i in range(40))
    source = _source(tmp_path, [text], rows=3)
    first, second, third = _pieces(source.take())[:3]
    ids = models.tokenizer().encode(text, add_special_tokens=False)
    assert first == [1, *ids[:15]]
    assert second == [1, *ids[15:30]]
    assert third == [1, *ids[30:], 2], "only the end of the document has the end token"


def test_no_text_of_a_row_is_only_the_end_of_a_document(tmp_path: Path) -> None:
    """A document that fits, but not with its end token: <s></s> would be learnt as a text."""
    source = _source(tmp_path, [" ".join(f"w{i}" for i in range(15))])
    assert [len(piece) for piece in _pieces(source.take())] == [1 + 14, 1 + 1 + 1, 1 + 12]
    assert all(len(piece) > 2 for _ in range(50) for piece in _pieces(source.take()))


def test_a_restored_position_returns_the_same_rows(tmp_path: Path) -> None:
    texts = models.texts(12)
    source = _source(tmp_path, texts)
    for _ in range(9):
        source.take()
    state = source.state()
    wanted = [source.take() for _ in range(20)]
    assert source.position.epochs > state["epochs"], "the test crosses the end of an epoch"
    again = PackedDocuments(source.tokens, source.template, length=16, rows=2, seed=3)
    again.restore(state)
    for rows in wanted:
        other = again.take()
        assert torch.equal(rows.input_ids, other.input_ids)
        assert torch.equal(rows.document_ids, other.document_ids)
        assert (rows.first, list(rows.sources)) == (other.first, list(other.sources))


def test_epochs_differ_in_order(tmp_path: Path) -> None:
    source = _source(tmp_path, models.texts(40))
    orders = {tuple(source._shuffled(n)) for n in range(4)}
    assert len(orders) == 4


def test_little_is_padding(tmp_path: Path) -> None:
    source = _source(tmp_path, models.texts(60), length=64, rows=8)
    share = float((source.take().document_ids > 0).float().mean())
    assert share > 0.95


def test_a_long_template_leaves_no_row_empty(tmp_path: Path) -> None:
    tokens = _tokens(tmp_path, models.texts(40))
    source = PackedDocuments(tokens, TextTemplate((1,) * 15, ()), length=16, rows=2)
    assert (source.take().document_ids == 1).all()


def test_too_little_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="less than one row of 16"):
        _source(tmp_path, ["w1 w2"])
    with pytest.raises(InputError, match="no room"):
        _source(tmp_path / "2", models.texts(40), length=2)
