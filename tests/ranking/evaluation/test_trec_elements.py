"""TREC files: no document is lost to its tags, its case or a missing id."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from idiolect.errors import InputError
from idiolect.ranking.evaluation.judged_collection import read_documents, read_queries


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ("<TEXT>a b</TEXT>", "a b"),
        ("<BODY>a b</BODY>", "a b"),
        ("<title>A</title><body>b</body>", "A\nb"),
        ("<HEADLINE>A</HEADLINE><DATE>1994</DATE><TEXT><P>b</P><P>c</P></TEXT>", "A\nb c"),
        ("<HL>A</HL><LP>b</LP><TEXT>c</TEXT>", "A\nb\nc"),
        ("<TEXT><TITLE>A</TITLE> b</TEXT>", "A b"),
        ("<TITLE>A</TITLE><WORDS>b &amp; c</WORDS><AUTHOR>x</AUTHOR>", "A\nb & c"),
        ("<P>a</P>plain <I>b</I>", "a plain b"),
        ("plain text", "plain text"),
        ('<TEXT lang="en">a</TEXT\n>', "a"),
        ("<TEXT>a\n<P>b", "a"),
        ("<ABSTRACT>a &lt;b&gt; &eacute;</ABSTRACT>", "a <b> é"),
        ("<DOCHDR>http</DOCHDR><html><title>A</title><body>b</body></html>", "A\nb"),
        ("<AUTHOR>x</AUTHOR>", ""),
    ],
)
def test_texts_of_a_document(tmp_path: Path, inside: str, text: str) -> None:
    path = tmp_path / "docs.xml"
    for markup in (
        f"<DOC>\n<DOCNO> d1 </DOCNO>{inside}</DOC>",
        f"<doc><docno>d1</docno>{inside}</doc >",
    ):
        path.write_text(markup * 1)
        assert read_documents(path) == {"d1": text}


def test_several_documents_in_another_encoding(tmp_path: Path) -> None:
    text = "".join(f"<DOC><DOCNO>{n}</DOCNO><TEXT>Größe {n}</TEXT></DOC>\n" for n in range(3))
    for name, data in (
        ("a.xml", text.encode("cp1252")),
        ("b.trec.gz", gzip.compress(text.encode())),
        ("c.txt", text.encode("utf-16")),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        assert read_documents(path) == {str(n): f"Größe {n}" for n in range(3)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<DOC>\n<TEXT>a</TEXT></DOC>\n", r"1 without <docno> \(docs.xml line 4\)"),
        ("<DOC><DOCNO></DOCNO><TEXT>a</TEXT></DOC>", r"1 without <docno> \(docs.xml line 4\)"),
        ("<DOC><DOCNO>2</DOCNO><TEXT>a</TEXT>", r"1 without </doc> \(docs.xml line 4\)"),
        (
            "<DOC><DOCNO>2</DOCNO>\n<DOC><DOCNO>3</DOCNO></DOC><DOC></DOC>",
            r"1 without </doc> \(docs.xml line 4\), 1 without <docno> \(docs.xml line 5\)",
        ),
        ("<DOC><DOCNO>1</DOCNO></DOC>", "two texts with the id '1'"),
    ],
)
def test_a_document_that_would_be_lost_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "docs.xml"
    path.write_text(f"<DOC>\n<DOCNO>1</DOCNO><TEXT>a</TEXT>\n</DOC>\n{text}")
    with pytest.raises(InputError, match=message):
        read_documents(path)


def test_ids_in_other_places(tmp_path: Path) -> None:
    path = tmp_path / "docs.xml"
    path.write_text('<doc id="d1"><text>a</text></doc><DOC><DOCID>d2</DOCID><TEXT>b</TEXT></DOC>')
    assert read_documents(path) == {"d1": "a", "d2": "b"}


def test_topics(tmp_path: Path) -> None:
    path = tmp_path / "topics.txt"
    path.write_text(
        "<top>\n<num> Number: 301\n<title> Topic: one &amp; two\n<desc> Description: x\n</top>\n"
        "<top><num>302</num><desc> Description:\nthree\n</top>"
        '<topic number="303"><query>four</query><question>five?</question></topic>'
    )
    assert read_queries(path) == {"301": "one & two", "302": "three", "303": "four"}
    path.write_text("<top><title>a</title></top>")
    with pytest.raises(InputError, match=r"1 without <num> \(topics.txt line 1\)"):
        read_queries(path)
