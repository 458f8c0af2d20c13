"""Write an encoder as an ONNX graph, for programs without Python or torch.

The graph takes `input_ids` and `attention_mask` of any batch size and length, and returns the
vectors: pooled, projected and normalized as by the encoder. Before the file gets its final name,
the graph is run and its vectors are compared with the encoder's.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idiolect.encoding.pooling import pool
from idiolect.errors import ConfigError, MissingDependencyError, VerificationError
from idiolect.models.model_directory import replacing
from idiolect.nn.quantized_matrix import QuantizedMatrix

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder

__all__ = ["export_onnx"]

_TOLERANCE = 1e-4
_SHAPES = ((1, 4), (5, 33), (2, 128))
"""Batch sizes and lengths at which the graph is compared with the encoder."""


def export_onnx(encoder: Encoder, directory: str | Path) -> float:
    """Write `model.onnx`, `tokenizer.json` and `encoder.json` (prompts, length, dimensions).

    Args:
        encoder: An encoder with layers, in float32.
        directory: The directory, which need not exist.

    Returns:
        The largest absolute difference between elements of the graph's and the encoder's vectors.

    Raises:
        ConfigError: A static encoder, echo pooling, weights that are not in float32, or a network
            that the exporter of torch cannot trace, such as a recurrent one.
        MissingDependencyError: onnx, onnxscript or onnxruntime is missing.
        VerificationError: The graph's vectors differ from the encoder's.
        InputError: The directory cannot be written to.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is needed to write ONNX", hint="pip install 'idiolect[onnx]'"
        ) from error
    _check(encoder)
    graph = _Graph(encoder).eval()
    length = min(128, encoder.max_length)
    with replacing(directory) as fresh:
        _write(graph, fresh / "model.onnx")
        session = onnxruntime.InferenceSession(fresh / "model.onnx")
        largest = 0.0
        for rows, columns in _SHAPES:
            ids, mask = _example(encoder, rows, min(columns, length))
            with torch.no_grad():
                expected = graph(ids, mask).numpy()
            given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
            (found,) = session.run(None, given)
            largest = max(largest, float(np.abs(found - expected).max()))
        if not largest <= _TOLERANCE:
            raise VerificationError(
                f"the graph's vectors differ from the encoder's by {largest:.1e}"
            )
        encoder.model.tokenizer.save(fresh)
        settings = {
            "dimensions": encoder.dimensions,
            "max_length": encoder.max_length,
            "prompts": dict(encoder.prompts),
            "default_prompt_name": encoder.default_prompt_name,
        }
        (fresh / "encoder.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return largest


class _Graph(nn.Module):
    """Computes vectors from ids and an attention mask."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network = encoder.model.network
        self._encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        encoder, mask = self._encoder, attention_mask.bool()
        hidden = self.network.text_states(input_ids, mask, bidirectional=encoder.bidirectional)
        vectors = pool(encoder.pooling, hidden, mask)
        if encoder.projection is not None:
            vectors = encoder.projection(vectors)
        return F.normalize(vectors, dim=-1) if encoder.normalize else vectors


def _check(encoder: Encoder) -> None:
    network = encoder.model.network
    if network.context_free:
        raise ConfigError(
            "a static encoder needs no graph", hint="write its table: idiolect export table"
        )
    if encoder.pooling == "echo":
        raise ConfigError("echo pooling cannot be written to ONNX", hint="use pooling mean or last")
    quantized = encoder.precision == "int8" or any(
        isinstance(part, QuantizedMatrix) for part in network.modules()
    )
    if quantized or any(p.dtype != torch.float32 for p in network.parameters()):
        raise ConfigError("only weights in float32 can be written to ONNX", hint="load them so")


def _example(encoder: Encoder, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return random ids, and a mask under which the rows differ in length."""
    random = np.random.default_rng(0)
    ids = torch.from_numpy(random.integers(5, len(encoder.model.tokenizer), (rows, columns)))
    ends = torch.linspace(columns, max(columns // 3, 1), rows).long()
    return ids, (torch.arange(columns) < ends[:, None]).long()


def _write(graph: _Graph, path: Path) -> None:
    ids, mask = _example(graph._encoder, 3, 9)
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    chatty = logging.getLogger("torch.onnx")
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph,
                (ids, mask),
                dynamo=True,
                verbose=False,
                input_names=["input_ids", "attention_mask"],
                output_names=["vectors"],
                dynamic_shapes={"input_ids": dynamic, "attention_mask": dynamic},
            )
            assert program is not None
            program.save(path)
    except torch.onnx.errors.OnnxExporterError as error:
        kind = graph._encoder.model.settings.get("model_type")
        raise ConfigError(
            f"torch cannot write this network ({kind}) to ONNX", hint="use a Transformer"
        ) from error
    finally:
        chatty.setLevel(level)
