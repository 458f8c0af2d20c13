"""How well statements are checked: `python benchmarks/answers_support.py DATA`.

SICK (Marelli et al. 2014): is sentence B entailed by sentence A? The area under the ROC curve of
the check by words, of the share of words alone, and of the share of verbatim statements, against
the labels of the test split; and the accuracy at the threshold of answers (0.6).
"""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from idiolect.search.answers.support import WordSupport, content_terms


def area(scores: np.ndarray, positive: np.ndarray) -> float:
    ranks = rankdata(scores)
    count = positive.sum()
    above = ranks[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (~positive).sum()))


def share(claim: str, evidence: str) -> float:
    wanted = set(content_terms(claim))
    return len(wanted & set(content_terms(evidence))) / max(len(wanted), 1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    path = parser.parse_args().data / "sick2014" / "SICK_test_annotated.txt.gz"
    rows = list(
        csv.DictReader(gzip.decompress(path.read_bytes()).decode().splitlines(), delimiter="\t")
    )
    pairs = [(row["sentence_B"], row["sentence_A"]) for row in rows]
    labels = np.array([row["entailment_judgment"] for row in rows])
    entailed = labels == "ENTAILMENT"
    words = WordSupport().score(pairs)
    systems = {
        "check by words": words,
        "share of words": np.array([share(*pair) for pair in pairs]),
        "verbatim": np.array([float(claim in evidence) for claim, evidence in pairs]),
    }
    print(f"{len(rows):,} pairs, {entailed.mean():.1%} entailed")
    for name, scores in systems.items():
        right = ((scores >= 0.6) == entailed).mean()
        against = area(scores[labels != "NEUTRAL"], entailed[labels != "NEUTRAL"])
        print(
            f"  {name:<16} AUC {area(scores, entailed):.3f}, against contradictions {against:.3f},"
            f" accuracy at 0.6 {right:.3f}"
        )


if __name__ == "__main__":
    main()
