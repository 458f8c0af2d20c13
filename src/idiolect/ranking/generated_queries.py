"""`generate_queries`: synthetic query-document pairs to tune an encoder on, from texts alone.

A language model writes queries for some texts (GPL, Wang et al. 2021, 2112.07577). A consistency
filter keeps a query only if a search for it finds its own text among the first results
(Promptagator, Dai et al. 2022, 2209.11755). The second part of GPL, margins from a cross-encoder,
is not included.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.encoder_fingerprint import hash_weights
from idiolect.errors import CheckpointError, InputError
from idiolect.generate.query_writer import QueryWriter, WrittenQueries
from idiolect.models.language_model import LanguageModel
from idiolect.ranking.evaluation.baselines import BM25, Dense
from idiolect.text.arguments import check_whole, checked, load_if_named
from idiolect.text.corpus import documents_of
from idiolect.text.files import write_atomic
from idiolect.text.skipped import Skipped, skip
from idiolect.text.text_file import TextFile
from idiolect.training.progress import duration, notice, show_progress

__all__ = ["GeneratedQueries", "generate_queries"]

_MINIMUM_WORDS = 2
_OPENING = 60
"""Characters of a query that are shown with the reason why it was left out."""


@dataclass(frozen=True)
class GeneratedQueries:
    """The generated pairs, with counts and costs."""

    pairs: int
    """Number of queries that were kept, each with its text."""
    texts: int
    """Number of texts for which queries were written."""
    written: int
    """Number of queries that were written."""
    left_out: Skipped = field(default_factory=Skipped)
    """Number of queries that were not kept, by reason."""
    read_tokens: int = 0
    """Number of tokens that the language model read; the prompt counts once."""
    new_tokens: int = 0
    """Number of tokens that it generated."""
    seconds: float = 0.0
    """Seconds that the language model took, summed over all resumed runs."""


class _Retriever(Protocol):
    def search(
        self, queries: Mapping[str, str], top_k: int = 100
    ) -> Mapping[str, Mapping[str, float]]: ...


@checked
def generate_queries(
    model: LanguageModel,
    texts: Iterable[str],
    output: str | Path,
    *,
    queries_per_text: int = 3,
    max_texts: int | None = None,
    filter_top_k: int = 10,
    filter_encoder: Encoder | None = None,
    batch_size: int = 16,
    writer: QueryWriter | None = None,
) -> GeneratedQueries:
    """Write a file of pairs that `tune` reads. Run it again to resume.

    The texts for which queries are written are a random sample; the filter searches all texts. The
    same model, texts and settings give the same output.

    Args:
        model: A causal language model, or the name of one.
        texts: The texts that queries should find, for example a `Corpus`.
        output: The file of pairs (`.jsonl`), with the fields `query` and `document`.
        queries_per_text: Number of queries per text.
        max_texts: Maximum number of texts to write queries for; by default all.
        filter_top_k: Keep a query if its text is among this many results; 0 keeps all.
        filter_encoder: Encoder for the search of the filter; by default BM25 is used.
        batch_size: Number of texts per batch.
        writer: The prompt and the sampling; by default `QueryWriter(model)`.

    Raises:
        InputError: There are no texts, the model is not a causal language model, or no query was
            kept.
        CheckpointError: There is an unfinished file of another run.
    """
    model = load_if_named(model, LanguageModel, "model")
    output = Path(output)
    if output.suffix != ".jsonl":
        raise InputError(f"cannot write pairs to {output}", hint="name it .jsonl")
    if not output.parent.is_dir():
        raise InputError(f"no such folder: {output.parent}", hint="create it first")
    for name, value in (("queries_per_text", queries_per_text), ("batch_size", batch_size)):
        check_whole(value, name, least=1)
    check_whole(filter_top_k, "filter_top_k", least=0)
    writer = QueryWriter(model) if writer is None else writer
    distinct = TextFile.distinct(documents_of(texts, "texts"))
    chosen = _choose(len(distinct), max_texts, writer.seed)
    partial = output.with_name(f"{output.name}.partial")
    settings = {
        "model": hash_weights(model.tokenizer.fingerprint, model.network.state_dict()),
        "texts": _digest(distinct),
        "writer": writer.settings,
        "queries_per_text": queries_per_text,
        "chosen": hashlib.blake2b(repr(chosen).encode(), digest_size=16).hexdigest(),
        "batch_size": batch_size,
    }
    journal = _Journal(partial, settings)
    batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    _write_all(writer, distinct, batches, queries_per_text, journal)
    left_out = Skipped()
    written = [queries for batch in journal.done for queries in batch["queries"]]
    shown = [query.casefold() for _, query in writer.examples]
    pairs = list(_usable(zip(chosen, written, strict=True), shown, left_out))
    if filter_top_k:
        retriever = _retriever(distinct, filter_encoder)
        pairs = _consistent(pairs, retriever, filter_top_k, left_out)
    if not pairs:
        raise InputError(
            f"none of {queries_per_text * len(chosen):,} generated queries finds its text",
            hint="choose a larger model, more texts, or filter_top_k=0",
        )
    lines = (
        json.dumps({"query": query, "document": distinct[number]}, ensure_ascii=False) + "\n"
        for number, query in pairs
    )
    write_atomic(output, "".join(lines).encode())
    partial.unlink()
    return GeneratedQueries(
        pairs=len(pairs),
        texts=len(chosen),
        written=queries_per_text * len(chosen),
        left_out=left_out,
        **journal.costs(),
    )


def _choose(count: int, limit: int | None, seed: int) -> list[int]:
    """Return the indices of the texts to write queries for, in random order."""
    if not count:
        raise InputError("no texts to write queries for", hint="check the files")
    limit = count if limit is None else min(count, check_whole(limit, "max_texts", least=1))
    return random.Random(seed).sample(range(count), limit)


class _Journal:
    """An append-only file of the finished batches, from which a run is resumed."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.done: list[dict[str, Any]] = []
        first = json.dumps(settings, sort_keys=True) + "\n"
        if not path.exists():
            write_atomic(path, first.encode())
            return
        # Not `splitlines`: a query may contain other line breaks, such as U+2028.
        lines = path.read_bytes().decode().split("\n")
        lines = [f"{line}\n" for line in lines[:-1]]  # after the last break: an incomplete line
        if not lines or lines[0] != first:
            raise CheckpointError(
                f"{path} is unfinished and of other texts, another model or other settings",
                hint="finish that run, or remove the file",
            )
        self.done = [json.loads(line) for line in lines[1:]]
        write_atomic(path, "".join(lines).encode())

    def append(self, found: WrittenQueries, seconds: float) -> None:
        """Add a batch."""
        self.done.append(asdict(found) | {"seconds": seconds})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.done[-1], ensure_ascii=False) + "\n")

    def costs(self) -> dict[str, Any]:
        """Return the sums over all batches."""
        return {
            name: sum(batch[name] for batch in self.done)
            for name in ("read_tokens", "new_tokens", "seconds")
        }


def _write_all(
    writer: QueryWriter,
    texts: Sequence[str],
    batches: Sequence[Sequence[int]],
    count: int,
    journal: _Journal,
) -> None:
    """Write the queries of all batches that are not in the journal; first print the cost."""
    first = len(journal.done)
    rest = batches[first:]
    numbers = [number for batch in rest for number in batch]
    if not numbers:
        return
    tokens = sum(len(row) for row in writer.read([texts[number] for number in numbers]))
    notice(
        f"{count * len(numbers):,} queries for {len(numbers):,} texts: {tokens:,} tokens to read, "
        f"at most {count * len(numbers) * writer.max_new_tokens:,} to write"
    )
    with show_progress("writing queries", len(batches)) as activity:
        activity.start_at(first)
        for place, batch in enumerate(rest, first + 1):
            began = time.perf_counter()
            found = writer.write([texts[number] for number in batch], batch, count)
            spent = time.perf_counter() - began
            journal.append(found, spent)
            activity.update(place, next((own[0] for own in found.queries if own[0]), "")[:_OPENING])
            if place == first + 1 and len(rest) > 1:
                notice(f"this will take about {duration(spent * len(rest))}")


def _usable(
    written: Iterable[tuple[int, Sequence[str]]], shown: Sequence[str], left_out: Skipped
) -> Iterator[tuple[int, str]]:
    """Yield the queries that have words and are not repeated, each with the index of its text.

    Small models often repeat the queries of the prompt's examples, which are `shown` (lower-case).
    """
    for number, queries in written:
        known = set[str]()
        for query in queries:
            if len(query.split()) < _MINIMUM_WORDS:
                skip(left_out, "fewer than two words", repr(query[:_OPENING]))
            elif any(one in query.casefold() for one in shown):
                skip(left_out, "copied from the examples", repr(query[:_OPENING]))
            elif query.casefold() in known:
                skip(left_out, "written twice for a text", repr(query[:_OPENING]))
            else:
                known.add(query.casefold())
                yield number, query


def _retriever(texts: Sequence[str], encoder: Encoder | None) -> _Retriever:
    documents = {str(number): text for number, text in enumerate(texts)}
    if encoder is None:
        return BM25(documents)
    return Dense(encoder, documents, progress=True)


def _consistent(
    pairs: Sequence[tuple[int, str]], retriever: _Retriever, top_k: int, left_out: Skipped
) -> list[tuple[int, str]]:
    """Keep the queries that find their own text."""
    found = retriever.search({str(i): query for i, (_, query) in enumerate(pairs)}, top_k)
    kept = []
    for i, (number, query) in enumerate(pairs):
        if str(number) in found.get(str(i), {}):
            kept.append((number, query))
        else:
            skip(left_out, f"text not among the first {top_k} results", repr(query[:_OPENING]))
    return kept


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
