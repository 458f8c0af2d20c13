"""The model card of a trained model, generated from the run's own records.

It names the base and its licence, the new terms, the checks of the run and their results, and the
metrics beside those of the base and of lexical search. Nothing is written by hand: what a run did
not measure is not in its card.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idiolect.errors import CheckpointError
from idiolect.pipeline.publishing.base_model import UNKNOWN, PublishedBase
from idiolect.pipeline.report.verdict import judge
from idiolect.text.files import read_json, read_text

__all__ = ["SYSTEMS", "write_model_card"]

SYSTEMS = {
    "tune": "tuning",
    "plain.tune": "plain.tuning",
    "pretrain": "pretraining",
    "distill": "vocabulary",
    "extend": "untrained",
}
"""The system in the evaluation that corresponds to each stage's model."""

_TERMS = 40  # shown in the card; the tokenizer lists all
_MEASURES = ("ndcg@10", "recall@100", "mrr@10")
_TESTS = {"search": "Search", "similar": "Similar items"}
_BESIDE = ("bm25", "base")  # systems shown for comparison with the model
_COMPARED = (
    "The run's comparisons are of the encoder tuned with new tokens (stage `tune`); hybrid search "
    "has the encoder of the index; bits per byte are of the language model with new tokens (stage "
    "`pretrain`)."
)
"""Which models the verdict and its comparisons refer to, whichever is published."""
_SHOWN_TABLES = ("audit", "extend", "distill", "pretrain", "encoder", "tune")


def write_model_card(
    run: Path, stage: str, repository: str, base: PublishedBase, license_id: str
) -> str:
    """Return the model card: front matter in YAML, then Markdown.

    Args:
        run: The folder of a finished run.
        stage: The stage that trained the model.
        repository: The model's name on the hub.
        base: The base of the run.
        license_id: The hub's identifier of the licence.

    Raises:
        CheckpointError: A record of the run is missing or damaged.
    """
    from huggingface_hub import ModelCard, ModelCardData

    metrics, model = read_json(run / "metrics.json"), run / "stages" / stage / "model"
    manifest = read_json(run / "manifest.json")
    is_encoder = (model / "modules.json").exists()
    try:
        card = ModelCardData(
            base_model=base.repository,
            license=license_id,
            library_name="sentence-transformers" if is_encoder else "transformers",
            pipeline_tag="sentence-similarity" if is_encoder else "text-generation",
            tags=["idiolect", "domain-adaptation"],
            model_name=repository.rpartition("/")[2],
            eval_results=list(_results(metrics["evaluate"], SYSTEMS[stage])) or None,
        )
        sections = [
            f"# {repository.rpartition('/')[2]}",
            _summary(base, is_encoder=is_encoder, is_extended=_is_extended(model)),
            f"**Result of the run.** {judge(metrics).sentence}",
            f"This is the model of the stage `{stage}`. {_COMPARED}",
            _usage(repository, is_encoder=is_encoder),
            _terms(metrics, model),
            _checks(metrics, model),
            _figures(metrics["evaluate"], SYSTEMS[stage]),
            _findings(metrics),
            _settings(run),
            _license(base, license_id),
            f"Written by idiolect {manifest['idiolect']} from the run's records "
            f"({', '.join(f'{name} {v}' for name, v in manifest['versions'].items())}).",
        ]
    except (KeyError, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{run} has metrics that this version cannot read: {error}",
            hint="run it again with this version",
        ) from error
    text = "\n\n".join(section for section in sections if section)
    return str(ModelCard(f"---\n{card.to_yaml()}\n---\n\n{text}\n"))


def _results(evaluate: Mapping[str, Any], system: str) -> Iterator[Any]:
    """Yield the model's metrics in the hub's format."""
    from huggingface_hub import EvalResult

    for test, title in _TESTS.items():
        scores, queries = _scores(evaluate, system, test)
        for measure in scores:
            yield EvalResult(
                task_type="information-retrieval",
                task_name=title,
                dataset_type=f"private-{test}",
                dataset_name=f"{title}, the run's own judgements ({queries})",
                metric_type=measure.replace("@", "_at_"),
                metric_name=measure,
                metric_value=round(float(scores[measure]), 4),
            )


def _scores(evaluate: Mapping[str, Any], name: str, test: str) -> tuple[dict[str, float], str]:
    """Return a system's metrics in a test, and over which queries.

    If training has seen the answers of some queries, only the other queries are used, if any.
    """
    system: Mapping[str, Any] = next(
        (one for one in evaluate["systems"] if one["name"] == name), {}
    )
    unseen = system.get("unseen", {}).get(test)
    scores = unseen or system.get(test) or {}
    count = evaluate[test]["unseen" if unseen else "queries"] if scores else 0
    queries = f"{count:,} queries{' whose answers training has not seen' if unseen else ''}"
    return {measure: scores[measure] for measure in _MEASURES if measure in scores}, queries


def _is_extended(model: Path) -> bool:
    return (model / "extension.json").exists()


def _summary(base: PublishedBase, *, is_encoder: bool, is_extended: bool) -> str:
    name = base.repository or base.name
    kind = "An encoder of texts" if is_encoder else "A language model"
    how = " and taught the terms of a domain as tokens of their own" if is_extended else ""
    return f"{kind}, adapted from `{name}`{how}."


def _usage(repository: str, *, is_encoder: bool) -> str:
    loader = "Encoder" if is_encoder else "LanguageModel"
    code = [f"from idiolect import {loader}", "", f'model = {loader}.load("{repository}")']
    if is_encoder:
        code.append('vectors = model.encode(["a text", "another one"])')
    return "\n".join(["## Use", "", "```python", *code, "```"])


def _terms(metrics: Mapping[str, Any], model: Path) -> str:
    """Describe the new tokens; empty for a model without any."""
    if not _is_extended(model):
        return ""
    extension = metrics["extend"]
    added = read_json(model / "extension.json")["added"]
    # A term may have two tokens, with and without a leading space.
    texts = (str(token["text"]).strip() for token in added if token["kind"] != "part")
    terms = list(dict.fromkeys(texts))
    shown = ", ".join(_code(term) for term in terms[:_TERMS])
    more = f", and {len(terms) - _TERMS:,} more" if len(terms) > _TERMS else ""
    return (
        f"## New tokens\n\n{extension['added']:,} tokens for {len(terms):,} terms, added by the "
        f"method `{extension['method']}`, from the id {extension['first_id']:,}: {shown}{more}."
    )


def _checks(metrics: Mapping[str, Any], model: Path) -> str:
    """List the checks of new tokens and their results; empty for a model without any."""
    if not _is_extended(model):
        return ""
    promises, extension = metrics["evaluate"]["promises"], metrics["extend"]
    rows = "identical" if promises["original_rows_identical"] else "**changed**"
    lines = [
        f"- The base's embedding rows, in the language model after pre-training: {rows}.",
        f"- Texts whose tokens changed beyond the new ones: "
        f"{promises['documents_changed']:,} of {promises['documents_checked']:,}.",
    ]
    lines += [
        f"- Tokens of {name} text: {text['before']:,} before, {text['after']:,} after "
        f"({text['saved']:.1%} fewer)."
        for name, text in extension["texts"].items()
    ]
    lines += [f"- Not verified: {_plain(text)}" for text in extension["unverified"]]
    return "\n".join(["## Checks", "", *lines])


def _figures(evaluate: Mapping[str, Any], name: str) -> str:
    """Return tables of the model's metrics beside those of the base and of lexical search."""
    labels = {system["name"]: str(system["label"]) for system in evaluate["systems"]}
    if name in labels:
        labels[name] = "this model"
    names = [one for one in (*_BESIDE, name) if one in labels]
    blocks = []
    for test, title in _TESTS.items():
        own, queries = _scores(evaluate, name, test)
        rows = []
        for one in names if own else ():
            scores, others = _scores(evaluate, one, test)
            if others == queries and scores.keys() == own.keys():
                rows.append([labels[one], *(f"{value:.3f}" for value in scores.values())])
        if rows:
            blocks.append(_table([f"{title}, {queries}", *own], rows))
    language = evaluate["language"]["systems"]
    if name in language:
        kinds = list(language[name])
        body = [
            [labels.get(one, one), *(f"{language[one][kind]:.3f}" for kind in kinds)]
            for one in ("base", name)
        ]
        blocks.append(_table(["Bits per byte (less is better)", *kinds], body))
    note = "BM25 ranks by words alone, the base and this model by their vectors alone."
    return "\n\n".join(["## Figures", note, *blocks]) if blocks else ""


def _findings(metrics: Mapping[str, Any]) -> str:
    """List every comparison of the run, including negative results."""
    rows = [[one.what, one.outcome, one.figures] for one in judge(metrics).findings]
    table = _table(["what", "outcome", "figures"], rows)
    return f"### Comparisons of the run\n\n{table}" if rows else ""


def _settings(run: Path) -> str:
    """Return the training settings, without the paths of the data."""
    values = tomllib.loads(read_text(run / "idiolect.toml"))
    rows = [
        [f"{table}.{key}", str(value)]
        for table in _SHOWN_TABLES
        for key, value in values.get(table, {}).items()
    ]
    rows.insert(0, ["seed", str(values.get("seed", 0))])
    note = "Settings that are not listed were the defaults."
    return f"## Settings\n\n{_table(['setting', 'value'], rows)}\n\n{note}"


def _license(base: PublishedBase, license_id: str) -> str:
    name = base.repository or base.name
    if license_id == UNKNOWN:
        return f"## Licence\n\nThe licence of the base, `{name}`, is unknown. It applies here too."
    stated = f"The base, `{name}`, is published under `{base.license}`, which applies here too."
    if license_id != base.license:
        stated = f"`{license_id}`. The licence of the base, `{name}`: `{base.license}`."
    return f"## Licence\n\n{stated}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    r"""Return a text from data in one line, so that it cannot end a cell or begin markup.

    >>> print(_plain("a|b <img>"))
    a\|b &lt;img>
    """
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _code(term: str) -> str:
    """Return a term as code, even if it contains backticks."""
    text = " ".join(term.split())
    fence = "`" * (1 + max((len(part) for part in _runs_of_backticks(text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _runs_of_backticks(text: str) -> list[str]:
    return [run for run in "".join(c if c == "`" else " " for c in text).split() if run]
