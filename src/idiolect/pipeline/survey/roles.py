"""Tell what each file of a folder is: the catalogue, queries, judgements, pairs, text, or nothing.

Contents decide: the columns, whether their values are unique, texts or numbers, and whether they
are ids of the catalogue or of the queries. Names decide only between files with equal contents, and
between text of the domain and general text, which no content tells apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from idiolect.errors import InputError
from idiolect.pipeline.data import PAIR_ITEM, PAIR_QUERY, PAIR_TEXT
from idiolect.pipeline.survey.data_files import SPLITS, DataFile, name_words
from idiolect.ranking.evaluation.judged_collection import (
    read_documents,
    read_qrels,
    read_queries,
)
from idiolect.text.fields import (
    DOCUMENT_ID,
    GRADE,
    GRADED_DOCUMENT,
    GRADED_QUERY,
    QUERY_ID,
    QUERY_TEXT,
    TEXT,
    TITLE,
    find_fields,
)
from idiolect.text.records import read_records

__all__ = ["Roles", "find_roles"]

_NAMES: dict[str, frozenset[str]] = {
    "items": frozenset(
        "items item products product catalogue catalog documents docs corpus passages articles "
        "collection listings inventory artikel produkte katalog produits articles catalogo "
        "productos prodotti produtos articulos".split()
    ),
    "corpus": frozenset("corpus texts text domain abstracts".split()),
    "general": frozenset("general replay other background wikipedia wikitext books".split()),
    "pairs": frozenset("pairs pair train training clicks click matches paare klicks".split()),
    "queries": frozenset(
        "queries query searches search topics questions claims suchanfragen anfragen requetes "
        "requêtes consultas".split()
    ),
    "qrels": frozenset(
        "qrels qrel judgements judgments judgement judgment relevance labels rated gold gt "
        "bewertungen urteile".split()
    ),
    "similar": frozenset("similar related alternatives ähnlich aehnlich".split()),
    "glossary": frozenset("glossary terms terminology glossar begriffe".split()),
}
"""Words of file and folder names, by key of `[data]`."""
_PEOPLE = frozenset(
    "user userid uid customer customerid session sessionid visitor visitorid reviewer reviewerid "
    "client clientid member memberid account accountid buyer buyerid shopper shopperid kunde "
    "kundennummer nutzer utilisateur usuario".split()
)
"""Columns of logs: who acted. Compared without case and signs."""
_QUERY = (*PAIR_QUERY, *GRADED_QUERY)
_ITEM = (*PAIR_TEXT, *PAIR_ITEM)
_MAXIMUM_IDS = 200_000
_LONGEST_ID = 80


@dataclass
class Roles:
    """What the files of a folder are."""

    chosen: dict[str, DataFile] = field(default_factory=dict)
    """By key of `[data]`."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Values of `id`, `title` and `text` of `[data]`."""
    remarks: dict[str, str] = field(default_factory=dict)
    """What each file was taken for, or why it was left out, by its name."""
    questions: list[str] = field(default_factory=list)
    """What cannot be told from the files."""

    def take(self, key: str, file: DataFile, why: str) -> None:
        """Choose a file for a key."""
        self.chosen[key] = file
        self.remarks[file.name] = f"taken as {key}: {why}"

    def leave(self, file: DataFile, why: str) -> None:
        """Leave a file out."""
        self.remarks.setdefault(file.name, f"left out: {why}")


def find_roles(folder: Path, files: Sequence[DataFile]) -> Roles:
    """Tell what each file is.

    Args:
        folder: The folder, for messages.
        files: What it holds.

    Raises:
        InputError: It holds no catalogue.
    """
    roles = Roles()
    for file in files:
        if file.problem:
            roles.leave(file, file.problem)
        elif who := _people(file):
            roles.leave(
                file,
                f"a log of what users did ({', '.join(who)}), not judgements of queries; the "
                "pipeline does not use such logs",
            )
    rest = [file for file in files if file.name not in roles.remarks]
    items = _take_items(folder, rest, roles)
    known = _ids(items, roles.fields.get("id"))
    rest = [file for file in rest if file.name not in roles.remarks]
    _take_judgements(rest, known, roles)
    for key, take in (("pairs", _take_pairs), ("texts", _take_texts)):
        take([file for file in rest if file.name not in roles.remarks], known, roles)
    for file in rest:
        roles.leave(file, "its columns and name do not say what it is")
    return roles


def _people(file: DataFile) -> list[str]:
    """Return the columns that name users, if a table is a log of what they did."""
    if not file.is_table or find_fields(file.columns, GRADED_QUERY):
        return []
    own = find_fields(file.columns, ("id", "_id"))
    if own and file.is_unique(own[0]) and _text_columns(file, own[0]):
        return []
    return [name for name in file.columns if re.sub(r"[\W_]+", "", name.casefold()) in _PEOPLE]


def _take_items(folder: Path, files: Sequence[DataFile], roles: Roles) -> DataFile:
    """Choose the catalogue: ids, texts, and a name that does not say something else."""
    candidates: list[tuple[float, DataFile]] = []
    for file in files:
        if file.format == "TREC documents":
            candidates.append((8 + _named(file, "items"), file))
        elif file.is_table and not _is_judgement(file):
            identity, texts = _identity(file), _text_columns(file, _identity(file))
            if identity is None or not texts:
                missing = "unique values, which ids need" if identity is None else "text"
                if "items" in _keys(file) or len(files) == 1:
                    roles.leave(file, f"no field with {missing}")
                continue
            other = max((_named(file, key) for key in _NAMES if key not in ("items", "corpus")))
            usual = bool(find_fields([identity], DOCUMENT_ID))
            long = min(sum(map(file.words, texts)) / 10, 1)
            titled = len(find_fields(file.columns, TITLE)) > 0
            score = 8 * _named(file, "items") - 8 * other + 2 * usual + titled + long
            candidates.append((score + 4 * _is_referred_to(file, identity, files), file))
    candidates = [(score, file) for score, file in candidates if score > -4]
    if not candidates:
        seen = [f"{name} ({why.removeprefix('left out: ')})" for name, why in roles.remarks.items()]
        more = f" and {len(seen) - 4} more" if len(seen) > 4 else ""
        raise InputError(
            f"{folder} holds no catalogue" + (f": {'; '.join(seen[:4])}{more}" if seen else ""),
            hint="a catalogue is a table with an id and a text for each item, such as items.jsonl, "
            ".csv, .tsv or .parquet",
        )
    candidates.sort(key=lambda one: (-one[0], -one[1].size, one[1].name))
    best, items = candidates[0]
    why = "TREC documents"
    if items.is_table:
        roles.fields = _fields(items)
        why = f"ids in {roles.fields['id']}, text in {', '.join(roles.fields['text'])}"
    rivals = [file.name for score, file in candidates[1:] if score >= best - 2]
    if rivals:
        roles.questions.append(
            f"is {items.name} the catalogue? {', '.join(rivals)} could be it as well"
        )
        why += f"; chosen before {', '.join(rivals)}"
    roles.take("items", items, why)
    return items


def _take_judgements(files: Sequence[DataFile], known: set[str], roles: Roles) -> None:
    """Choose judgements by their ids, and the queries that they judge."""
    found: dict[str, list[tuple[DataFile, set[str]]]] = {"qrels": [], "similar": []}
    for file in files:
        if len(file.paths) > 1 or not (_is_judgement(file) or file.format == "TREC qrels"):
            continue
        try:
            qrels = read_qrels(file.paths[0])
        except InputError as error:
            if _is_judgement(file, certain=True) or "qrels" in _keys(file):
                roles.leave(file, f"looks like judgements, but {error}")
            continue
        judged = [item for grades in qrels.values() for item in grades]
        share = _share(judged, known)
        if share < 0.5:
            roles.leave(
                file, f"judgements of other items: {share:.0%} of its item ids are in the catalogue"
            )
        elif _share(qrels, known) >= 0.5:
            found["similar"].append((file, set(qrels)))
        elif _is_train(file) and len(file.columns) == 2:
            continue  # pairs
        else:
            found["qrels"].append((file, set(qrels)))
    for key, candidates in found.items():
        if candidates:
            _take_first(key, candidates, roles)
    chosen = next((ids for file, ids in found["qrels"] if file is roles.chosen.get("qrels")), None)
    _take_queries(files, chosen, roles)


def _take_first(key: str, candidates: list[tuple[DataFile, set[str]]], roles: Roles) -> None:
    """Choose the file of the split to evaluate on first; the name decides before the size."""
    order = sorted(candidates, key=lambda one: (-_named(one[0], key), _split(one[0]), -one[0].size))
    (file, ids), *others = order
    what = "queries with grades of items" if key == "qrels" else "items with grades of items"
    why = f"{what} of the catalogue ({len(ids):,})"
    if others:
        names = ", ".join(one.name for one, _ in others)
        why += f"; chosen before {names}"
        if _split(others[0][0]) == _split(file):
            roles.questions.append(f"which judgements are the test? {file.name} or {names}")
    roles.take(key, file, why)
    for one, _ in others:
        roles.leave(one, f"judgements as well; {file.name} was chosen")


def _take_queries(files: Sequence[DataFile], judged: set[str] | None, roles: Roles) -> None:
    """Choose the queries that are judged."""
    read: list[tuple[float, DataFile]] = []
    for file in files:
        topics = file.format == "TREC topics"
        if file.name in roles.remarks or len(file.paths) > 1:
            continue
        if not topics and not (file.is_table and _query_fields(file)):
            continue
        if judged is None and not topics and not _named(file, "queries"):
            continue
        try:
            ids = set(read_queries(file.paths[0]))
        except InputError as error:
            roles.leave(file, f"looks like queries, but {error}")
            continue
        share = 1.0 if judged is None else len(judged & ids) / len(judged)
        if share > 0:
            read.append((share, file))
        elif topics or _named(file, "queries"):
            roles.leave(file, "none of its queries is judged")
    if read:
        read.sort(key=lambda one: (-one[0], one[1].name))
        share, file = read[0]
        why = "queries" if judged is None else f"{share:.0%} of the judged queries are in it"
        if judged is None:
            why += "; there are no judgements of them, so they are not evaluated"
        roles.take("queries", file, why)
    elif judged is not None and sum(" " in query for query in judged) <= len(judged) / 2:
        file = roles.chosen.pop("qrels")
        roles.remarks[file.name] = (
            f"left out: no file holds the texts of its queries, such as {min(judged)!r}"
        )


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
    found.sort(key=lambda one: (-_named(one[0], "pairs"), not _is_train(one[0]), one[0].name))
    for place, (file, why) in enumerate(found):
        if place:
            roles.leave(file, f"pairs as well; {found[0][0].name} was chosen")
        else:
            roles.take("pairs", file, why)


def _take_texts(files: Sequence[DataFile], known: set[str], roles: Roles) -> None:
    """Choose text of the domain, general text and a glossary, by their names."""
    for file in files:
        lines = file.format == "text"
        if not lines and not (file.is_table and _text_columns(file, None)):
            continue
        keys = [key for key in ("glossary", "general", "corpus") if _named(file, key)]
        key = keys[0] if keys else None
        short = lines and file.words("line") <= 4
        if key is None or key in roles.chosen or (key == "glossary" and not lines):
            what = "terms to teach (glossary), " if short else ""
            roles.questions.append(
                f"what is {file.name}? {what}text of the domain (corpus) or other text (general)"
            )
            taken = f"; {key} is {roles.chosen[key].name}" if key in roles.chosen else ""
            roles.leave(file, f"text, but of what kind cannot be told{taken}")
        else:
            roles.take(key, file, f"its name says so; {file.words('line'):.0f} words a line" if lines else "its name says so")


def _is_judgement(file: DataFile, *, certain: bool = False) -> bool:
    """Return whether a table may hold judgements; certain by the names of three columns."""
    if not file.is_table:
        return False
    known = [find_fields(file.columns, names) for names in (GRADED_QUERY, GRADED_DOCUMENT, GRADE)]
    if all(known):
        return True
    if certain or len(file.columns) not in (2, 3):
        return False
    return all(len(str(v)) <= _LONGEST_ID for c in file.columns for v in file.values(c)) and not any(
        file.is_unique(column) for column in file.columns[:1]
    ) or bool(known[0] and known[1])


def _identity(file: DataFile) -> str | None:
    """Return the column of ids: one with a usual name, or with short unique values."""
    usual = find_fields(file.columns, (*DOCUMENT_ID, *QUERY_ID))
    for name in usual:
        if file.is_unique(name):
            return name
    for name in file.columns:
        values = file.values(name)
        simple = all(isinstance(v, str | int) and not isinstance(v, bool) for v in values)
        if simple and file.is_unique(name) and max(len(str(v)) for v in values) <= _LONGEST_ID:
            if file.words(name) <= 2:
                return name
    return None


def _text_columns(file: DataFile, identity: str | None) -> tuple[str, ...]:
    """Return the columns that form an item's text: usual ones, or else the longest."""
    columns = [name for name in file.columns if name != identity and file.words(name) > 0]
    titles, texts = find_fields(columns, TITLE), find_fields(columns, TEXT)
    if not texts:
        rest = [name for name in columns if name not in titles]
        rest.sort(key=lambda name: -file.words(name))
        texts = tuple(name for name in rest[:1] if file.words(name) >= 3 or not titles)
    return tuple(dict.fromkeys((*titles, *texts)))


def _fields(items: DataFile) -> dict[str, Any]:
    identity = _identity(items)
    text = _text_columns(items, identity)
    titles = find_fields(text, TITLE)
    return {"id": identity, "title": titles[0] if titles else None, "text": text}


def _query_fields(file: DataFile) -> bool:
    """Return whether a table has the id and the text of queries under usual names."""
    identity = find_fields(file.columns, QUERY_ID)
    rest = [name for name in file.columns if name not in identity[:1]]
    return bool(identity and find_fields(rest, QUERY_TEXT))


def _is_referred_to(file: DataFile, identity: str, files: Iterable[DataFile]) -> bool:
    """Return whether judgements or pairs name the ids of a file as their items."""
    ids = {str(value) for value in file.values(identity)}
    for other in files:
        named = find_fields(other.columns, _ITEM) if other is not file and other.is_table else ()
        if named and len(ids & {str(value) for value in other.values(named[0])}) > 1:
            return True
    return False


def _ids(items: DataFile, identity: str | None) -> set[str]:
    """Return the ids of the catalogue, at most 200,000."""
    if identity is None:
        return set(read_documents(items.paths[0]))
    records = (record for path in items.paths for record in read_records(path, Counter()))
    return {str(record.get(identity)) for record in islice(records, _MAXIMUM_IDS)}


def _share(ids: Iterable[str], known: set[str]) -> float:
    found = [id in known for id in ids]
    return sum(found) / len(found) if found else 0.0


def _keys(file: DataFile) -> list[str]:
    return [key for key in _NAMES if _named(file, key)]


def _named(file: DataFile, key: str) -> int:
    return int(bool(name_words(file.name) & _NAMES[key]))


def _split(file: DataFile) -> int:
    """Return the place of a file's split in `SPLITS`."""
    words = name_words(file.name)
    return next((n for n, split in enumerate(SPLITS) if split in words), SPLITS.index(""))


def _is_train(file: DataFile) -> bool:
    return bool(name_words(file.name) & {"train", "training", "pairs", "clicks"})
