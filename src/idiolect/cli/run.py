"""`idiolect init`, `run` and `report`: the pipeline, from a folder of data to a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idiolect.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["init", "report", "results", "run"]

_TARGETS = ("all", "warm", "cold")
"""All cases of a recommender, and those whose target has (or lacks) a training event."""


def init(
    folder: Annotated[Path, typer.Argument(help="Folder with your catalogue and texts.")],
    base: Annotated[
        str,
        typer.Option(
            help="The base model: idiolect-base, smollm2, minilm, a folder, GGUF file or hub id."
        ),
    ] = "idiolect-base",
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing configuration.")
    ] = False,
) -> None:
    """Write a commented configuration for a folder of data.

    Example: [bold]idiolect init ./shop[/bold], edit shop/idiolect.toml, and then
    [bold]idiolect run shop/idiolect.toml[/bold]
    """
    from idiolect.pipeline.survey.survey import survey
    from idiolect.text.files import write_atomic

    path = folder / "idiolect.toml"
    if path.exists() and not force:
        raise InputError(f"{path} exists already", hint="--force replaces it")
    found = survey(folder, base=base, report=typer.echo)
    # A name that is not UTF-8 is written as its raw bytes.
    write_atomic(path, found.text.encode(errors="surrogateescape"))
    typer.echo(f"review {path}, then: idiolect run {path}")


def run(
    config: Annotated[Path, typer.Argument(help="The configuration, idiolect.toml.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run, instead of its `out`.")
    ] = None,
) -> None:
    """Extend a model with a domain's terms, tune it, build its index, and evaluate each stage.

    Run it again to resume; stages whose inputs have not changed are skipped.

    Example: [bold]idiolect run shop/idiolect.toml[/bold]
    """
    from rich.console import Console

    from idiolect.pipeline.report.verdict import judge
    from idiolect.pipeline.run import run as run_pipeline
    from idiolect.text.files import read_json

    folder = run_pipeline(config, output_dir=out)
    console, metrics = Console(), read_json(folder / "metrics.json")
    console.print(judge(metrics).sentence, markup=False, highlight=False, style="bold")
    for table in results(metrics):
        console.print(table)
    console.print(
        f"the run is in {folder}; search it with: idiolect search {folder} QUERY", markup=False
    )
    if "recommend" in metrics:
        console.print(f"recommend with: idiolect recommend {folder} --history ID,ID", markup=False)


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
) -> None:
    """Write report.html: the terms that were split, the training, and the evaluation.

    It is one file without scripts, and needs no network. `idiolect run` also writes it.

    Example: [bold]idiolect report shop/run[/bold]
    """
    from idiolect.pipeline.report.page import write_report

    typer.echo(f"wrote {write_report(folder)}")


def results(metrics: dict[str, Any]) -> list[Table]:
    """Return tables of a run's metrics.

    Args:
        metrics: The content of the run's metrics.json.
    """
    figures, recommending = metrics["evaluate"], metrics.get("evaluate_recommend")
    tables = [_systems(figures), _texts(figures)]
    if figures["significance"]:
        tables.append(_differences(figures))
    if (task := metrics.get("evaluate_task")) is not None:
        tables.append(_task(task))
    return tables + (
        [_recommenders(recommending), _item_texts(recommending)] if recommending else []
    )


def _systems(figures: dict[str, Any]) -> Table:
    from rich.markup import escape

    language = figures["language"]["systems"]
    tests = [test for test in ("search", "similar") if figures[test]]
    texts = [name for name in ("domain", "general") if name in language.get("base", {})]
    table = _table("Evaluation of each stage")
    table.add_column("", no_wrap=True)
    for test in tests:
        table.add_column(f"{test}\nnDCG@10", justify="right")
        table.add_column("\nR@100", justify="right")
    for name in texts:
        table.add_column(f"{name}\nbits/byte", justify="right")
    controls = False
    for system in figures["systems"]:
        cells = []
        for test in tests:
            means = system[test] or {}
            cells += [_number(means.get(name)) for name in ("ndcg@10", "recall@100")]
        cells += [_number(language.get(system["name"], {}).get(name)) for name in texts]
        if not any(cells) and (tests or texts):
            continue  # without judgements, only language models are measured
        if system["control"] and not controls:
            table.add_row("controls", style="dim")
            controls = True
        table.add_row(system["label"], *cells)
    caption = [
        f"{test}: {figures[test]['queries']:,} queries over {figures[test]['items']:,} items"
        for test in tests
    ]
    caption += [f"{test}: {note}" for test in tests for note in figures[test]["notes"]]
    if figures["language"]["note"]:
        caption.append(figures["language"]["note"])
    table.caption = escape("\n".join([*caption, *figures["notes"]]))
    return table


def _texts(figures: dict[str, Any]) -> Table:
    promises = figures["promises"]
    kept = "identical" if promises["original_rows_identical"] else "CHANGED"
    table = _table("Tokens")
    table.caption = (
        f"original rows: {kept}; documents with other changes of tokens: "
        f"{promises['documents_changed']} of {promises['documents_checked']:,}"
    )
    table.add_column("")
    for column in ("documents", "tokens before", "after", "saved"):
        table.add_column(column, justify="right")
    for name, text in figures["tokens"].items():
        table.add_row(
            f"{name} text",
            f"{text['documents']:,}",
            f"{text['before']:,}",
            f"{text['after']:,}",
            f"{text['saved']:.1%}",
        )
    return table


def _differences(figures: dict[str, Any]) -> Table:
    labels = {system["name"]: system["label"] for system in figures["systems"]}
    table = _table("Differences in nDCG@10, paired over the queries")
    table.caption = "interval: paired bootstrap; p: paired randomisation test"
    if any(one["unseen"] for one in figures["significance"]):
        table.caption += "\n* only queries with answers that are in no training pair"
    for column in ("", "system", "against"):
        table.add_column(column, no_wrap=True)
    for column in ("change", "95% interval", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in figures["significance"]:
        table.add_row(
            one["test"] + ("*" if one["unseen"] else ""),
            labels[one["second"]],
            labels[one["first"]],
            f"{one['difference']:+.3f}",
            f"{one['low']:+.3f}…{one['high']:+.3f}",
            f"{one['p_value']:.4f}",
        )
    return table


def _task(figures: dict[str, Any]) -> Table:
    from rich.markup import escape

    table = _table(f"The task ({figures['task']}), {figures['measure']}")
    seeds = len(figures["systems"][0]["values"])
    table.caption = (
        f"{figures['train_texts']:,} texts to train on, {figures['test_texts']:,} to test on; "
        f"mean and standard deviation of {seeds} {'seed' if seeds == 1 else 'seeds'}"
    ) + "".join(f"\n{escape(note)}" for note in figures.get("notes", ()))
    for column in ("", "mean", "deviation"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    systems = figures["systems"]
    for system in [one for one in systems if not one["control"]]:
        table.add_row(system["label"], _number(system["mean"]), _number(system["deviation"]))
    table.add_row("controls and baselines", style="dim")
    for system in [one for one in systems if one["control"]] + figures["baselines"]:
        table.add_row(system["label"], _number(system["mean"]), _number(system["deviation"]))
    return table


def _recommenders(figures: dict[str, Any]) -> Table:
    table = _table("Recommenders, nDCG@10")
    table.caption = (
        f"{figures['cases']:,} cases; cold: the {figures['cold_cases']:,} whose target has no "
        "training event"
    )
    table.add_column("", no_wrap=True)
    for column in _TARGETS:
        table.add_column(column, justify="right")
    baselines = figures["baselines"]
    for name in sorted(baselines, key=lambda one: -baselines[one]["ndcg@10"]):
        row = baselines[name]
        parts = (row, row["warm"], row["cold"])
        table.add_row(name, *(_number(part.get("ndcg@10")) for part in parts))
    return table


def _item_texts(figures: dict[str, Any]) -> Table:
    table = _table("Recommending by the vectors of the items' texts, nDCG@10")
    table.caption = "text: the texts alone; blend: with what users did, weights from validation"
    table.add_column("", no_wrap=True)
    for use in ("text", "blend"):
        for place, targets in enumerate(_TARGETS):
            table.add_column(f"{use if not place else ''}\n{targets}", justify="right")
    controls = False
    for system in figures["systems"]:
        if system["control"] and not controls:
            table.add_row("controls", style="dim")
            controls = True
        parts = (system[use][targets] for use in ("text", "blend") for targets in _TARGETS)
        table.add_row(system["label"], *(_number(part.get("ndcg@10")) for part in parts))
    return table


def _table(title: str) -> Table:
    from rich.table import Table

    return Table(
        title=title,
        box=None,
        padding=(0, 2, 0, 0),
        title_justify="left",
        caption_justify="left",
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
