"""Convert a character LSTM of ml5.js to a model directory.

    python examples/convert_ml5.py ml5-data-and-models/models/charRNN/shakespeare ./shakespeare
    idiolect encode ./shakespeare sentences.txt -o vectors.npy

DIR holds `manifest.json` (the shape of each tensor), one file of raw float32 numbers for each
tensor, and `vocab.json` (the id of each character), as training-charRNN exports from TensorFlow.

- TensorFlow's `BasicLSTMCell` has one matrix for input and state, (input + state, 4·state). Its
  gates are input, new, forget, output, and it adds 1 to the forget gate. Ours are input, forget,
  new, output, and the 1 is part of the bias.
- Tokens are added that the network never predicts: the bytes of characters that it does not know,
  whose rows are zeros, and `<s>` for the start of a text, which it reads as a new line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor

from idiolect.errors import IdiolectError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.nn.recurrent import RecurrentNetwork
from idiolect.text.tokenizers.tokenizer import Tokenizer

_DAMAGED = {"  ": "u", "": "U"}
"""What stands for two letters in the published vocabulary of Shakespeare: where it was written, the
prefix of Python 2's u'…' was removed, and these letters with it. Their ids fit their frequency."""
_NEVER = -1e4
"""The score of a token that is never predicted."""


def main() -> None:
    """Convert the directory that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="directory of the ml5 model")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to write")
    arguments = parser.parse_args()
    try:
        model = convert(arguments.dir)
        model.save(arguments.out)
    except IdiolectError as error:
        parser.exit(1, f"{error}\n")
    print(f"{model} is in {arguments.out}")


def convert(directory: Path) -> LanguageModel:
    """Read the model of a directory.

    Raises:
        InputError: A file is missing or does not fit the others.
    """
    tensors = read_tensors(directory)
    characters = json.loads(_read(directory / "vocab.json").decode())
    characters = {_DAMAGED.get(character, character): id_ for character, id_ in characters.items()}
    embedding = tensors["embedding"]
    layers = sum(name.startswith("cell_") and name.endswith("weights") for name in tensors)
    if sorted(characters.values()) != list(range(len(embedding))) or not layers:
        raise InputError(
            f"{directory}: {len(characters)} characters, {len(embedding)} embedding rows and "
            f"{layers} layers",
            hint="use the files of one model",
        )
    settings = {
        "model_type": "lstm",
        "hidden_size": embedding.shape[1],
        "num_layers": layers,
        "tie_word_embeddings": False,
    }
    model = LanguageModel.new(settings, character_tokenizer(characters))
    network = model.network
    assert isinstance(network, RecurrentNetwork)
    with torch.no_grad():
        newline = embedding[characters.get("\n", 0)]
        added = len(model.tokenizer) - len(embedding)
        network.tokens.weight.copy_(
            torch.cat([embedding, embedding.new_zeros(added - 1, len(newline)), newline[None]])
        )
        head = network.language_head
        head.weight.zero_()
        head.weight[: len(embedding)] = tensors["softmax_w"].T
        head.bias.fill_(_NEVER)
        head.bias[: len(embedding)] = tensors["softmax_b"]
        for number, layer in enumerate(network.layers):
            matrix, bias = (tensors[f"cell_{number}.{part}"] for part in ("weights", "biases"))
            bias = bias + torch.tensor([0.0, 0.0, 1.0, 0.0]).repeat_interleave(layer.hidden_size)
            layer.weight_ih.copy_(_reordered(matrix[: layer.input_size].T))
            layer.weight_hh.copy_(_reordered(matrix[layer.input_size :].T))
            layer.bias_ih.copy_(_reordered(bias))
            layer.bias_hh.zero_()
    return model


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Read all tensors, under short names: `embedding`, `softmax_w`, `cell_0.weights`, …"""
    manifest = json.loads(_read(directory / "manifest.json").decode())
    tensors = {}
    for name, entry in manifest.items():
        parts = name.split("/")
        short = parts[-1]
        if len(parts) > 2:  # rnnlm/multi_rnn_cell/cell_0/basic_lstm_cell/kernel
            part = {"kernel": "weights", "bias": "biases"}.get(short, short)
            short = f"{parts[-3]}.{part}"
        raw = _read(directory / entry["filename"])
        shape = entry["shape"]
        if len(raw) != 4 * int(np.prod(shape)):
            raise InputError(
                f"{directory / entry['filename']} has {len(raw)} bytes, and its shape is {shape}",
                hint="download the file again",
            )
        tensors[short] = torch.from_numpy(np.frombuffer(raw, "<f4").reshape(shape).copy())
    return tensors


def character_tokenizer(characters: dict[str, int]) -> Tokenizer:
    """Return a tokenizer with a token for each character, and then for each other byte, and `<s>`.

    It is byte-level BPE with as many merges as join the bytes of one character, so words can be
    added to it as to GPT-2's.
    """
    symbols = bytes_to_symbols()
    vocabulary: dict[str, int] = {}
    merges: dict[tuple[str, str], None] = {}
    for character, id_ in characters.items():
        parts = [symbols[byte] for byte in character.encode()]
        vocabulary["".join(parts)] = id_
        merges |= {("".join(parts[:n]), parts[n]): None for n in range(1, len(parts))}
    for token in (*symbols.values(), *("".join(pair) for pair in merges), "<s>"):
        vocabulary.setdefault(token, len(vocabulary))
    engine = tokenizers.Tokenizer(models.BPE(vocabulary, list(merges)))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    return Tokenizer.from_engine(engine, {"bos_token": "<s>"})


def bytes_to_symbols() -> dict[int, str]:
    """Return the printable character that stands for each byte, as GPT-2 chose them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    shifted = {byte: chr(256 + number) for number, byte in enumerate(others)}
    return {byte: chr(byte) for byte in printable} | shifted


def _reordered(rows: Tensor) -> Tensor:
    """Order gates as input, forget, new, output."""
    i, j, f, o = rows.chunk(4)
    return torch.cat([i, f, j, o])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", hint="pass the directory of an ml5 charRNN"
        ) from error


if __name__ == "__main__":
    main()
