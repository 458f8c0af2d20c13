"""The objective translation: losses against torch and transformers, batches, and whole runs."""

from __future__ import annotations

import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers

from idiolect.errors import ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.models.registry import find_family
from idiolect.models.translators import TRANSLATORS
from idiolect.text.parallel_text import TextPair
from idiolect.training.data.sentence_pairs import PairRows, SentencePairs
from idiolect.training.objectives.cross_entropy import cross_entropy
from idiolect.training.objectives.translation import Translation
from idiolect.training.training_config import TrainingConfig
from idiolect.training.translate import learn_joint_bpe, new_translator, train_translator
from training.models import model as other_model

PAIRS = [TextPair(f"{w} {v} ja", f"yes {v} {w}") for w in "abcdefg" for v in "hijklm"]
PLAN = TrainingConfig(learning_rate=1e-2, save_steps=2, precision="fp32", max_length=32)


def small(name: str, **settings: Any) -> LanguageModel:
    tokenizer = learn_joint_bpe(PAIRS, 270)
    size = {"hidden_size": 16, "dropout": 0.1}
    if name == "transformer":
        size |= {"num_encoder_layers": 1, "num_decoder_layers": 1, "intermediate_size": 16}
    return new_translator(TRANSLATORS[name] | size | settings, tokenizer)


def test_label_smoothing_equals_torch() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(7, 4, requires_grad=True)
    blocks = [torch.randn(n, 4, requires_grad=True) for n in (5, 3)]
    targets = torch.tensor([0, 7, 5, 3, 2, 6, 1])
    ours = cross_entropy(hidden, targets, [(b, None) for b in blocks], label_smoothing=0.1)
    found = torch.autograd.grad(ours, [hidden, *blocks])
    theirs = F.cross_entropy(
        hidden @ torch.cat(blocks).T, targets, label_smoothing=0.1, reduction="sum"
    )
    torch.testing.assert_close(ours, theirs)
    for one, other in zip(found, torch.autograd.grad(theirs, [hidden, *blocks]), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["t5", "bart", "mbart"])
def test_the_loss_equals_transformers(kind: str) -> None:
    """Also what the decoder reads: T5 and BART begin with a start id, mBART with the last one."""
    special = {"pad_token_id": 1, "eos_token_id": 2, "vocab_size": 20}
    shape: dict[str, Any] = {"d_model": 16, "dropout": 0.0} | special
    if kind == "t5":
        shape |= {"d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
        shape["decoder_start_token_id"] = 0
        theirs: Any = transformers.T5ForConditionalGeneration(transformers.T5Config(**shape))
    else:
        for side in ("encoder", "decoder"):
            shape |= {f"{side}_layers": 1, f"{side}_attention_heads": 2, f"{side}_ffn_dim": 16}
        shape |= {"max_position_embeddings": 20, "bos_token_id": 0}
        if kind == "bart":
            shape["decoder_start_token_id"] = 2
        name = {"bart": "Bart", "mbart": "MBart"}[kind]
        config = getattr(transformers, f"{name}Config")(**shape)
        theirs = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    settings = {**shape, "model_type": kind}
    family = find_family(settings)
    ours, table = family.network(family.config(settings)), family.names(settings)
    weights = theirs.state_dict()
    ours.load_state_dict(
        {
            name: table.source(name).extract(weights[table.source(name).full_name])
            for name in ours.state_dict()
        }
    )
    rows = PairRows([0, 1], [[5, 6, 7, 2], [8, 2]], [[9, 10, 2], [11, 12, 13, 14, 2]])
    batch = Translation(ours, pad_id=1).prepare(rows)
    assert batch.labels is not None
    wanted = theirs(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
    ).loss
    found = Translation(ours, pad_id=1).loss(ours, batch) / batch.count
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_batches_hold_tokens_and_an_epoch_every_pair() -> None:
    lengths = [(n * 7 % 11 + 1, n * 5 % 13 + 1) for n in range(97)]
    sides = [[[0] * pair[side] for pair in lengths] for side in (0, 1)]
    source = SentencePairs(*sides, batch_tokens=60, seed=1)
    orders, sizes = [], []
    for _ in range(2):
        seen: list[int] = []
        for _ in range(len(source)):
            rows = source.take()
            sizes.append(
                len(rows.sources) * max(len(x) for x in [*rows.source_ids, *rows.target_ids])
            )
            seen += rows.sources
        assert sorted(seen) == list(range(97))
        orders.append(seen)
        position = source.state()
    assert max(sizes) <= 60
    assert sum(sizes) / len(sizes) > 40, "batches are filled"
    assert orders[0] != orders[1]
    following = source.take().sources
    again = SentencePairs(*sides, batch_tokens=60, seed=1)
    again.restore(position)
    assert again.take().sources == following
    with pytest.raises(ConfigError, match="13 tokens and a batch 12"):
        SentencePairs(*sides, batch_tokens=12)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_translator_is_trained_saved_and_loaded(name: str, tmp_path: Path) -> None:
    made = small(name)
    before = {n: p.detach().clone() for n, p in made.network.named_parameters()}
    trained = train_translator(
        made, PAIRS, output_dir=tmp_path, steps=4, batch_tokens=128, config=PLAN
    )
    unmoved = [n for n, p in trained.network.named_parameters() if torch.equal(p, before[n])]
    # Keys' biases do not change a softmax, and one LSTM cell's states no first step's weights.
    assert not [n for n in unmoved if not n.endswith("key.bias")]
    loaded = LanguageModel.load(tmp_path / "model")
    ids = torch.tensor([[5, 6, 7, 2]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.network(ids).logits, trained.network(ids).logits)


def test_an_interrupted_run_ends_as_another(tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch_tokens": 64, "config": PLAN, "average_checkpoints": 2}
    whole = train_translator(small("luong"), PAIRS, output_dir=tmp_path / "a", steps=6, **options)
    train_translator(small("luong"), PAIRS, output_dir=tmp_path / "b", steps=6, **options)
    for name in ("checkpoint-00000006", "model"):  # as if killed after step 4
        shutil.rmtree(tmp_path / "b" / name)
    again = train_translator(small("luong"), PAIRS, output_dir=tmp_path / "b", steps=6, **options)
    for (name, one), other in zip(
        whole.network.named_parameters(), again.network.parameters(), strict=True
    ):
        assert torch.equal(one, other), name


def test_the_mean_of_checkpoints_does_not_depend_on_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal saves a checkpoint between the regular ones, which is not averaged."""
    options: dict[str, Any] = {"batch_tokens": 64, "config": PLAN, "average_checkpoints": 3}
    whole = train_translator(small("luong"), PAIRS, output_dir=tmp_path / "a", steps=8, **options)
    take = SentencePairs.take

    def take_with_signal(source: SentencePairs) -> PairRows:
        signal.raise_signal(signal.SIGTERM)
        return take(source)

    out, steps = tmp_path / "b", [0]
    while steps[-1] < 7:
        with monkeypatch.context() as patch:
            patch.setattr(SentencePairs, "take", take_with_signal)
            with pytest.raises(SystemExit):
                train_translator(small("luong"), PAIRS, output_dir=out, steps=8, **options)
        steps.append(max(int(path.name[-8:]) for path in out.glob("checkpoint-*")))
    assert steps == [*range(8)]
    again = train_translator(small("luong"), PAIRS, output_dir=out, steps=8, **options)
    for (name, one), other in zip(
        whole.network.named_parameters(), again.network.parameters(), strict=True
    ):
        assert torch.equal(one, other), name


def test_the_published_weights_are_the_mean_of_the_last_checkpoints(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    trained = train_translator(
        small("bahdanau"),
        PAIRS,
        output_dir=tmp_path,
        steps=6,
        batch_tokens=64,
        average_checkpoints=3,
        config=PLAN,
    )
    kept = [load_file(tmp_path / f"checkpoint-{n:08}/weights.safetensors") for n in (2, 4, 6)]
    for name, parameter in trained.network.named_parameters():
        mean = torch.stack([one[name].double() for one in kept]).mean(0)
        torch.testing.assert_close(parameter.double(), mean, atol=1e-7, rtol=1e-6)


def test_inverse_square_root_is_noam() -> None:
    plan = TrainingConfig(learning_rate=1e-3, schedule="inverse_sqrt", warmup_ratio=0.25)
    for step in range(400):
        noam = min((step + 1) ** -0.5, (step + 1) * 100**-1.5) * 100**0.5 * 1e-3
        assert math.isclose(plan.learning_rate_at(step, 400), noam)


def test_long_pairs_are_left_out_and_other_networks_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [*PAIRS, TextPair("x " * 60, "y")]
    options: dict[str, Any] = {"steps": 1, "batch_tokens": 64, "config": PLAN}
    train_translator(small("sutskever"), pairs, output_dir=tmp_path / "a", **options)
    assert "1 of 43 pairs have more than 32 tokens a side" in capsys.readouterr().err
    with pytest.raises(InputError, match="none of the 1 pairs"):
        train_translator(small("sutskever"), pairs[-1:], output_dir=tmp_path / "b", **options)
    with pytest.raises(ConfigError, match="encoder-decoder networks, and this one is causal"):
        train_translator(other_model("gpt2"), PAIRS, output_dir=tmp_path / "c", **options)
