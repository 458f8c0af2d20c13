"""`LanguageModel`: a network and its tokenizer, stored in Hugging Face's directory layout."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch

from idiolect.errors import CheckpointError, InputError
from idiolect.models.companion_files import COMPANION_PATTERNS, CompanionFiles
from idiolect.models.family import Family
from idiolect.models.gguf.gguf_weights import GGUFWeights, gguf_settings
from idiolect.models.model_directory import check_finished, replacing
from idiolect.models.network_files import (
    build_network,
    export_weights,
    held_class,
)
from idiolect.models.prompt_files import load_prompt, prompted_base, save_prompt
from idiolect.models.quantized_weights import Quantization, keep_blocks_of_rows
from idiolect.models.reader_check import find_reader_changes
from idiolect.models.registry import find_family
from idiolect.models.vocabulary_record import describe_rows, split_rows
from idiolect.models.weight_files import SHARD_BYTES, open_weights, write_weights
from idiolect.nn.network import Network
from idiolect.nn.prompt.attach_prompt import prompt_of
from idiolect.text.arguments import checked, load_if_named
from idiolect.text.files import read_json
from idiolect.text.format_version import check_format, with_format
from idiolect.text.hub import locate
from idiolect.text.tokenizers.extension import Extension
from idiolect.text.tokenizers.formats import TOKENIZER_FILES
from idiolect.text.tokenizers.gguf.gguf_header import read_gguf_header
from idiolect.text.tokenizers.tokenizer import Tokenizer

__all__ = ["LanguageModel"]

_RECORD = "idiolect.json"
"""The file with the saved tokenizer's fingerprint and the record of added vocabulary rows."""
_PROMPT = "prompt"
"""The folder with a saved model's virtual tokens."""
_HUB_FILES = (
    "config.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    *TOKENIZER_FILES,
    *COMPANION_PATTERNS,
    "adapter_config.json",
    "adapter_model.safetensors",
    "prompt/*",
)
_LOG = logging.getLogger(__name__)


class LanguageModel:
    """A network and its tokenizer.

    >>> model = LanguageModel.load("path/to/model")        # doctest: +SKIP
    >>> ids = torch.tensor(model.tokenizer.encode_batch(["one text"]))  # doctest: +SKIP
    >>> model.network(ids).logits.shape                    # doctest: +SKIP
    torch.Size([1, 4, 32000])

    Args:
        network: The network.
        tokenizer: The tokenizer.
        settings: The fields of `config.json`.
        companions: Other files that `save` writes beside the model.

    Raises:
        CheckpointError: The tokenizer has more ids than the network has rows.
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        settings: Mapping[str, Any],
        companions: CompanionFiles | None = None,
    ) -> None:
        if len(tokenizer) > network.config.vocab_size:
            raise CheckpointError(
                f"the tokenizer has {len(tokenizer)} ids, but the network has only "
                f"{network.config.vocab_size} rows",
                hint="use the tokenizer of this network",
            )
        self.network: Network = network
        """The network, in evaluation mode after loading."""
        self.tokenizer = tokenizer
        """The tokenizer. The network may have more rows than it has ids."""
        self.settings = find_family(settings).canonical(settings)
        """The fields of `config.json`, as published."""
        self.companions = companions or CompanionFiles()
        """Other files of the published model: its chat template, licence, card, …"""

    def __repr__(self) -> str:
        network = self.network
        count = sum(weight.numel() for weight in network.parameters())
        return (
            f"<LanguageModel {self.settings.get('model_type', '')}: {count:,} parameters,"
            f" {len(network.blocks)} layers of {network.config.hidden_size},"
            f" {len(self.tokenizer):,} tokens>"
        )

    @property
    def family(self) -> Family:
        """The model family."""
        return find_family(self.settings)

    @property
    def extension(self) -> Extension | None:
        """The record of added tokens and their verification; None if no tokens were added."""
        return self.tokenizer.extension

    @classmethod
    @checked
    def new(cls, settings: Mapping[str, Any], tokenizer: Tokenizer, *, seed: int = 0) -> Self:
        """Create a model with randomly initialized weights.

        Args:
            settings: The fields of a `config.json`: `model_type` and the sizes. The vocabulary size
                defaults to the tokenizer's.
            tokenizer: The tokenizer.
            seed: Random seed of the weights.

        Raises:
            ConfigError: The family is unknown, or values are unsupported or contradict each other.
            CheckpointError: The vocabulary size is below the tokenizer's.
        """
        tokenizer = load_if_named(tokenizer, Tokenizer, "tokenizer")
        family = find_family(settings)
        settings = {"vocab_size": len(tokenizer), **family.canonical(settings)}
        network = family.network(family.config(settings))
        network.init_weights(seed)
        return cls(network.eval(), tokenizer, settings)

    @classmethod
    @checked
    def load(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | Literal["stored"] | None = None,
        device: str | torch.device = "cpu",
        quantization: Quantization | None = None,
    ) -> Self:
        """Load a published model.

        If its vocabulary was extended, original and added rows are separated again for further
        training, and the original rows are verified.

        Args:
            source: A directory in the Hugging Face layout, a GGUF file, the name of a packaged
                model (`smollm2`), or the id of a repository on the hub. If a directory contains
                only a learnt prompt or prefix, its base model is loaded with it.
            dtype: Dtype of the weights; `stored` means the dtype of the files. The default is
                float32 on a CPU, where it is fast, and `stored` on an accelerator.
            device: The network's device.
            quantization: Quantise the matrices of the layers, to save memory when encoding or
                training adapters: `nf4`, `int8`, or `keep` for the blocks of a GGUF file.
                `save` writes them in full precision.

        Raises:
            InputError: There is no such directory or repository.
            OfflineError: It is not available locally and cannot be downloaded.
            ConfigError: The family is unknown, or unsupported fields would change the result.
            CheckpointError: Files are missing, damaged or belong to different models.
        """
        directory = locate(source, _HUB_FILES)
        if base := prompted_base(directory):
            model = cls.load(base, dtype=dtype, device=device, quantization=quantization)
            load_prompt(model.network, directory)
            return model
        if dtype is None and str(device).startswith("cpu"):
            dtype = torch.float32
        precision = None if dtype == "stored" else dtype
        if directory.is_file():
            return cls._load_file(directory, precision, device, quantization)
        if not any(directory.glob("model*.safetensors")):
            directory = locate(source, (*_HUB_FILES, "pytorch_model*.bin*"))
        check_finished(directory)
        settings = read_json(directory / "config.json")
        find_family(settings)
        tokenizer = Tokenizer.load(directory)
        record = _read_record(directory, tokenizer)
        weights = open_weights(directory)
        settings = held_class(weights, settings, source=directory)
        network = build_network(
            weights, settings, source=directory, dtype=precision, quantization=quantization
        )
        if record.get("rows"):
            split_rows(network, record["rows"])
        if (directory / _PROMPT).is_dir():
            load_prompt(network, directory / _PROMPT)
        if quantization is not None:
            keep_blocks_of_rows(network)
        companions = CompanionFiles.read(directory, tokenizer)
        return cls(_move(network, device), tokenizer, settings, companions)

    @classmethod
    def _load_file(
        cls,
        path: Path,
        dtype: torch.dtype | None,
        device: str | torch.device,
        quantization: Quantization | None,
    ) -> Self:
        """Load a GGUF file, the only supported single-file format of a whole model."""
        if path.suffix.lower() != ".gguf":
            raise InputError(
                f"{path} is neither a model directory nor a GGUF file", hint="pass its directory"
            )
        header = read_gguf_header(path)
        settings = gguf_settings(header)
        network = build_network(
            GGUFWeights(header), settings, source=path, dtype=dtype, quantization=quantization
        )
        return cls(_move(network, device), Tokenizer.load(path), settings)

    def with_changes(self, **changes: Any) -> Self:
        """Return a model with some arguments replaced; the rest is shared with this one.

        Args:
            changes: Arguments of `LanguageModel`, such as `tokenizer`.

        Raises:
            CheckpointError: As for `LanguageModel`.
        """
        same = ("network", "tokenizer", "settings", "companions")
        return type(self)(**{name: getattr(self, name) for name in same} | changes)

    @checked
    def save(
        self,
        directory: str | Path,
        *,
        dtype: torch.dtype | None = None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Write the model atomically, so that `load` and `transformers` can load it.

        The other files of a published model are written as well: chat template, licence, model
        card. A warning lists those that cannot be kept, such as weights in other formats. Files of
        another model in the directory are removed; unrelated files are kept.

        If the vocabulary was extended and transformers is installed, it is checked that
        transformers reads the saved tokenizer with the same ids; if not, a warning is logged.

        Args:
            directory: The directory, which need not exist.
            dtype: Dtype of the saved weights; by default that of the network.
            shard_bytes: Maximum size of a weight file; larger weights are split into several files.

        Raises:
            InputError: The directory cannot be written to.
            VerificationError: Original rows of an extended vocabulary are frozen and have changed.
        """
        tensors = export_weights(self.network, self.settings)
        if dtype is not None:
            tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        stored = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
        name, _ = self.family.architecture(self.settings)
        settings = self.settings | {
            "architectures": [name],
            "dtype": stored,
            "vocab_size": self.network.config.vocab_size,
        }
        settings.pop("torch_dtype", None)
        record = with_format({"tokenizer": self.tokenizer.fingerprint})
        if rows := describe_rows(self.network, dtype):
            record["rows"] = rows | {"dtype": stored}
        with replacing(directory) as fresh:
            write_weights(fresh, tensors, shard_bytes=shard_bytes)
            _write_json(fresh / "config.json", settings)
            self.tokenizer.save(fresh, settings=self._tokenizer_settings())
            self.companions.write(fresh, self.tokenizer)
            if prompt_of(self.network) is not None:
                save_prompt(self.network, fresh / _PROMPT)
            _write_json(fresh / _RECORD, record)
        if prompt_of(self.network) is not None:
            _LOG.warning(
                "the prompt is in %s; other programs load the model without it",
                f"{directory}/prompt",
            )
        if self.companions.left_out:
            _LOG.warning("not saved with the model: %s", ", ".join(self.companions.left_out))
        if self.network.context_free:
            return  # transformers does not support it; its readers use `tokenizer.json` itself
        if self.extension and (changed := find_reader_changes(Path(directory), self.tokenizer)):
            _LOG.warning(
                "transformers reads %d texts with other ids than the saved tokenizer, such as %r; "
                "use another release of it, or extend with another method",
                *(len(changed), changed[0]),
            )

    def _tokenizer_settings(self) -> dict[str, Any]:
        """Return the entries of `tokenizer_config.json` that follow from the network."""
        inputs = ["input_ids", "attention_mask"]
        if getattr(self.network.config, "type_vocab_size", 0) > 1:
            inputs.insert(1, "token_type_ids")
        settings = {"model_input_names": inputs, **self.family.tokenizer_settings}
        if self.companions.are_of_encoder:  # its texts are plain text; see `Encoder.save`
            settings["split_special_tokens"] = True
        # transformers locates the end of a padded text with the padding id in config.json.
        padding = self.network.config.pad_token_id
        if (
            self.tokenizer.pad_token_id is None
            and padding in self.tokenizer.special_tokens.values()
        ):
            settings["pad_token"] = self.tokenizer.engine.id_to_token(padding)
        return settings


def _move(network: Network, device: str | torch.device) -> Network:
    try:
        return network.to(device)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise InputError(
            f"cannot use the device {device}: {str(error).splitlines()[0]}",
            hint="idiolect doctor lists the devices of this machine",
        ) from error


def _read_record(directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Read the record of `save`; raise an error if the tokenizer is not the one that was saved."""
    path = directory / _RECORD
    if not path.exists():
        return {}
    record = check_format(read_json(path), path, rebuild="save the model again")
    if record.get("tokenizer") != tokenizer.fingerprint:
        raise CheckpointError(
            f"the tokenizer in {directory} is not the one this model was saved with",
            hint=f"restore it, or remove {_RECORD} if the change is intended",
        )
    return record


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
