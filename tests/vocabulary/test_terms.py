"""Terms, rejection reasons and glossary files."""

from __future__ import annotations

import pytest

from idiolect.errors import CheckpointError, InputError
from idiolect.vocabulary.terms import RejectedTerm, Terms, read_glossary, rejection_reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("HbA1c", ""),
        ("type 2 diabetes", ""),
        ("μ-opioid", ""),
        ("", "empty"),
        ("  ", "empty"),
        ("a\tb", "U+0009"),
        ("a\u2028b", "U+2028"),
        ("x" * 100, ""),
        ("x" * 101, "longer than 100"),
    ],
)
def test_rejection_reasons(text: str, reason: str) -> None:
    assert reason in rejection_reason(text) if reason else rejection_reason(text) == ""


def test_plain_strings_become_terms() -> None:
    terms = Terms.of([" metformin ", "metformin", "", "a\x00"])
    assert [term.text for term in terms] == ["metformin"]
    assert terms.forms == [" metformin", "metformin"]
    assert [term.text for term in terms.rejected] == ["", "a\x00"]


def test_terms_are_saved_and_loaded(tmp_path) -> None:
    terms = Terms(Terms.of(["metformin", "HbA1c"]), [RejectedTerm("the", "already one token")])
    terms.save(tmp_path / "terms.json")
    assert Terms.load(tmp_path / "terms.json") == terms
    (tmp_path / "other.json").write_text('{"words": []}')
    with pytest.raises(InputError, match="does not contain terms"):
        Terms.load(tmp_path / "other.json")
    with pytest.raises(CheckpointError):
        Terms.load(tmp_path / "missing.json")


def test_a_glossary_keeps_every_line(tmp_path) -> None:
    path = tmp_path / "glossary.txt"
    path.write_bytes("\ufeffHbA1c\r\n\n#pragma\n µ-opioid \n".encode())
    assert read_glossary(path) == ["HbA1c", "", "#pragma", "µ-opioid"]


def test_a_glossary_that_is_not_utf8_names_the_line(tmp_path) -> None:
    path = tmp_path / "glossary.txt"
    path.write_bytes(b"fine\nna\xefve\n")
    with pytest.raises(InputError, match="not UTF-8 in line 2"):
        read_glossary(path)
    with pytest.raises(InputError, match="cannot read"):
        read_glossary(tmp_path / "missing.txt")
