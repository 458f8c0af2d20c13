"""What else a published directory holds survives loading, changing and saving."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import transformers

from idiolect.encoding.encoder import Encoder
from idiolect.models.language_model import LanguageModel
from idiolect.ranking.cross_encoder import CrossEncoder
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.pretrain import pretrain
from idiolect.training.training_config import TrainingConfig
from idiolect.vocabulary.extend.extend import extend
from models.tiny import tiny_model
from vocabulary.conftest import DOMAIN, make

KEPT = {
    "chat_template.jinja": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "additional_chat_templates/tool_use.jinja": "{{ tools }}",
    "generation_config.json": '{"eos_token_id": [2, 1], "temperature": 0.6}',
    "LICENSE": "Apache",
    "README.md": "---\nlicense: apache-2.0\n---\n# Card ✓\n",
    "preprocessor_config.json": "{}",
    "modeling_custom.py": "raise SystemExit",
    "docs/notes/a.txt": "nested",
}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def kept(directory: Path) -> dict[str, str]:
    found = {n: directory / n for n in KEPT}
    return {n: path.read_text(encoding="utf-8") for n, path in found.items() if path.exists()}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    directory = tmp_path / "published"
    tiny_model(torch_dtype="bfloat16", custom={"deep": [1]}).save(directory)
    write(directory, KEPT)
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps(settings | {"unheard_of": [3]}))
    return directory


def test_files_and_unknown_settings_survive(published: Path, tmp_path: Path) -> None:
    LanguageModel.load(published).save(tmp_path / "again")
    assert kept(tmp_path / "again") == KEPT
    assert json.loads((tmp_path / "again" / "config.json").read_text())["custom"] == {"deep": [1]}
    settings = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert settings["unheard_of"] == [3]


def test_over_itself_twice_and_after_the_source_is_gone(published: Path, tmp_path: Path) -> None:
    model = LanguageModel.load(published)
    for _ in range(2):
        model.save(published)
        assert kept(published) == KEPT
    before = sorted(p.name for p in published.iterdir())
    published.rename(tmp_path / "elsewhere")
    model.save(published)
    assert sorted(p.name for p in published.iterdir()) == before
    # Another model's template must not stay beside this one.
    tiny_model().save(published)
    assert set(KEPT) - set(kept(published)) >= {"chat_template.jinja", "generation_config.json"}


def test_extension_and_encoders_keep_them(tmp_path: Path) -> None:
    settings = dict(tiny_model().settings) | {"vocab_size": 2000, "max_position_embeddings": 64}
    LanguageModel.new(settings, make("gpt2")).save(tmp_path / "base")
    write(tmp_path / "base", KEPT | {"vocab.json": "{}", "merges.txt": "", "tokenizer.model": "x"})
    write(tmp_path / "base", {"special_tokens_map.json": "{}", "added_tokens.json": "{}"})
    base = LanguageModel.load(tmp_path / "base")
    base.save(tmp_path / "same")
    assert (tmp_path / "same" / "tokenizer.model").exists()
    larger = extend(base, ["HbA1c", "metformin"], domain=DOMAIN)
    larger.save(tmp_path / "larger")
    assert kept(tmp_path / "larger") == KEPT
    # The files of the tokenizer before would be read without the new terms.
    assert not (tmp_path / "larger" / "tokenizer.model").exists()
    named = json.loads((tmp_path / "larger" / "special_tokens_map.json").read_text())
    assert named["eos_token"] == "<|endoftext|>"
    added = json.loads((tmp_path / "larger" / "added_tokens.json").read_text())
    assert added["<|endoftext|>"] == make("gpt2").eos_token_id
    Encoder(LanguageModel.load(tmp_path / "larger")).save(tmp_path / "encoder")
    Encoder.load(tmp_path / "encoder").save(tmp_path / "encoder")
    assert kept(tmp_path / "encoder") == KEPT
    CrossEncoder.of(larger).save(tmp_path / "ranker")
    assert kept(tmp_path / "ranker") == KEPT


def test_training_keeps_them(published: Path, tmp_path: Path) -> None:
    pretrain(
        LanguageModel.load(published),
        ["a b c d a b", "d c b a"] * 20,
        output_dir=tmp_path / "run",
        steps=1,
        train="all",
        config=TrainingConfig(max_length=8, batch_size=2),
    )
    assert kept(tmp_path / "run" / "model") == KEPT


def test_older_files_of_a_tokenizer_are_read_by_transformers(tmp_path: Path) -> None:
    end = {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False, "special": True}
    own = Tokenizer.from_engine(make("gpt2").engine, {"eos_token": end, "pad_token": "[GONE]"})
    settings = dict(tiny_model().settings) | {"vocab_size": 2000}
    LanguageModel.new(settings, own).save(tmp_path)
    stale = {"pad_token": "[GONE]", "additional_special_tokens": ["<more>"]}
    write(tmp_path, {"special_tokens_map.json": json.dumps(stale), "added_tokens.json": "{}"})
    LanguageModel.load(tmp_path).save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.pad_token, theirs.eos_token, len(theirs)) == (*["<|endoftext|>"] * 2, len(own))


def test_an_encoder_stays_one_when_its_model_is_changed(tmp_path: Path) -> None:
    ours = Encoder(tiny_model(), "last", normalize=False, prompts={"query": "q: "}, max_length=9)
    ours.save(tmp_path / "encoder")
    path = tmp_path / "encoder" / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"similarity_fn_name": "euclidean"}))
    ours.project(["a b", "c", "d a c b"])
    ours.with_changes(projection=ours.projection).save(tmp_path / "dense")
    for name in ("encoder", "dense"):
        path = tmp_path / name / "tokenizer_config.json"
        written = json.loads(path.read_text())
        del written["split_special_tokens"]  # as an encoder published by others
        path.write_text(json.dumps(written))
        model = LanguageModel.load(tmp_path / name)
        model.save(tmp_path / "changed" / name)
        path = tmp_path / "changed" / name / "tokenizer_config.json"
        assert json.loads(path.read_text())["split_special_tokens"]
        again = Encoder.load(tmp_path / "changed" / name)
        assert (again.pooling, again.normalize, again.max_length) == ("last", False, 9)
        assert again.prompts == {"query": "q: "}
        assert (again.projection is not None) == (name == "dense")
    Encoder.load(tmp_path / "changed" / "encoder").save(tmp_path / "third")
    settings = json.loads((tmp_path / "third" / "config_sentence_transformers.json").read_text())
    assert settings["similarity_fn_name"] == "euclidean"
    # Fewer modules than before: none of the old ones is left.
    plain = Encoder.load(tmp_path / "dense").with_changes(projection=None)
    plain.save(tmp_path / "plain")
    assert sorted(p.name for p in (tmp_path / "plain").iterdir() if p.is_dir()) == ["1_Pooling"]


def test_what_is_left_out_is_named(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path / "secret.txt"
    outside.write_text("secret")
    (published / "link.txt").symlink_to(outside)
    (published / "inside.txt").symlink_to(published / "LICENSE")
    (published / "gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(published / "pipe.json")
    with (published / "huge.json").open("wb") as file:
        file.truncate(17 << 20)
    write(published, {"onnx/model.onnx": "w", "onnx/config.json": "{}", "training_args.bin": "p"})
    write(published, {"runs/1/model/model.safetensors": "w", "runs/1/log.json": "{}"})
    write(published, {"model.Q4.gguf": "w", ".git/config": "[core]", "__pycache__/a.pyc": ""})
    model = LanguageModel.load(published)
    model.save(tmp_path / "again")
    names = {p.relative_to(tmp_path / "again").as_posix() for p in (tmp_path / "again").rglob("*")}
    assert "inside.txt" in names
    wrong = ("link.txt", "gone.txt", "pipe.json", "huge.json", "onnx", "runs", "training_args.bin")
    for name in (*wrong, "model.Q4.gguf"):
        assert name not in names
        assert name in caplog.text
    assert not [name for name in names if name.startswith((".git", "__pycache__"))]
    assert not (tmp_path / "again" / "inside.txt").is_symlink()


def test_links_of_the_hubs_cache_are_followed(published: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, path in enumerate(p for p in published.iterdir() if p.is_file()):
        path.rename(cache / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    LanguageModel.load(snapshot).save(tmp_path / "again")
    assert (tmp_path / "again" / "LICENSE").read_text() == "Apache"


def test_a_tokenizer_in_a_repository_keeps_its_extension(tmp_path: Path) -> None:
    larger = extend(make("gpt2"), ["HbA1c"], domain=DOMAIN)
    larger.save(tmp_path)
    assert Tokenizer.load(tmp_path).extension == larger.extension
