"""The labels of each objective, and its loss against a plain one and transformers'."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import transformers

from idiolect.errors import ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.models.registry import find_family
from idiolect.training.data.batch import IGNORE_INDEX, Batch
from idiolect.training.data.packed_documents import PackedRows
from idiolect.training.objectives.causal import Causal, language_loss
from idiolect.training.objectives.masked import Masked
from training import models

IDS = torch.tensor([[1, 5, 6, 7, 2, 1, 9, 41, 2, 0], [1, 8, 44, 2, 1, 30, 31, 32, 33, 2]])
DOCUMENTS = torch.tensor([[1, 1, 1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 2, 2, 2, 2, 2, 2]])
ROWS = PackedRows(IDS, DOCUMENTS, 0, (0, 1, 2, 3))


def _texts() -> list[torch.Tensor]:
    return [
        ids[documents == number]
        for ids, documents in zip(IDS, DOCUMENTS, strict=True)
        for number in (1, 2)
    ]


def test_causal_targets_stay_in_their_document() -> None:
    batch = Causal(models.model().network).prepare(ROWS)
    assert batch.labels[0].tolist() == [5, 6, 7, 2, -100, 9, 41, 2, -100, -100]
    assert batch.labels[1].tolist() == [8, 44, 2, -100, 30, 31, 32, 33, 2, -100]
    assert (batch.count, batch.tokens) == (15, 19)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_causal_loss_of_packed_rows(model_type: str, tied: bool) -> None:
    """Loss and gradients equal those of the documents one by one, with all logits at once."""
    model = models.model(model_type, tie_word_embeddings=tied)
    network = model.network
    objective = Causal(network)
    wanted = [p for p in network.parameters() if p.requires_grad]
    ours = objective.loss(network, objective.prepare(ROWS))
    mine = torch.autograd.grad(ours, wanted)
    plain = sum(
        F.cross_entropy(network(text[None, :-1]).logits[0], text[1:], reduction="sum")
        for text in _texts()
    )
    assert isinstance(plain, torch.Tensor)
    torch.testing.assert_close(ours, plain)
    for a, b in zip(mine, torch.autograd.grad(plain, wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_causal_loss_of_transformers(tmp_path: object, model_type: str) -> None:
    model = models.model(model_type, grown=False)
    model.save(str(tmp_path))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(str(tmp_path)).eval()
    ids = IDS.clamp(max=39)
    mask = torch.ones_like(ids)
    objective = Causal(model.network)
    batch = objective.prepare(PackedRows(ids, mask, 0, (0, 1)))
    ours = objective.loss(model.network, batch) / batch.count
    reference = theirs(input_ids=ids, attention_mask=mask, labels=ids).loss
    torch.testing.assert_close(ours, reference)
    ours.backward()
    reference.backward()
    ours_rows = model.network.tokens.weight.grad
    torch.testing.assert_close(
        ours_rows, theirs.get_input_embeddings().weight.grad, rtol=1e-4, atol=1e-6
    )


def _masked(model: LanguageModel, **options: float) -> tuple[Masked, PackedRows]:
    torch.manual_seed(0)
    ids = torch.randint(4, 45, (64, 64))
    ids[:, 0], ids[:, -1] = 1, 2
    documents = torch.ones_like(ids)
    documents[:, 60:] = 0
    objective = Masked(model.network, model.tokenizer, **options)  # type: ignore[arg-type]
    return objective, PackedRows(ids, documents, 0, ())


def test_masking_is_80_10_10() -> None:
    objective, rows = _masked(models.model("bert"))
    batch = objective.prepare(rows)
    picked = batch.labels >= 0
    real = rows.document_ids > 0
    assert not picked[~real].any()
    assert not picked[:, 0].any(), "[CLS] is never picked"
    assert torch.equal(batch.labels[picked], rows.input_ids[picked])
    assert abs(float(picked[real].float().mean()) - 0.15) < 0.02
    masked = (batch.input_ids == 3) & picked
    same = (batch.input_ids == rows.input_ids) & picked
    count = int(picked.sum())
    assert abs(int(masked.sum()) / count - 0.8) < 0.05
    assert abs(int(same.sum()) / count - 0.1) < 0.05
    assert torch.equal(batch.input_ids[~picked], rows.input_ids[~picked])


def test_masking_is_drawn_anew_and_can_be_repeated() -> None:
    objective, rows = _masked(models.model("bert"))
    first = objective.prepare(rows)
    assert torch.equal(first.input_ids, objective.prepare(rows).input_ids)
    later = PackedRows(rows.input_ids, rows.document_ids, 64, ())
    assert not torch.equal(first.labels, objective.prepare(later).labels)
    other_seed, _ = _masked(models.model("bert"), seed=1)
    assert not torch.equal(first.labels, other_seed.prepare(rows).labels)
    # Half of the rows, as another process would see them, are masked alike.
    half = PackedRows(rows.input_ids[32:], rows.document_ids[32:], 32, ())
    assert torch.equal(first.input_ids[32:], objective.prepare(half).input_ids)


def test_masked_loss() -> None:
    model = models.model("bert")
    objective, rows = _masked(model)
    batch = objective.prepare(rows)
    ours = objective.loss(model.network, batch)
    logits = model.network(batch.input_ids, batch.attention_mask).logits
    torch.testing.assert_close(
        ours,
        F.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        ),
        rtol=1e-5,
        atol=1e-3,
    )


def test_the_wrong_network_is_refused() -> None:
    decoder, encoder = models.model(), models.model("bert")
    with pytest.raises(ConfigError, match="masked"):
        Causal(encoder.network)
    with pytest.raises(ConfigError, match="causal"):
        Masked(decoder.network, decoder.tokenizer)
    bare = models.model("bert", grown=False)
    del bare.tokenizer.settings["mask_token"]
    bare.tokenizer.engine.add_special_tokens(["<s>", "</s>"])
    with pytest.raises(InputError, match="no mask token"):
        Masked(bare.network, type(bare.tokenizer)(bare.tokenizer.engine, {}))
    headless = models.model("bert", grown=False, architectures=["BertModel"])
    with pytest.raises(InputError, match="no language-model head"):
        Masked(headless.network, headless.tokenizer)


def test_batches_divide() -> None:
    batch = Batch(input_ids=IDS, attention_mask=DOCUMENTS, labels=IDS)
    assert torch.equal(batch.part(slice(1, 2)).input_ids, IDS[1:])
    assert torch.equal(batch.to(torch.device("cpu")).labels, IDS)


def test_a_batch_of_an_encoder_decoder() -> None:
    """Labels belong to what the decoder reads; the loss is that of transformers' T5."""
    settings = {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_layers": 2,
        "num_heads": 2,
        "vocab_size": 45,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
    }
    torch.manual_seed(0)
    reference = transformers.T5ForConditionalGeneration(transformers.T5Config(**settings)).eval()
    family = find_family({"model_type": "t5"})
    fields = {**reference.config.to_dict(), "architectures": ["T5ForConditionalGeneration"]}
    network = family.network(family.config(fields)).eval()
    table = family.names(fields)
    theirs = reference.state_dict()
    state = {
        n: table.source(n).extract(theirs[table.source(n).full_name]) for n in network.state_dict()
    }
    network.load_state_dict(state)
    labels = torch.tensor([[7, 9, 2, -100], [8, 5, 6, 2]])
    batch = Batch(
        input_ids=IDS,
        attention_mask=(IDS > 0).long(),
        labels=labels,
        decoder_input_ids=reference.prepare_decoder_input_ids_from_labels(labels=labels),
        decoder_attention_mask=torch.ones_like(labels),
    )
    assert (batch.count, batch.tokens) == (7, 19 + 8)
    wanted = reference(
        input_ids=IDS,
        attention_mask=batch.attention_mask,
        decoder_input_ids=batch.decoder_input_ids,
        labels=labels,
    ).loss
    torch.testing.assert_close(language_loss(network, batch) / batch.count, wanted)
    half = batch.part(slice(1, 2))
    assert set(half.inputs) == set(batch.inputs)
    assert all(len(tensor) == 1 for tensor in half.inputs.values())
