"""Weight files in the Hugging Face layout.

Safetensors files are memory-mapped, so a tensor is read when it is first used. Older `.bin` files
are read by torch's weights-only loader, which executes no code.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor, nn

from idiolect.errors import CheckpointError
from idiolect.text.files import read_bytes, read_json

__all__ = ["SHARD_BYTES", "Weights", "load_module", "open_weights", "write_weights"]

SHARD_BYTES = 5_000_000_000
"""Files larger than this are split, as on the Hugging Face hub."""

_SINGLE = "model.safetensors"
_CANDIDATES = (
    _SINGLE,
    f"{_SINGLE}.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class Weights:
    """The tensors of a checkpoint by name, read on access."""

    def __init__(self, files: Mapping[Path, Any], homes: Mapping[str, Path]) -> None:
        self._files = files
        self._homes = homes

    @property
    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._homes)

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor; from a safetensors file it is memory-mapped."""
        file = self._files[self._homes[name]]
        tensor: Tensor = file[name] if isinstance(file, dict) else file.get_tensor(name)
        return tensor

    def blocks(self, name: str, take: Callable[[Tensor], Tensor]) -> None:
        """Return `None`: these formats contain no quantised blocks."""


def open_weights(directory: Path) -> Weights:
    """Open the weight files of a directory.

    Raises:
        CheckpointError: There are none; a file is missing, truncated or damaged; or an index names
            a file outside the directory.
    """
    for candidate in _CANDIDATES:
        path = directory / candidate
        if not path.exists():
            continue
        if not candidate.endswith(".index.json"):
            file = _open(path)
            return Weights({path: file}, dict.fromkeys(file.keys(), path))
        return _open_shards(path)
    raise CheckpointError(
        f"no weights in {directory}", hint="expected one of " + ", ".join(_CANDIDATES)
    )


def _open_shards(index: Path) -> Weights:
    homes = read_json(index).get("weight_map")
    if not isinstance(homes, dict) or not homes:
        raise CheckpointError(f"{index} has no weight_map", hint="fetch the file again")
    outside = [name for name in homes.values() if name != Path(str(name)).name]
    if outside:
        raise CheckpointError(
            f"{index} names a file outside its directory: {outside[0]!r}",
            hint="it may be malicious; use another checkpoint",
        )
    shards = sorted(set(homes.values()))
    missing = [name for name in shards if not (index.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{len(missing)} of {len(shards)} weight files are missing: " + ", ".join(missing[:5]),
            hint="fetch them again",
        )
    files = {index.parent / name: _open(index.parent / name) for name in shards}
    inside = {path: set(file.keys()) for path, file in files.items()}
    absent = [name for name, home in homes.items() if name not in inside[index.parent / home]]
    if absent:
        raise CheckpointError(
            f"{index} lists {absent[0]!r} in {homes[absent[0]]}, which does not hold it",
            hint="index and files are from different models; fetch them again",
        )
    return Weights(files, {name: index.parent / home for name, home in homes.items()})


def _open(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safe_open(path, framework="pt")
        # Files written before torch 1.6 are not zip archives and cannot be memory-mapped.
        mapped = zipfile.is_zipfile(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is truncated or damaged: {_first_line(error)}", hint="fetch it again"
        ) from error
    except Exception as error:  # torch raises UnpicklingError for anything but tensors
        raise CheckpointError(
            f"{path} holds more than weights: {_first_line(error)}",
            hint="it is not loaded, since that could execute code; convert it to safetensors",
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{path} does not hold tensors by name", hint="fetch it again")
    return loaded


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def load_module(module: nn.Module, path: Path) -> None:
    """Load all weights of a small module, such as a head, from a safetensors file.

    Raises:
        CheckpointError: The file is missing or damaged, or contains another module.
    """
    try:
        module.load_state_dict(load(read_bytes(path)))
    except (SafetensorError, RuntimeError) as error:
        message = f"{path} is damaged: {_first_line(error)}"
        raise CheckpointError(message, hint="save it again") from error


def write_weights(
    directory: Path, tensors: Mapping[str, Tensor], *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write tensors as one safetensors file, or as several with an index.

    Write into a temporary directory; see `model_directory.replacing`.
    """
    shards: list[dict[str, Tensor]] = [{}]
    size = total = 0
    for name, tensor in tensors.items():
        tensor_bytes = tensor.numel() * tensor.element_size()
        if shards[-1] and size + tensor_bytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor_bytes
        total += tensor_bytes
    if len(shards) == 1:
        save_file(shards[0], directory / _SINGLE, metadata={"format": "pt"})
        return
    homes: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(shard, directory / file, metadata={"format": "pt"})
        homes |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": homes}
    (directory / f"{_SINGLE}.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
