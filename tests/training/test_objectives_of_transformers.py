"""Ten steps of each objective beside transformers' networks on our batches: equal all along.

Losses are compared at each step, and both sides then follow their own gradients. So a difference in
any gradient would show in the next loss.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from idiolect.models.language_model import LanguageModel
from idiolect.training.added_tokens import add_tokens, new_model
from idiolect.training.data.batch import Batch
from idiolect.training.data.parallel_corpus import ParallelCorpus
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.objective_registry import find_objective
from idiolect.training.training_config import TrainingConfig
from training import models

_CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "span_corruption": (
        "T5ForConditionalGeneration",
        {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
        {"mean_noise_span_length": 2},
    ),
    "denoising": (
        "BartForConditionalGeneration",
        {
            "model_type": "bart",
            "d_model": 16,
            "max_position_embeddings": 64,
            **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
            **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
            **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 24),
        },
        {"delete_ratio": 0.1},
    ),
    "masked": (
        "BertForMaskedLM",
        {
            "model_type": "bert",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
        },
        {},
    ),
    "translation_masked": (
        "XLMWithLMHeadModel",
        {
            "model_type": "xlm",
            "emb_dim": 16,
            "n_layers": 2,
            "n_heads": 2,
            "n_langs": 2,
            "max_position_embeddings": 64,
            "lang2id": {"en": 0, "de": 1},
        },
        {},
    ),
}
_CASES["masked+next_sentence"] = ("BertForPreTraining", _CASES["masked"][1], {})
_NO_DROPOUT = dict.fromkeys(
    (
        *("dropout", "dropout_rate", "attention_dropout", "hidden_dropout_prob"),
        *("attention_probs_dropout_prob", "activation_dropout"),
    ),
    0.0,
)


def _model(objective: str) -> LanguageModel:
    name, shape, settings = _CASES[objective]
    tokenizer = models.tokenizer(grown=False, template="bert" in shape["model_type"])
    if shape["model_type"] == "xlm":
        tokenizer = models.tokenizer(grown=False, template=True)
    fields = {"architectures": [name], "pad_token_id": 0, **_NO_DROPOUT, **shape}
    made = new_model(fields, tokenizer, seed=2)
    missing = (
        find_objective("pretrain", objective)
        .load()
        .missing_tokens(made.tokenizer, max_length=24, **settings)
    )
    return add_tokens(made, missing, frozen=False) if missing else made


def _source(objective: Any, model: LanguageModel, folder: Path, *, pairs: bool) -> Any:
    """Rows of one text each: transformers would let the texts of a row see one another."""
    texts = ["\n".join(text.split(" ", 2)) for text in models.texts(60) if len(text.split()) > 8]
    corpus: Any = ParallelCorpus(list(zip(texts[:20], texts[20:40], strict=True)), ("en", "de"))
    tokens = TokenFile.write(
        folder, corpus if pairs else texts, model.tokenizer, sentences=objective.needs_sentences
    )
    config = TrainingConfig(max_length=62 if pairs else 24, batch_size=40)
    given = {"languages": ("en", "de")} if pairs else {}
    return objective.make_source(tokens, model.tokenizer, config, **given)


def _alone(batch: Batch) -> Batch:
    """The rows that hold one text."""
    masks = [batch.attention_mask, batch.decoder_attention_mask]
    single = torch.stack([m.max(1).values == 1 for m in masks if m is not None]).all(0)
    assert single.any()
    return batch._map(lambda tensor: tensor[single])


def _theirs(reference: Any, batch: Batch) -> torch.Tensor:
    names = {"language_ids": "langs", "follows": "next_sentence_label"}
    given = {names.get(name, name): tensor for name, tensor in batch.inputs.items()}
    if (follows := getattr(batch, "follows", None)) is not None:
        given["next_sentence_label"] = follows
    loss: torch.Tensor = reference(**given, labels=batch.labels).loss
    return loss


@pytest.mark.parametrize("name", sorted(_CASES))
def test_ten_steps_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    model = _model(name)
    model.save(tmp_path / "model")
    reference = getattr(transformers, _CASES[name][0]).from_pretrained(
        str(tmp_path / "model"), attn_implementation="eager"
    )
    reference.train()
    network = copy.deepcopy(model.network).train()
    if name == "denoising":  # the bias of the scores, which is no parameter there
        network.language_head.bias.requires_grad_(False)  # type: ignore[union-attr]
    entry = find_objective("pretrain", name)
    extra = {"language_ids": {"en": 0, "de": 1}} if entry.data == "pairs" else {}
    objective = entry.load().create(network, model.tokenizer, seed=1, **_CASES[name][2], **extra)
    source = _source(objective, model, tmp_path / "tokens", pairs=entry.data == "pairs")
    sides = [torch.optim.SGD(side.parameters(), lr=0.2) for side in (network, reference)]
    first = last = 0.0
    for step in range(10):
        batch = _alone(objective.prepare(source.take()))
        weight = {"row_weight": batch.count / len(batch)} if hasattr(batch, "row_weight") else {}
        batch = type(batch)(**{**batch.__dict__, **weight})
        losses = objective.loss(network, batch) / batch.count, _theirs(reference, batch)
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
        for loss, optimizer in zip(losses, sides, strict=True):
            optimizer.zero_grad()
            loss.backward()
        theirs = reference.get_input_embeddings().weight.grad
        torch.testing.assert_close(network.tokens.weight.grad, theirs, rtol=1e-4, atol=1e-5)
        for optimizer in sides:
            optimizer.step()
        first, last = (float(losses[0].detach()) if step == 0 else first), float(losses[0].detach())
    assert last < first
