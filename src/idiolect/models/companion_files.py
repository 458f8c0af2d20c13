"""Preserve the other files of a published model when it is loaded and saved.

These are the chat template, the generation config, the licence, the model card, the modules of an
encoder and any other files beside the weights. They are read into memory with the model, so it can
be saved anywhere, even over itself or after its source is deleted. Files that could be outdated,
dangerous or huge are omitted and listed in a warning on saving: weights in other formats, pickles,
large files, and links to outside the directory. The files of the original tokenizer (`vocab.txt`,
`tokenizer.model`) are kept as long as the tokenizer is unchanged.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from idiolect.text.tokenizers.special_tokens import named_special, published_settings
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["COMPANION_PATTERNS", "CompanionFiles"]

COMPANION_PATTERNS = (
    "*.json",
    "*.jinja",
    "*.md",
    "*.txt",
    "*.py",
    "LICEN[CS]E*",
    "NOTICE*",
    "*_Dense/model.safetensors",
)
"""Patterns of the files to download from a repository. `*` also matches across folders."""
_WRITTEN = (
    *("config.json", "idiolect.json", "extension.json", "tokenizer.json", "tokenizer_config.json"),
    *("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
)
"""Files that every save writes."""
_REWRITTEN = ("special_tokens_map.json", "added_tokens.json")
"""Tokenizer files in older formats, regenerated from the tokenizer if the source had them."""
_TOKENIZER = ("vocab.json", "merges.txt", "vocab.txt", "*.model", "*.tiktoken", "tekken.json")
"""Files that transformers or other programs may read instead of `tokenizer.json`."""
_WEIGHTS = frozenset(
    [
        ".bin",
        ".ckpt",
        ".data",
        ".gguf",
        ".h5",
        ".joblib",
        ".mlmodel",
        ".msgpack",
        ".npy",
        ".npz",
        ".onnx",
        ".onnx_data",
        ".ot",
        ".pickle",
        ".pkl",
        ".pt",
        ".pth",
        ".safetensors",
        ".tflite",
    ]
)
_ENCODER = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
_LARGEST = 16 << 20
"""Maximum size of a file, in bytes."""
_MOST = 64 << 20
"""Maximum total size of the files, in bytes."""
_COUNT = 2000
"""Maximum number of files to inspect: a model may be in a folder with many unrelated files."""


@dataclass(frozen=True)
class CompanionFiles:
    """The files of a model's directory that are not its weights, configuration and tokenizer."""

    contents: Mapping[str, bytes] = field(default_factory=dict)
    """File contents by path in the directory, with `/` as separator."""
    left_out: tuple[str, ...] = ()
    """Paths of the omitted files, each with the reason."""
    tokenizer: str = ""
    """Fingerprint of the tokenizer to which the tokenizer files belong."""

    @classmethod
    def read(cls, directory: Path, tokenizer: Tokenizer) -> CompanionFiles:
        """Read the files of a model's directory.

        Args:
            directory: The directory.
            tokenizer: Its tokenizer.
        """
        modules = _module_folders(directory)
        contents: dict[str, bytes] = {}
        left_out: dict[str, str] = {}
        foreign: set[str] = set()
        total = 0
        for count, (name, path) in enumerate(_files(directory)):
            if count == _COUNT:
                left_out[name] = f"and what follows: there are more than {count} files"
                break
            folder = name.rpartition("/")[0]
            if path.suffix.lower() in _WEIGHTS and folder not in modules:
                if folder:
                    foreign.add(name.partition("/")[0])
                else:
                    left_out[name] = "weights in another format"
                continue
            size, reason = _inspect(path, directory)
            if not reason and (size > _LARGEST or total + size > _MOST):
                reason = f"{size / (1 << 20):.0f} MiB"
            if reason:
                left_out[name] = reason
                continue
            contents[name] = path.read_bytes()
            total += size
        for name in [n for n in contents if any(n.startswith(f"{f}/") for f in foreign)]:
            del contents[name]
        left_out |= {f"{name}/": "weights in another format" for name in foreign}
        reasons = tuple(f"{name} ({reason})" for name, reason in sorted(left_out.items()))
        return cls(contents, reasons, tokenizer.fingerprint)

    @property
    def are_of_encoder(self) -> bool:
        """Whether these files make the directory a sentence-transformers encoder."""
        return "modules.json" in self.contents

    def without_modules(self) -> CompanionFiles:
        """Return the files without those that make the directory an encoder."""
        folders = _folders_of(self.contents.get("modules.json", b""))
        kept = {
            name: data
            for name, data in self.contents.items()
            if name not in _ENCODER and name.partition("/")[0] not in folders
        }
        return replace(self, contents=kept)

    def write(self, directory: Path, tokenizer: Tokenizer) -> None:
        """Write the files beside a saved model.

        Args:
            directory: The directory, which contains none of these files yet.
            tokenizer: The saved tokenizer.
        """
        for name, data in self.contents.items():
            if name in _REWRITTEN:
                data = _older_file(name, tokenizer)
            elif _matches(name, _TOKENIZER) and tokenizer.fingerprint != self.tokenizer:
                continue  # tokenizer.json contains the same, including any changes
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files to keep or report, by path in the directory; hidden ones are ignored."""
    from_pickles = not any(directory.glob("model*.safetensors"))
    for folder, folders, names in os.walk(directory):
        at = Path(folder)
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        for file in sorted(names):
            name = (at / file).relative_to(directory).as_posix()
            source = from_pickles and _matches(name, ("pytorch_model*.bin*",))
            if file[0] != "." and not source and not _matches(name, _WRITTEN):
                yield name, at / file


def _inspect(path: Path, directory: Path) -> tuple[int, str]:
    """Return the size of a file, and the reason if it cannot be kept."""
    try:
        target = path.resolve(strict=True)
        status = target.stat()
    except OSError as error:
        return 0, error.strerror or "unreadable"
    root = directory.resolve()
    # Files in the Hugging Face cache are links to ../../blobs.
    inside = [root, root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [root]
    if not any(target.is_relative_to(place) for place in inside):
        return 0, "a link that leads out of the directory"
    if not stat.S_ISREG(status.st_mode):
        return 0, "not a regular file"
    if not os.access(target, os.R_OK):
        return 0, "unreadable"
    return status.st_size, ""


def _module_folders(directory: Path) -> set[str]:
    """Return the folders of an encoder's modules, which may contain small weight files."""
    path = directory / "modules.json"
    return _folders_of(path.read_bytes()) if path.is_file() else set()


def _folders_of(modules: bytes) -> set[str]:
    try:
        steps: list[dict[str, Any]] = json.loads(modules or b"[]")
        return {str(step["path"]) for step in steps} - {""}
    except (ValueError, KeyError, TypeError):
        return set()  # loading the encoder reports the damage


def _older_file(name: str, tokenizer: Tokenizer) -> bytes:
    """Return the contents of a tokenizer file in an older format."""
    value: dict[str, Any]
    if name == "added_tokens.json":
        added = tokenizer.engine.get_added_tokens_decoder()
        value = {token.content: id_ for id_, token in added.items()}
    else:
        settings = published_settings(tokenizer.engine, tokenizer.settings)
        found = {key: named_special({key: entry}) for key, entry in settings.items()}
        value = {
            key: names[0] if key.endswith("_token") else names
            for key, names in found.items()
            if names
        }
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
