"""What an audit promises, against what `extend` measures."""

from __future__ import annotations

import pytest

from idiolect.errors import ConfigError, InputError
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.audit.audit import audit
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.extend.plan import METHODS
from idiolect.vocabulary.terms import Terms
from vocabulary.conftest import DOMAIN, GENERAL, LAYOUTS, make

PAIRS = [(layout, method) for layout in LAYOUTS for method in METHODS[make(layout).kind]]
ODD = ["a  type 2\ndiabetes", "<0x41> ##ing [MASK]", " HbA1c\t(HbA1c)", "x", "type\n2 diabetes"]


@pytest.mark.parametrize(("layout", "method"), PAIRS)
@pytest.mark.parametrize("corpus", [[*DOMAIN, *ODD], [*GENERAL[:300], *ODD]], ids=["notes", "docs"])
def test_the_promise_is_what_extend_measures(layout: str, method: str, corpus: list[str]) -> None:
    """Exactly: every chosen row is added, and the saving is counted with the same tokenizer."""
    base = make(layout)
    general = GENERAL[300:500]
    found = audit(base, corpus, general, ["HbA1c", "##ing", "<0x41>", "'%"], min_documents=2)
    terms = found.choose(25, method=method)
    larger = extend(base, terms, domain=corpus, general=general)
    record = larger.extension
    check = record.checks["domain"]
    assert record.method == terms.method == method
    assert found.statistics.tokens == check.tokens_before
    assert terms.saved == check.tokens_before - check.tokens_after
    assert {form.text for form in record.refused} <= {term.text for term in terms.rejected}
    assert len(record.added) == 25
    assert {token.text for token in record.added if token.kind != "part"} == set(terms.forms)
    if method != "merges":
        assert len(terms.forms) == 25


def test_the_plan_is_saved_with_the_terms(tmp_path) -> None:
    terms = audit(make("gpt2"), DOMAIN, min_documents=2).choose(9, method="merges")
    terms.save(tmp_path / "terms.json")
    loaded = Terms.load(tmp_path / "terms.json")
    assert loaded == terms
    assert loaded.method == "merges"
    assert loaded.saved == terms.saved > 0
    assert extend(make("gpt2"), loaded).extension.method == "merges"
    assert extend(make("gpt2"), loaded, "exact").extension.method == "exact"
    # Terms for another kind of tokenizer take its own default.
    assert extend(make("bert"), loaded).extension.method == "words"


def test_a_glossary_term_that_cannot_be_added_takes_no_row() -> None:
    glossary = ["##ing", "[MASK]", "do not", "metformin"]
    found = audit(make("bert"), DOMAIN, glossary=glossary, min_documents=2)
    terms = found.choose(6)
    assert len(terms.forms) == 6
    assert "metformin" in {term.text for term in terms}
    assert {"##ing", "[MASK]", "do not"} <= {term.text for term in terms.rejected}


def test_a_budget_beyond_the_candidates_takes_all_of_them() -> None:
    corpus = ["only metformin here", "again metformin and nothing else"]
    terms = audit(make("gpt2"), corpus, min_documents=1).choose(1000, min_saving=1)
    larger = extend(make("gpt2"), terms, domain=corpus)
    assert len(larger.extension.added) == len(terms.forms) < 1000
    one = audit(make("gpt2"), ["metformin"]).choose(10)
    assert one.saved == 0
    assert not one.forms


def test_a_tokenizer_without_methods_is_an_error() -> None:
    import tokenizers
    from tokenizers import models, pre_tokenizers

    engine = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    found = audit(Tokenizer.from_engine(engine), ["a b", "a b"])
    with pytest.raises(ConfigError, match="wordlevel"):
        found.choose(5)
    with pytest.raises(InputError, match="no method"):
        audit(make("gpt2"), DOMAIN).choose(5, method="words")
