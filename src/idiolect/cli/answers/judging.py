"""`idiolect evaluate answers`: evaluate the answers of an index on questions with known answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from idiolect.cli.answers.answering import (
    EndpointModelOption,
    EndpointOption,
    MaxNewTokensOption,
    MaxPromptTokensOption,
    MinConfidenceOption,
    ModelOption,
    RerankerOption,
    TopKOption,
    model_options,
    refuse_writing_options,
)
from idiolect.cli.index.options import (
    EncoderOption,
    IndexArgument,
    JsonOption,
    NamespaceOption,
    check_namespace,
    open_index,
)

__all__ = ["evaluate_answers"]

_ROWS = {
    "document_recall_at_1": "the first passage is of a gold document",
    "document_recall": "a passage is of a gold document",
    "passage_recall": "a passage has the answer",
    "exact_match": "exact match",
    "f1": "F1 of words",
    "contains_answer": "the answer contains a right one",
    "citation_precision": "citations: precision",
    "cited_first_is_right": "  always citing the first passage",
    "citation_recall": "citations: recall",
    "citation_has_answer": "the quoted sentence has the answer",
    "supported": "faithfulness: sentences supported",
    "verbatim": "faithfulness: sentences verbatim",
    "dropped": "sentences dropped as not supported",
    "quoted": "quotes passages instead of the model",
    "abstained": "abstains",
    "abstained_without_gold": "abstains without the gold documents",
}


def evaluate_answers(
    context: typer.Context,
    index: IndexArgument,
    questions: Annotated[
        Path,
        typer.Argument(
            help="Records with question, and answers or documents (ids of items), or both."
        ),
    ],
    top_k: TopKOption = 5,
    namespace: NamespaceOption = "",
    model: ModelOption = None,
    endpoint: EndpointOption = None,
    endpoint_model: EndpointModelOption = None,
    reranker: RerankerOption = None,
    instructions: Annotated[
        str | None,
        typer.Option(help="System prompt for --model or --endpoint, instead of the default."),
    ] = None,
    max_prompt_tokens: MaxPromptTokensOption = 1024,
    max_new_tokens: MaxNewTokensOption = 128,
    min_confidence: MinConfidenceOption = 0.45,
    limit: Annotated[
        int | None, typer.Option(help="Ask only the first questions, this many.", min=1)
    ] = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the answers of an index: retrieval, exact match, F1, citations, abstention.

    Example: [bold]idiolect evaluate answers products-index questions.jsonl --limit 200[/bold]
    """
    from idiolect.search.answers import answer_evaluation

    refuse_writing_options(context, model, endpoint)
    gold = answer_evaluation.read_gold_questions(questions, limit=limit)
    options: dict[str, Any] = {
        "namespace": namespace,
        "instructions": instructions,
        "max_prompt_tokens": max_prompt_tokens,
        "max_new_tokens": max_new_tokens,
        "min_confidence": min_confidence,
    }
    with open_index(index, encoder) as opened:
        check_namespace(opened, namespace)
        options |= model_options(model, endpoint, endpoint_model, reranker)
        if not opened.has_encoder:
            options["mode"] = "lexical"
        figures = answer_evaluation.evaluate_answers(opened, gold, top_k, progress=True, **options)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    typer.echo(f"{len(gold):,} questions, {top_k} passages each")
    for name, label in _ROWS.items():
        if name in figures:
            typer.echo(f"  {label:<42}{figures[name]:>7.1%}")
