"""Detect the role of each file: catalogue, queries, judgements, pairs, histories, or text.

Contents decide: the columns, whether their values are unique, texts or numbers, and whether they
are ids of the catalogue or of the queries. Names decide only between files with equal contents, and
between domain text and general text, which their contents cannot distinguish.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.pipeline.data import PAIR_ITEM, PAIR_QUERY, PAIR_TEXT
from idiolect.pipeline.survey.columns import (
    has_queries,
    identity_column,
    item_fields,
    may_be_judgements,
    people_columns,
    text_columns,
)
from idiolect.pipeline.survey.data_files import DESCRIBES, DataFile
from idiolect.pipeline.survey.file_names import is_for_training, is_named, named_keys, split_of
from idiolect.ranking.evaluation.judged_collection import (
    read_documents,
    read_qrels,
    read_queries,
)
from idiolect.recommend.history_files import interaction_fields
from idiolect.text.fields import DOCUMENT_ID, GRADED_QUERY, TITLE, find_fields, id_text
from idiolect.text.records import IdReader, read_records

__all__ = ["Roles", "find_roles"]

_QUERY = (*PAIR_QUERY, *GRADED_QUERY)
_ITEM = (*PAIR_TEXT, *PAIR_ITEM)
_MAXIMUM_IDS = 200_000
_TERM = 4  # a line with up to this many words may be a term


@dataclass
class Roles:
    """The roles of the files in a folder."""

    chosen: dict[str, DataFile] = field(default_factory=dict)
    """The files by key of `[data]`."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Values of `id`, `title` and `text` of `[data]`."""
    remarks: dict[str, str] = field(default_factory=dict)
    """The role of each file, or why it was left out, by file name."""
    questions: list[str] = field(default_factory=list)
    """Questions that the files do not answer."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Why tables are not the catalogue, by file name."""

    def take(self, key: str, file: DataFile, why: str) -> None:
        """Choose a file for a key."""
        self.chosen[key] = file
        self.remarks[file.name] = f"taken as {key}: {why}"

    def leave(self, file: DataFile, why: str) -> None:
        """Leave a file out."""
        self.remarks.setdefault(file.name, f"left out: {why}")


def find_roles(folder: Path, files: Sequence[DataFile], roles: Roles) -> None:
    """Detect the role of each file.

    Args:
        folder: The folder, for messages.
        files: The files in the folder.
        roles: Updated with the roles, also if an error is raised.

    Raises:
        InputError: There is no catalogue.
    """
    logs = []
    for file in files:
        if file.problem:
            roles.leave(file, file.problem)
        elif people_columns(file):
            roles.leave(file, f"{_log(file)} with items of a missing catalogue")
            logs.append(file)
    rest = [file for file in files if file.name not in roles.remarks]
    items = _take_items(folder, rest, roles)
    known = _ids(items, roles.fields.get("id"))
    _take_histories(logs, known, roles)
    rest = [file for file in rest if file.name not in roles.remarks]
    _take_judgements(rest, known, roles)
    _take_pairs([file for file in rest if file.name not in roles.remarks], known, roles)
    _take_texts([file for file in rest if file.name not in roles.remarks], roles)
    for file in rest:
        roles.leave(file, roles.unfit.get(file.name, "its columns and name do not say what it is"))


def _take_items(folder: Path, files: Sequence[DataFile], roles: Roles) -> DataFile:
    """Choose the catalogue: ids, texts, and a name that does not indicate another role."""
    candidates: list[tuple[float, DataFile]] = []
    for file in files:
        if file.format == "TREC documents":
            candidates.append((8 + is_named(file, "items"), file))
        elif file.is_table and not may_be_judgements(file):
            identity, texts = identity_column(file), text_columns(file, identity_column(file))
            if identity is None or not texts:
                missing = "unique values, which ids need" if identity is None else "text"
                repeated = find_fields(file.columns, DOCUMENT_ID) if identity is None else ()
                roles.unfit[file.name] = f"no field with {missing}" + "".join(
                    f"; {name} has a value twice or none" for name in repeated[:1]
                )
                continue
            score = _likeness(file, identity, texts) + 4 * _is_referred_to(file, identity, files)
            candidates.append((score, file))
    unlikely = [file for score, file in candidates if score <= -4]
    candidates = [(score, file) for score, file in candidates if score > -4]
    if not candidates:
        for file in files:
            judges = may_be_judgements(file, certain=True)
            why = "judgements of a missing catalogue" if judges else "no table with ids and texts"
            roles.leave(file, roles.unfit.get(file.name, why))
        raise _without_catalogue(folder, roles)
    best = max(score for score, _ in candidates)
    close = [file for score, file in candidates if score >= best - 2]
    items = min(close, key=lambda file: (-file.size, file.name))
    why = "TREC documents"
    if items.is_table:
        roles.fields = item_fields(items)
        why = f"ids in {roles.fields['id']}, text in {', '.join(roles.fields['text'])}"
    for file in [*unlikely, *(file for _, file in candidates if file is not items)]:
        roles.unfit[file.name] = f"a table with ids and texts, but {items.name} is the catalogue"
    rivals = [file.name for file in close if file is not items]
    if rivals:
        roles.questions.append(
            f"is {items.name} the catalogue? {', '.join(rivals)} could be it as well"
        )
        why += f"; chosen before {', '.join(rivals)}"
    roles.take("items", items, why)
    return items


def _without_catalogue(folder: Path, roles: Roles) -> InputError:
    reasons = {name: why.removeprefix("left out: ") for name, why in roles.remarks.items()}
    seen = [f"{name} ({why})" for name, why in reasons.items() if why != DESCRIBES]
    more = f" and {len(seen) - 3} more" if len(seen) > 3 else ""
    return InputError(
        f"{folder} holds no catalogue" + (f": {'; '.join(seen[:3])}{more}" if seen else ""),
        hint="a catalogue is a table with an id and a text for each item, such as items.jsonl, "
        ".csv, .tsv or .parquet",
    )


def _likeness(file: DataFile, identity: str, texts: Sequence[str]) -> float:
    """Return how much a table with ids and texts resembles a catalogue."""
    names = set(named_keys(file))
    if not find_fields(file.columns, PAIR_QUERY):
        names.discard("pairs")  # the training split of a catalogue
    score = (
        8.0 * ("items" in names)
        - 4 * ("corpus" in names)
        - 8 * (not {"items", "corpus"}.issuperset(names))
    )
    score += 2 * bool(find_fields([identity], DOCUMENT_ID)) + bool(find_fields(file.columns, TITLE))
    return score + min(sum(map(file.words, texts)) / 10, 1)


def _take_judgements(files: Sequence[DataFile], known: set[str], roles: Roles) -> None:
    """Choose judgements by their ids, and the queries that they judge."""
    queries = _possible_queries(files, roles)
    found: dict[str, list[tuple[DataFile, set[str]]]] = {"qrels": [], "similar": []}
    for file in files:
        if len(file.paths) > 1 or not (may_be_judgements(file) or file.format == "TREC qrels"):
            continue
        try:
            qrels = read_qrels(file.paths[0])
        except InputError as error:
            if may_be_judgements(file, certain=True) or "qrels" in named_keys(file):
                roles.leave(file, f"looks like judgements, but {_reason(error, file)}")
            continue
        judged = [item for grades in qrels.values() for item in grades]
        share = _share(judged, known)
        asked = max((_share(qrels, ids) for _, ids in queries), default=0.0)
        alike = _share(qrels, known) if not is_named(file, "qrels") else 0.0
        if share < 0.5:
            roles.leave(
                file, f"judgements of other items: {share:.0%} of its item ids are in the catalogue"
            )
        elif alike >= 0.5 and ((alike > asked and asked < 0.3) or is_named(file, "similar")):
            found["similar"].append((file, set(qrels)))
        elif is_for_training(file) and len(file.columns) == 2:
            continue  # pairs
        else:
            found["qrels"].append((file, set(qrels)))
    for key, candidates in found.items():
        if candidates:
            _take_first(key, candidates, roles)
    chosen = next((ids for file, ids in found["qrels"] if file is roles.chosen.get("qrels")), None)
    _take_queries(queries, chosen, roles)


def _take_first(key: str, candidates: list[tuple[DataFile, set[str]]], roles: Roles) -> None:
    """Choose the file of the best split for evaluation; the name decides before the size."""
    order = sorted(
        candidates, key=lambda one: (-is_named(one[0], key), split_of(one[0]), -one[0].size)
    )
    (file, ids), *others = order
    what = "queries with grades of items" if key == "qrels" else "items with grades of items"
    why = f"{what} of the catalogue ({len(ids):,})"
    if others:
        names = ", ".join(one.name for one, _ in others)
        why += f"; chosen before {names}"
        if split_of(others[0][0]) == split_of(file):
            roles.questions.append(f"which judgements are the test? {file.name} or {names}")
    roles.take(key, file, why)
    for one, _ in others:
        roles.leave(one, f"judgements as well; {file.name} was chosen")


def _possible_queries(files: Sequence[DataFile], roles: Roles) -> list[tuple[DataFile, set[str]]]:
    """Read the ids of each file that may hold queries."""
    found = []
    for file in files:
        topics = file.format == "TREC topics"
        table = file.is_table and has_queries(file) and not may_be_judgements(file, certain=True)
        if len(file.paths) > 1 or not (topics or table):
            continue
        try:
            found.append((file, set(read_queries(file.paths[0]))))
        except InputError as error:
            if topics or is_named(file, "queries"):
                roles.leave(file, f"looks like queries, but {_reason(error, file)}")
    return found


def _take_queries(
    possible: list[tuple[DataFile, set[str]]], judged: set[str] | None, roles: Roles
) -> None:
    """Choose the queries that are judged; without judgements, those with such a name."""
    named = [(file, ids) for file, ids in possible if is_named(file, "queries")]
    if judged is None:
        for file, _ in named[:1]:
            why = "there are no judgements of them, so they are not evaluated"
            roles.take("queries", file, why)
        return
    shares = [(len(judged & ids) / len(judged), file) for file, ids in possible]
    share, best = max(shares, key=lambda one: one[0], default=(0.0, None))
    if best is not None and share > 0:
        roles.take("queries", best, f"{share:.0%} of the judged queries are in it")
        if share < 1:
            roles.questions.append(
                f"{share:.0%} of the queries judged in {roles.chosen['qrels'].name} are in "
                f"{best.name}: do both use the same ids?"
            )
    elif sum(" " in query for query in judged) <= len(judged) / 2:
        file = roles.chosen.pop("qrels")
        roles.remarks[file.name] = (
            f"left out: no file holds the texts of its queries, such as {min(judged)!r}"
        )
    queries = roles.chosen.get("queries")
    why = f"queries as well; {queries.name} was chosen" if queries else "none of them is judged"
    for file, _ in named:
        roles.leave(file, why)


def _take_pairs(files: Sequence[DataFile], known: set[str], roles: Roles) -> None:
    """Choose training pairs: a query and the text or id of an item."""
    found = []
    for file in files:
        query = find_fields(file.columns, _QUERY)
        item = [name for name in find_fields(file.columns, _ITEM) if name not in query[:1]]
        if not file.is_table or len(file.paths) > 1 or not query or not item:
            continue
        if file.words(query[0]) < 1.2:
            roles.leave(
                file, f"{query[0]} holds ids; training pairs need the texts of their queries"
            )
        elif file.words(item[0]) < 3 and _share(map(str, file.values(item[0])), known) < 0.5:
            roles.leave(file, f"{item[0]} holds neither texts nor ids of the catalogue")
        else:
            found.append((file, f"queries in {query[0]}, items in {item[0]}"))
    found.sort(
        key=lambda one: (-is_named(one[0], "pairs"), not is_for_training(one[0]), one[0].name)
    )
    for place, (file, why) in enumerate(found):
        if place:
            roles.leave(file, f"pairs as well; {found[0][0].name} was chosen")
        else:
            roles.take("pairs", file, why)


def _take_histories(files: Sequence[DataFile], known: set[str], roles: Roles) -> None:
    """Choose the largest log of user actions on the catalogue's items."""
    found = []
    for file in files:
        del roles.remarks[file.name]  # there is a catalogue
        user, item, at = interaction_fields(file.columns)
        if user is None or item is None:
            lacking = "user" if user is None else "item"
            roles.leave(
                file,
                f"{_log(file)}, but which column is the {lacking} cannot be told: name them "
                "user_id, item_id and timestamp to recommend from it",
            )
            continue
        share = _share(map(id_text, file.values(item)), known)
        if share < 0.5:
            roles.leave(file, f"{_log(file)} with other items: {share:.0%} are in the catalogue")
        else:
            when = f", times in {at}" if at else ", in order"
            found.append((file, f"what users did, users in {user}, items in {item}{when}"))
    found.sort(key=lambda one: (-one[0].size, one[0].name))
    for place, (file, why) in enumerate(found):
        if place:
            roles.leave(file, f"a log as well; {found[0][0].name} was chosen")
        else:
            roles.take("histories", file, why)


def _log(file: DataFile) -> str:
    return f"a log of what users did ({', '.join(people_columns(file))})"


def _take_texts(files: Sequence[DataFile], roles: Roles) -> None:
    """Choose domain text, general text and a glossary, by their names."""
    unclear: list[DataFile] = []
    for file in files:
        lines = file.format == "text"
        if not lines and not (file.is_table and text_columns(file, None)):
            continue
        keys = [key for key in ("glossary", "general", "corpus") if is_named(file, key)]
        key = keys[0] if keys else None
        if key is None and not lines and file.name in roles.unfit:
            continue
        if key is None or key in roles.chosen or (key == "glossary" and not lines):
            taken = f"; {key} is {roles.chosen[key].name}" if key in roles.chosen else ""
            roles.leave(file, f"text, but of what kind cannot be told{taken}")
            unclear.append(file)
        else:
            length = f"; {file.words('line'):.1f} words a line" if lines else ""
            roles.take(key, file, f"its name says so{length}")
    for short in (False, True):
        names = [
            file.name
            for file in unclear
            if (file.format == "text" and file.words("line") <= _TERM) == short
        ]
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            terms = "terms to teach (glossary), " if short else ""
            roles.questions.append(
                f"what is in {', '.join(names[:3])}{more}? {terms}text of the domain (corpus) or "
                "other text (general)"
            )


def _is_referred_to(file: DataFile, identity: str, files: Iterable[DataFile]) -> bool:
    """Return whether judgements or pairs refer to the ids of a file as items."""
    ids = {str(value) for value in file.values(identity)}
    for other in files:
        named = find_fields(other.columns, _ITEM) if other is not file and other.is_table else ()
        if named and len(ids & {str(value) for value in other.values(named[0])}) > 1:
            return True
    return False


def _ids(items: DataFile, identity: str | None) -> set[str]:
    """Return the ids of the catalogue, at most 200,000 of each of its files."""
    if identity is None:
        return set(read_documents(items.paths[0]))
    ids: set[str] = set()
    with suppress(InputError):  # the error is reported later, as a run would report it
        for path in items.paths:
            id_of = IdReader(path)
            for record in islice(read_records(path, Counter()), _MAXIMUM_IDS):
                ids.add(str(id_of(record, identity)))
    return ids


def _reason(error: InputError, file: DataFile) -> str:
    """Return a message without the path of the file, which is shown beside it."""
    return str(error).replace(f"{file.paths[0]}, ", "").replace(f"{file.paths[0]} ", "")


def _share(ids: Iterable[str | None], known: set[str]) -> float:
    found = [id in known for id in ids]
    return sum(found) / len(found) if found else 0.0
