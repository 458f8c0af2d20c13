"""The audit against direct encoding, plain counting and formulas computed by hand."""

from __future__ import annotations

import csv
import json
import math
import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import InputError
from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.audit.audit_report import write_csv, write_json
from idiolect.vocabulary.audit.corpus_scan import scan_corpus
from idiolect.vocabulary.audit.greedy_selection import CandidateOccurrences
from idiolect.vocabulary.audit.ngrams import UnitStream, mine_ngrams, split_units
from vocabulary.conftest import DOMAIN, GENERAL, make


def test_statistics_equal_those_of_whole_documents(tokenizer: Tokenizer) -> None:
    texts = [
        *DOMAIN,
        *GENERAL,
        " begins with a space",
        "two  spaces \n\n  and\ta tab  ",
        "ΔΨ™ 漢字",
    ]
    found = scan_corpus(tokenizer, texts).statistics
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    assert found.documents == len(texts)
    assert found.tokens == sum(map(len, encoded))
    assert found.words == sum(len(text.split()) for text in texts)
    assert found.bytes == sum(len(text.encode()) for text in texts)
    if tokenizer.kind == "wordpiece":
        assert found.unknown == sum(ids.count(tokenizer.unk_token_id) for ids in encoded) > 0
    assert sum(found.pieces.values()) <= found.words
    per_word = {
        i: len(ids) / len(text.split())
        for i, (text, ids) in enumerate(zip(texts, encoded, strict=True))
        if len(text.split()) >= 10
    }
    assert found.worst[0].tokens_per_word == pytest.approx(max(per_word.values()))
    assert [d.tokens_per_word for d in found.worst] == sorted(per_word.values(), reverse=True)[:20]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_text_is_counted_exactly(texts: list[str]) -> None:
    for layout in ("gpt2", "llama3"):
        tokenizer = make(layout)
        found = scan_corpus(tokenizer, texts).statistics
        clean = [text.replace("\0", "\2").replace("\1", "\2") for text in texts]
        assert found.tokens == sum(
            map(len, tokenizer.encode_batch(clean, add_special_tokens=False))
        )


def test_a_long_corpus_is_sampled_and_scaled() -> None:
    texts = [f"document {i} of metformin" for i in range(1000)]
    scan = scan_corpus(make("gpt2"), texts, max_stream=1300)
    assert scan.stride == 4
    assert len(scan.stream) == 1250
    assert scan.statistics.documents == 1000
    stream = UnitStream(scan)
    ngrams = mine_ngrams(stream, 2)
    level = ngrams.levels[0]
    counted = {
        stream.text_at(int(p), 1): int(n) for p, n in zip(level.first, level.terms, strict=True)
    }
    assert counted[" metformin"] * stream.scale == 1000


def test_terms_are_counted_like_regex_matches() -> None:
    stream = UnitStream(scan_corpus(make("gpt2"), DOMAIN))
    counted: Counter[str] = Counter()
    for level in mine_ngrams(stream, 3).levels:
        for position, count in zip(level.first, level.terms, strict=True):
            counted[stream.text_at(int(position), level.length)] += int(count)
    for term in ("HbA1c", "XR-2000B", "XR-2000", "type 2 diabetes", "metformin", "of the patients"):
        whole = re.compile(rf"(?<![^\W_])({re.escape(term)})(?![^\W_])")
        matches = [m for text in DOMAIN for m in whole.finditer(text)]
        spaced = sum(m.start() > 0 and m.string[m.start() - 1] == " " for m in matches)
        assert counted[f" {term}"] == spaced, term
        assert counted[term] == len(matches) - spaced, term


def test_general_text_is_counted_the_same_way() -> None:
    base = UnitStream(scan_corpus(make("gpt2"), DOMAIN))
    ngrams = mine_ngrams(base, 3)
    same = UnitStream(scan_corpus(make("gpt2"), DOMAIN), numbering=base)
    for level, counts in zip(ngrams.levels, ngrams.count(same), strict=True):
        assert (counts == level.terms).all()
    # Units that are unknown in the domain still continue a word.
    longer = UnitStream(scan_corpus(make("gpt2"), ["a HbA1cqqq and qqqmetformin"]), numbering=base)
    assert not any(counts.sum() for counts in ngrams.count(longer))


@given(st.text())
def test_units_lose_nothing(text: str) -> None:
    text = text.replace("\0", "")
    assert "".join(split_units(text)) == text


def greedy(costs: list[int], terms: list[tuple[int, ...]], stream: list[int], rows: int) -> int:
    """Tokens after a naive greedy selection that evaluates every candidate at every step."""
    costs, inside = list(costs), [False] * (len(stream) + 1)

    def places(term: tuple[int, ...]) -> list[int]:
        found, last = [], -1
        for i in range(len(stream) - len(term) + 1):
            j = i + len(term)
            whole = tuple(stream[i:j]) == term and not inside[i] and not inside[j]
            if whole and sum(costs[i:j]) > 1 and i >= last:
                found.append(i)
                last = j
        return found

    for _ in range(rows):
        gains = [sum(sum(costs[i : i + len(t)]) - 1 for i in places(t)) for t in terms]
        best = max(range(len(terms)), key=gains.__getitem__)
        if gains[best] < 1:
            break
        for i in places(terms[best]):
            for k in range(i, i + len(terms[best])):
                costs[k], inside[k] = 0, k > i
            costs[i] = 1
    return sum(costs)


@pytest.mark.parametrize("seed", range(20))
def test_selection_is_greedy_by_remaining_saving(seed: int) -> None:
    rng = random.Random(seed)
    stream = [rng.randrange(6) for _ in range(300)]
    costs = [rng.randrange(1, 4) for _ in range(6)]
    terms = sorted({tuple(stream[i : i + n]) for n in (1, 2, 3) for i in range(0, 290, 37)})
    # The expected gain of a term that overlaps itself differs from its actual saving.
    terms = [t for t in terms if all(t[k:] != t[:-k] for k in range(1, len(t)))]
    at = [[i for i in range(300) if tuple(stream[i : i + len(t)]) == t] for t in terms]
    occurrences = CandidateOccurrences(
        costs=np.array([costs[u] for u in stream], np.int32),
        begins=np.array([i for found in at for i in found], np.int32),
        ends=np.array(
            [i + len(t) for t, found in zip(terms, at, strict=True) for i in found], np.int32
        ),
        offsets=np.cumsum([0, *map(len, at)]),
    )
    selected = list(occurrences.select(np.ones(len(terms)), [], 5, 1))
    ours = sum(costs[u] for u in stream) - sum(one.saved for one in selected)
    assert ours == greedy([costs[u] for u in stream], terms, stream, 5)


def test_terms_that_are_more_frequent_than_words_have_log_odds() -> None:
    """Chinese has no spaces: its lines are words, and terms in them would have NaN."""
    texts = ["糖尿病患者,糖尿病患者。"] * 50
    found = audit(make("gpt2"), texts, general=GENERAL[:1], min_documents=5)
    (term,) = [one for one in found.candidates if one.form == "糖尿病患者"]
    assert term.count == 100
    assert term.log_odds is not None
    assert 2 < term.log_odds < 20


def test_log_odds_follow_the_paper() -> None:
    found = audit(make("gpt2"), DOMAIN, general=GENERAL, min_documents=5)
    term = next(c for c in found.candidates if c.form == " patients")
    here, there = term.count, sum(len(re.findall(r" patients\b", text)) for text in GENERAL)
    n, m = (sum(len(text.split()) for text in texts) for texts in (DOMAIN, GENERAL))
    everything, prior = 0.01 * (n + m), 0.01 * (here + there + 0.5)
    odds = math.log((here + prior) / (n + everything - here - prior)) - math.log(
        (there + prior) / (m + everything - there - prior)
    )
    deviation = math.sqrt(1 / (here + prior) + 1 / (there + prior))
    assert term.log_odds == pytest.approx(odds)
    assert term.z == pytest.approx(odds / deviation)
    assert 0.5 < term.weight < 1


def test_only_phrases_have_pmi() -> None:
    found = audit(make("gpt2"), DOMAIN, min_documents=5)
    forms = {c.form: c for c in found.candidates}
    assert forms[" XR-2000B"].pmi is None
    assert forms[" type 2 diabetes"].pmi > 1


def test_spellings_are_grouped() -> None:
    texts = ["Metformins or metformin, (metformin) and Metformin; metformins"] * 10
    groups = audit(make("gpt2"), texts, min_documents=2).groups
    group = next(g for g in groups if g.term.casefold().startswith("metformin"))
    assert {c.form for c in group.candidates} >= {
        " metformin", "metformin", " Metformin", "Metformins", " metformins",
    }  # fmt: skip
    assert group.documents == 10
    assert group.count == sum(c.count for c in group.candidates)


def test_no_glossary_term_is_dropped_silently() -> None:
    glossary = ["HbA1c", "zzzquux", "", "the", "a\x01b", "x" * 101, "C++", "metformin"]
    found = audit(make("gpt2"), DOMAIN, glossary=glossary, min_documents=5)
    terms = found.choose(100)
    named = {term.text for term in terms} | {term.text for term in terms.rejected}
    assert named >= set(glossary)
    reasons = {term.text: term.reason for term in terms.rejected}
    assert reasons["the"] == "already one token"
    assert [t.text for t in terms if t.source == "glossary"] == [
        "HbA1c", "zzzquux", "C++", "metformin",
    ]  # fmt: skip
    few = found.choose(3)
    assert len(few.forms) <= 3
    assert any("budget of 3" in term.reason for term in few.rejected)
    assert {t.text for t in few} | {term.text for term in few.rejected} >= set(glossary)


def test_budget_and_minimum_saving_limit_the_choice() -> None:
    found = audit(make("gpt2"), DOMAIN, min_documents=2)
    assert len(found.choose(7).forms) == 7
    assert all(t.saved >= 100 for t in found.choose(1000, min_saving=100) if len(t.forms) == 1)
    assert len(found.choose(1000, min_saving=100)) < len(found.choose(1000, min_saving=1))
    with pytest.raises(InputError, match="no term can be chosen"):
        found.choose(0)


def test_without_phrases_no_term_crosses_a_boundary() -> None:
    base = make("gpt2")
    terms = audit(base, DOMAIN, min_documents=2).choose(20, phrases=False)
    cut = base.engine.pre_tokenizer.pre_tokenize_str
    assert terms
    assert all(len(cut(form)) == 1 for form in terms.forms)


def test_general_text_weights_terms() -> None:
    domain = ["the metformin and a statement here"] * 40
    general = ["a statement of another statement is a statement"] * 400
    plain = audit(make("gpt2"), domain, min_documents=2)
    weighted = audit(make("gpt2"), domain, general=general, min_documents=2)
    weight = {c.form: c.weight for c in weighted.candidates}
    assert weight[" metformin"] > 0.9
    assert all(c.weight == 1 for c in plain.candidates)
    common = next((c for c in weighted.candidates if c.form == " statement here"), None)
    assert common is None or common.weight > weight.get(" statement", 0)


def test_an_empty_corpus_is_an_error() -> None:
    with pytest.raises(InputError, match="no documents"):
        audit(make("gpt2"), Corpus.from_texts(["", "  "]))
    with pytest.raises(InputError, match="no documents"):
        audit(make("gpt2"), [])


def test_json_and_csv_reports(tmp_path) -> None:
    found = audit(make("gpt2"), DOMAIN, general=GENERAL, glossary=["HbA1c"], min_documents=5)
    write_json(found, tmp_path / "audit.json")
    write_csv(found, tmp_path / "audit.csv")
    record = json.loads((tmp_path / "audit.json").read_text())
    rows = list(csv.DictReader((tmp_path / "audit.csv").read_text().splitlines()))
    assert record["statistics"]["tokens"] == found.statistics.tokens
    assert len(rows) == len(found.candidates) == sum(len(t["spellings"]) for t in record["terms"])
    row = next(row for row in rows if row["form"] == " HbA1c")
    assert row["source"] == "glossary"
    assert row["tokenization"].replace("|", "") == " HbA1c"
