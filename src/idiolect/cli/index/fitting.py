"""`idiolect index fit-fusion`: the weights of hybrid search, from queries with known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idiolect.cli.index.options import (
    EncoderOption,
    IndexArgument,
    NamespaceOption,
    check_namespace,
    open_index,
)
from idiolect.cli.judged_data import QueriesFile

__all__ = ["fit_fusion"]


def fit_fusion(
    index: IndexArgument,
    qrels: Annotated[
        Path,
        typer.Option(
            help="TREC qrels, or a table such as query,docid; without --queries, with query texts."
        ),
    ],
    queries: QueriesFile = None,
    namespace: NamespaceOption = "",
    encoder: EncoderOption = None,
) -> None:
    """Fit the weights of hybrid search to queries with known answers.

    Hold these queries and items out of the training of the encoder.

    Example: [bold]idiolect index fit-fusion products-index --qrels answers.tsv[/bold]
    """
    from idiolect.ranking.evaluation.judged_collection import read_qrels, read_queries

    texts = None if queries is None else read_queries(queries)
    answers = {
        query if texts is None else texts.get(query, ""): [
            id for id, grade in found.items() if grade > 0
        ]
        for query, found in read_qrels(qrels).items()
    }
    with open_index(index, encoder) as opened:
        check_namespace(opened, namespace)
        opened.fit_fusion(
            {query: ids for query, ids in answers.items() if query and ids}, namespace=namespace
        )
        typer.echo(f"hybrid search: {opened.hybrid_weight}")
