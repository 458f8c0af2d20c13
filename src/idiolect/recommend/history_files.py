"""Read interaction histories from files in common layouts.

    records     CSV, TSV, JSON Lines, Parquet with a user (or session), an item, a time, a weight
    lists       JSON Lines with a user and the list of its items, or a session's list alone
    MovieLens   `user::item::rating::time` (ratings.dat), tab-separated u.data, ratings.csv
    Amazon      `user,item,rating,time` without a header, or `user,item,time`; reviews with
                reviewerID and asin
    lines       `user item item …`, or `user item` in order (BERT4Rec)
    RecBole     `.inter`, whose header names types: `user_id:token`

Ids are texts and are normalized: `7`, `"7"`, and `7.0` in a column with missing values are the same
item. Skipped events are counted by reason: no user, no item, a weight that is not positive
(returned goods), no time or one in the future, and exact duplicates. It is an error if more than
the share `max_unreadable` of a file's lines or times cannot be read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from idiolect.errors import InputError
from idiolect.recommend.histories import Histories
from idiolect.text.arguments import check_path
from idiolect.text.fields import find_fields, id_text, shown_names
from idiolect.text.record_types.compressed_file import file_type
from idiolect.text.record_types.text_lines import read_lines
from idiolect.text.records import IdReader, has_fields, numbered_records
from idiolect.text.skipped import MAX_UNREADABLE, Fault, Skipped, readable_rows, skip, summary
from idiolect.text.suggestions import similar_path

__all__ = ["interaction_fields", "read_histories"]

_USER = (
    "user_id", "user", "userid", "customer_id", "customerid", "customer", "reviewerid",
    "session_id", "sessionid", "session", "visitor_id", "visitorid",
)  # fmt: skip
_ITEM = (
    "item_id", "item", "itemid", "product_id", "productid", "movie_id", "movieid", "asin",
    "parent_asin", "stockcode", "sku", "article_id", "track_id", "document_id",
)  # fmt: skip
_TIME = (
    "timestamp", "time", "datetime", "date", "unixreviewtime", "event_time", "invoicedate", "t_dat",
)  # fmt: skip
_WEIGHT = ("weight", "quantity", "count")
_LIST = ("items", "history", "item_ids", "sequence")
_LIMIT = 16 << 20
_DAY = 86_400.0
_EARLIEST = 1e6
"""In a third column without a name, smaller numbers may be ratings or counts (in seconds, this is
the 12th of January 1970)."""
_MILLISECONDS = 1e11
"""Larger times are in milliseconds (in seconds, this is the year 5138)."""


def interaction_fields(names: Sequence[str]) -> tuple[str | None, str | None, str | None]:
    """Return which of the names are those of the user, the item and the time of an event."""
    found = (next(iter(find_fields(names, known)), None) for known in (_USER, _ITEM, _TIME))
    user, item, at = found
    return user, item, at


class _Event(NamedTuple):
    user: str
    item: str
    time: float | None


def read_histories(
    sources: str | Path | Sequence[str | Path],
    *,
    skipped: Skipped | None = None,
    max_unreadable: float = MAX_UNREADABLE,
) -> Histories:
    """Read the events of one file or several, sorted by time within each user if times are known.

    Args:
        sources: The files, also compressed.
        skipped: Updated with the skipped events, by reason.
        max_unreadable: The share of a file's rows that may be unreadable.

    Raises:
        InputError: A file is missing, its layout is not recognised or ambiguous, only some events
            have times, or there are no events.
    """
    skipped = Skipped() if skipped is None else skipped
    paths = [check_path(one, "histories") for one in _listed(sources)]
    events: list[_Event] = []
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"there is no file {path}", hint=similar_path(path) or "check the path"
            )
        events += _events(path, skipped, max_unreadable)
    if not events:
        raise InputError(
            f"no events in {', '.join(map(str, paths))}",
            hint=f"left out: {summary(skipped)}" if skipped else "the file is empty",
        )
    return _sorted(events, skipped)


def _listed(sources: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return [sources] if isinstance(sources, str | Path) else sources


def _events(path: Path, skipped: Skipped, max_unreadable: float) -> Iterator[_Event]:
    """Yield the events of one file."""
    first = "" if file_type(path) == ".parquet" else _first_line(path)
    if has_fields(path) and not _is_bare(path, first):
        records = numbered_records(path, skipped, max_unreadable=max_unreadable)
        return _from_records(path, records, skipped, max_unreadable)
    separator = next((one for one in ("::", "\t", ",") if one in first), None)
    cells = _cells(first, separator)
    names = [cell.split(":")[0] for cell in cells]
    if find_fields(names, _USER) and find_fields(names, _ITEM):
        width = range(len(names), sys.maxsize)
        rows = _table(path, separator, width, skipped, max_unreadable)
        named = ((f"line {n:,}", dict(zip(names, row, strict=False))) for n, row in rows if n > 1)
        return _from_records(path, named, skipped, max_unreadable)
    # MovieLens and Amazon: user, item, rating, time. Other lines may have any number of items.
    late = [_is_late(cell) for cell in cells]
    timed = separator is not None and len(cells) >= 3 and _is_number(cells[-1])
    if len(cells) > 4:  # with more columns, only a single time shows that it is no list of items
        timed = timed and late[-1] and sum(late[2:]) == 1
    width = range(len(cells), len(cells) + 1) if timed else range(1, sys.maxsize)
    rows = _table(path, separator, width, skipped, max_unreadable)
    if timed:
        if len(cells) == 3 and abs(float(cells[2])) < _EARLIEST:
            raise InputError(
                f"{path}: is its third column, such as {cells[2]}, a rating or a time?",
                hint="name the columns in a first line, such as user_id,item_id,rating; separate "
                "lists of items by spaces",
            )
        if float(cells[-1]) < _EARLIEST and (times := [c for c in cells[2:-1] if _is_late(c)]):
            raise InputError(
                f"{path}: its last column, such as {cells[-1]}, is read as the time, but another "
                f"one is a time: {times[0]}",
                hint="name the columns in a first line, such as user_id,item_id,timestamp,rating",
            )
        named = (
            (f"line {n:,}", {"user": row[0], "item": row[1], "time": row[len(cells) - 1]})
            for n, row in rows
        )
        return _from_records(path, named, skipped, max_unreadable)
    return _from_lines(path, rows, skipped)


def _first_line(path: Path) -> str:
    first = next((line for _, line in read_lines(path, _LIMIT) if line != "\n"), "")
    if isinstance(first, Fault):
        raise InputError(f"{path}: line 1 cannot be read: {first.reason}")
    return first


def _is_bare(path: Path, first: str) -> bool:
    """Return whether a table has no header: the first line's fourth cell is a time (Amazon)."""
    cells = first.strip().split("," if file_type(path) == ".csv" else "\t")
    return file_type(path) in (".csv", ".tsv") and len(cells) in (3, 4) and _is_number(cells[-1])


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _is_late(cell: str) -> bool:
    """Return whether a cell is a time after `_EARLIEST`, so that it is no rating."""
    moment = _seconds(cell)
    return moment is not None and moment >= _EARLIEST


def _cells(line: str, separator: str | None) -> list[str]:
    return [cell.strip() for cell in line.rstrip("\r\n").split(separator)]


def _table(
    path: Path, separator: str | None, width: range, skipped: Skipped, max_unreadable: float
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line; lines of another width count as unreadable."""

    def rows() -> Iterator[tuple[int, Any]]:
        for number, line in read_lines(path, _LIMIT):
            if isinstance(line, Fault):
                yield number, line
            elif line.strip():
                cells = _cells(line, separator)
                short = "cut short" if len(cells) < width.start else "with too many cells"
                yield number, cells if len(cells) in width else Fault(short)

    return readable_rows(rows(), path, "line", skipped, max_unreadable, (list,))


def _from_records(
    path: Path,
    records: Iterable[tuple[str, Mapping[str, Any]]],
    skipped: Skipped,
    max_unreadable: float,
) -> Iterator[_Event]:
    """Yield the events of records with named fields."""
    ids, timed = IdReader(path), False
    rows = unreadable = 0
    for place, record in records:
        names = list(record)
        (user, item, at), lists = interaction_fields(names), find_fields(names, _LIST)[:1]
        listed = bool(lists) and isinstance(record[lists[0]], list)
        if rows == 0 and not (listed or (user and item)):
            raise InputError(
                f"{path} has no field of a {'user' if not user else 'item'}: {shown_names(names)}",
                hint="name the fields user_id, item_id and timestamp",
            )
        timed = timed or (rows == 0 and bool(at) and not listed)
        rows += 1
        where = f"{path.name} {place}"
        # A list without a user is a separate session.
        owner = ids(record, user) if user else (where if listed else None)
        if owner is None:
            skip(skipped, "without a user", where)
        elif listed:
            for one in record[lists[0]]:
                id = id_text(one)
                if id is None:
                    skip(skipped, "without an item", where)
                else:
                    yield _Event(owner, id, None)
        elif (id := ids(record, item) if item else None) is None:
            skip(skipped, "without an item", where)
        elif not _is_positive(record, names):
            skip(skipped, "with a weight that is not positive", where)
        elif not timed and not at:
            yield _Event(owner, id, None)
        elif (value := record[at] if at else None) in (None, "") or value != value:
            skip(skipped, "without a time", where)
        elif (moment := _seconds(value)) is None:
            unreadable += 1
            skip(skipped, "with a time that cannot be read", where)
        else:
            yield _Event(owner, id, moment)
    if unreadable > max_unreadable * rows:
        raise InputError(
            f"{path}: {unreadable:,} of {rows:,} times cannot be read",
            hint="write seconds since 1970 or 2026-01-31T12:00, or allow a larger share: "
            "--max-unreadable, max_unreadable",
        )


def _is_positive(record: Mapping[str, Any], names: Sequence[str]) -> bool:
    field = find_fields(names, _WEIGHT)[:1]
    if not field:
        return True
    try:
        return float(record[field[0]]) > 0
    except (TypeError, ValueError):
        return False


def _from_lines(
    path: Path, rows: Iterable[tuple[int, list[str]]], skipped: Skipped
) -> Iterator[_Event]:
    """Yield the events of lines of a user and items."""
    for number, cells in rows:
        items = [cell for cell in cells[1:] if cell]
        if not cells[0] or not items:
            lacking = "a user" if not cells[0] else "an item"
            skip(skipped, f"without {lacking}", f"{path.name} line {number:,}")
            continue
        yield from (_Event(cells[0], item, None) for item in items)


def _seconds(value: Any) -> float | None:
    """Return a time in seconds since 1970; None if the value is not a time."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    try:
        number = float(value)
    except (TypeError, ValueError):
        try:
            return _seconds(datetime.fromisoformat(value))
        except (TypeError, ValueError):
            return None
    if not np.isfinite(number):
        return None
    return number / 1000 if abs(number) > _MILLISECONDS else number


def _sorted(events: list[_Event], skipped: Skipped) -> Histories:
    """Number users and items, sort each user's events by time, and remove duplicates."""
    known = [event.time is not None for event in events]
    if any(known) and not all(known):
        raise InputError(
            f"{len(known) - sum(known):,} of {len(known):,} events have no time",
            hint="give all files a time, or none",
        )
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    limit, seen = time.time() + _DAY, set()
    rows: list[list[tuple[float, int]]] = []
    for event in events:
        if event.time is not None:
            if event.time > limit:
                skip(skipped, "in the future", f"user {event.user}")
                continue
            if event in seen:
                skip(skipped, "duplicates", f"user {event.user}")
                continue
            seen.add(event)
        user = users.setdefault(event.user, len(users))
        if user == len(rows):
            rows.append([])
        rows[user].append((event.time or 0.0, items.setdefault(event.item, len(items))))
    if not rows:
        raise InputError("no events can be used", hint=f"left out: {summary(skipped)}")
    for row in rows:
        row.sort(key=lambda one: one[0])  # stable: events with the same time keep their order
    times = [np.array([moment for moment, _ in row]) for row in rows] if all(known) else None
    numbers = [[item for _, item in row] for row in rows]
    return Histories.of_numbers(tuple(users), tuple(items), numbers, times)
