"""Saving and loading: what comes back, and what is refused with everything wrong named at once."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from idiolect import LanguageModel
from idiolect.errors import (
    CheckpointError,
    ConfigError,
    IdiolectError,
    InputError,
    OfflineError,
)
from idiolect.models.network_files import read_network
from models.tiny import WORDS, tiny_model, tiny_tokenizer


def same(one: LanguageModel, other: LanguageModel) -> bool:
    mine, theirs = one.network.state_dict(), other.network.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    tiny_model().save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("model_type", ["llama", "bert"])
def test_everything_comes_back(tmp_path: Path, model_type: str) -> None:
    model = tiny_model(model_type)
    model.save(tmp_path / "model")
    again = LanguageModel.load(tmp_path / "model")
    assert same(model, again)
    assert again.tokenizer.encode_batch(["a c"]) == [[3, 5]]
    assert again.network.config == model.network.config
    assert not list(tmp_path.glob(".*"))


def test_shards_come_back(tmp_path: Path) -> None:
    model = tiny_model()
    model.save(tmp_path / "model", shard_bytes=600)
    shards = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert same(LanguageModel.load(tmp_path / "model"), model)
    # Saved whole again, no shard is left behind to be read by mistake.
    model.save(tmp_path / "model")
    assert [p.name for p in (tmp_path / "model").glob("model*")] == ["model.safetensors"]


def test_transformers_reads_our_shards(tmp_path: Path) -> None:
    import transformers

    model = tiny_model()
    model.save(tmp_path / "model", shard_bytes=600)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(model.network(ids).logits, theirs(ids).logits)


def test_number_formats(tmp_path: Path) -> None:
    model = tiny_model()
    model.save(tmp_path / "half", dtype=torch.bfloat16)
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    again = LanguageModel.load(tmp_path / "half")
    assert again.network.tokens.weight.dtype == torch.float32
    kept = LanguageModel.load(tmp_path / "half", dtype=torch.bfloat16)
    assert kept.network.tokens.weight.dtype == torch.bfloat16
    assert torch.equal(again.network.tokens.weight, kept.network.tokens.weight.float())


def test_weights_only_bin_files_load(saved: Path) -> None:
    model = LanguageModel.load(saved)
    torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    assert same(LanguageModel.load(saved), model)


def test_bin_files_older_than_archives_load(saved: Path) -> None:
    model = LanguageModel.load(saved)
    weights = load_file(saved / "model.safetensors")
    old = {"_use_new_zipfile_serialization": False}
    torch.save(weights, saved / "pytorch_model.bin", **old)
    (saved / "model.safetensors").unlink()
    assert same(LanguageModel.load(saved), model)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("trap-was-sprung"),)


def test_pickles_are_not_executed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved)
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Trap()}))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        LanguageModel.load(saved)
    torch.save({"x": Trap()}, saved / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is not loaded"):
        LanguageModel.load(saved)
    assert not (saved / "trap-was-sprung").exists()


def test_files_beside_the_model_stay(saved: Path) -> None:
    (saved / "README.md").write_text("mine")
    LanguageModel.load(saved).save(saved)
    assert (saved / "README.md").read_text() == "mine"
    LanguageModel.load(saved)


def test_a_failed_save_leaves_the_old_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import idiolect.models.language_model as module

    model = LanguageModel.load(saved)
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_weights", full)
    with pytest.raises(InputError, match="No space left"):
        model.save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("survivors", range(5))
def test_a_replacement_that_is_cut_short_is_never_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    """At any moment the directory holds the old model, the new one, or a mark that says so."""
    model = tiny_model(hidden_size=16)
    (saved / "README.md").write_text("mine")
    replace, left = os.replace, [survivors]

    def stop(source: Path, target: Path) -> None:
        if Path(target).parent == saved:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with contextlib.suppress(KeyboardInterrupt):
        model.save(saved)
    monkeypatch.undo()
    assert (saved / "README.md").read_text() == "mine"
    if (saved / ".unfinished").exists():
        with pytest.raises(CheckpointError, match="was interrupted"):
            LanguageModel.load(saved)
        model.save(saved)
    assert same(LanguageModel.load(saved), model)


def test_nothing_of_the_old_model_is_left(saved: Path) -> None:
    stale = {"pad_token": "</s>", "eos_token": "<s>"}
    (saved / "special_tokens_map.json").write_text(json.dumps(stale))
    (saved / "generation_config.json").write_text("{}")
    (saved / "notes").mkdir()
    tiny_model().save(saved)
    tokenizer = LanguageModel.load(saved).tokenizer
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, None)
    assert not (saved / "generation_config.json").exists()
    assert (saved / "notes").is_dir()


def test_odd_places_to_save_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    (tmp_path / "file").write_text("a file")
    with pytest.raises(InputError, match="is a file"):
        model.save(tmp_path / "file")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    model.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert same(LanguageModel.load(tmp_path / "real"), model)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path / "here")
    model.save(".")
    assert (tmp_path / "here" / "mine.txt").read_text() == "mine"
    assert same(LanguageModel.load("."), model)


def test_all_problems_are_reported_together(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    del weights["model.norm.weight"]
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
    weights["model.visual.weight"] = torch.zeros(2)
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        LanguageModel.load(saved)
    message = str(caught.value)
    assert "missing: model.norm.weight" in message
    assert "mlp.up_proj.weight is 3×3, not 12×8" in message
    assert "unexpected: model.visual.weight" in message
    assert "\n" not in message


def test_whole_numbers_are_no_weights(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(8, dtype=torch.int8)
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"instead of weights: model\.norm\.weight"):
        LanguageModel.load(saved)


def test_a_network_has_one_number_format(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].bfloat16()
    save_file(weights, saved / "model.safetensors")
    settings = json.loads((saved / "config.json").read_text())
    network = read_network(saved, settings)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_unusable_devices_are_named(saved: Path) -> None:
    with pytest.raises(InputError, match="cannot use the device"):
        LanguageModel.load(saved, device="no-such-device")


def test_new_models_begin_as_they_should() -> None:
    settings = tiny_model().settings | {"hidden_size": 64, "intermediate_size": 128}
    one, other = (LanguageModel.new(settings, tiny_tokenizer(), seed=7) for _ in range(2))
    assert same(one, other)
    assert not same(one, LanguageModel.new(settings, tiny_tokenizer(), seed=8))
    state = one.network.state_dict()
    assert float(state["decoder.layers.0.attention.query.weight"].std()) == pytest.approx(
        0.02, rel=0.1
    )
    assert float(state["decoder.layers.0.feed_forward.down.weight"].std()) == pytest.approx(
        0.02 / 4**0.5, rel=0.1
    )
    assert bool((state["decoder.final_norm.weight"] == 1).all())


def test_truncated_weights(saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        LanguageModel.load(saved)


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_damaged_weights(saved: Path, content: bytes) -> None:
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        LanguageModel.load(saved)


def test_missing_files(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected one of model\.safetensors"):
        LanguageModel.load(saved)
    (saved / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        LanguageModel.load(saved)


def test_missing_shards(tmp_path: Path) -> None:
    tiny_model().save(tmp_path / "model", shard_bytes=600)
    gone = sorted((tmp_path / "model").glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(CheckpointError, match=f"missing: {gone.name}"):
        LanguageModel.load(tmp_path / "model")


def test_an_index_may_not_lead_elsewhere(tmp_path: Path) -> None:
    tiny_model().save(tmp_path / "model", shard_bytes=600)
    index = tmp_path / "model" / "model.safetensors.index.json"
    record = json.loads(index.read_text())
    record["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="outside its directory"):
        LanguageModel.load(tmp_path / "model")


def test_an_exchanged_tokenizer_is_refused(saved: Path) -> None:
    tiny_tokenizer([*WORDS[:-1], "other"]).save(saved)
    with pytest.raises(CheckpointError, match="not the one this model was saved with"):
        LanguageModel.load(saved)


def test_a_larger_tokenizer_is_refused(saved: Path) -> None:
    (saved / "idiolect.json").unlink()
    tiny_tokenizer([*WORDS, "more", "words"]).save(saved)
    with pytest.raises(CheckpointError, match="10 ids, but the network has only 8 rows"):
        LanguageModel.load(saved)


def test_padded_rows_come_back(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=16)
    model.save(tmp_path / "model")
    again = LanguageModel.load(tmp_path / "model")
    assert again.network.tokens.weight.shape[0] == 16
    assert same(model, again)


def test_a_trained_head_of_a_tied_model_is_kept(tmp_path: Path) -> None:
    model = tiny_model(tie_word_embeddings=False)
    model.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(
        json.dumps(config | {"tie_word_embeddings": True})
    )
    again = LanguageModel.load(tmp_path / "model")
    assert not again.network.config.tie_word_embeddings
    assert same(model, again)


def test_unknown_and_unreachable_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (tmp_path / "nothing" / "here", "foo--bar", "a" * 300, "-x"):
        with pytest.raises(InputError, match="no such file or directory"):
            LanguageModel.load(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineError, match="the hub cannot be reached"):
        LanguageModel.load("somebody/some-model")


def test_unknown_model_type(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"model_type": "rwkv"}))
    with pytest.raises(ConfigError, match="unknown model type 'rwkv'"):
        LanguageModel.load(saved)


@pytest.mark.parametrize("seed", range(20))
def test_damage_is_always_an_error_of_ours(saved: Path, seed: int) -> None:
    """Flipped bytes in the header change nothing that matters, or are refused."""
    path = saved / "model.safetensors"
    sound = LanguageModel.load(saved).network.state_dict()
    data = bytearray(path.read_bytes())
    generator = torch.Generator().manual_seed(seed)
    header = int.from_bytes(data[:8], "little")
    for place in torch.randint(0, 8 + header, (3,), generator=generator).tolist():
        data[place] ^= int(torch.randint(1, 256, (1,), generator=generator))
    path.write_bytes(data)
    with contextlib.suppress(IdiolectError):
        loaded = LanguageModel.load(saved).network.state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in sound.items())
