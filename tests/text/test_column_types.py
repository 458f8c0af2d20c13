"""One type for each column, decided on all of its cells."""

from __future__ import annotations

from typing import Any

import pytest

from idiolect.text.record_types.column_types import ColumnTypes


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["10001", "02139"], ["10001", "02139"]),
        (["1", "-2", "0", ""], [1, -2, 0, None]),
        (["1", "2.50"], [1.0, 2.5]),
        (["1e-05", "1.5E+10", "3"], [1e-05, 1.5e10, 3.0]),
        (["9007199254740992"], [9007199254740992]),
        (["9007199254740993"], ["9007199254740993"]),
        (["1234567890123456789012", "7"], ["1234567890123456789012", "7"]),
        (["0.30000000000000004"], [0.30000000000000004]),
        (["0.123456789012345678"], ["0.123456789012345678"]),
        (["A12", "2E10"], ["A12", "2E10"]),
        (["2E10", "3E5"], ["2E10", "3E5"]),
        (["1e+400"], ["1e+400"]),
        (["True", "false", "TRUE"], [True, False, True]),
        (["true", "1"], ["true", "1"]),
        (["+5", "3"], ["+5", "3"]),
        (["1,5", "2"], ["1,5", "2"]),
        (["2024-01-02", "2024"], ["2024-01-02", "2024"]),
        (["1.2.3", "1.2"], ["1.2.3", "1.2"]),
        (["-0", "0"], ["-0", "0"]),
        (["٣", "3"], ["٣", "3"]),
        ([" 3", "3"], [" 3", "3"]),
        (["NaN", "1.5"], [None, 1.5]),
        (["null", "1", r"\N", "NULL"], [None, 1, None, None]),
        (["NA", "True", ""], [None, True, None]),
        (["NA", "DE"], ["NA", "DE"]),
        (["NA", "02139", "10001"], ["NA", "02139", "10001"]),
        (["NA", "NA"], ["NA", "NA"]),
        (["1_000", "1"], ["1_000", "1"]),
        (["0x10", "1"], ["0x10", "1"]),
        (["", "a"], ["", "a"]),
        ([""], [""]),
        (["[" * 100_000], ["[" * 100_000]),
    ],
)
def test_all_cells_of_a_column_decide(cells: list[str], values: list[Any]) -> None:
    for order in (1, -1):
        types = ColumnTypes()
        for cell in cells[::order]:
            types.add("x", cell)
        found = [types.convert("x", cell) for cell in cells]
        assert found == values
        assert [type(one) for one in found] == [type(one) for one in values]
