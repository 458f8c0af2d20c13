"""`idiolect recommend train`, `evaluate`, and `idiolect recommend RUN --history …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from idiolect.cli.endings import ResumableCommand
from idiolect.cli.text_options import MaxUnreadableOption
from idiolect.errors import InputError
from idiolect.recommend.model_kinds import ItemLoss, ItemText, ModelName, SplitKind, Target
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from idiolect.recommend.recommender import Recommender

__all__ = ["app", "evaluate", "index", "items", "train"]


class _VerbAndGroup(TyperGroup):
    """A group that is also a verb: its first argument may be a folder, which means `items`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; any other word is the folder argument of `items`."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["items", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_VerbAndGroup,
    help="Recommend the next items after a history. [bold]idiolect recommend RUN --history a,b"
    "[/bold] is short for [bold]idiolect recommend items RUN --history a,b[/bold].",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

_Folder = Annotated[Path, typer.Argument(help="Folder that `idiolect recommend train` wrote.")]


@app.command("train", cls=ResumableCommand)
def train(
    histories: Annotated[
        list[Path],
        typer.Argument(
            help="Files with events: CSV, TSV, JSON Lines or Parquet with user, item and time; "
            "lines of `user item item …`; MovieLens and Amazon layouts. Also compressed."
        ),
    ],
    model: Annotated[ModelName, typer.Option(help="The model to train.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    items: Annotated[
        Path | None, typer.Option(help="Catalogue with the ids and texts of items.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Encoder of the items' texts: a folder, or a run's `model`."),
    ] = None,
    split: Annotated[
        SplitKind | None,
        typer.Option(help="How events are split. Default: by time, if times are known."),
    ] = None,
    target: Annotated[
        Target,
        typer.Option(help="What to predict: the next item, or all items of the next moment."),
    ] = "next-item",
    k_core: Annotated[
        int, typer.Option(help="Leave out users and items with fewer events.", min=1)
    ] = 1,
    item_text: Annotated[
        ItemText | None,
        typer.Option(
            help="How a network uses the vectors of the items' texts: as the only item vectors, "
            "added to learned ones, or as trainable vectors. Needs --encoder. Default: not used."
        ),
    ] = None,
    loss: Annotated[
        ItemLoss | None,
        typer.Option(help="Training loss of a network. Default: by the number of items."),
    ] = None,
    session_parallel: Annotated[
        bool,
        typer.Option("--session-parallel", help="Train on parallel sessions (gru4rec)."),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Maximum passes over the histories, for networks; training stops early when "
            "nDCG@10 on validation no longer improves.",
            min=1,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed, for networks.", min=0)] = 0,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
) -> None:
    """Train a recommender. Run it again to resume.

    Example: [bold]idiolect recommend train orders.csv --model transitions -o runs/next[/bold]
    """
    from idiolect.recommend.train_recommender import train_recommender

    recommender = train_recommender(
        histories,
        model=model,
        output_dir=out,
        items=items,
        encoder=encoder,
        split_by=split,
        target=target,
        k=k_core,
        item_text=item_text,
        loss=loss,
        session_parallel=session_parallel,
        epochs=epochs,
        seed=seed,
        max_unreadable=max_unreadable,
    )
    known = recommender.histories
    typer.echo(
        f"{model} of {len(known):,} users and {len(known.items):,} items in {out}; next: "
        f"idiolect recommend evaluate {out}"
    )


@app.command("evaluate")
def evaluate(
    directory: _Folder,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print everything as one JSON object.")
    ] = False,
    exclude_seen: Annotated[
        bool | None,
        typer.Option(
            "--exclude-seen/--include-seen",
            help="Whether to exclude items of the history. Default: if repeats are rare.",
        ),
    ] = None,
) -> None:
    """Compare a recommender with all baselines on the test cases, ranking all items.

    Example: [bold]idiolect recommend evaluate runs/next --json[/bold]
    """
    from idiolect.recommend.evaluate_recommender import evaluate_recommender

    figures = evaluate_recommender(_load(directory), exclude_seen=exclude_seen)
    typer.echo(json.dumps(figures, indent=2) if json_output else _table(figures))


@app.command("index")
def index(directory: _Folder) -> None:
    """Build a vector index of the items, which replaces scoring all of them.

    The model's scores must be inner products: als, sasrec, gru4rec, bert4rec, unisrec,
    two-tower or text-dense.

    Example: [bold]idiolect recommend index runs/next[/bold]
    """
    recommender = _load(directory)
    with recommender.build_index(directory) as built:
        rest = len(recommender.histories.items) - len(built)
        left_out = f"; {rest:,} without a vector are left out" if rest else ""
        typer.echo(f"an index of {len(built):,} items in {directory}{left_out}")


@app.command("items")
def items(
    directory: _Folder,
    history: Annotated[str, typer.Option(help="Comma-separated ids of items, oldest first.")],
    top_k: Annotated[int, typer.Option("--top-k", "-n", help="Number of items.", min=1)] = 10,
    exclude_seen: Annotated[
        bool,
        typer.Option(
            "--exclude-seen/--include-seen", help="Never recommend an item of the history."
        ),
    ] = True,
    filter: Annotated[
        str | None,
        typer.Option(
            help="Filter on other fields of the catalogue, as JSON: "
            """'{"price": {"$lt": 20}}'."""
        ),
    ] = None,
    mmr_diversity: Annotated[
        float,
        typer.Option(help="0 to 1: diversity of the items (MMR).", min=0, max=1),
    ] = 0.0,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line.")
    ] = False,
) -> None:
    """Recommend the next items after a history.

    Example: [bold]idiolect recommend runs/next --history p17,p4[/bold]
    """
    recommender = _load(directory)
    ids = [id.strip() for id in history.split(",") if id.strip()]
    for one in recommender.recommend(
        ids, top_k, exclude_seen, filter=filter, mmr_diversity=mmr_diversity
    ):
        if json_output:
            record = {"id": one.id, "score": one.score, "text": one.text, "because": one.because}
            typer.echo(json.dumps(record, ensure_ascii=False))
        else:
            title = " ".join(one.text.split("\n")[0].split())[:70]
            reason = f"  (because of {one.because})" if one.because else ""
            typer.echo(f"{one.score:10.4f}  {one.id}  {title}{reason}".rstrip())


def _load(directory: Path) -> Recommender:
    from idiolect.recommend.recommender import Recommender

    if not directory.exists():
        raise InputError(
            f"there is no folder {directory}",
            hint="commands of `idiolect recommend` are train, evaluate, index and items",
        )
    return Recommender.load(directory)


def _table(figures: dict[str, Any]) -> str:
    """Draw the systems as a table, the best first."""
    names = ("ndcg@10", "hr@10", "mrr@10", "coverage@10", "novelty@10", "popularity_share@10")
    systems = figures["systems"]
    width = max(len(name) for name in systems)
    # Measures are of the first ten items. Narrow columns fit 80 characters.
    heads = ("nDCG@10", "HR@10", "MRR@10", "cov.@10", "nov.@10", "pop.@10", "p")
    lines = [" " * width + "".join(f"{head:>8}" for head in heads)]
    for name in sorted(systems, key=lambda one: -systems[one]["ndcg@10"]):
        row = systems[name]
        test = row.get("difference")
        cells = "".join(f"{row[one]:8.4f}" for one in names)
        lines.append(f"{name:<{width}}{cells}" + (f"{test['p_value']:8.4f}" if test else ""))
    if figures["cold_cases"]:
        lines.append(f"targets without a training event ({figures['cold_cases']:,}), ndcg@10:")
        lines += [f"{n:<{width}}{row['cold']['ndcg@10']:13.4f}" for n, row in systems.items()]
    seen = "left out" if figures["exclude_seen"] else "recommended too"
    cases = "1 case" if figures["cases"] == 1 else f"{figures['cases']:,} cases"
    lines.append(
        f"{cases}, split by {figures['split']}; items of the history are {seen};"
        f" p: paired test of nDCG@10 against {figures['model']}; cov.: coverage, nov.: novelty,"
        " pop.: share of popular items"
    )
    if figures["leaked"]:
        lines.append(
            f"LEAK: {figures['leaked']:.1%} of the training events are later than a target"
        )
    lines += [f"without {name}: {why}" for name, why in figures["left_out"].items()]
    return "\n".join(lines)
