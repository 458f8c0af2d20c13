"""Terms and documents that spell names of entries, begin with signs, or change when normalized."""

from __future__ import annotations

import json
import random

import pytest
import transformers
from tokenizers import pre_tokenizers

from idiolect.errors import ConfigError, InputError
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.vocabulary.extend.extend import extend
from idiolect.vocabulary.extend.plan import METHODS
from idiolect.vocabulary.extend.unusual_text import unusual_texts
from idiolect.vocabulary.terms import read_glossary
from vocabulary.conftest import DOMAIN, GENERAL, LAYOUTS, make

AWKWARD = [
    "##ing", "##foo", "[unused1]", "[MASK]", "<0x41>", "<s>", "</s>", "<unk>", "<|endoftext|>", "%",
    "'%x", "%HbA1c", "'s", "(x)", "C++", ".NET", "@home", "#tag", "-5", "1,000", "e\u0301tude",
    "\u0301x", "cafe\u0301", "café", "CAFÉ", "İstanbul", "ﬁlm", "ß", "µg", "日本語", "漢字 test",
    "x▁y", "▁x", "▁", "Ġx", "  two  spaces", "tab\tx", "a\nb", "\0", "x" * 10_000, "\ud800", "",
    "the", "a", "HbA1c", "HbA1c level", "type 2", "type 2 diabetes", "2 diabetes", "!?", '"quoted"',
    "rock'n'roll", "do not", "½ cup", "😀", "\u200bx", "\ufeffx", "% of", "_init_", "/usr/bin",
    "x.", "x,", "\u2028", "\u00a0x", "Ⅷ", "٣٤",
]  # fmt: skip
PAIRS = [
    (layout, method)
    for layout in LAYOUTS
    for method in METHODS[make(layout).kind]
    if method != "append"
]


def contexts(terms: list[str], rng: random.Random) -> list[str]:
    words = [term for term in terms if len(term) < 100 and term.isprintable()]
    parts = [*words, *(f" {word}" for word in words), " ", "x", "\n", "(", "'%", "<0x41>", ",", "2"]
    return ["".join(rng.choices(parts, k=rng.randrange(1, 9))) for _ in range(150)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("layout", "method"), PAIRS)
def test_awkward_terms_change_nothing_else(layout: str, method: str, seed: int) -> None:
    rng = random.Random(seed)
    base, terms = make(layout), rng.sample(AWKWARD, 14)
    before = base.engine.to_str()
    texts = contexts(terms, rng)
    # BERT joins symbols such as emoji with the word beside them; whole words end there.
    verified = texts if base.kind == "wordpiece" else texts[:40]
    larger = extend(base, terms, method, general=[*GENERAL[:20], *verified])
    assert base.engine.to_str() == before
    record = larger.extension
    named = {form.text.strip() for form in (*record.added, *record.refused)}
    assert {term.strip() for term in terms} <= named
    for text in [*texts, *(rng.sample(unusual_texts(), 60) if base.kind != "wordpiece" else [])]:
        old, new = base.encode(text), larger.encode(text)
        if base.kind == "unigram":
            assert base.decode(record.to_base(new)) == base.decode(old)
        else:
            assert record.to_base(new) == old, text


@pytest.mark.parametrize("method", ["words", "append"])
def test_refused_wordpiece_terms_leave_the_engine_as_it_was(method: str, tmp_path) -> None:
    config = json.loads(make("bert").engine.to_str())
    config["model"]["vocab"]["[unused1]"] = len(config["model"]["vocab"])
    base = Tokenizer.from_engine(type(make("bert").engine).from_str(json.dumps(config)))
    names = ["##ing", "[unused1]", "[MASK]", "the"]
    larger = extend(base, names, method)
    assert not larger.extension.added
    assert {form.text.strip() for form in larger.extension.refused} == set(names)
    assert larger.engine.to_str() == base.engine.to_str()
    text = "##ing [unused1] sing the"
    some = extend(base, [*names, "metformin"], method)
    assert some.encode(text) == base.encode(text)
    some.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text)["input_ids"] == base.encode(text)
    assert theirs("metformin")["input_ids"] == some.encode("metformin")


def test_an_entry_for_the_inside_of_words_is_refused() -> None:
    engine = make("bert").engine
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    larger = extend(Tokenizer.from_engine(engine), ["##zyx", "zyx"], "append")
    assert [form.text.strip() for form in larger.extension.refused] == ["##zyx"]
    assert "inside of words" in larger.extension.refused[0].reason


def test_whole_words_do_not_become_prefixes_later() -> None:
    words = extend(make("bert"), ["metformin"])
    with pytest.raises(ConfigError, match="cannot be extended by 'append'"):
        extend(words, ["diabetes"], "append")


@pytest.mark.parametrize("entry", ["<0x41>", "<0xF0>", "<s>", "<unk>"])
def test_text_that_spells_an_entry_is_not_that_entry(entry: str) -> None:
    base = make("llama2")
    id_ = base.engine.token_to_id(entry)
    parts = "{0}", "HbA1c{0}", "HbA1c{0} x", "HbA1c {0}", "({0}", "type 2{0} HbA1c", "\n{0}\n{0}"
    texts = [part.format(entry) for part in parts]
    terms = ["HbA1c", "type 2", "0x41"]
    first = extend(base, terms, domain=texts if entry.startswith("<0x") else None)
    for larger in (first, extend(first, ["metformin"])):
        assert {token.text for token in larger.extension.added} >= {" HbA1c", "HbA1c", " type 2"}
        # Special tokens in a text are data here, so that the model sees their names.
        base.engine.encode_special_tokens = larger.engine.encode_special_tokens = True
        for text in texts:
            old, new = (
                one.engine.encode(text, add_special_tokens=False).ids for one in (base, larger)
            )
            assert id_ not in new
            assert larger.extension.to_base(new) == old, text


def test_phrases_of_a_tokenizer_that_does_not_cut() -> None:
    """Llama 2, Mistral and Phi-3 publish no pre-tokenizer: only their merges stop at spaces."""
    engine = make("llama2").engine
    engine.pre_tokenizer = None
    base = Tokenizer.from_engine(engine)
    once = extend(base, ["type 2 diabetes", "HbA1c"], domain=DOMAIN, general=GENERAL[:200])
    twice = extend(once, ["2 diabetes mellitus", "XR-2000B"], domain=DOMAIN, general=GENERAL[:200])
    for larger, count in ((once, 4), (twice, 8)):
        record = larger.extension
        assert (len(record.added), record.refused) == (count, ())
        assert all(check.changed == 0 for check in record.checks.values())
        ids = larger.encode("has type 2 diabetes")
        assert " type 2 diabetes" in {token.text for token in record.added if token.id in ids}


@pytest.mark.parametrize("term", ["%HbA1c", "'x", "%", "-5", "(HbA1c"])
def test_a_term_that_begins_with_a_sign_keeps_merges_of_signs(term: str) -> None:
    pipeline = json.loads(make("llama2").engine.to_str())
    vocab = pipeline["model"]["vocab"]
    for left, right in (("'", "%"), ("▁", "'%"), ("%", "'"), ("▁", "-"), ("'", "("), ("▁", "'(")):
        vocab.setdefault(left, len(vocab))
        vocab.setdefault(right, len(vocab))
        vocab.setdefault(left + right, len(vocab))
        pipeline["model"]["merges"].append([left, right])
    base = Tokenizer.from_engine(type(make("llama2").engine).from_str(json.dumps(pipeline)))
    texts = [
        f"a '{term}",
        f"'{term} x",
        f"x'{term}",
        f"(%{term})",
        f" {term}'",
        "a '% b",
        f"{term}{term}",
    ]
    larger = extend(base, [term])
    for text in texts:
        assert larger.extension.to_base(larger.encode(text)) == base.encode(text), text


O200K = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern of GPT-4o, without its distinction of letters by case."""


@pytest.mark.parametrize("layout", ["gpt2", "llama3", "o200k"])
def test_text_after_a_term_is_split_as_before(layout: str) -> None:
    """A combining mark is a symbol to these patterns, and joins those that follow it."""
    pipeline = json.loads(make("gpt2" if layout == "gpt2" else "llama3").engine.to_str())
    if layout == "o200k":
        pipeline["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = O200K
    pipeline["normalizer"] = None  # it would compose marks
    model = pipeline["model"]
    for left, right in (("'", "s"), ("'", "t"), ("-", "x"), ("Ċ", "Ġ"), ("ĊĠ", "Ċ"), ("'t", "e")):
        model["vocab"].setdefault(left + right, len(model["vocab"]))
        if [left, right] not in model["merges"]:
            model["merges"].append([left, right])
    base = Tokenizer.from_engine(type(make("gpt2").engine).from_str(json.dumps(pipeline)))
    larger = extend(base, ["\u0939\u093f\u0928\u094d\u0926\u0940", "cafe\u0301", "XR-2000"])
    assert not larger.extension.refused
    new = {token.id for token in larger.extension.added}
    for term in ("\u0939\u093f\u0928\u094d\u0926\u0940", "cafe\u0301", "XR-2000"):
        for end in ("'s", "'tex", "-x", "\n \nx", "((x", "'1", ", x", "\n\nx", "", " x", "-"):
            for text in (term + end, f"a {term}{end}"):
                assert larger.extension.to_base(larger.encode(text)) == base.encode(text), text
        for end in ("", ", x", " x", ").", "\nx"):
            assert new & {*larger.encode(term + end)}, term + end


def test_only_the_term_to_blame_is_dropped() -> None:
    """A longer word that begins with the term changes, if its `®` does not end a word."""
    base = make("bert")
    texts = ["metformin® and HbA1c", "some diabetes"]
    larger = extend(base, ["metformin", "HbA1c", "diabetes"], general=texts)
    record = larger.extension
    assert {token.text.strip() for token in record.added} == {"HbA1c", "diabetes"}
    assert [form.text.strip() for form in record.refused] == ["metformin"]
    assert "general text" in record.refused[0].reason


def test_documents_with_lone_surrogates_are_read() -> None:
    base = make("gpt2")
    larger = extend(base, ["metformin"], general=["a \ud800 metformin", "\0"], domain=["\udfff"])
    assert larger.extension.checks["general"].documents == 2


def test_forms_that_normalize_alike_take_one_row() -> None:
    record = extend(make("uncased"), ["HbA1c", "hba1c", "HBA1C", "hbá1c"]).extension
    assert len(record.added) == 1


@pytest.mark.parametrize("rows", [0, -1])
def test_no_rows_are_an_error(rows: int) -> None:
    with pytest.raises(InputError, match="no term fits"):
        extend(make("gpt2"), ["metformin"], max_rows=rows)


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbfHbA1c\nmetformin\n",
        b"HbA1c\r\nmetformin\r\n",
        b"HbA1c\rmetformin",
        b"# drugs\nHbA1c\n#\n# more\nmetformin",
        "\ufeffHbA1c\nmetformin".encode("utf-16"),
    ],
)
def test_term_files_of_all_kinds(raw: bytes, tmp_path) -> None:
    path = tmp_path / "terms.txt"
    path.write_bytes(raw)
    assert [term for term in read_glossary(path) if term] == ["HbA1c", "metformin"]


def test_a_hash_without_a_space_begins_a_term(tmp_path) -> None:
    (tmp_path / "terms.txt").write_text("#tag\nC#\n# a comment\n##\n")
    assert read_glossary(tmp_path / "terms.txt") == ["#tag", "C#", "##"]
