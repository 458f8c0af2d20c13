"""Filters: their syntax, the paths in their errors, and fuzzing against a reference."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idiolect.errors import InputError
from idiolect.search.filters import (
    OPERATORS,
    And,
    Condition,
    Filter,
    Not,
    Or,
    conditions,
    parse,
)
from idiolect.search.items import Item
from idiolect.search.store.store import Store
from search.things import DIMENSIONS, matches, vector

ERRORS = {
    '{"price": {"$gt": ': r"not JSON: .*char 18",
    "[1]": "expected an object, not \\[1\\] at the top",
    '{"$and": {}}': r"expected a list of filters, not {} at \$and",
    '{"$or": []}': r"expected a list of filters, not \[\] at \$or",
    '{"$or": [{"a": 1}, 5]}': r"expected an object, not 5 at \$or\[1\]",
    '{"$nor": []}': r"\$nor is not allowed here at the top",
    '{"$not": [1]}': r"expected an object, not \[1\] at \$not",
    '{"a": {}}': "an empty condition at a",
    '{"a": null}': "null is not a value at a",
    '{"a": [1]}': r"expected a string, a number or a boolean, not \[1\] at a",
    '{"a": {"$gt": true}}': r"expected a number or a string, not True at a\.\$gt",
    '{"a": {"$in": "xy"}}': r"expected a list of values, not 'xy' at a\.\$in",
    '{"a": {"$in": []}}': r"expected a list of values, not \[\] at a\.\$in",
    '{"a": {"$in": [1, null]}}': r"null is not a value at a\.\$in\[1\]",
    '{"a": {"$exists": 1}}': r"expected true or false, not 1 at a\.\$exists",
    '{"a": {"$not": 3}}': r"expected an object of operators, not 3 at a\.\$not",
    '{"$or": [{"x": {"b": 1}}]}': r"unknown operator b at \$or\[0\]\.x \(known: \$eq",
    '{"a": Infinity}': "inf is not a finite number at a",
    '{"a": "\\ud800"}': r"'\\ud800' is not valid Unicode at a",
    '{"\\ud800": 1}': r"'\\ud800' is not a field name at the top",
}


@pytest.mark.parametrize("text", ERRORS)
def test_an_error_has_its_path(text: str) -> None:
    with pytest.raises(InputError, match=f"^filter: {ERRORS[text]}"):
        parse(text)


def test_limits() -> None:
    deep: Any = {"a": 1}
    for _ in range(40):
        deep = {"$and": [deep]}
    with pytest.raises(InputError, match="nested too deeply"):
        parse(deep)
    with pytest.raises(InputError, match="10,001 values"):
        parse({"a": {"$in": list(range(10_001))}})
    with pytest.raises(InputError, match="nested too deeply"):
        parse('{"$not":' * 100 + "{}" + "}" * 100)


def test_the_tree() -> None:
    assert parse({}) == And(())
    assert parse('{"a": 1}') == parse({"a": {"$eq": 1}}) == Condition("a", "$eq", 1)
    assert parse({"a": {"$nin": [1, "x"]}}) == Not(Condition("a", "$in", (1, "x")))
    either = parse({"$or": [{"a": {"$gt": 1, "$lt": 2}}, {"b": {"$exists": False}}]})
    both = And((Condition("a", "$gt", 1), Condition("a", "$lt", 2)))
    assert either == Or((both, Not(Condition("b", "$exists", True))))
    assert [c.field for c in conditions(either)] == ["a", "a", "b"]


FIELDS = ("a", "b")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*OPERATORS, "$and", "$or", "$x", *FIELDS]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json_is_parsed_or_rejected(given: Any) -> None:
    node = _parsed(given)
    if node is not None:
        assert all(c.field in ("$x", *FIELDS) for c in conditions(node))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_string_is_parsed_or_rejected(text: str) -> None:
    assert _parsed(text) is None or text.lstrip().startswith("{")


def _parsed(given: Any) -> Filter | None:
    try:
        return parse(given)
    except InputError as error:
        message = str(error)
    assert message.startswith("filter: ")
    assert "\n" not in message
    return None


VALUES = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, -1.0, 2.0, 2.0**62, 10**30, -(10**30), 1e-300]),
    st.sampled_from(["", "a", "b", "ab", "é", "1", "\x00", "true"]),
)
METADATA = st.dictionaries(
    st.sampled_from("abc"),
    VALUES | st.none() | st.lists(VALUES, max_size=3) | st.just({"in": 1}),
    max_size=3,
)
ORDERED = VALUES.filter(lambda value: not isinstance(value, bool))
CONDITIONS = st.one_of(
    st.fixed_dictionaries({op: ORDERED})
    if op in ("$gt", "$gte", "$lt", "$lte")
    else st.fixed_dictionaries({op: st.lists(VALUES, min_size=1, max_size=3)})
    if op[-2:] == "in"
    else st.fixed_dictionaries({op: st.booleans()})
    if op == "$exists"
    else st.fixed_dictionaries({op: VALUES})
    for op in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists")
)
FILTERS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), VALUES | CONDITIONS, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
        st.fixed_dictionaries({"a": st.fixed_dictionaries({"$not": CONDITIONS})}),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("filters") / "index"
    return Store.open(folder, dimensions=DIMENSIONS, background=False)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(items=st.lists(METADATA, min_size=1, max_size=8), filters=st.lists(FILTERS, max_size=6))
def test_filters_agree_with_the_reference(
    one_store: Store, items: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> None:
    """One item has every field, so that no filter names an unknown field."""
    items = [*items, {"a": 100, "b": 100, "c": 100}]
    one_store.drop()
    one_store.upsert([Item(str(n), "", kept, vector(n)) for n, kept in enumerate(items)])
    for filter in filters:
        wanted = {str(n) for n, kept in enumerate(items) if matches(filter, kept)}
        found = {hit.id for hit in one_store.query(vector(0), 100, filter=json.dumps(filter))}
        assert found == wanted, filter
