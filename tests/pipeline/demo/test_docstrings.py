import inspect

import numpy as np
import pytest

from idiolect.pipeline.demo.docstrings import Docstring

NUMPYDOC = """\
solve(a, b,
      lower=False) -> x

Solve a triangular
system.

It is done by substitution.

Parameters
----------
a : array
    The matrix.

    .. versionadded:: 1.2
       Told of a version,
       in more than one line.

    Of any size.

See Also
--------
lu : the other way, see
     for example `qr`
eig, svd
:func:`scipy.linalg.inv`
    Of a matrix.

Notes
-----
Fast.

**Array API Standard Support**

A table that stands everywhere.
"""


def test_each_part_is_found():
    parsed = Docstring.parse(NUMPYDOC)
    assert parsed.signature == "solve(a, b, lower=False) -> x"
    assert parsed.summary == "Solve a triangular system."
    assert parsed.related == ("lu", "eig", "svd", "scipy.linalg.inv")
    assert [heading for heading, _ in parsed.sections] == ["", "Parameters", "Notes"]


def test_text_holds_neither_summary_nor_see_also_nor_notes_on_versions():
    text = Docstring.parse(NUMPYDOC).text()
    assert text == (
        "It is done by substitution.\n\n"
        "Parameters\na : array\n    The matrix.\n\n    Of any size.\n\n"
        "Notes\nFast."
    )
    assert Docstring.parse(NUMPYDOC).text(without=("Parameters", "Notes")) == (
        "It is done by substitution."
    )


@pytest.mark.parametrize("heading", ["See also", "See Also:", "SEE ALSO"])
def test_other_spellings_of_see_also(heading):
    parsed = Docstring.parse(f"A.\n\n{heading}\n{'-' * len(heading)}\nb : c\n")
    assert parsed.related == ("b",)
    assert parsed.text() == ""


def test_tables_and_examples_are_not_headings():
    text = "A.\n\n==== ====\none  two\n==== ====\n\n>>> x\n------\n\n    indented\n    --------"
    assert [heading for heading, _ in Docstring.parse(text).sections] == [""]


def test_other_formats_become_a_summary():
    assert Docstring.parse("") == Docstring("", "", (), ())
    assert Docstring.parse("f(x)").signature == "f(x)"
    assert Docstring.parse("Just (so) words.").summary == "Just (so) words."


def test_a_real_docstring():
    parsed = Docstring.parse(inspect.getdoc(np.linalg.eigh))
    assert parsed.summary.startswith("Return the eigenvalues and eigenvectors")
    assert parsed.related == ("eigvalsh", "eig", "eigvals", "scipy.linalg.eigh")
    assert "Examples" in dict(parsed.sections)
