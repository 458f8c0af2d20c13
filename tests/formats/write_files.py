"""Write one small file of each format of this version, packed by format: `OUT/FORMAT.tar.gz`.

    PYTHONPATH=CHECKOUT/src python tests/formats/write_files.py OUT

It is run with an older checkout of the package to make the files of that version. A format that the
older version does not have is named and left out.
"""

from __future__ import annotations

import contextlib
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

SETTINGS = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
}
TEXTS = ["a lamp for the garden", "a pump for water", "a chair for the office"] * 3


def small_model() -> Any:
    """A language model of a few hundred weights."""
    from idiolect.models.language_model import LanguageModel
    from idiolect.text.tokenizers.bpe import train

    return LanguageModel.new(SETTINGS, train(TEXTS, 270))


def _encoder() -> Any:
    from idiolect.encoding.encoder import Encoder

    return Encoder(small_model())


def model(out: Path) -> None:
    """An extended language model."""
    from idiolect.vocabulary.extend.extend import extend
    from idiolect.vocabulary.terms import Terms

    extend(small_model(), Terms.of(["zorblaxine"]), "exact").save(out)


def terms(out: Path) -> None:
    from idiolect.vocabulary.terms import Terms

    out.mkdir()
    Terms.of(["zorblaxine", "quendrifolate"]).save(out / "terms.json")


def checkpoint(out: Path) -> None:
    """A run of training that was interrupted after its first step."""
    from idiolect.training import session
    from idiolect.training.pretrain import pretrain
    from idiolect.training.training_config import TrainingConfig

    config = TrainingConfig(max_length=8, batch_size=2, save_steps=1)
    with (
        contextlib.suppress(KeyboardInterrupt),
        mock.patch.object(session.TrainingSession, "publish", side_effect=KeyboardInterrupt),
    ):
        pretrain(small_model(), TEXTS, output_dir=out, steps=1, train="all", config=config)


def classifier(out: Path) -> None:
    from idiolect.tasks.classify.text_classifier import TextClassifier

    TextClassifier(_encoder(), ["lamp", "pump"]).save(out)


def recommender(out: Path) -> None:
    from idiolect.recommend.histories import Histories
    from idiolect.recommend.recommender import Recommender
    from idiolect.recommend.scorer import Popularity

    offsets, events = np.array([0, 3, 5]), np.array([0, 1, 2, 0, 1])
    histories = Histories(("u", "v"), ("lamp", "pump", "chair"), offsets, events)
    record = {"model": "popularity", "split": "leave-one-out", "exclude_seen": True}
    Recommender(Popularity.fit(histories), histories, record).save(out)


def words(out: Path) -> None:
    from idiolect.words.word_vectors import WordVectors

    out.mkdir()
    WordVectors(["lamp", "pump"], np.eye(2, dtype=np.float32)).save(out / "words.safetensors")


def graph(out: Path) -> None:
    from idiolect.search.diskann.graph import Graph

    out.mkdir()
    Graph.build(_vectors(), degree=4).save(out / "graph")


def disk_graph(out: Path) -> None:
    from idiolect.search.diskann.disk.disk_graph import DiskGraph

    out.mkdir()
    DiskGraph.write(out / "graph", _vectors())


def _vectors() -> Any:
    return np.random.default_rng(0).standard_normal((12, 8), dtype=np.float32)


def index(out: Path) -> None:
    from idiolect.search.index import Index

    items = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]
    Index.build(out, _encoder(), items).close()


def api_keys(out: Path) -> None:
    from idiolect.serve.access.api_keys import add_key

    out.mkdir()
    add_key(out / "keys.json", "reader", ["search"])


FORMATS: tuple[Callable[[Path], None], ...] = (
    model, terms, classifier, recommender, words, graph, disk_graph, index, api_keys, checkpoint,
)  # fmt: skip


def main(out: Path) -> None:
    """Write every format that this version of the package has."""
    out.mkdir(parents=True, exist_ok=True)
    for write in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / write.__name__
            try:
                write(made)
            except (ImportError, TypeError, AttributeError) as error:
                print(f"{write.__name__}: not in this version: {error}")
                continue
            with tarfile.open(out / f"{write.__name__}.tar.gz", "w:gz") as archive:
                archive.add(made, write.__name__)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
