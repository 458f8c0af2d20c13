"""`LanguageModel`: a network and its tokenizer as one thing, in Hugging Face's directory layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch

from idiolect.errors import CheckpointError, InputError
from idiolect.models.family import Family
from idiolect.models.model_directory import check_finished, replacing
from idiolect.models.network_files import describe_rows, export_weights, read_network, split_rows
from idiolect.models.registry import find_family
from idiolect.models.weight_files import SHARD_BYTES, write_weights
from idiolect.nn.network import Network
from idiolect.text.files import read_json
from idiolect.text.hub import locate
from idiolect.text.tokenizers.extension import Extension
from idiolect.text.tokenizers.formats import TOKENIZER_FILES
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["LanguageModel"]

_RECORD = "idiolect.json"
"""Written with the tokenizer where that was extended; else one that is there belongs to another."""
_HUB_FILES = (
    "config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    _RECORD,
    *TOKENIZER_FILES,
)


class LanguageModel:
    """A network and the tokenizer it was trained with.

    >>> model = LanguageModel.load("path/to/model")        # doctest: +SKIP
    >>> ids = torch.tensor(model.tokenizer.encode_batch(["one text"]))  # doctest: +SKIP
    >>> model.network(ids).logits.shape                    # doctest: +SKIP
    torch.Size([1, 4, 32000])

    Raises:
        CheckpointError: The tokenizer has more ids than the network has rows.
    """

    def __init__(self, network: Network, tokenizer: Tokenizer, settings: Mapping[str, Any]) -> None:
        if len(tokenizer) > network.config.vocabulary:
            raise CheckpointError(
                f"the tokenizer has {len(tokenizer)} ids and the network "
                f"{network.config.vocabulary} rows",
                hint="they do not belong together",
            )
        self.network: Network = network
        """The network, in evaluation mode after loading."""
        self.tokenizer = tokenizer
        """The tokenizer whose ids the network reads; the network may have more rows than it has."""
        self.settings = find_family(settings).canonical(settings)
        """The fields of `config.json`, as they were published."""

    @property
    def family(self) -> Family:
        """The family of published models it belongs to."""
        return find_family(self.settings)

    @property
    def extension(self) -> Extension | None:
        """What was added to the vocabulary, and what was verified about it."""
        return self.tokenizer.extension

    @classmethod
    def new(cls, settings: Mapping[str, Any], tokenizer: Tokenizer, *, seed: int = 0) -> Self:
        """Make a model of its own, not yet trained.

        Args:
            settings: The fields of a `config.json`: `model_type` and the shape. The size of the
                vocabulary is the tokenizer's unless it is given.
            tokenizer: The tokenizer it is to be trained with.
            seed: Decides the first weights.

        Raises:
            ConfigError: An unknown family, or values that are not supported or do not fit together.
            CheckpointError: A vocabulary smaller than the tokenizer's.
        """
        family = find_family(settings)
        settings = {"vocab_size": len(tokenizer), **family.canonical(settings)}
        network = family.network(family.config(settings))
        network.initialise(seed)
        return cls(network.eval(), tokenizer, settings)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | Literal["stored"] | None = None,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load a published model.

        Where its vocabulary has grown, original and added rows are parted again, so that training
        can go on; that the original ones are still the same is checked.

        Args:
            source: A directory in the Hugging Face layout, or the id of a repository on the hub.
            dtype: Number format of the weights. By default a CPU gets float32, which it is fast
                with, and an accelerator gets what the file holds, as `stored` always does.
            device: Where to put the network.

        Raises:
            InputError: There is no such directory or repository.
            OfflineError: It would have to be fetched and cannot be.
            ConfigError: An unknown family, or fields that would change the result and are not
                supported.
            CheckpointError: Files that are missing or damaged, or do not fit together.
        """
        directory = locate(source, _HUB_FILES)
        if not any(directory.glob("model*.safetensors")):
            directory = locate(source, (*_HUB_FILES, "pytorch_model*.bin*"))
        check_finished(directory)
        settings = read_json(directory / "config.json")
        find_family(settings)
        tokenizer = Tokenizer.load(directory)
        record = _read_record(directory, tokenizer)
        if dtype is None and str(device).startswith("cpu"):
            dtype = torch.float32
        network = read_network(directory, settings, dtype=None if dtype == "stored" else dtype)
        if record.get("rows"):
            split_rows(network, record["rows"])
        try:
            network = network.to(device)
        except (AssertionError, RuntimeError) as error:
            raise InputError(
                f"cannot use the device {device}: {str(error).splitlines()[0]}",
                hint="idiolect doctor lists the devices there are",
            ) from error
        return cls(network, tokenizer, settings)

    def save(
        self,
        directory: str | Path,
        *,
        dtype: torch.dtype | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Write the model where `load` and `transformers` find it; whole, or not at all.

        Files of other programs in the directory stay; those of a model that was there do not.

        Args:
            directory: Where to write. It need not exist.
            dtype: Number format of the weights; `None` keeps the network's.
            shard_bytes: Weights beyond this size are split into several files.

        Raises:
            InputError: The directory cannot be written to.
            VerificationError: Original rows of a grown vocabulary are frozen, and have changed.
        """
        tensors = export_weights(self.network, self.settings)
        if dtype is not None:
            tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        stored = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
        name, _ = self.family.architecture(self.settings)
        settings = self.settings | {
            "architectures": [name],
            "dtype": stored,
            "vocab_size": self.network.config.vocabulary,
        }
        settings.pop("torch_dtype", None)
        record: dict[str, Any] = {"format": 1, "tokenizer": self.tokenizer.fingerprint}
        if rows := describe_rows(self.network, dtype):
            record["rows"] = rows | {"dtype": stored}
        with replacing(directory) as fresh:
            write_weights(fresh, tensors, shard_bytes=shard_bytes)
            _write_json(fresh / "config.json", settings)
            self.tokenizer.save(fresh)
            _write_json(fresh / _RECORD, record)


def _read_record(directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Read what `save` noted; refuse a directory in which somebody has exchanged the tokenizer."""
    path = directory / _RECORD
    if not path.exists():
        return {}
    record = read_json(path)
    if record.get("tokenizer") != tokenizer.fingerprint:
        raise CheckpointError(
            f"the tokenizer in {directory} is not the one this model was saved with",
            hint=f"restore it; or, if it was changed on purpose, remove {_RECORD}",
        )
    return record


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
