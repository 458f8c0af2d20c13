"""A network that is no Transformer is pre-trained, distilled, tuned and used as an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from encoding import tuning
from idiolect.encoding.encoder import Encoder
from idiolect.encoding.tune import tune
from idiolect.generate.strategies import greedy
from idiolect.models.family import Architecture, Family, Fields
from idiolect.models.language_model import LanguageModel
from idiolect.models.registry import FAMILIES
from idiolect.models.weight_names import Rule
from idiolect.nn.config import TransformerConfig
from idiolect.nn.embedding import ExtendedRows
from idiolect.nn.heads import make_head
from idiolect.nn.network import Network, NetworkKind, Output
from idiolect.text.corpus import Corpus
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from training import models


class GRUNetwork(Network):
    """An embedding, a GRU and a head: enough to be a language model."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.gru = nn.GRU(config.hidden_size, config.hidden_size, batch_first=True)
        self.heads = nn.ModuleDict({"language": make_head("language", config)})

    kind: NetworkKind = "causal"
    has_dropout = False

    @property
    def blocks(self) -> list[nn.Module]:
        return [self.gru]

    @property
    def head_modules(self) -> list[nn.Module]:
        return [self.heads]

    def init_weights(self, seed: int) -> None:
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(seed)
            for parameter in self.parameters():
                parameter.normal_(0, 0.1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        return_logits: bool = True,
        cache: dict[str, Tensor] | None = None,
    ) -> Output:
        hidden, state = self.gru(self.tokens(input_ids), None if cache is None else cache.get("h"))
        if cache is not None:
            cache["h"] = state
        return Output(
            hidden_states=hidden, logits=self.score_vocabulary(hidden) if return_logits else None
        )

    def new_cache(self) -> dict[str, Tensor]:
        return {}

    def text_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        bidirectional: bool = False,
    ) -> Tensor:
        return self(input_ids, attention_mask, return_logits=False).hidden_states


def _configure(fields: Fields) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "num_attention_heads": 1,
        "intermediate_size": 16,
        "num_decoder_layers": 1,
        "position": "alibi",
    }


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    """A small model of a family that only this test knows."""
    rules = (
        Rule("embedding.weight", "tokens.weight"),
        Rule("head.weight", "heads.language.weight"),
        *(
            Rule(f"gru.{kind}_{part}_l0", f"gru.{kind}_{part}_l0")
            for kind in ("weight", "bias")
            for part in ("ih", "hh")
        ),
    )
    family = Family(
        model_type="toy-gru",
        title="Toy GRU",
        paper="none",
        configure=_configure,
        rules=rules,
        architectures={"ToyGRU": Architecture(tasks=("language",))},
        network=GRUNetwork,
    )
    monkeypatch.setitem(FAMILIES, "toy-gru", family)
    base = LanguageModel.new({"model_type": "toy-gru"}, models.tokenizer(grown=False))
    models.grow(base.network)
    return LanguageModel(base.network, models.tokenizer(), base.settings)


CONFIG = TrainingConfig(max_length=32, batch_size=8, learning_rate=1e-2, save_steps=50)


def test_it_is_pretrained_and_saved(model: LanguageModel, tmp_path: Path) -> None:
    rows = model.network.tokens.weight
    assert isinstance(rows, ExtendedRows)
    original, added = rows.original.clone(), rows.added.detach().clone()
    corpus = Corpus.from_texts(models.texts())
    pretrain(model, corpus, output_dir=tmp_path, steps=8, train="all", config=CONFIG)
    assert torch.equal(rows.original, original)
    assert not torch.equal(rows.added, added)
    loaded = LanguageModel.load(tmp_path / "model")
    ids = torch.arange(4, 20)[None]
    torch.testing.assert_close(loaded.network(ids).logits, model.network(ids).logits)


def test_it_is_an_encoder(model: LanguageModel, tmp_path: Path) -> None:
    encoder = Encoder(model)
    before = encoder.encode(["w1 w2", "w3"])
    tune(encoder, tuning.pairs(), output_dir=tmp_path, steps=3, config=CONFIG)
    after = encoder.encode(["w1 w2", "w3"])
    assert before.shape == after.shape == (2, 16)
    assert not np.allclose(before, after)


def test_it_generates(model: LanguageModel) -> None:
    """With its state as the cache, the tokens are those of reading everything again."""
    network = model.network
    ids = torch.tensor([[5, 9, 7]])
    found = greedy(network, ids, max_new_tokens=6)
    for _ in range(6):
        with torch.inference_mode():
            logits = network(ids).logits
        assert logits is not None
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(found, ids[:, 3:])
