"""The list of mutations fits the source as it is; `make mutants` tries them."""

from __future__ import annotations

import pytest

from conftest import ROOT
from mutation.run import Mutant, read_mutants


@pytest.mark.parametrize("mutant", read_mutants(), ids=lambda m: m.title)
def test_the_text_occurs_once(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.old) == 1
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(encoding="utf-8")
