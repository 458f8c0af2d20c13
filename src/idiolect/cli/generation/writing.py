"""`idiolect generate` and `idiolect chat`: text from a language model, streamed."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from idiolect.cli.refusals import refuse_length_penalty, refuse_unused

if TYPE_CHECKING:
    from idiolect.generate.generator import Generator
    from idiolect.generate.logits_processors import LogitsProcessor

__all__ = ["chat", "generate"]

_MODEL = typer.Argument(help="The model: a directory, a GGUF file, a package's model or a hub id.")
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


def generate(
    context: typer.Context,
    model: Annotated[str, _MODEL],
    prompts: Annotated[list[str], typer.Argument(help="Texts to continue; - reads stdin.")],
    max_new_tokens: Annotated[int, typer.Option(help="Maximum new tokens.", min=0)] = 64,
    num_beams: Annotated[int, typer.Option(help="Beams; 1 for greedy search.", min=1)] = 1,
    length_penalty: Annotated[
        float,
        typer.Option(
            help="Beams: exponent of the length; larger prefers longer texts.", min=-10, max=10
        ),
    ] = 1.0,
    coverage_penalty: Annotated[
        float,
        typer.Option(help="Beams: penalty for leaving out parts of a source.", min=0, max=10),
    ] = 0.0,
    do_sample: Annotated[
        bool, typer.Option("--do-sample", help="Sample; implied by the next four options.")
    ] = False,
    temperature: Annotated[
        float | None, typer.Option(help="Sampling temperature.", min=0, max=1000)
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from the top k.", min=0)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Nucleus sampling: probability mass.", min=0, max=1)
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="Minimum probability, relative to the most likely token.", min=0, max=1),
    ] = None,
    repetition_penalty: Annotated[
        float,
        typer.Option(
            help="Above 1: tokens that already occur become less likely.", min=0.01, max=100
        ),
    ] = 1.0,
    no_repeat_ngram_size: Annotated[
        int, typer.Option(help="No n-gram of this size occurs twice; 0: no limit.", min=0)
    ] = 0,
    force_words: Annotated[
        list[str] | None, typer.Option(help="Beams: text that must occur; repeatable.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="Text that stops generation; repeatable.")
    ] = None,
    num_return_sequences: Annotated[
        int, typer.Option(help="Texts for each prompt: samples or beams.", min=1)
    ] = 1,
    regex: Annotated[
        str | None, typer.Option(help="Regular expression that the text must match.")
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="File with a JSON schema that the text must satisfy.")
    ] = None,
    grammar: Annotated[
        Path | None, typer.Option(help="File with a Lark grammar that the text must match.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0)] = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each text, with its ids.")
    ] = False,
) -> None:
    """Continue texts with a language model. A single text is streamed.

    Example: [bold]idiolect generate smollm2 "The capital of France is" --max-new-tokens 8[/bold]
    """
    from idiolect.errors import ConfigError

    refuse_length_penalty(context, num_beams)
    sampling = {
        name: value
        for name, value in zip(_SAMPLING, (temperature, top_k, top_p, min_p), strict=True)
        if value is not None
    }
    if temperature == 0 and not do_sample:
        del sampling["temperature"]  # 0 means greedy, as elsewhere
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "length_penalty": length_penalty,
        "coverage_penalty": coverage_penalty,
        "do_sample": do_sample or bool(sampling),
        "repetition_penalty": repetition_penalty,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "force_words": force_words or (),
        "stop": stop or (),
        "num_return_sequences": num_return_sequences,
        "seed": seed,
        **sampling,
    }
    if sum(given is not None for given in (regex, json_schema, grammar)) > 1:
        raise ConfigError(
            "--regex, --json-schema and --grammar exclude each other", hint="choose one"
        )
    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    generator = _load(model)
    options["constraint"] = _constraint(generator, regex, json_schema, grammar)
    if len(texts) == 1 and num_beams == num_return_sequences == 1 and not json:
        for piece in generator.stream(texts[0], **options):
            typer.echo(piece, nl=False)
            sys.stdout.flush()
        typer.echo()
        return
    for found in generator.generate(texts, **options):
        if json:
            line = {
                "prompt": found.prompt,
                "text": found.text,
                "logprob": found.logprob,
                "finish_reason": found.finish_reason,
                "ids": found.ids,
            }
            typer.echo(json_module.dumps(line, ensure_ascii=False))
        else:
            typer.echo(found.text)


def chat(
    context: typer.Context,
    model: Annotated[str, _MODEL],
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of an answer.", min=1)] = 256,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature; 0 is greedy.", min=0)
    ] = 0.7,
    top_p: Annotated[
        float, typer.Option(help="Nucleus sampling: probability mass.", min=0, max=1)
    ] = 0.95,
    seed: Annotated[int, typer.Option(help="Random seed.", min=0)] = 0,
) -> None:
    """Talk with a model that has a chat template. An empty line or the end of input ends it.

    Example: [bold]idiolect chat smollm2 --max-new-tokens 60[/bold]
    """
    from idiolect.generate.prompts.chat_template import render_chat

    if not temperature:
        refuse_unused(context, "--temperature 0 is greedy", "top_p", "seed")
    generator = _load(model)
    generator.share(batch_size=1)  # so that only the new part of each turn is read
    messages = [] if system is None else [{"role": "system", "content": system}]
    render_chat(generator.model.tokenizer, [*messages, {"role": "user", "content": "?"}])
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    if temperature:
        options |= {"do_sample": True, "temperature": temperature, "top_p": top_p}
    turn = 0
    while line := _ask():
        messages.append({"role": "user", "content": line})
        answer = ""
        prompt = _fitting(generator, messages, max_new_tokens)
        if temperature:
            options["seed"] = seed + turn
        for piece in generator.stream(prompt, **options):
            answer += piece
            typer.echo(piece, nl=False)
            sys.stdout.flush()
        typer.echo()
        messages.append({"role": "assistant", "content": answer})
        turn += 1


def _ask() -> str:
    if sys.stdin.isatty():
        typer.echo("> ", nl=False, err=True)
    return sys.stdin.readline().strip()


def _fitting(generator: Generator, messages: list[dict[str, str]], room: int) -> list[int]:
    """Return the ids of the conversation; the oldest turns are dropped if the context is full."""
    ids = generator.chat_ids(messages)
    most = generator.context_length
    first = 1 if messages[0]["role"] == "system" else 0
    while most is not None and len(ids) + room > most and len(messages) > first + 2:
        del messages[first : first + 2]
        typer.echo("(the oldest turn no longer fits into the model's context)", err=True)
        ids = generator.chat_ids(messages)
    return ids


def _load(model: str) -> Generator:
    from idiolect.cli.training_options import local_device
    from idiolect.generate.generator import Generator
    from idiolect.models.language_model import LanguageModel
    from idiolect.training.progress import status

    with status("loading the model"):
        return Generator(LanguageModel.load(model, device=local_device()))


def _constraint(
    generator: Generator, regex: str | None, json_schema: Path | None, grammar: Path | None
) -> LogitsProcessor | None:
    from idiolect.generate.constrained import Constraint
    from idiolect.text.files import read_json, read_text

    if regex is not None:
        return Constraint.regex(generator, regex)
    if json_schema is not None:
        return Constraint.json_schema(generator, read_json(json_schema))
    if grammar is not None:
        return Constraint.grammar(generator, read_text(grammar))
    return None
