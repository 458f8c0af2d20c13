"""`idiolect evaluate search` and `idiolect rerank`: rankings measured, and made better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from idiolect.ranking.evaluation.judged_collection import JudgedCollection
    from idiolect.ranking.evaluation.metrics import Evaluation, Run

__all__ = ["evaluate_search", "rerank"]

_SHOWN = ("ndcg@10", "mrr@10", "map", "recall@100", "judged@10")
"""The others are in the files that --out and --per-query write."""
_Documents = Annotated[Path | None, typer.Option(help="Documents: .jsonl, table or TREC elements.")]
_Queries = Annotated[Path | None, typer.Option(help="Queries, in the same formats.")]


def evaluate_search(
    models: Annotated[
        list[str] | None, typer.Argument(help="Encoders: directories or hub ids.", metavar="MODEL")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A folder in BEIR's layout, instead of the next three.")
    ] = None,
    documents: _Documents = None,
    queries: _Queries = None,
    judgements: Annotated[
        Path | None,
        typer.Option(
            help="TREC qrels, or a table such as query,docid,rating, which names queries by their "
            "text where there is no --queries."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Which qrels of --data.")] = "test",
    base: Annotated[
        str | None, typer.Option(help="The model before it was adapted; the others' measure.")
    ] = None,
    run: Annotated[
        list[Path] | None, typer.Option(help="Another system's answers, as a TREC run.")
    ] = None,
    bm25: Annotated[bool, typer.Option(help="Whether BM25 is in the table.")] = True,
    gains: Annotated[
        Literal["linear", "exponential"], typer.Option(help="What a grade g is worth: g, or 2^g-1.")
    ] = "linear",
    relevant: Annotated[
        float, typer.Option(help="The lowest grade that is relevant, but for nDCG.")
    ] = 1.0,
    judged_only: Annotated[
        bool, typer.Option("--judged-only", help="Leave out documents nobody judged.")
    ] = False,
    dimensions: Annotated[
        str | None, typer.Option(help="Also with so many of the first dimensions: 192,96,48")
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(help="Draw nDCG@10 over the dimensions here: .svg or .png")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the figures here, as JSON.")] = None,
    per_query: Annotated[
        Path | None, typer.Option(help="Write every query's values here, as CSV.")
    ] = None,
) -> None:
    """Search judged collections exactly, and compare models with BM25 and with one another.

    Differences are tested query by query: a 95% interval by the paired bootstrap, and the p-value
    of a paired randomisation test.

    Example: [bold]idiolect evaluate search runs/tuned/model --base all-MiniLM-L6-v2 --data scifact
    --dimensions 192,96 --curve curve.svg --out figures.json[/bold]
    """
    from rich.console import Console

    from idiolect.ranking.evaluation.metrics import evaluate
    from idiolect.ranking.evaluation.system_table import (
        draw_curve,
        figures_of,
        picture_kind,
        write_per_query,
    )
    from idiolect.text.files import write_atomic

    console, errors = Console(), Console(stderr=True)
    sizes = _sizes(dimensions)
    if curve is not None:
        picture_kind(curve)  # before anything takes time
    with errors.status("reading the collection"):
        collection = _collection(data, split, documents, queries, judgements)
    for note in collection.notes:
        errors.print(f"note: {note}", style="yellow", markup=False)

    def measure(answers: Run) -> Evaluation:
        return evaluate(
            collection.judgements, answers, gains=gains, relevant=relevant, judged_only=judged_only
        )

    systems: dict[str, Evaluation] = {}
    curves: dict[str, dict[int, float]] = {}
    if bm25:
        from idiolect.ranking.evaluation.baselines import BM25

        with errors.status("BM25"):
            systems["BM25"] = measure(BM25(collection.documents).search(collection.queries))
    for path in run or []:
        from idiolect.ranking.evaluation.judged_collection import read_run

        systems[path.name] = measure(read_run(path))
    named = {"base": base} if base else {}
    for name in models or []:
        named[_label(name, named)] = name
    for label, name in named.items():
        from idiolect.ranking.evaluation.baselines import Dense

        dense = Dense(_encoder(name), collection.documents, progress=errors.is_terminal)
        systems[label] = measure(dense.search(collection.queries))
        whole = dense.vectors.shape[1]
        curves[label] = {whole: systems[label].means["ndcg@10"]}
        for size in (size for size in sizes if size < whole):
            short = measure(dense.search(collection.queries, dimensions=size))
            systems[f"{label}, {size} dimensions"] = short
            curves[label][size] = short.means["ndcg@10"]
    figures = figures_of(systems, against="base" if base else None)
    figures |= {"notes": collection.notes, "gains": gains, "judged_only": judged_only}
    figures["curves"] = curves
    for file in (out, per_query, curve):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    if out is not None:
        write_atomic(out, (json.dumps(figures, indent=2) + "\n").encode())
    if per_query is not None:
        write_per_query(per_query, systems)
    if curve is not None:
        level = ("BM25", systems["BM25"].means["ndcg@10"]) if bm25 else None
        draw_curve(curve, curves, level=level)
    for table in _tables(figures):
        console.print(table)


def rerank(
    model: Annotated[str, typer.Argument(help="A cross-encoder or two towers: a directory.")],
    run: Annotated[Path, typer.Option(help="What a search returned, as a TREC run.")],
    documents: Annotated[Path, typer.Option(help="Documents: .jsonl, table or TREC elements.")],
    queries: Annotated[Path, typer.Option(help="Queries, in the same formats.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new run, in TREC's format.")],
    depth: Annotated[int, typer.Option(help="Documents looked at of each query.", min=1)] = 100,
    length: Annotated[
        int | None, typer.Option(help="Tokens read of a query and document together.")
    ] = None,
) -> None:
    """Put what a search returned into a better order.

    Example: [bold]idiolect rerank runs/teacher/model --run bm25.txt --documents corpus.jsonl
    --queries queries.jsonl -o better.txt[/bold]
    """
    from rich.console import Console

    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.ranking import rerank as reranking
    from idiolect.ranking.cross_encoder import CrossEncoder
    from idiolect.ranking.evaluation.judged_collection import (
        read_documents,
        read_queries,
        read_run,
        write_run,
    )
    from idiolect.ranking.two_tower import TwoTower

    errors = Console(stderr=True)
    counts = EncodingCounts()
    if (Path(model) / "two_tower.json").exists():
        if length is not None:
            raise ConfigError("two towers have a length of their own", hint="leave --length out")
        score: Any = TwoTower.load(model).score
    else:
        ranker = CrossEncoder.load(model, length=length)

        def score(pairs: Any) -> Any:
            return ranker.score(pairs, counts=counts)

    found = read_run(run)
    better = reranking.rerank(
        found,
        read_queries(queries),
        read_documents(documents),
        score,
        depth=depth,
        progress=errors.is_terminal,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_run(out, better)
    if counts.truncated:
        errors.print(f"{counts.truncated} of {counts.texts} pairs were cut")
    if empty := len(found) - len(better):
        errors.print(f"{empty} queries have no text or no documents and are left out")
    Console().print(f"{len(better)} queries, {sum(map(len, better.values()))} documents: {out}")


def _collection(
    data: Path | None,
    split: str,
    documents: Path | None,
    queries: Path | None,
    judgements: Path | None,
) -> JudgedCollection:
    from idiolect.ranking.evaluation.judged_collection import (
        JudgedCollection,
        read_documents,
        read_judgements,
        read_queries,
    )

    if data is not None:
        if documents or queries or judgements:
            raise ConfigError("--data and single files", hint="give the one or the others")
        return JudgedCollection.load(data, split=split)
    if documents is None or judgements is None:
        raise ConfigError(
            "what is to be searched?", hint="give --data, or --documents and --judgements"
        )
    return JudgedCollection.join(
        read_documents(documents),
        None if queries is None else read_queries(queries),
        read_judgements(judgements),
    )


def _encoder(name: str) -> Any:
    from idiolect.encoding.encoder import Encoder

    return Encoder.load(name)


def _label(name: str, taken: dict[str, Any]) -> str:
    """Name a model as short as it is clear: runs/tuned/model → tuned/model."""
    parts = Path(name).parts
    short = "/".join(parts[-2:]) if parts[-1:] == ("model",) else parts[-1]
    return name if short in taken else short


def _sizes(text: str | None) -> list[int]:
    try:
        sizes = [int(part) for part in (text or "").split(",") if part.strip()]
    except ValueError:
        sizes = [0]
    if any(size < 1 for size in sizes):
        raise ConfigError(f"--dimensions {text}", hint="numbers parted by commas: 192,96")
    return sizes


def _tables(figures: dict[str, Any]) -> Iterator[Table]:
    """Draw the means, and then the differences: together they would not fit a terminal."""
    from rich.markup import escape
    from rich.table import Table

    systems = figures["systems"]
    means = Table(title="Search", title_justify="left", caption_justify="left")
    means.add_column("")
    for measure in _SHOWN:
        means.add_column(measure, justify="right", no_wrap=True)
    for name, row in systems.items():
        means.add_row(escape(name), *(f"{row['means'][measure]:.4f}" for measure in _SHOWN))
    left_out = figures["left_out"]
    means.caption = f"{figures['queries']} queries" + (
        f"; {left_out} without a relevant document are left out" if left_out else ""
    )
    yield means
    if len(systems) < 2:
        return
    title = f"{figures['measure']} against {figures['against']}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("")
    for heading in ("difference", "95% interval", "p", "better", "worse"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in systems.items():
        if found := row.get("comparison"):
            table.add_row(
                escape(name),
                f"{found['difference']:+.4f}",
                f"{found['low']:+.4f} to {found['high']:+.4f}",
                f"{found['p_value']:.4f}",
                str(found["wins"]),
                str(found["losses"]),
            )
    table.caption = "intervals by the paired bootstrap, p by the paired randomisation test"
    yield table
