"""`idiolect answer`: answer a question from an index, with sources."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.cli.index.options import (
    EncoderOption,
    FilterOption,
    IndexArgument,
    JsonOption,
    NamespaceOption,
    check_namespace,
    open_index,
)
from idiolect.cli.refusals import refuse_unused
from idiolect.errors import ConfigError

if TYPE_CHECKING:
    from idiolect.search.answers.answer import Answer

__all__ = [
    "EndpointModelOption",
    "EndpointOption",
    "MaxNewTokensOption",
    "MaxPromptTokensOption",
    "MinConfidenceOption",
    "ModelOption",
    "RerankerOption",
    "TopKOption",
    "answer",
    "model_options",
    "refuse_writing_options",
]

ModelOption = Annotated[
    str | None,
    typer.Option(
        help="Language model that writes the answer, such as smollm2. By default, the answer "
        "consists of sentences of the passages."
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        help="Address of an OpenAI-compatible server that writes the answer instead, such as "
        "http://127.0.0.1:8000/v1. Its key is read from the variable OPENAI_API_KEY."
    ),
]
EndpointModelOption = Annotated[str | None, typer.Option(help="Name of the model at --endpoint.")]
RerankerOption = Annotated[
    str | None, typer.Option(help="Cross-encoder that reranks the passages: a directory.")
]
TopKOption = Annotated[
    int, typer.Option("--top-k", "-n", help="Number of passages to read.", min=1, max=100)
]
MaxPromptTokensOption = Annotated[
    int, typer.Option(help="Maximum tokens of the prompt.", min=64, max=1_000_000)
]
MaxNewTokensOption = Annotated[
    int, typer.Option(help="Maximum tokens of the answer.", min=1, max=100_000)
]
MinConfidenceOption = Annotated[
    float, typer.Option(help="0 to 1: abstain below this; 0 answers always.", min=0, max=1)
]


def answer(
    context: typer.Context,
    index: IndexArgument,
    question: Annotated[str, typer.Argument(help="The question.")],
    top_k: TopKOption = 5,
    mode: Annotated[
        Literal["hybrid", "dense", "lexical"],
        typer.Option(help="dense: by vectors; lexical: by words (BM25); hybrid: by both."),
    ] = "hybrid",
    filter: FilterOption = None,
    namespace: NamespaceOption = "",
    model: ModelOption = None,
    endpoint: EndpointOption = None,
    endpoint_model: EndpointModelOption = None,
    reranker: RerankerOption = None,
    mmr_diversity: Annotated[
        float, typer.Option(help="0 to 1: diversity of the passages (MMR).", min=0, max=1)
    ] = 0.1,
    max_prompt_tokens: MaxPromptTokensOption = 1024,
    max_new_tokens: MaxNewTokensOption = 128,
    min_confidence: MinConfidenceOption = 0.45,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from the items of an index, with citations.

    It abstains if the index has nothing relevant. `idiolect index passages` makes answers from long
    items faster and better.

    Example: [bold]idiolect answer products-index "Which jacket is waterproof?" --json[/bold]
    """
    refuse_writing_options(context, model, endpoint)
    options: dict[str, Any] = {
        "mode": mode,
        "filter": filter,
        "namespace": namespace,
        "mmr_diversity": mmr_diversity,
        "max_prompt_tokens": max_prompt_tokens,
        "max_new_tokens": max_new_tokens,
        "min_confidence": min_confidence,
    }
    with open_index(index, encoder) as opened:
        check_namespace(opened, namespace)
        if mode == "hybrid" and not opened.has_encoder:
            options["mode"] = "lexical"
        options |= model_options(model, endpoint, endpoint_model, reranker)
        if as_json:
            found = opened.answer(question, top_k, **options)
            typer.echo(json.dumps(found.as_json(), ensure_ascii=False))
        else:
            with opened.answer(question, top_k, stream=True, **options) as stream:
                for piece in stream:
                    typer.echo(_plain(piece), nl=False)
                    sys.stdout.flush()
                typer.echo()
                _print_sources(stream.result)
        opened.keep_query_encoder()


def refuse_writing_options(context: typer.Context, model: str | None, endpoint: str | None) -> None:
    """Refuse the options of a language model if none writes the answer.

    Raises:
        ConfigError: One of them was given.
    """
    if model is None and endpoint is None:
        reason = "without --model or --endpoint, the answer quotes the passages"
        names = ("instructions", "max_prompt_tokens", "max_new_tokens")
        refuse_unused(context, reason, *names)


def model_options(
    model: str | None, endpoint: str | None, endpoint_model: str | None, reranker: str | None
) -> dict[str, Any]:
    """Load the models of the options, and return them as arguments.

    Raises:
        ConfigError: They contradict each other.
    """
    options: dict[str, Any] = {}
    if model is not None and endpoint is not None:
        raise ConfigError("both --model and --endpoint", hint="choose one")
    if (endpoint is None) != (endpoint_model is None):
        raise ConfigError(
            "an endpoint needs its model", hint="give both --endpoint and --endpoint-model"
        )
    if endpoint is not None and endpoint_model is not None:
        from idiolect.search.answers.writers import EndpointWriter

        key = os.environ.get("OPENAI_API_KEY") or None
        options["model"] = EndpointWriter(endpoint, endpoint_model, api_key=key)
    if model is not None:
        from idiolect.cli.training_options import local_device
        from idiolect.generate.generator import Generator
        from idiolect.models.language_model import LanguageModel
        from idiolect.training.progress import status

        with status("loading the model"):
            options["model"] = Generator(LanguageModel.load(model, device=local_device()))
    if reranker is not None:
        from idiolect.ranking.cross_encoder import CrossEncoder

        options["rerank"] = CrossEncoder.load(reranker).score
    return options


def _print_sources(answer: Answer) -> None:
    for number, one in enumerate(answer.citations, 1):
        place = typer.style(f"{_plain(one.id)}, characters {one.start} to {one.end}", fg="cyan")
        typer.echo(f"\n[{number}] {place}\n    {_plain(' '.join(one.text.split()))}")
    if answer.abstained and answer.passages:
        typer.echo("\nThe nearest passages:")
        for passage in answer.passages[:3]:
            text = " ".join(passage.text.split())
            short = text if len(text) <= 160 else f"{text[:160].rsplit(None, 1)[0]}…"
            typer.echo(f"    {typer.style(_plain(passage.id), fg='cyan')}  {_plain(short)}")


def _plain(text: str) -> str:
    """Return a text without control characters, which could change the terminal."""
    return "".join(one if (one >= " " and one != "\x7f") or one in "\n\t" else " " for one in text)
