"""Retrieval for answers: `python benchmarks/answers_retrieval.py DATA [--documents N]`.

nDCG@10 on SciFact (claims and the abstracts they cite) and LiveQA-Med (summaries of questions and
judged answers): by words, by both words and vectors, and reranked. The reranker is LambdaMART over
the scores of whole items and of their best passages, by words, vectors and both. It is trained by
five-fold cross-validation, so each query is reranked by a model that has not seen it. On SciFact
the training claims join the folds, and the validation claims are measured. With --documents,
SciFact is sampled: all abstracts that the claims of the validation split cite, and others up to
that number.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import tempfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from idiolect import Encoder, Index, evaluate
from idiolect.ranking.evaluation.metrics import Run
from idiolect.ranking.features import Features
from idiolect.ranking.lambdamart import cross_validate
from idiolect.search.passages import PassageNamespace
from scifact import read_scifact

GRADES = {"1-Incorrect": 0, "2-Related": 1, "3-Incomplete": 2, "4-Excellent": 3}
DEPTH = 50


def scifact(data: Path, most: int):
    found = read_scifact(data)
    claims = {**found.validation, **found.train}
    qrels = {claim: dict.fromkeys(found.cited[claim], 1.0) for claim in claims}
    cited = {name for claim in found.validation for name in found.cited[claim]}
    names = [*cited, *(name for name in found.documents if name not in cited)][:most]
    return {name: found.documents[name] for name in names}, claims, qrels, list(found.validation)


def liveqa(data: Path, most: int):
    folder = data / "medquad"
    with zipfile.ZipFile(folder / "QA-TestSet-LiveQA-Med-Qrels-2479-Answers.zip") as archive:
        names = {Path(name).suffix: name for name in archive.namelist() if "__MACOSX" not in name}
        judged = archive.read(names[".txt"]).decode().splitlines()
        table = csv.DictReader(io.StringIO(archive.read(names[".csv"]).decode("utf-8", "replace")))
        texts = {row["AnswerID"]: row["Answer"].partition("Answer:")[2] for row in table}
    documents = {name: " ".join(text.split()) for name, text in texts.items() if text.strip()}
    with gzip.open(folder / "TREC-2017-LiveQA-Medical-Test-Questions-w-summaries.xml.gz") as file:
        asked = list(ElementTree.parse(file).iter("NLM-QUESTION"))
    queries = {
        one.attrib["qid"].removeprefix("TQ"): " ".join((one.findtext("NLM-Summary") or "").split())
        for one in asked
    }
    qrels: dict[str, dict[str, float]] = {}
    for line in judged:
        query, grade, item = line.split()
        if item in documents and queries.get(query):
            known = qrels.setdefault(query, {})
            known[item] = max(GRADES[grade], known.get(item, 0))
    return documents, {query: queries[query] for query in qrels}, qrels, list(qrels)


def search(index: Index, queries: dict[str, str]) -> dict[str, Run]:
    """Search items by words, vectors and both, and passages: an item's best one counts."""
    passages = PassageNamespace.of(index.store)
    runs: dict[str, Run] = {}
    for mode in ("lexical", "dense", "hybrid"):
        found = index.search_many(queries.values(), 100, mode)
        runs[mode] = {
            one: {hit.id: hit.score for hit in hits}
            for one, hits in zip(queries, found, strict=True)
        }
        found = index.search_many(queries.values(), 300, mode, namespace=passages.name(""))
        best: Run = {}
        for one, hits in zip(queries, found, strict=True):
            best[one] = {}
            for hit in hits:
                owner = passages.owner(hit)
                best[one][owner] = max(hit.score, best[one].get(owner, hit.score))
        runs[f"{mode}, passages"] = best
    return runs


def measure(name: str, encoder: Encoder, documents, queries, qrels, tested: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        items = ((id, text, {}) for id, text in documents.items())
        with Index.build(Path(folder) / "index", encoder, items, progress=True) as index:
            index.add_passages(progress=True)
            runs = search(index, queries)
    candidates = {
        one: dict(sorted(found.items(), key=lambda pair: -pair[1])[:DEPTH])
        for one, found in runs["hybrid"].items()
    }
    taught = {one: dict.fromkeys(candidates[one], 0.0) | dict(qrels[one]) for one in queries}
    features = Features(queries, runs=runs)
    runs["hybrid + rerank"] = cross_validate(features, taught, candidates)
    print(f"{name}: {len(documents):,} documents, {len(tested)} of {len(queries)} queries")
    judged = {one: qrels[one] for one in tested}
    for system, run in runs.items():
        found = evaluate(judged, {one: run[one] for one in tested}, metrics=("ndcg@10",))
        print(f"  {system:<18} nDCG@10 {found.means['ndcg@10']:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("sets", nargs="*", default=["liveqa", "scifact"])
    arguments = parser.parse_args()
    encoder = Encoder.load("minilm", precision=arguments.precision)
    encoder = encoder.with_changes(max_length=arguments.max_length)
    for name in arguments.sets:
        read = {"scifact": scifact, "liveqa": liveqa}[name]
        measure(name, encoder, *read(arguments.data, arguments.documents))


if __name__ == "__main__":
    main()
