"""The verdict of a report: it says what the figures say, also when nothing got better."""

from __future__ import annotations

from typing import Any

import pytest

from idiolect.pipeline.report.verdict import Verdict, judge
from pipeline.test_report import difference, figures, read, system, write_report, write_run

BASE, WORDS = ("search", "base", "tuning"), ("search", "words", "hybrid")


LANGUAGE = (
    ", new tokens save 12.7% of the tokens of domain text, bits per byte of domain text fell "
    "(2.31 → 1.71)"
)


def judged(
    *rows: tuple[tuple[str, str, str], float, float], meaning: float = 0.7, **values: float
) -> dict[str, Any]:
    """Metrics with these comparisons: systems, difference and p."""
    metrics = figures()
    metrics["index"]["meaning"] = meaning
    metrics["evaluate"]["significance"] = [difference(*names, *rest) for names, *rest in rows]
    metrics["evaluate"]["systems"] = [
        system(name, name, values.get(name, 0.5))
        for name in ("bm25", "base", "tuning", "words", "hybrid", "plain.tuning")
    ]
    return metrics


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {finding.what: finding.outcome for finding in verdict.findings}


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        (
            judged(
                (BASE, 0.3, 0.0001), (WORDS, 0.1, 0.01),
                base=0.2, tuning=0.5, words=0.6, hybrid=0.7,
            ),
            "weights vectors by 70% and words by 30%, which is better than words alone "
            "(nDCG@10 0.700 against 0.600); vector search (0.200 → 0.500) got better",
        ),
        (
            judged((BASE, 0.02, 0.3), (WORDS, 0.0, 1.0), meaning=0.0, base=0.2, tuning=0.22),
            "uses words alone, which vectors did not improve; vector search (nDCG@10 0.200 → "
            "0.220) did not change significantly",
        ),
        (
            judged(
                (BASE, -0.1, 0.001), (WORDS, -0.2, 0.001),
                base=0.4, tuning=0.3, words=0.6, hybrid=0.4,
            ),
            "weights vectors by 70% and words by 30%, which is worse than words alone (nDCG@10 "
            "0.400 against 0.600) (search it with --mode lexical); vector search (0.400 → 0.300) "
            "got worse",
        ),
        (
            judged(
                (BASE, 0.3, 0.001), (("similar", "base", "tuning"), 0.3, 0.001),
                (WORDS, 0.01, 0.6), meaning=0.4, base=0.2, tuning=0.5,
            ),
            "weights vectors by 40% and words by 60%, which does not differ significantly from "
            "words alone (nDCG@10 0.500 against 0.500); vector search (0.200 → 0.500) and similar "
            "items (0.200 → 0.500) got better",
        ),
        (
            judged((("similar", "base", "tuning"), -0.1, 0.01), meaning=1.0),
            "uses vectors alone; similar items (nDCG@10 0.500 → 0.500) got worse",
        ),
        (
            judged(),
            "weights vectors by 70% and words by 30%; whether search got better is unknown, "
            "because there are no relevance judgements",
        ),
    ],
    ids=["better", "unchanged", "worse", "both", "similar alone", "no judgements"],
)  # fmt: skip
def test_the_sentence_says_what_the_figures_say(metrics: dict[str, Any], sentence: str) -> None:
    uses = "The index uses the encoder tuned with new tokens, and its default search "
    language = LANGUAGE.replace(",", ";", 1) if "unknown" in sentence else LANGUAGE
    assert judge(metrics).sentence == f"{uses}{sentence}{language}."


def test_a_difference_counts_only_if_it_is_significant() -> None:
    for p_value, outcome in ((0.049, "better"), (0.05, "unchanged"), (0.5, "unchanged")):
        found = judge(judged((BASE, 0.3, p_value)))
        assert outcomes(found)["Vector search, before and after"] == outcome
    found = judge(judged((BASE, 0.0, 0.0001)))
    assert outcomes(found)["Vector search, before and after"] == "unchanged"


def test_the_contribution_of_new_tokens_is_separate() -> None:
    rows = (BASE, 0.3, 0.001), (("search", "plain.tuning", "tuning"), 0.01, 0.4)
    found = outcomes(judge(judged(*rows)))
    assert found["Vector search, before and after"] == "better"
    assert found["New tokens, compared with the same training without"] == "unchanged"


def test_few_queries_are_said_to_be_few() -> None:
    metrics = judged((BASE, 0.1, 0.4))
    assert "20 queries; too few to show a small difference" in judge(metrics).findings[0].figures
    metrics["evaluate"]["search"]["queries"] = 900
    assert judge(metrics).findings[0].figures.endswith("p = 0.400, 900 queries")


def test_a_broken_guarantee_comes_first() -> None:
    metrics = judged((BASE, 0.3, 0.001))
    metrics["evaluate"]["promises"]["original_rows_identical"] = False
    sentence = judge(metrics).sentence
    assert sentence.startswith("A guarantee was broken: the published rows were changed, the in")


def test_forgetting_and_useless_tokens_are_not_better() -> None:
    metrics = judged()
    for text in metrics["evaluate"]["tokens"].values():
        text |= {"after": text["before"], "saved": 0.0}
    bits = metrics["evaluate"]["language"]["systems"]
    bits["pretraining"] = {"domain": 2.312, "general": 1.9}
    found = outcomes(judge(metrics))
    assert found == {
        "Bits per byte of domain text": "unchanged",
        "Bits per byte of general text": "worse",
        "Tokens of held-out domain text": "unchanged",
    }
    assert "bits per byte of domain text did not change" in judge(metrics).sentence


@pytest.mark.parametrize(
    ("meaning", "kept", "text"),
    [
        (0.7, 20, "search weights vectors by 70% and words by 30%, by the lower bound"),
        (0.3, 1, "the answers of one query that was kept out"),
        (0.4, 0, "There were no queries on which to choose encoder and weights"),
    ],
)
def test_why_the_index_ranks_as_it_does(meaning: float, kept: int, text: str) -> None:
    metrics = judged(meaning=meaning)
    metrics["tune"]["kept_apart"] = kept
    assert text in judge(metrics).index


def test_the_index_uses_the_best_encoder_on_held_out_queries() -> None:
    metrics = judged((WORDS, 0.1, 0.01))
    metrics["index"] |= {
        "encoder": "plain.tuning",
        "candidates": [
            {"name": "tuning", "label": "with new tokens", "ndcg": 0.61},
            {"name": "plain.tuning", "label": "without new tokens", "ndcg": 0.62},
        ],
    }
    verdict = judge(metrics)
    assert verdict.sentence.startswith("The index uses the encoder tuned without new tokens, and")
    assert (
        "which ranked the answers of 20 queries that were kept out of tuning best (nDCG@10 with "
        "new tokens 0.610, without new tokens 0.620)" in verdict.index
    )


def test_a_tie_of_encoders_is_not_called_best() -> None:
    metrics = judged((WORDS, 0.1, 0.01))
    metrics["index"]["candidates"] = [
        {"name": "tuning", "label": "with new tokens", "ndcg": 0.5},
        {"name": "base", "label": "the base", "ndcg": 0.5},
    ]
    assert "kept out of tuning no worse than any other (nDCG@10 with" in judge(metrics).index


def test_answers_that_training_has_seen_do_not_count() -> None:
    metrics = judged((WORDS, 0.2, 0.001), words=0.6, hybrid=0.8)
    evaluate = metrics["evaluate"]
    evaluate["significance"].append(difference(*WORDS, -0.1, 0.001) | {"unseen": True})
    for one in evaluate["systems"]:
        one["unseen"] = {"search": {"ndcg@10": {"words": 0.5, "hybrid": 0.4}.get(one["name"], 0.1)}}
    evaluate["search"] |= {"queries": 300, "unseen": 100}
    verdict = judge(metrics)
    assert "worse than words alone (nDCG@10 0.400 against 0.500)" in verdict.sentence
    (hybrid,) = (finding for finding in verdict.findings if finding.what.startswith("Hybrid"))
    assert hybrid.figures.endswith("100 queries with answers that training has not seen")
    evaluate["search"]["unseen"] = 19  # too few
    assert "better than words alone (nDCG@10 0.800 against 0.600)" in judge(metrics).sentence


def test_it_is_the_first_text_of_the_page(tmp_path: Any) -> None:
    metrics = judged((BASE, 0.02, 0.3))
    body = write_report(write_run(tmp_path, metrics)).read_text().split("<body>")[1]
    assert read(body.split("</h1>")[0] + "</h1></main>").text.strip() == judge(metrics).sentence
