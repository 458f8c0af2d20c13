"""`idiolect evaluate search` and `idiolect rerank`: evaluate and improve rankings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.cli.judged_data import (
    DataFolder,
    DocumentsFile,
    JudgementsFile,
    QueriesFile,
    parse_dimensions,
    read_collection,
    read_named_runs,
    refuse_split,
)
from idiolect.cli.refusals import refuse_unused
from idiolect.cli.scale.ray_options import RayOption
from idiolect.cli.training_options import local_device
from idiolect.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.ranking.evaluation.judged_collection import JudgedCollection
    from idiolect.ranking.evaluation.metrics import Evaluation, Run
    from idiolect.ranking.rerank import Scorer

__all__ = ["evaluate_search", "rerank"]

_SHOWN = ("ndcg@10", "mrr@10", "map", "recall@100", "judged@10")
"""Metrics in the table; --out and --per-query write all of them."""


def evaluate_search(
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Argument(help="Encoders: directories or hub ids.", metavar="MODEL")
    ] = None,
    data: DataFolder = None,
    documents: DocumentsFile = None,
    queries: QueriesFile = None,
    qrels: JudgementsFile = None,
    split: Annotated[str, typer.Option(help="Split of --data: qrels/SPLIT.tsv.")] = "test",
    base: Annotated[
        str | None, typer.Option(help="The baseline: the model before it was adapted.")
    ] = None,
    run: Annotated[list[Path] | None, typer.Option(help="TREC run of another system.")] = None,
    bm25: Annotated[bool, typer.Option(help="Include BM25.")] = True,
    gain: Annotated[
        Literal["linear", "exponential"], typer.Option(help="nDCG gain of a grade g: g, or 2^g-1.")
    ] = "linear",
    relevant: Annotated[
        float, typer.Option(help="Minimum relevant grade, for all metrics but nDCG.", min=0)
    ] = 1.0,
    judged_only: Annotated[
        bool, typer.Option("--judged-only", help="Remove unjudged documents from the rankings.")
    ] = False,
    dimensions: Annotated[
        str | None, typer.Option(help="Also with embeddings truncated to: 192,96,48")
    ] = None,
    curve: Annotated[
        Path | None, typer.Option(help="Plot nDCG@10 by dimensions to this file: .svg or .png")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write the metrics as JSON.")
    ] = None,
    per_query: Annotated[
        Path | None, typer.Option(help="Write the metrics of each query to this CSV file.")
    ] = None,
    ray: RayOption = None,
) -> None:
    """Evaluate encoders on judged queries by exact search, beside BM25 and other systems.

    Each system is compared with a baseline: 95% interval by the paired bootstrap, p-value by the
    paired randomization test.

    Example: [bold]idiolect evaluate search runs/tuned/model --base all-MiniLM-L6-v2 --data scifact
    --dimensions 192,96 --curve curve.svg --out metrics.json[/bold]
    """
    from rich.console import Console

    from idiolect.ranking.evaluation.metrics import evaluate
    from idiolect.ranking.evaluation.system_table import (
        draw_curve,
        figures_of,
        image_format,
        write_per_query,
    )
    from idiolect.text.files import write_atomic
    from idiolect.training.progress import status

    console, errors = Console(), Console(stderr=True)
    refuse_split(context, data)
    sizes = parse_dimensions(dimensions)
    if not models and base is None:
        refuse_unused(context, "there is no MODEL", "dimensions", "curve", "ray")
    if curve is not None:
        image_format(curve)  # fail early
    with status("reading the judged data"):
        collection = read_collection(data, split, documents, queries, qrels)
    for note in collection.notes:
        errors.print(f"note: {note}", style="yellow", markup=False)

    def measure(answers: Run) -> Evaluation:
        return evaluate(
            collection.qrels, answers, gain=gain, relevant=relevant, judged_only=judged_only
        )

    notes: list[str] = []
    systems: dict[str, Evaluation] = {}
    curves: dict[str, dict[int, float]] = {}
    if bm25:
        from idiolect.ranking.evaluation.baselines import BM25

        with status("BM25"):
            systems["BM25"] = measure(BM25(collection.documents).search(collection.queries))
    for path in run or []:
        answers, unknown = _read_known_run(path, collection)
        label = str(path) if path.name in systems else path.name
        systems[label] = measure(answers)
        notes += (f"{label}: {note}" for note in unknown)
    named = {"base": base} if base else {}
    for name in models or []:
        named[_label(name, named)] = name
    for label, name in named.items():
        encoder = _encoder(name, ray)
        # Before the documents are encoded, which takes long.
        notes += _wider_than(label, encoder, sizes, alone=len(named) == 1)
        found, curves[label] = _evaluate_encoder(label, encoder, collection, sizes, measure)
        systems |= found
    for label, result in systems.items():
        told = replace(result, left_out=())  # equal for all systems; the table shows their number
        notes += (f"{label}: {note}" for note in told.notes)
    for note in notes:
        errors.print(f"note: {note}", style="yellow", markup=False)
    metrics = figures_of(systems, baseline="base" if base else None)
    metrics |= {"notes": [*collection.notes, *notes], "gain": gain, "judged_only": judged_only}
    metrics["curves"] = curves
    for file in (out, per_query, curve):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
    if out is not None:
        write_atomic(out, (json.dumps(metrics, indent=2) + "\n").encode())
    if per_query is not None:
        write_per_query(per_query, systems)
    if curve is not None:
        level = ("BM25", systems["BM25"].means["ndcg@10"]) if bm25 else None
        draw_curve(curve, curves, level=level)
    for table in _tables(metrics):
        console.print(table)


def _read_known_run(path: Path, collection: JudgedCollection) -> tuple[Run, tuple[str, ...]]:
    """Read a run of the judged queries, and a message about documents that do not exist.

    Raises:
        InputError: The run has none of the queries.
    """
    from idiolect.ranking.evaluation.judged_collection import read_run
    from idiolect.ranking.evaluation.metrics import count_ids

    run = read_run(path)
    if run.keys().isdisjoint(collection.qrels):
        raise InputError(
            f"{path} has none of the {len(collection.qrels)} judged queries: it names"
            f" {next(iter(run))!r}, they are like {next(iter(collection.qrels))!r}",
            hint="give a run of these queries",
        )
    named = {doc for found in run.values() for doc in found}
    unknown = sorted(named - collection.documents.keys())
    return run, count_ids(unknown, "documents of the run are not in the collection")


def _wider_than(label: str, encoder: Any, sizes: list[int], *, alone: bool) -> list[str]:
    """Return a note on the sizes that an encoder's vectors do not have.

    Raises:
        ConfigError: There are such sizes, and no other encoder may have them.
    """
    width = encoder.dimensions
    wider = ",".join(str(size) for size in sizes if size > width)
    if wider and alone:
        raise ConfigError(
            f"--dimensions {wider}, and {label} has {width}", hint=f"numbers from 1 to {width}"
        )
    return [f"{label}: not evaluated at {wider} dimensions, it has {width}"] if wider else []


def _evaluate_encoder(
    label: str,
    encoder: Any,
    collection: JudgedCollection,
    sizes: list[int],
    measure: Callable[[Run], Evaluation],
) -> tuple[dict[str, Evaluation], dict[int, float]]:
    """Evaluate an encoder at full width and at smaller ones.

    Returns:
        The evaluations by label, and nDCG@10 by width.
    """
    from idiolect.ranking.evaluation.baselines import Dense

    dense = Dense(encoder, collection.documents, progress=True)
    full = dense.vectors.shape[1]
    systems, curve = {}, {}
    # `None` leaves whole vectors unchanged; a size also normalises them.
    for cut in (None, *(size for size in sizes if size < full)):
        shown = label if cut is None else f"{label}, {cut} dimensions"
        systems[shown] = measure(dense.search(collection.queries, dimensions=cut))
        curve[cut or full] = systems[shown].means["ndcg@10"]
    return systems, curve


def rerank(
    model: Annotated[
        str, typer.Argument(help="A cross-encoder, two-tower or LambdaMART model: a directory.")
    ],
    run: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]FILE",
            help="TREC run with the candidates. LambdaMART also takes further runs with scores.",
        ),
    ],
    documents: Annotated[Path, typer.Option(help="Documents: .jsonl, table or TREC elements.")],
    queries: Annotated[Path, typer.Option(help="Queries, in the same formats.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new TREC run.")],
    top_k: Annotated[int, typer.Option(help="Documents to rerank for each query.", min=1)] = 100,
    max_length: Annotated[
        int | None,
        typer.Option(help="Maximum tokens of a pair, for a cross-encoder.", min=1),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="LambdaMART: location of its encoder, if it moved.")
    ] = None,
) -> None:
    """Rerank search results with a trained model.

    Example: [bold]idiolect rerank runs/cross-encoder/model --run bm25.txt --documents corpus.jsonl
    --queries queries.jsonl -o reranked.txt[/bold]
    """
    from rich.console import Console

    from idiolect.encoding.text_reader import EncodingCounts
    from idiolect.ranking.evaluation.judged_collection import (
        read_documents,
        read_queries,
        write_run,
    )

    errors = Console(stderr=True)
    counts = EncodingCounts()
    learned = (Path(model) / "lambdamart.json").exists()
    if learned and max_length is not None:
        raise ConfigError("--max-length with a LambdaMART model", hint="leave --max-length out")
    if not learned and encoder is not None:
        raise ConfigError("--encoder without a LambdaMART model", hint="leave --encoder out")
    score = None if learned else _scorer(model, max_length, counts)
    runs = read_named_runs(run)
    found = next(iter(runs.values()))
    texts = read_queries(queries), read_documents(documents)
    if score is None:
        found, better = _rerank_learned(model, runs, *texts, encoder=encoder, depth=top_k)
    else:
        from idiolect.ranking import rerank as reranking

        if len(runs) > 1:
            raise ConfigError(f"{len(runs)} runs", hint="this model takes one")
        better = reranking.rerank(found, *texts, score, top_k=top_k, progress=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_run(out, better)
    if counts.truncated:
        errors.print(f"{counts.truncated} of {counts.texts} pairs were truncated")
    if empty := len(found) - len(better):
        errors.print(f"{empty} queries have no text or no documents and are left out")
    Console().print(f"{len(better)} queries, {sum(map(len, better.values()))} documents: {out}")


def _scorer(model: str, length: int | None, counts: EncodingCounts) -> Scorer:
    """Load a two-tower model or a cross-encoder and return its scoring function."""
    from idiolect.ranking.cross_encoder import CrossEncoder
    from idiolect.ranking.two_tower import TwoTower

    if (Path(model) / "two_tower.json").exists():
        if length is not None:
            raise ConfigError("--max-length with a two-tower model", hint="leave --max-length out")
        return TwoTower.load(model, device=local_device()).score
    ranker = CrossEncoder.load(model, max_length=length, device=local_device())
    return lambda pairs: ranker.score(pairs, counts=counts)


def _rerank_learned(
    model: str,
    runs: dict[str, Run],
    queries: dict[str, str],
    documents: dict[str, str],
    *,
    encoder: str | None,
    depth: int,
) -> tuple[Run, dict[str, dict[str, float]]]:
    """Return the candidates and their ranking by a LambdaMART model."""
    from idiolect.ranking.feature_settings import FeatureSettings
    from idiolect.ranking.lambdamart import LambdaMART
    from idiolect.ranking.rerank import check_run

    folder = Path(model)
    settings, trees = (
        FeatureSettings.load(folder / "features.json"),
        LambdaMART.load(folder / "lambdamart.json"),
    )
    candidates = next(iter(runs.values()))
    if settings.runs:
        settings.check_runs(runs)
        candidates, scores = runs[settings.runs[0]], runs
    elif len(runs) == 1:
        scores = {}  # the run names the candidates only
    else:
        raise ConfigError(f"{len(runs)} runs", hint="this model takes one")
    check_run(candidates, queries, documents)
    source = encoder or settings.encoder
    features = settings.build(
        scores, queries, documents, encoder=None if source is None else _encoder(source)
    )
    answerable = {query: found for query, found in candidates.items() if queries[query].strip()}
    return candidates, trees.rerank(features, answerable, top_k=depth)


def _encoder(name: str, ray: str | None = None) -> Any:
    if ray is not None:
        from idiolect.scale.ray_encoder import RayEncoder

        return RayEncoder(name, ray)
    from idiolect.encoding.encoder import Encoder

    return Encoder.load(name, device=local_device())


def _label(name: str, taken: dict[str, Any]) -> str:
    """Return a short, unambiguous name: runs/tuned/model → tuned/model."""
    parts = Path(name).parts
    short = "/".join(parts[-2:]) if parts[-1:] == ("model",) else parts[-1]
    return name if short in taken else short


def _tables(metrics: dict[str, Any]) -> Iterator[Table]:
    """Build a table of means and one of differences; one table would be too wide."""
    from rich.markup import escape
    from rich.table import Table

    systems = metrics["systems"]
    means = Table(title="Search", title_justify="left", caption_justify="left")
    means.add_column("")
    for metric in _SHOWN:
        means.add_column(metric, justify="right", no_wrap=True)
    for name, row in systems.items():
        means.add_row(escape(name), *(f"{row['means'][metric]:.4f}" for metric in _SHOWN))
    left_out = metrics["left_out"]
    means.caption = f"{metrics['queries']} queries" + (
        f"; {left_out} have no relevant document and are left out" if left_out else ""
    )
    yield means
    if len(systems) < 2:
        return
    title = f"{metrics['metric']} against {metrics['baseline']}"
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
    table.caption = "95% intervals by the paired bootstrap, p by the paired randomization test"
    if metrics["queries"] == 1:
        table.caption = "one query tells nothing about others: no interval, and p is 1"
    yield table
