"""`idiolect tune cross-encoder`, `two-tower` and `lambdamart`: train ranking models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.cli.judged_data import (
    DataFolder,
    DocumentsFile,
    JudgementsFile,
    QueriesFile,
    parse_dimensions,
    read_named_runs,
    refuse_split,
)
from idiolect.cli.ranker_data import (
    JudgedFiles,
    Validation,
    covered_queries,
    judged_groups,
    ndcg,
    require_relevant,
    unjudged_groups,
)
from idiolect.cli.refusals import refuse_unused
from idiolect.cli.training_options import (
    BatchSizeOption,
    EpochsOption,
    LearningRateOption,
    MaxLengthOption,
    PrecisionOption,
    RunFolderOption,
    SaveStepsOption,
    SeedOption,
    TensorboardOption,
    given,
    local_device,
)
from idiolect.errors import ConfigError

if TYPE_CHECKING:
    from idiolect.ranking.groups import QueryGroup
    from idiolect.ranking.two_tower import TwoTower
    from idiolect.training.training_config import TrainingConfig

__all__ = ["cross_encoder", "lambdamart", "two_tower"]

_Split = Annotated[str, typer.Option(help="Split of --data to train on: qrels/SPLIT.tsv.")]
_ValidSplit = Annotated[
    str | None,
    typer.Option(help="Report nDCG@10 before and after training on this split of --data."),
]
_RunFile = Annotated[
    Path | None, typer.Option(help="TREC run with the candidates. Default: BM25 finds them.")
]
_TopK = Annotated[int, typer.Option(help="Candidates per query.", min=1)]
_Negatives = Annotated[int, typer.Option(help="Hard negatives per relevant document.", min=1)]
_Loss = Annotated[
    Literal["listwise", "pointwise"],
    typer.Option(help="Softmax cross-entropy over a query's documents, or binary cross-entropy."),
]


def cross_encoder(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="Any language model or cross-encoder: a directory or a hub id.")
    ],
    out: RunFolderOption,
    data: DataFolder = None,
    documents: DocumentsFile = None,
    queries: QueriesFile = None,
    qrels: JudgementsFile = None,
    split: _Split = "train",
    run: _RunFile = None,
    top_k: _TopK = 100,
    negatives: _Negatives = 7,
    loss: _Loss = "listwise",
    epochs: EpochsOption = 1,
    batch_size: BatchSizeOption = None,
    max_length: MaxLengthOption = None,
    learning_rate: LearningRateOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    valid_split: _ValidSplit = None,
    tensorboard: TensorboardOption = False,
) -> None:
    """Train a cross-encoder to rerank search results. Run it again to resume.

    Each relevant document is ranked against hard negatives: candidates not judged relevant. The
    maximum length covers a query and a document together.

    Example: [bold]idiolect tune cross-encoder ./minilm --data scifact --epochs 2 --max-length 256
    -o runs/cross-encoder[/bold]
    """
    from idiolect.models.language_model import LanguageModel
    from idiolect.ranking.cross_encoder import CrossEncoder

    refuse_split(context, data)
    files = JudgedFiles(data, split, documents, queries, qrels, run, top_k)
    groups = judged_groups(files.read(), negatives, loss, seed)
    validation = Validation.read(files, valid_split)
    start = LanguageModel.load(model, device=local_device())
    config = start.network.config
    if "sequence" in config.tasks and config.num_labels <= 2:
        ranker = CrossEncoder(start, max_length=max_length)
    else:
        ranker = CrossEncoder.of(start, max_length=max_length, seed=seed)
    validation.measure("before training", ranker.score)
    ranker.train(
        groups,
        output_dir=out,
        loss=loss,
        epochs=epochs,
        config=_settings(
            seed,
            batch_size=batch_size,
            learning_rate=learning_rate,
            precision=precision,
            save_steps=save_steps,
        ),
        tensorboard=tensorboard,
    )
    validation.measure("after training", ranker.score)
    _finish("cross-encoder", out, "--run bm25.txt")


def two_tower(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(help="The encoder both towers start from: a directory or a hub id.")
    ],
    out: RunFolderOption,
    teacher: Annotated[
        str | None, typer.Option(help="Cross-encoder whose scores replace the labels.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Divides the teacher's scores; larger means softer labels.", min=0)
    ] = 1.0,
    crossing: Annotated[
        Literal["cosine", "residual"],
        typer.Option(help="How to score two vectors. Only cosine suits a vector index."),
    ] = "cosine",
    data: DataFolder = None,
    documents: DocumentsFile = None,
    queries: QueriesFile = None,
    qrels: JudgementsFile = None,
    split: _Split = "train",
    run: _RunFile = None,
    top_k: _TopK = 100,
    negatives: _Negatives = 7,
    loss: _Loss = "listwise",
    epochs: EpochsOption = 1,
    batch_size: BatchSizeOption = None,
    max_length: MaxLengthOption = None,
    learning_rate: LearningRateOption = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: SeedOption = 0,
    valid_split: _ValidSplit = None,
    tensorboard: TensorboardOption = False,
) -> None:
    """Train a two-tower model on judgements, or on a cross-encoder's scores.

    Run it again to resume. With --teacher, --documents and --queries are enough: no judgements are
    needed.

    Example: [bold]idiolect tune two-tower ./minilm --teacher runs/cross-encoder/model
    --documents corpus.jsonl --queries queries.jsonl -o runs/two-tower[/bold]
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.ranking.two_tower import TwoTower

    refuse_split(context, data)
    if teacher is None:
        refuse_unused(context, "it divides the scores of --teacher", "temperature")
    files = JudgedFiles(data, split, documents, queries, qrels, run, top_k)
    if teacher is not None and data is None and qrels is None:
        groups = unjudged_groups(files.read_unjudged(), negatives, seed)
    else:
        groups = judged_groups(files.read(), negatives, loss, seed)
    validation = Validation.read(files, valid_split)
    encoder = Encoder.load(model, device=local_device())
    if max_length is not None:
        encoder = encoder.with_changes(max_length=max_length)
    ranker = TwoTower(encoder, crossing=crossing)
    validation.measure("before training", ranker.score)
    options: dict[str, Any] = {
        "output_dir": out,
        "loss": loss,
        "epochs": epochs,
        "config": _settings(
            seed,
            batch_size=batch_size,
            learning_rate=learning_rate,
            precision=precision,
            save_steps=save_steps,
        ),
        "tensorboard": tensorboard,
    }
    if teacher is None:
        ranker.train(groups, **options)
    else:
        _distill(ranker, teacher, groups, temperature=temperature, **options)
    validation.measure("after training", ranker.score)
    _finish("two-tower model", out, "--run bm25.txt")


def _distill(ranker: TwoTower, teacher: str, groups: list[QueryGroup], **options: Any) -> None:
    """Train on the scores of a cross-encoder."""
    from idiolect.ranking.cross_encoder import CrossEncoder
    from idiolect.training.progress import track

    scorer = CrossEncoder.load(teacher, device=local_device())
    shown = track(groups, "scoring with the teacher", len(groups))
    ranker.distill(scorer.score, shown, **options)


def lambdamart(
    context: typer.Context,
    out: RunFolderOption,
    data: DataFolder = None,
    documents: DocumentsFile = None,
    queries: QueriesFile = None,
    qrels: JudgementsFile = None,
    split: _Split = "train",
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE",
            help="TREC run with scores; repeatable. The first one holds the candidates.",
        ),
    ] = None,
    bm25: Annotated[
        bool, typer.Option(help="BM25 as a feature. Without --run it finds the candidates.")
    ] = True,
    encoder: Annotated[
        str | None, typer.Option(help="Embedding similarity as a feature: an encoder.")
    ] = None,
    dimensions: Annotated[
        str | None, typer.Option(help="Also with embeddings truncated to: 192,96")
    ] = None,
    top_k: _TopK = 100,
    trees: Annotated[
        int | None,
        typer.Option(help="Number of trees. Default: chosen on a fifth of the queries.", min=1),
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.", min=2)] = 5,
    seed: SeedOption = 0,
) -> None:
    """Train LambdaMART to combine the scores of several searches.

    Unjudged candidates have grade 0. Reports nDCG@10 of each feature, and of LambdaMART by
    cross-validation over the queries.

    Example: [bold]idiolect tune lambdamart --data scifact --encoder runs/tuned/model
    -o runs/lambdamart[/bold]
    """
    from idiolect.encoding.encoder import Encoder
    from idiolect.ranking.feature_settings import FeatureSettings
    from idiolect.ranking.lambdamart import LambdaMART, cross_validate
    from idiolect.ranking.rerank import check_run
    from idiolect.training.progress import status

    refuse_split(context, data)
    sizes = parse_dimensions(dimensions)
    if sizes and encoder is None:
        raise ConfigError("--dimensions without --encoder", hint="give --encoder")
    runs = read_named_runs(run or [])
    if not bm25 and not runs:
        raise ConfigError("no candidates", hint="give --run, or leave --no-bm25 out")
    collection = JudgedFiles(data, split, documents, queries, qrels).read_judged()
    require_relevant(collection)
    known = None if encoder is None else Encoder.load(encoder, device=local_device())
    settings = FeatureSettings(
        runs=tuple(runs),
        bm25=bm25,
        encoder=encoder and _absolute(encoder),
        encoder_fingerprint=None if known is None else known.fingerprint,
        dimensions=tuple(sizes),
    )
    texts = collection.queries, collection.documents
    candidates = settings.candidates(runs, *texts, depth=top_k)
    candidates = covered_queries(candidates, collection, next(iter(runs), "BM25"))
    check_run(candidates, *texts)
    features = settings.build(runs, *texts, encoder=known, progress=True)
    # Only candidates: a missing score would reveal a relevant document outside the run.
    grades = {
        query: {doc: collection.qrels[query].get(doc, 0.0) for doc in found}
        for query, found in candidates.items()
    }
    folds = max(2, min(folds, len(grades)))
    with status(f"cross-validation in {folds} folds"):
        learned = cross_validate(features, grades, candidates, folds=folds, trees=trees, seed=seed)
    with status("training"):
        model = LambdaMART.fit(features, grades, trees=trees, seed=seed)
    results = {
        name: ndcg(collection, ranking) for name, ranking in features.rankings(candidates).items()
    }
    results["LambdaMART"] = ndcg(collection, learned)
    # The trees are written last: a directory without them is not a model.
    (out / "model").mkdir(parents=True, exist_ok=True)
    settings.save(out / "model" / "features.json")
    model.save(out / "model" / "lambdamart.json")
    _write_metrics(out, {"ndcg@10": results, "folds": folds, "importance": model.importance})
    judged = [query for query, of in collection.qrels.items() if any(g > 0 for g in of.values())]
    _show(results, folds, len(judged), len(set(judged) - candidates.keys()))
    inputs = " ".join(f"--run {name}=FILE" for name in runs) or "--run bm25.txt"
    _finish("LambdaMART model", out, inputs)


def _settings(seed: int, **values: Any) -> TrainingConfig:
    from idiolect.ranking.train_ranker import ranking_config

    return ranking_config(seed=seed, **given(**values))


def _absolute(encoder: str) -> str:
    """Return the absolute path of a local encoder; a hub id is unchanged."""
    path = Path(encoder)
    return str(path.resolve()) if path.exists() else encoder


def _write_metrics(out: Path, metrics: dict[str, Any]) -> None:
    from idiolect.text.files import write_atomic

    write_atomic(out / "metrics.json", f"{json.dumps(metrics, indent=2)}\n".encode())


def _show(results: dict[str, float], folds: int, queries: int, missing: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="nDCG@10", title_justify="left", caption_justify="left")
    table.add_column("ranked by")
    table.add_column("nDCG@10", justify="right", no_wrap=True)
    for name, value in results.items():
        table.add_row(escape(name), f"{value:.4f}")
    table.caption = f"{queries} queries; LambdaMART by cross-validation in {folds} folds"
    if missing:
        table.caption += f"; {missing} queries without candidates count as zero"
    Console().print(table)


def _finish(kind: str, out: Path, inputs: str) -> None:
    typer.echo(
        f"the {kind} is in {out / 'model'}; next: idiolect rerank {out / 'model'} {inputs} "
        "--documents corpus.jsonl --queries queries.jsonl -o reranked.txt"
    )
