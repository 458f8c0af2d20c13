"""Histories are the same from every layout, and what is left out is counted."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idiolect.errors import ConfigError, InputError
from idiolect.recommend.histories import Histories, k_core
from idiolect.recommend.history_files import read_histories
from idiolect.recommend.item_catalogue import join_catalogue, prices_of, read_catalogue
from idiolect.recommend.splits import split
from idiolect.recommend.train_recommender import train_recommender
from idiolect.text.skipped import Skipped

EXPECTED = {"1": ["7", "8"], "2": ["8"]}


def _ids(histories: Histories) -> dict[str, list[str]]:
    rows = zip(histories.users, histories.rows, strict=True)
    return {user: [histories.items[i] for i in row] for user, row in rows}


LAYOUTS = {
    "a.csv": "user_id,item_id,timestamp\n1,8,20\n1,7,10\n2,8,5\n",
    "a.tsv": "SessionId\tItemId\tTime\n1\t8\t20.5\n1\t7\t10\n2\t8\t5\n",
    "a.jsonl": '{"user":1,"item":8,"time":"2020-01-02"}\n'
    '{"user":"1","item":"7","time":"2020-01-01"}\n'
    '{"user":2,"item":8,"time":"2020-01-01"}\n',
    "lists.jsonl": '{"user": 1, "items": [7, "8"]}\n{"user": 2, "items": [8]}\n',
    "ratings.dat": "1::8::5::20\n1::7::3::10\n2::8::4::5\n",
    "u.data": "1\t8\t5\t20\n1\t7\t3\t10\n2\t8\t4\t5\n",
    "amazon.csv": "1,8,5.0,20\n1,7,3.0,10\n2,8,4.0,5\n",
    "lines.txt": "1 7 8\n2 8\n",
    "pairs.txt": "1 7\n1 8\n2 8\n",
    "a.inter": "user_id:token\titem_id:token\ttimestamp:float\n1\t8\t20\n1\t7\t10\n2\t8\t5\n",
    "milliseconds.csv": "user,item,time\n1,8,1400000000001\n1,7,1400000000000\n2,8,1300000000000\n",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_reads_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(LAYOUTS[name])
    assert _ids(read_histories(path)) == EXPECTED
    packed = tmp_path / f"packed-{name}.gz"
    packed.write_bytes(gzip.compress(LAYOUTS[name].encode()))
    assert _ids(read_histories(packed)) == EXPECTED


def test_parquet_with_ints_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = {"CustomerID": [1.0, 1.0, None, 2.0], "StockCode": ["7", "8", "9", "8"]}
    pq.write_table(pa.table({**table, "InvoiceDate": [1, 2, 3, 4]}), path)
    skipped = Skipped()
    assert _ids(read_histories(path, skipped=skipped)) == EXPECTED
    assert dict(skipped) == {"without a user": 1}


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "user,item,time,quantity\n1,7,10,1\n1,7,10,1\n1,8,20,1\n2,8,9999999999,1\n2,8,5,1\n"
        "2,9,6,-1\n,9,6,1\n3,,6,1\n3,9,soon,1\n"
    )
    skipped = Skipped()
    assert _ids(read_histories(path, skipped=skipped, max_unreadable=0.2)) == EXPECTED
    assert dict(skipped) == {
        "duplicates": 1,
        "in the future": 1,
        "with a weight that is not positive": 1,
        "without a user": 1,
        "without an item": 1,
        "with a time that cannot be read": 1,
    }
    with pytest.raises(InputError, match="1 of 9 times cannot be read"):
        read_histories(path)


@pytest.mark.parametrize("name", ["ratings.dat", "u.data", "amazon.csv", "a.inter"])
def test_a_line_that_is_cut_short_is_no_event(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    text = LAYOUTS[name]
    path.write_text(text + text.splitlines()[1][:3].replace("1", "3", 1) + "\n")
    skipped = Skipped()
    assert _ids(read_histories(path, skipped=skipped, max_unreadable=0.5)) == EXPECTED
    assert skipped.total() == 1
    with pytest.raises(InputError, match="cannot be read"):
        read_histories(path)


def test_a_record_without_the_time_of_others_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LAYOUTS["a.jsonl"] + '{"user": 3, "item": 8}\n')
    skipped = Skipped()
    assert _ids(read_histories(path, skipped=skipped)) == EXPECTED
    assert dict(skipped) == {"without a time": 1}


def test_files_with_and_without_times_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(LAYOUTS["a.csv"])
    (tmp_path / "b.txt").write_text(LAYOUTS["lines.txt"])
    with pytest.raises(InputError, match="3 of 6 events have no time"):
        read_histories([tmp_path / "a.csv", tmp_path / "b.txt"])


def test_a_file_without_users_names_its_fields(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"who": 1, "item": 2}\n')
    with pytest.raises(InputError, match="no field of a user: who, item"):
        read_histories(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="there is no file"):
        read_histories(tmp_path / "b.jsonl")


def test_k_core() -> None:
    shop = Histories.of({"a": ["x", "y"], "b": ["x", "y"], "c": ["x", "z"]})
    core = k_core(shop, 2)
    assert _ids(core) == {"a": ["x", "y"], "b": ["x", "y"]}
    with pytest.raises(InputError, match="no user and item"):
        k_core(shop, 4)


def _timed(rows: dict[str, list[tuple[str, float]]]) -> Histories:
    plain = Histories.of({user: [item for item, _ in row] for user, row in rows.items()})
    times = np.array([moment for row in rows.values() for _, moment in row])
    return Histories(plain.users, plain.items, plain.offsets, plain.events, times)


def test_a_leaked_split_is_detected() -> None:
    # The first user ends long before the second one begins.
    shop = _timed(
        {
            "early": [("a", 0), ("b", 1), ("c", 2)],
            "late": [(item, 10.0 + i) for i, item in enumerate("abcdeab")],
        }
    )
    leaking = split(shop, "leave-one-out")
    assert leaking.leaked == pytest.approx(5 / 6)
    assert "LEAK" in leaking.report()
    honest = split(shop, "time")
    assert honest.leaked == 0
    assert "LEAK" not in honest.report()


def test_split_by_time_has_one_target_a_user() -> None:
    rows = {str(user): [(str(i), 10.0 * i + user) for i in range(10)] for user in range(5)}
    parts = split(_timed(rows))
    assert parts.kind == "time"
    assert len(parts.test) == 5
    assert [len(context) for context in parts.test.contexts] == [9] * 5
    assert set(parts.test.targets.tolist()) == {9}
    assert len(parts.train.events) == 40


def test_splits_without_times() -> None:
    shop = Histories.of({str(i): ["a", "b", "c", "d"] for i in range(10)} | {"x": ["a"]})
    parts = split(shop)
    assert parts.kind == "leave-one-out"
    assert len(parts.test) == len(parts.valid) == 10
    assert [shop.items[i] for i in parts.train.of_user(0)] == ["a", "b"]
    assert [shop.items[i] for i in parts.test.contexts[0]] == ["a", "b", "c"]
    by_user = split(shop, "user")
    asked = set(by_user.test.users)
    assert asked
    assert not asked & set(by_user.train.owners.tolist())
    with pytest.raises(ConfigError, match="needs times"):
        split(shop, "time")


def test_a_catalogue_that_lacks_most_items_is_reported() -> None:
    shop = Histories.of({"a": ["x", "y", "z"]})
    joined, texts, report = join_catalogue(shop, {"x": "red pen", "new": ""})
    assert joined.items == ("x", "y", "z", "new")
    assert texts == ["red pen", "", "", ""]
    assert "lacks 2 of the 3" in report
    assert "WARNING" in report
    assert "1 items have no text" in report


def test_the_next_basket_is_everything_of_one_moment() -> None:
    rows = {str(u): [(f"{u}-{i}", 10.0 * (i // 2) + u / 10) for i in range(20)] for u in range(3)}
    parts = split(_timed(rows), target="next-basket")
    assert len(parts.test) == 3
    assert [len(context) for context in parts.test.contexts] == [18] * 3
    assert parts.test.owners.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ConfigError, match="needs a split by time"):
        split(_timed(rows), "leave-one-out", "next-basket")


def test_days_with_many_events_leave_validation_cases() -> None:
    """Both quantiles may be the last day; then the day before it is for validation."""
    rows = [[user % 4, 4, 5] for user in range(20)]
    days = [np.array([1.0, 2.0, 3.0])] * 20
    users, items = tuple(map(str, range(20))), tuple(map(str, range(6)))
    parts = split(Histories.of_numbers(users, items, rows, days))
    assert parts.train.times is not None
    assert set(parts.train.times.tolist()) == {1.0}
    assert set(parts.valid.targets.tolist()) == {4}
    assert set(parts.test.targets.tolist()) == {5}
    assert parts.leaked == 0
    two = split(Histories.of_numbers(users, items, [row[1:] for row in rows], [days[0][1:]] * 20))
    assert (len(two.train.events), len(two.valid), len(two.test)) == (20, 0, 20)


def test_columns_of_a_csv_catalogue_have_types(tmp_path: Path) -> None:
    """So filters compare numbers, and prices are features, as with other files."""
    path = tmp_path / "items.csv"
    path.write_text("id,title,price,zip,new\n1,lamp,19.5,02139,true\n2,pump,,10001,false\n")
    found = read_catalogue(path, Skipped()).metadata
    assert found["1"] == {"price": 19.5, "zip": "02139", "new": True}
    assert found["2"] == {"zip": "10001", "new": False}
    prices = prices_of(list(found.values()))
    assert prices is not None
    assert np.array_equal(prices, [19.5, np.nan], equal_nan=True)


def test_unreadable_rows_of_a_catalogue_are_allowed_as_those_of_histories(tmp_path: Path) -> None:
    items, events = tmp_path / "items.jsonl", tmp_path / "events.csv"
    items.write_text('{"id": "a", "title": "lamp"}\n{broken\n{"id": "b", "title": "pump"}\n')
    events.write_text("user,item\n" + "".join(f"u{n},{id}\n" for n in range(4) for id in "abab"))
    options: Any = {"model": "popularity", "items": items, "output_dir": tmp_path / "out"}
    with pytest.raises(InputError, match="1 of 3 lines"):
        train_recommender(events, **options)
    assert train_recommender(events, **options, max_unreadable=0.5).texts == ["lamp", "pump"]


@pytest.mark.parametrize("line", ["{user},{item},{number}", "{user}::{item}::{number}"])
def test_ratings_are_not_taken_for_times(line: str, tmp_path: Path) -> None:
    """Sorted by them, histories would begin with what users liked least."""
    path = tmp_path / ("ratings.dat" if "::" in line else "ratings.csv")
    rows = [("u", "a", 5), ("u", "b", 3)]
    path.write_text("".join(line.format(user=u, item=i, number=n) + "\n" for u, i, n in rows))
    with pytest.raises(InputError, match="third column, such as 5, a rating or a time"):
        read_histories(path)
    named = tmp_path / "named.csv"
    named.write_text("user_id,item_id,rating\nu,a,5\nu,b,3\n")
    assert _ids(read_histories(named)) == {"u": ["a", "b"]}
    times = [line.format(user=u, item=i, number=1_700_000_000 + n) for u, i, n in rows]
    path.write_text("\n".join(times))
    assert _ids(read_histories(path)) == {"u": ["b", "a"]}


@pytest.mark.parametrize("moment", ["1609459200", "2021-01-01", "2021-01-01T12:00"])
@pytest.mark.parametrize("name", ["ratings.csv", "ratings.tsv", "ratings.dat"])
def test_a_rating_after_the_time_is_not_taken_for_the_time(
    name: str, moment: str, tmp_path: Path
) -> None:
    separator = {".csv": ",", ".tsv": "\t", ".dat": "::"}[Path(name).suffix]
    rows = [("u", "a", moment, "5"), ("u", "b", moment.replace("2021", "2022"), "3")]
    path = tmp_path / name
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=f"but another one is a time: {moment}"):
        read_histories(path)
    named = separator.join(("user_id", "item_id", "timestamp", "rating"))
    path.write_text(f"{named}\n{path.read_text()}")
    assert len(read_histories(path).items) == 2


def test_a_list_of_numbers_is_not_taken_for_a_rating_and_a_time(tmp_path: Path) -> None:
    """The last item would be the time, and all items but the first would be lost."""
    path = tmp_path / "lists.txt"
    path.write_text("1\t10\t20\t30\t40\t50\n2\t11\t21\n")
    assert _ids(read_histories(path)) == {"1": ["10", "20", "30", "40", "50"], "2": ["11", "21"]}
    path.write_text("1\t214536502\t214536500\t214536506\t214577561\n2\t214536502\n")
    assert len(read_histories(path).events) == 5
    path.write_text("1\t10\t20\t30\n2\t11\t21\t31\t41\t51\n")
    with pytest.raises(InputError, match="1 of 2 lines cannot be read: 1 with too many cells"):
        read_histories(path)
    path.write_text("u\ta\tweb\t5\t1700000000\nu\tb\tweb\t3\t1600000000\n")
    assert _ids(read_histories(path)) == {"u": ["b", "a"]}
