"""The inputs of a run: the catalogue, training text, pairs, and relevance judgements.

Files are read when a stage needs them. A fingerprint of their bytes shows whether a stage's inputs
have changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from idiolect.encoding.pairs import Pair, PairFile
from idiolect.errors import InputError
from idiolect.pipeline.judged_tests import answerable_queries, judged_collection
from idiolect.pipeline.settings import DataSettings
from idiolect.ranking.evaluation.judged_collection import (
    read_documents,
    read_qrels,
    read_queries,
)
from idiolect.search.item_files import read_items
from idiolect.search.items import Item
from idiolect.text.corpus import Corpus, source_files
from idiolect.text.fields import GRADED_DOCUMENT, find_fields, id_text
from idiolect.text.records import has_fields, read_records
from idiolect.text.skipped import Skipped, skip

if TYPE_CHECKING:
    from idiolect.pipeline.downstream_task import DownstreamTask
    from idiolect.recommend.histories import Histories

__all__ = ["HELD_OUT", "PAIR_ITEM", "PAIR_QUERY", "PAIR_TEXT", "Data"]

HELD_OUT = 0.1
"""Share of held-out documents, to measure bits per byte and tokens saved."""
PAIR_QUERY = ("query", "question", "claim", "search", "keyword", "keywords", "anchor")
"""Fields that may hold the query of a pair; the first one present is used."""
PAIR_TEXT = ("document", "positive", "passage", "answer")
"""Fields that may hold the document of a pair as text; the first one present is used."""
PAIR_ITEM = ("document_id", *(name for name in GRADED_DOCUMENT if name != "document"))
"""Fields that may hold the item id of a pair's document; used if there is no text."""
_SOURCES = (
    "items", "corpus", "general", "pairs", "queries", "qrels", "similar", "glossary", "histories",
    "task_train", "task_test",
)  # fmt: skip
_BLOCK = 1 << 20
_SAMPLE = 100
"""Records that tell whether pairs hold texts or ids."""


class Data:
    """The inputs of a run.

    Args:
        settings: Paths of the files, and names of their fields.
        folder: The folder that paths are relative to.

    Raises:
        InputError: A file or folder is missing.
    """

    def __init__(self, settings: DataSettings, folder: Path) -> None:
        self.settings = settings
        self.skipped = Skipped()
        """Records of the catalogue that were left out, by reason; filled when it is read."""
        self.skipped_events = Skipped()
        """Events of the histories that were left out, by reason; filled when they are read."""
        self.skipped_texts = Skipped()
        """Texts of the task that were left out, by reason; filled when they are read."""
        self._folder = folder
        for name in _SOURCES:
            self._files(name)

    def fingerprint(self, name: str) -> str:
        """Hash the bytes of an input and the names of its fields.

        Args:
            name: A key of `[data]`.
        """
        digest = hashlib.blake2b(digest_size=16)
        in_qrels = name == "queries" and not self.settings.queries
        for path in self._files("qrels" if in_qrels else name):
            digest.update(path.name.encode() + b"\n" + _digest(path, path.stat().st_mtime_ns))
        if name in ("items", "corpus"):
            settings = self.settings
            digest.update(repr((settings.id, settings.text, settings.title)).encode())
        return digest.hexdigest()

    @cached_property
    def items(self) -> dict[str, Item]:
        """The catalogue, by id; titles are in the items' metadata.

        Raises:
            InputError: The catalogue is empty, too many of its rows cannot be read, or two items
                have the same id.
        """
        settings = self.settings
        path = self._folder / settings.items
        self.skipped.clear()
        items: dict[str, Item] = {}
        for item in self._read_items():
            if item.id in items:
                raise InputError(
                    f"{path}: two items have the id {item.id!r}", hint="keep one of them"
                )
            title = item.metadata.get(settings.title)
            named = {**item.metadata, "title": title} if isinstance(title, str) else item.metadata
            items[item.id] = replace(item, metadata=named)
        return items

    def _read_items(self) -> Iterator[Item]:
        settings, files = self.settings, self._files("items")
        if records := [path for path in files if has_fields(path)]:
            yield from read_items(
                records,
                id_field=settings.id,
                fields=settings.text,
                also=(settings.title,),
                max_unreadable=settings.max_unreadable,
                skipped=self.skipped,
            )
        for path in files:
            if path in records:
                continue
            for name, text in read_documents(path).items():
                if text.strip():
                    yield Item(name, text, {})
                else:
                    skip(self.skipped, "empty", f"{path.name} {name}")

    def check(self) -> None:
        """Read the inputs of all later stages, so that errors are reported before any work.

        Raises:
            InputError: A file is malformed, or there are judgements without queries, or none of
                them names an item and a query of the other files, or none is relevant.
        """
        self.pairs()
        if self.qrels and not self.queries:
            raise InputError(
                "data.qrels: the judgements need their queries",
                hint="set data.queries to the file of queries",
            )
        for name, queries, qrels in (
            ("qrels", self.queries, self.qrels),
            ("similar", self.texts, self.similar),
        ):
            try:
                collection = judged_collection(self.texts, queries, qrels)
            except InputError as error:
                raise InputError(f"data.{name}: {error.message}", hint=error.hint) from error
            if collection is not None and not answerable_queries(collection):
                raise InputError(
                    f"data.{name}: no query has a relevant item",
                    hint="relevant items have a grade above 0",
                )
        _ = self.histories
        _ = self.task

    @property
    def texts(self) -> dict[str, str]:
        """The text of each item, by id."""
        return {name: item.text for name, item in self.items.items()}

    def title_pairs(self) -> list[Pair]:
        """Pair each item's title with the rest of its text.

        The list is empty if every title is repeated in the rest of the text.
        """
        pairs = []
        for item in self.items.values():
            title = item.metadata.get("title")
            if isinstance(title, str) and title.strip() and item.text != title:
                pairs.append(Pair(title, item.text.removeprefix(f"{title}\n")))
        return pairs if any(pair.query not in pair.document for pair in pairs) else []

    @cached_property
    def corpus(self) -> tuple[Corpus, Corpus]:
        """Domain text: the training part and the held-out part."""
        if self.settings.corpus:
            whole = self._text("corpus")
        elif all(map(has_fields, self._files("items"))):
            whole = self._text("items", self.settings.text)
        else:
            whole = Corpus.from_texts(list(self.texts.values()))
        return whole.split(HELD_OUT)

    @cached_property
    def all_general(self) -> Corpus | None:
        """General text, if there is any."""
        return self._text("general") if self.settings.general else None

    @cached_property
    def general(self) -> tuple[Corpus, Corpus] | None:
        """General text, split like `corpus`."""
        return self.all_general.split(HELD_OUT) if self.all_general else None

    @property
    def glossary(self) -> Path | None:
        """The file of terms that must be added."""
        return next(iter(self._files("glossary")), None)

    @cached_property
    def histories(self) -> Histories | None:
        """User histories, if there are any.

        Raises:
            InputError: They cannot be read.
        """
        from idiolect.recommend.history_files import read_histories

        files, skipped = self._files("histories"), self.skipped_events
        skipped.clear()
        share = self.settings.max_unreadable
        return read_histories(files, skipped=skipped, max_unreadable=share) if files else None

    @cached_property
    def task(self) -> DownstreamTask | None:
        """The task that judges models, if there is one.

        Raises:
            InputError: Its files cannot be read, or the test has labels of its own.
        """
        from idiolect.pipeline.downstream_task import read_task

        train, test = self._files("task_train"), self._files("task_test")
        skipped, share = self.skipped_texts, self.settings.max_unreadable
        skipped.clear()
        return read_task(train, test, max_unreadable=share, skipped=skipped) if train else None

    def pairs(self) -> list[Pair]:
        """Read the training pairs; an empty list if there are none.

        Raises:
            InputError: A record has no query or document, or names an unknown item.
        """
        pairs: list[Pair] = []
        for path in self._files("pairs"):
            records = list(islice(read_records(path, Skipped(), max_unreadable=1), _SAMPLE))
            first = records[0] if records else {}
            query, text, item = (
                next(iter(find_fields(first, names)), None)
                for names in (PAIR_QUERY, PAIR_TEXT, PAIR_ITEM)
            )
            document = text or item or "document"
            # One id may be that of an item that the catalogue lacks, so several are looked up.
            ids = [id_text(record.get(text)) for record in records] if text else []
            by_id = text is None or 2 * sum(id in self.texts for id in ids) > len(ids)
            pairs += PairFile(
                path,
                query=query or "query",
                document=document,
                documents=self.texts if by_id else None,
                max_unreadable=self.settings.max_unreadable,
            )
        return pairs

    @cached_property
    def queries(self) -> dict[str, str]:
        """The text of each query of the search test, by id.

        Without a file of queries, the judgements may contain the texts.
        """
        if self.settings.queries:
            files = self._files("queries")
            return {q: text for path in files for q, text in read_queries(path).items()}
        judged = list(self.qrels)
        are_texts = sum(" " in query.strip() for query in judged) > len(judged) / 2
        return {query: query for query in judged} if are_texts else {}

    @property
    def qrels(self) -> dict[str, dict[str, float]]:
        """The relevance grades of the search test: items by query."""
        return _joined(map(read_qrels, self._files("qrels")))

    @property
    def similar(self) -> dict[str, dict[str, float]]:
        """The relevance grades of the similar-items test: items by item."""
        return _joined(map(read_qrels, self._files("similar")))

    def _text(self, name: str, fields: tuple[str, ...] = ()) -> Corpus:
        return Corpus(self._files(name), fields, max_unreadable=self.settings.max_unreadable)

    def _files(self, name: str) -> list[Path]:
        given = getattr(self.settings, name) or ()
        sources = (given,) if isinstance(given, str) else given
        try:
            return [path for source in sources for path in source_files(self._folder / source)]
        except InputError as error:
            raise InputError(f"data.{name}: {error.message}", hint=error.hint) from error


def _joined(files: Iterable[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Merge judgements; several files may judge documents for the same query."""
    joined: dict[str, dict[str, float]] = {}
    for judged in files:
        for query, grades in judged.items():
            joined.setdefault(query, {}).update(grades)
    return joined


@lru_cache(maxsize=1024)
def _digest(path: Path, changed: int) -> bytes:
    """Hash a file, once per process unless it changes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()
