"""Read published tokenizer formats, each into an engine and its settings.

A directory is recognized by its files, a file by its name and its first bytes. If a directory has
several formats, `tokenizer.json` is read, because only it contains the whole pipeline.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from idiolect.errors import CheckpointError, InputError
from idiolect.text.files import engine_errors, read_json, read_text
from idiolect.text.hub import locate
from idiolect.text.tokenizers import character_map, sentencepiece, tiktoken
from idiolect.text.tokenizers.assembly import build_wordpiece, check_highest, mark_special, template
from idiolect.text.tokenizers.byte_level import to_characters
from idiolect.text.tokenizers.gguf import gguf_vocabulary
from idiolect.text.tokenizers.gguf.gguf_header import read_gguf_header
from idiolect.text.tokenizers.special_tokens import named_special

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TOKENIZER_FILES", "Settings", "read"]

Settings = dict[str, Any]

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt", "*.model", "*.tiktoken", "chat_template.jinja",
)  # fmt: skip
"""Names of tokenizer files."""
_DEFAULT_TEMPLATE: dict[str, tuple[str, ...]] = {
    "LlamaTokenizer": ("bos",),
    "T5Tokenizer": ("eos",),
    "GPT2Tokenizer": (),
}
"""Special tokens that each tokenizer class adds around a text by default."""
_ALGORITHMS = ("BPE", "Unigram", "WordPiece", "WordLevel")


def read(source: str | Path, encoding: str | None = None) -> tuple[tokenizers.Tokenizer, Settings]:
    """Read a tokenizer from a directory, a file or the hub; see `Tokenizer.load`."""
    path = locate(source, TOKENIZER_FILES)
    settings: Settings = {}
    if not path.is_dir():
        return _read_file(path, settings, encoding), settings
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (path / name).is_file():
            settings.update(read_json(path / name))
    if (path / TOKENIZER_FILES[-1]).is_file():
        # Where transformers saves the template; it takes precedence over tokenizer_config.json.
        settings["chat_template"] = read_text(path / TOKENIZER_FILES[-1])
    engine = _read_file(_main_file(path), settings, encoding)
    _place_added_tokens(engine, _added_tokens(path, settings), path)
    return engine, settings


def _main_file(folder: Path) -> Path:
    """Find the file with the vocabulary in a directory."""
    for pattern in ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken"):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise InputError(
                f"several tokenizers in {folder}: {names}", hint="choose one of the files"
            )
        if found:
            return found[0]
    looked = ", ".join(TOKENIZER_FILES[:-1])
    raise InputError(f"no tokenizer in {folder}", hint=f"looked for {looked}")


def _read_file(path: Path, settings: Settings, encoding: str | None) -> tokenizers.Tokenizer:
    """Read one file; add the settings that it implies, unless they are set."""
    if path.name == "merges.txt":
        path = path.with_name("vocab.json")
    if path.name == "vocab.json":
        return _read_vocab_and_merges(path, path.with_name("merges.txt"), settings)
    if path.suffix == ".json":
        return _read_pipeline(path)
    if path.suffix == ".gguf":
        engine, named = gguf_vocabulary.read(read_gguf_header(path).metadata)
        settings.update({**named, **settings})
        return engine
    if path.suffix == ".txt":
        return _read_wordpiece(path, settings)
    if path.suffix == ".tiktoken" or (path.suffix == ".model" and _holds_ranks(path)):
        return tiktoken.read(path, encoding)
    if path.suffix == ".model":
        return _read_sentencepiece(path, settings)
    raise InputError(
        f"{path.name} is not a known tokenizer file",
        hint="known: tokenizer.json, vocab.json with merges.txt, vocab.txt, .model, .tiktoken, "
        ".gguf",
    )


def _holds_ranks(path: Path) -> bool:
    """Return whether the file begins with tiktoken ranks: some are published as `.model`."""
    with path.open("rb") as file:
        return re.match(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n", file.read(256)) is not None


def _read_sentencepiece(path: Path, settings: Settings) -> tokenizers.Tokenizer:
    engine, named = sentencepiece.read(path)
    settings.update({**named, **settings})
    mark_special(engine, named_special(settings))
    template(engine, *(_template_of(settings) or ([], [])))
    return engine


def _template_of(settings: Settings) -> tuple[list[str], list[str]] | None:
    """Return the tokens to add before and after a text; None if the settings do not say."""
    usual = _DEFAULT_TEMPLATE.get(settings.get("tokenizer_class", "").removesuffix("Fast"))
    if usual is None and not {"add_bos_token", "add_eos_token"} & settings.keys():
        return None
    before, after = (
        named_special({"_token": settings.get(f"{role}_token")})
        if settings.get(f"add_{role}_token", role in (usual or ()))
        else []
        for role in ("bos", "eos")
    )
    return before, after


def _read_pipeline(path: Path) -> tokenizers.Tokenizer:
    pipeline = read_json(path)
    with engine_errors(str(path)):
        kind = pipeline["model"].get("type", _ALGORITHMS[0])
        if kind not in _ALGORITHMS:
            raise CheckpointError(
                f"{path}: unknown tokenizer algorithm {kind!r}",
                hint=f"known: {', '.join(_ALGORITHMS)}",
            )
        for step in _steps(pipeline.get("normalizer")):
            if step["type"] == "Precompiled":
                character_map.check(base64.b64decode(step["precompiled_charsmap"]))
        if isinstance(vocab := pipeline["model"]["vocab"], dict):
            check_highest(vocab.values(), path)
        engine = tokenizers.Tokenizer.from_str(read_text(path))
        engine.encode("a")  # a template with unknown tokens raises an error only here
        for token in pipeline["added_tokens"]:
            # The engine renumbers added tokens from the end of the vocabulary.
            if (found := engine.token_to_id(token["content"])) != token["id"]:
                raise CheckpointError(
                    f"{path}: {token['content']} has id {token['id']}, the engine gives {found}",
                    hint="add it to the model's vocabulary with the intended id",
                )
    return engine


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """List the steps of a normalizer."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part["normalizers"] for step in _steps(inner)]


def _read_vocab_and_merges(
    vocab_path: Path, merges_path: Path, settings: Settings
) -> tokenizers.Tokenizer:
    vocab = read_json(vocab_path)
    lines = read_text(merges_path).split("\n")
    merges: list[Any] = [
        tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")
    ]
    if any(len(merge) != 2 for merge in merges):
        wrong = next(" ".join(merge) for merge in merges if len(merge) != 2)
        raise CheckpointError(
            f"{merges_path} is damaged: {wrong!r} is not a pair of tokens", hint="fetch it again"
        )
    with engine_errors(f"{vocab_path} or merges.txt"):
        lost = next((a + b for a, b in merges if not {a, b, a + b} <= vocab.keys()), None)
        if lost is not None:
            raise CheckpointError(
                f"{vocab_path} lacks {lost!r}, which merges.txt needs",
                hint="use files of the same tokenizer",
            )
        if to_characters(b" ") not in vocab:
            raise CheckpointError(
                f"{vocab_path} is not byte-level and has no pre-tokenizer",
                hint="use a tokenizer.json, which contains it",
            )
        check_highest(vocab.values(), vocab_path)
        engine = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    prefix = bool(settings.get("add_prefix_space", False))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    engine.decoder = decoders.ByteLevel()
    engine.post_processor = processors.ByteLevel(trim_offsets=False)
    mark_special(engine, ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"))
    mark_special(engine, named_special(settings))
    around = _template_of(settings)
    if around is not None:
        template(engine, *around)
    elif "<s>" in vocab and "</s>" in vocab:
        engine.post_processor = processors.RobertaProcessing(
            ("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]), add_prefix_space=prefix
        )
    return engine


def _read_wordpiece(path: Path, settings: Settings) -> tokenizers.Tokenizer:
    lines = read_text(path).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    vocab = {line.rstrip("\r"): id_ for id_, line in enumerate(lines)}
    if "[UNK]" not in vocab:
        raise CheckpointError(
            f"{path} has no [UNK]", hint="check that it is a WordPiece vocabulary"
        )
    return build_wordpiece(vocab, settings, named_special(settings))


def _added_tokens(folder: Path, settings: Settings) -> dict[int, AddedToken]:
    """Collect the tokens that the settings add to the vocabulary, by id."""
    tokens: dict[int, AddedToken] = {}
    try:
        if (folder / "added_tokens.json").is_file():
            for content, id_ in read_json(folder / "added_tokens.json").items():
                tokens[int(id_)] = AddedToken(content, normalized=False)
        for key, token in settings.get("added_tokens_decoder", {}).items():
            tokens[int(key)] = AddedToken(**token)
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder}: the added tokens cannot be read: {error}", hint="fetch the files again"
        ) from error
    return dict(sorted(tokens.items()))


def _place_added_tokens(
    engine: tokenizers.Tokenizer, tokens: Mapping[int, AddedToken], folder: Path
) -> None:
    known = engine.get_added_tokens_decoder()
    for id_, token in tokens.items():
        if id_ not in known:
            engine.add_tokens([token])
        found = engine.token_to_id(token.content)
        if found != id_:
            raise CheckpointError(
                f"{folder}: {token.content} is id {id_} in the settings, {found} in the vocabulary",
                hint="use a tokenizer.json, which states every id",
            )
