"""`idiolect align judge`: agreement with people, or the win rate of one system over another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.cli.text_options import MaxUnreadableOption, report_skipped
from idiolect.cli.training_options import local_device
from idiolect.errors import ConfigError
from idiolect.text.skipped import MAX_UNREADABLE

if TYPE_CHECKING:
    from idiolect.alignment.judging.pair_judges import PairJudge

__all__ = ["judge"]


def judge(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Judged pairs (chosen and rejected, or output_1, output_2, preference)."
        ),
    ],
    by: Annotated[
        Literal["reward", "log-probability", "endpoint"], typer.Option(help="The kind of judge.")
    ],
    model: Annotated[
        str, typer.Option(help="A reward model, a language model, or its name at the endpoint.")
    ],
    url: Annotated[
        str | None, typer.Option(help="Base URL of an OpenAI-compatible API, for --by endpoint.")
    ] = None,
    key: Annotated[
        str,
        typer.Option(help="API key of the endpoint.", envvar="OPENAI_API_KEY", show_default=False),
    ] = "",
    win_rate: Annotated[
        bool,
        typer.Option("--win-rate", help="Compare output_1 with output_2; no preference is needed."),
    ] = False,
    limit: Annotated[
        int | None, typer.Option(help="Judge only the first pairs of each file.", min=1)
    ] = None,
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how a judge agrees with people, or which of two systems it prefers.

    Every pair is judged in both orders. The baseline, which needs no training, prefers the longer
    answer.

    Example: [bold]idiolect align judge llmbar.json pandalm.json --by reward
    --model runs/reward/model[/bold]
    """
    from idiolect.alignment.judging import pair_judges
    from idiolect.alignment.preference.preferences import read_pairs, read_preferences
    from idiolect.alignment.reward.reward_evaluation import evaluate_margins
    from idiolect.cli.align.reward import show_agreement
    from idiolect.text.skipped import Skipped

    chosen = _judge(by, model, url, key)
    # The endpoint knows itself how much its model reads.
    report_cut = getattr(chosen, "report_cut", lambda pairs: None)
    results: dict[str, Any] = {}
    # Files of one name in several folders have one result each.
    short = len({path.name for path in data}) == len(data)
    for path in data:
        name = path.name if short else str(path)
        skipped = Skipped()
        if win_rate:
            read = read_pairs(path, skipped=skipped, max_unreadable=max_unreadable)[:limit]
            pairs = [pair_judges.AnswerPair(*one) for one in read]
            report_skipped(skipped, name)
            report_cut(pairs)
            found = pair_judges.win_rate(chosen, pairs)
            results[name] = found.as_dict()
            if not as_json:
                _show_win_rate(name, found)
            continue
        preferences = read_preferences(path, skipped=skipped, max_unreadable=max_unreadable)[:limit]
        report_skipped(skipped, name)
        report_cut([pair_judges.AnswerPair(p.prompt, p.chosen, p.rejected) for p in preferences])
        scores = evaluate_margins(preferences, pair_judges.as_margins(chosen, preferences))
        results[name] = scores.as_dict()
        if not as_json:
            typer.echo(name)
            show_agreement({by: scores})
    unclear = getattr(chosen, "unclear", 0)
    if unclear:
        typer.echo(f"{unclear:,} replies had no verdict and count as ties", err=True)
    if as_json:
        typer.echo(json.dumps(results))


def _show_win_rate(name: str, found: Any) -> None:
    typer.echo(
        f"{name}: output_1 wins {found.win_rate:.3f} of {found.pairs:,} pairs "
        f"(95 %: {found.low:.3f}-{found.high:.3f}); the same verdict in both orders: "
        f"{found.consistent:.3f}; for the answer read first: {found.first_place:.3f}"
    )


def _judge(by: str, model: str, url: str | None, key: str) -> PairJudge:
    from idiolect.alignment.judging.pair_judges import EndpointJudge, LikelihoodJudge, RewardJudge

    if (by == "endpoint") != (url is not None):
        raise ConfigError(
            "--url is for --by endpoint, and needed there", hint="such as http://localhost:8000/v1"
        )
    if url is not None:
        return EndpointJudge(url, model, key=key)
    if by == "reward":
        from idiolect.alignment.reward.reward_model import RewardModel

        return RewardJudge(RewardModel.load(model, device=local_device()))
    from idiolect.models.language_model import LanguageModel

    return LikelihoodJudge(LanguageModel.load(model, device=local_device()))
