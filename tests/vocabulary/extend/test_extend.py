"""Every method on every layout, tested on prose and on arbitrary Unicode."""

from __future__ import annotations

import json
import unicodedata

import pytest
import tokenizers
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers

from idiolect.errors import ConfigError, InputError
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.extend.plan import METHODS
from idiolect.vocabulary.terms import Terms
from vocabulary.conftest import DOMAIN, GENERAL, LAYOUTS, make

TERMS = ["HbA1c", "metformin", "XR-2000B", "type 2 diabetes", "diabetes", "Metformin"]
_extended: dict[str, Tokenizer] = {}


def extended(layout: str) -> Tokenizer:
    if layout not in _extended:
        _extended[layout] = extend(make(layout), TERMS, domain=DOMAIN, general=GENERAL)
    return _extended[layout]


def spans(tokenizer: Tokenizer, text: str) -> list[str]:
    """The substrings of a text that became new tokens."""
    size = tokenizer.extension.size
    ids, offsets = tokenizer.encode_with_offsets([text], add_special_tokens=False)[0]
    return [text[a:b].strip() for id_, (a, b) in zip(ids, offsets, strict=True) if id_ >= size]


def likelihood(tokenizer: Tokenizer, ids: list[int]) -> float:
    """Log-probability of a Unigram segmentation; equally likely ones may be swapped."""
    scores = [score for _, score in json.loads(tokenizer.engine.to_str())["model"]["vocab"]]
    return sum(scores[id_] for id_ in ids if id_ < len(scores))


def same_text(tokenizer: Tokenizer, one: str, other: str) -> bool:
    """Whether two decoded texts are equal; WordPiece does not preserve spaces."""
    if tokenizer.kind == "wordpiece":
        one, other = "".join(one.split()), "".join(other.split())
    return one == other


def test_terms_become_one_token_each(tokenizer: Tokenizer) -> None:
    larger = extend(tokenizer, TERMS, domain=DOMAIN, general=GENERAL)
    text = "He took metformin, HbA1c fell; type 2 diabetes and XR-2000B said (diabetes)."
    wanted = ["metformin", "HbA1c", "type 2 diabetes", "XR-2000B", "diabetes"]
    if tokenizer.kind == "wordpiece":
        wanted = [w for w in wanted if w != "diabetes"] + ["diabetes"]
    assert spans(larger, text) == wanted
    record = larger.extension
    assert not record.refused
    assert record.checks["domain"].changed == 0
    if tokenizer.kind == "unigram":
        assert bool(record.checks["general"].changed) == any("equally" in n for n in record.notes)
    else:
        assert record.checks["general"].changed == 0
    assert record.checks["domain"].tokens_after < record.checks["domain"].tokens_before
    assert record.unverified == ()
    assert [token.id for token in record.added] == list(range(len(tokenizer), len(larger)))


@pytest.mark.parametrize("text", ["XR-2000BX", "aXR-2000B", "HbA1c2", "type 2 diabetesx"])
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("t5", "albert")])
def test_longer_words_are_unchanged(layout: str, text: str) -> None:
    for context in ("{}", "the {} of", "({})"):
        found = spans(extended(layout), context.format(text))
        assert not {"XR-2000B", "HbA1c", "type 2 diabetes"}.intersection(found)


def ends_words_everywhere(character: str) -> bool:
    """Whether a character that is no word character for the engine also splits words in BERT."""
    pieces = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(f"a{character}a")
    return len(pieces) != 1 or character.isalnum() or unicodedata.category(character)[0] == "M"


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(
        st.one_of(
            # BERT joins ® or ², and punctuation younger than its tables (⹃), with the word beside
            # it; the engine's whole words end there.
            st.text(
                max_size=12,
                alphabet=st.characters(exclude_categories=("S", "No", "Cn", "Cs")).filter(
                    ends_words_everywhere
                ),
            ),
            st.sampled_from([*TERMS, *(f" {term}" for term in TERMS), " ", "\n", "  ", "(", "x"]),
        ),
        max_size=12,
    )
)
def test_new_ids_map_back_to_the_old_ones(layout: str, parts: list[str]) -> None:
    text = "".join(parts)
    base, larger = make(layout), extended(layout)
    old, new = base.encode(text), larger.encode(text)
    restored = larger.extension.to_base(new)
    if base.kind == "unigram":
        assert likelihood(base, restored) == pytest.approx(likelihood(base, old), abs=0.1)
    else:
        assert restored == old
    if base.unk_token_id not in old:
        assert same_text(base, larger.decode(new), base.decode(old))
    if not any(term.casefold() in text.casefold() for term in TERMS):
        assert new == old


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(terms=st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=4))
def test_any_strings_as_terms(layout: str, terms: list[str]) -> None:
    base = make(layout)
    contexts = [f"a {term} b {term}, ({term}) x{term}x\n{term}" for term in terms]
    larger = extend(base, terms, general=[*contexts, *GENERAL[:20]])
    record = larger.extension
    for text in [*contexts, *GENERAL[:50]]:
        old, new = base.encode(text), larger.encode(text)
        if base.kind != "unigram":
            assert record.to_base(new) == old
        if base.unk_token_id not in old:
            assert same_text(base, larger.decode(new), base.decode(old))
    assert extend(larger, terms) is larger


def test_extending_again_changes_nothing(tokenizer: Tokenizer) -> None:
    larger = extend(tokenizer, TERMS)
    assert extend(larger, TERMS) is larger


def test_extending_by_more_terms_keeps_the_first_ones(tokenizer: Tokenizer) -> None:
    both = extend(
        extend(tokenizer, ["type 2 diabetes", "HbA1c"], general=GENERAL),
        ["type 2 diabetes mellitus", "XR-2000B"],
        domain=DOMAIN,
        general=GENERAL,
    )
    text = "the type 2 diabetes mellitus, type 2 diabetes or HbA1c of XR-2000B"
    wanted = ["type 2 diabetes mellitus", "type 2 diabetes", "HbA1c", "XR-2000B"]
    assert spans(both, text) == wanted
    assert both.extension.base == tokenizer.fingerprint
    for document in [text, *DOMAIN, *GENERAL[:100]]:
        restored = both.extension.to_base(both.encode(document))
        if tokenizer.kind == "unigram":
            assert tokenizer.decode(restored) == tokenizer.decode(tokenizer.encode(document))
        else:
            assert restored == tokenizer.encode(document)


def test_special_and_added_tokens_keep_their_ids(tokenizer: Tokenizer) -> None:
    larger = extend(tokenizer, TERMS)
    before = tokenizer.engine.get_added_tokens_decoder()
    after = larger.engine.get_added_tokens_decoder()
    assert {id_: str(token) for id_, token in before.items()} == {
        id_: str(token) for id_, token in after.items() if id_ < len(tokenizer)
    }
    text = "a    b <|endoftext|><extra_id_0>[MASK] c"
    assert larger.encode(text) == tokenizer.encode(text)
    for role in ("pad", "bos", "eos", "unk", "mask", "cls", "sep"):
        assert larger.token_id(role) == tokenizer.token_id(role)


def test_transformers_loads_it_with_the_same_ids(tokenizer: Tokenizer, tmp_path) -> None:
    larger = extend(tokenizer, TERMS, domain=DOMAIN)
    larger.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [theirs(text)["input_ids"] for text in DOMAIN] == larger.encode_batch(DOMAIN)
    ours = Tokenizer.load(tmp_path)
    assert ours.extension == larger.extension
    assert ours.encode_batch(DOMAIN) == larger.encode_batch(DOMAIN)
    assert len(theirs) == len(ours) == len(larger)


def test_a_record_of_another_tokenizer_is_refused(tmp_path) -> None:
    from idiolect.errors import CheckpointError

    extend(make("gpt2"), TERMS).save(tmp_path)
    make("gpt2").engine.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"extension\.json"):
        _ = Tokenizer.load(tmp_path).extension


@pytest.mark.parametrize("layout", ["gpt2", "llama3", "llama2"])
def test_merges_are_appended_and_map_back(layout: str) -> None:
    base = make(layout)
    larger = extend(
        base, ["metformin", "diabetes", "HbA", "XR-2000B"], "merges", domain=DOMAIN, general=GENERAL
    )
    record = larger.extension
    assert not json.loads(larger.engine.to_str())["model"]["ignore_merges"]
    assert any("crosses a pre-token boundary" in refused.reason for refused in record.refused) == (
        layout != "llama2"
    )
    assert {"metformin", "diabetes"} <= set(spans(larger, "some metformin and diabetes here"))
    steps = [token for token in record.added if token.kind == "part"]
    assert all(len(token.pieces) > 1 for token in record.added)
    assert steps
    for text in [*DOMAIN, *GENERAL]:
        new = larger.encode(text)
        assert record.to_base(new) == base.encode(text)
        assert len(new) <= len(base.encode(text))


def test_budget_includes_intermediate_tokens() -> None:
    larger = extend(make("gpt2"), ["metformin", "diabetes"], "merges", max_rows=6)
    assert len(larger) <= len(make("gpt2")) + 6
    assert any("budget" in refused.reason for refused in larger.extension.refused)


def test_append_matches_inside_words_and_reports_it() -> None:
    base = make("bert")
    text = ["the metformins of metforminlike metformin"]
    larger = extend(base, ["metformin"], "append", domain=text)
    assert larger.extension.checks["domain"].inside_words == 2
    assert "inside longer words" in str(larger.extension)
    whole = extend(base, ["metformin"], domain=text)
    assert whole.extension.checks["domain"].inside_words == 0
    assert whole.extension.checks["domain"].uses == 1


def test_unverified_properties_are_reported() -> None:
    record = extend(make("gpt2"), ["metformin"]).extension
    assert len(record.unverified) == 2
    assert "not verified: domain text" in str(record)
    assert "not verified: general text" in str(record)


def test_refusals_have_reasons() -> None:
    terms = ["", "a\x00b", "x" * 101, "the", "metformin"]
    larger = extend(make("gpt2"), terms)
    reasons = {refused.text: refused.reason for refused in larger.extension.refused}
    assert "empty" in reasons[""]
    assert "control character" in reasons["a\x00b"]
    assert "longer than 100" in reasons["x" * 101]
    assert reasons[" the"] == "already one token"
    assert {token.text for token in larger.extension.added} == {" metformin", "metformin"}


def test_changes_by_the_normalizer_are_reported() -> None:
    record = extend(make("uncased"), ["HbA1c"]).extension
    assert "'HbA1c' to 'hba1c'" in record.notes[0]
    engine = make("llama3").engine
    engine.normalizer = normalizers.Replace("metformin", "")
    gone = extend(Tokenizer.from_engine(engine), ["metformin", "diabetes"])
    assert gone.extension.refused[0].reason == "empty after normalization"


def test_a_term_changed_by_the_decoder_is_refused() -> None:
    record = extend(make("bert"), ["do not", "metformin"]).extension
    assert [refused.reason for refused in record.refused] == ['decodes to "don\'t"']
    assert [token.text for token in record.added] == [" metformin"]


def test_an_entry_the_merges_never_produce_is_refused() -> None:
    pipeline = json.loads(make("gpt2").engine.to_str())
    pipeline["model"]["vocab"]["Ġmetformin"] = len(make("gpt2"))
    base = Tokenizer.from_engine(tokenizers.Tokenizer.from_str(json.dumps(pipeline)))
    larger = extend(base, ["metformin"])
    assert "never produces" in larger.extension.refused[0].reason
    # A pre-token that spells the entry is cut in two, and so stays what its merges make of it.
    texts = ["he took metformin", "metformin metformin2 metformins metformin."]
    exact = extend(base, ["diabetes"], general=texts)
    assert exact.extension.checks["general"].changed == 0
    assert exact.encode_batch(texts) == base.encode_batch(texts)
    again = extend(exact, ["HbA1c"], general=texts)
    assert again.encode_batch(texts) == base.encode_batch(texts)
    kept = extend(base, ["diabetes"], "merges", general=["he took metformin"])
    assert kept.extension.checks["general"].changed == 0


def test_errors_list_the_supported_choices() -> None:
    with pytest.raises(InputError, match="exact, merges"):
        extend(make("gpt2"), ["x"], "scores")
    with pytest.raises(InputError, match="no terms"):
        extend(make("gpt2"), [])
    with pytest.raises(InputError, match="not one string"):
        extend(make("gpt2"), "metformin")
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(ConfigError, match="wordlevel") as caught:
        extend(Tokenizer.from_engine(words), ["x"])
    assert all(kind in str(caught.value) for kind in METHODS)


class TestAddTokens:
    """Faults of `add_tokens` that `extend` does not have."""

    def test_prefixes_of_other_words_are_not_taken(self) -> None:
        base = make("gpt2")
        naive = tokenizers.Tokenizer.from_str(base.engine.to_str())
        naive.add_tokens(["metformin"])
        word = " metformins"
        assert "metformin" in naive.encode(word).tokens
        larger = extend(base, ["metformin"])
        assert larger.encode(word) == base.encode(word)

    def test_the_leading_space_belongs_to_the_term(self) -> None:
        base = make("gpt2")
        naive = tokenizers.Tokenizer.from_str(base.engine.to_str())
        naive.add_tokens(["metformin"])
        assert naive.encode(" metformin").tokens == ["Ġ", "metformin"]
        larger = extend(base, ["metformin"])
        assert len(larger.encode(" metformin")) == 1
        assert larger.decode(larger.encode("of metformin, metformin")) == "of metformin, metformin"

    def test_each_form_has_an_id_of_its_own(self) -> None:
        larger = extend(make("gpt2"), ["metformin", "diabetes"])
        added = larger.extension.added
        assert [larger.encode(token.text) for token in added] == [[token.id] for token in added]

    def test_text_never_gets_longer(self) -> None:
        base, larger = make("gpt2"), extended("gpt2")
        for text in GENERAL:
            assert len(larger.encode(text)) <= len(base.encode(text))

    def test_unknown_words_become_known(self) -> None:
        base = make("bert")
        assert base.unk_token_id in base.encode("ΔΨm fell")
        larger = extend(base, ["ΔΨm"])
        assert larger.unk_token_id not in larger.encode("ΔΨm fell")

    def test_added_tokens_beyond_the_vocabulary_do_not_move(self) -> None:
        base = make("neox")
        added = {str(t): i for i, t in base.engine.get_added_tokens_decoder().items()}
        larger = extend(base, TERMS)
        assert all(larger.engine.token_to_id(token) == id_ for token, id_ in added.items())

    def test_padding_of_the_matrix_is_not_counted_as_tokens(self) -> None:
        larger = extend(make("gpt2"), ["metformin"])
        assert len(larger) == larger.extension.size + len(larger.extension.added)


def test_terms_and_plain_strings_are_equivalent() -> None:
    base = make("gpt2")
    one = extend(base, Terms.of(["metformin"]))
    other = extend(base, ["metformin"])
    assert one.fingerprint == other.fingerprint


def test_the_name_of_a_special_token_is_no_term(tokenizer: Tokenizer) -> None:
    name = next(name for name in tokenizer.special_tokens if len(name) > 1)
    larger = extend(tokenizer, ["metformin", name, f"x{name}"])
    assert not [token.text for token in larger.extension.added if name in token.text]
    reasons = {form.reason for form in larger.extension.refused if name in form.text}
    assert reasons == {"contains the name of a special token"}


def test_texts_that_are_iterators_are_verified_like_lists() -> None:
    """`merges` reads general text twice; the second time, a generator had nothing left."""
    terms = ["metformin", "XR-2000B"]
    larger = extend(make("gpt2"), terms, "merges", domain=iter(DOMAIN), general=iter(GENERAL))
    assert larger.extension is not None
    checks = {name: check.documents for name, check in larger.extension.checks.items()}
    assert checks == {"domain": len(DOMAIN), "general": len(GENERAL)}
