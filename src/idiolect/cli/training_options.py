"""Options that the training commands share, and the settings made from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.training.objectives.objective_registry import Verb, objectives

if TYPE_CHECKING:
    from idiolect.nn.lora import LoraConfig

__all__ = [
    "TRAIN",
    "UNFREEZE",
    "BatchSizeOption",
    "CheckpointingOption",
    "DoraOption",
    "EncodingPrecisionOption",
    "EpochsOption",
    "LearningRateOption",
    "LoraModulesOption",
    "LoraRankOption",
    "MaxLengthOption",
    "MicroBatchSizeOption",
    "PrecisionOption",
    "QuantizationOption",
    "RsLoraOption",
    "RunFolderOption",
    "SaveStepsOption",
    "SeedOption",
    "TensorboardOption",
    "TrainedPart",
    "given",
    "local_device",
    "lora_config",
    "objective_help",
]

TrainedPart = Literal["rows", "rows+lora", "body", "all"]

TRAIN = typer.Option(help="What trains: new rows, with LoRA, the body, or all but original rows.")
UNFREEZE = typer.Option("--unfreeze-original-rows", help="Train original rows too.")

RunFolderOption = Annotated[
    Path, typer.Option("--out", "-o", help="Folder of the run. The model is in OUT/model.")
]
EpochsOption = Annotated[int, typer.Option(help="Number of epochs.", min=1)]
LoraRankOption = Annotated[int, typer.Option(help="LoRA rank.", min=1)]
LoraModulesOption = Annotated[
    str, typer.Option(help="LoRA target modules, of query, key, value, output, gate, up, down.")
]
RsLoraOption = Annotated[
    bool, typer.Option("--use-rslora", help="Scale LoRA by alpha / √rank (rsLoRA).")
]
DoraOption = Annotated[
    bool,
    typer.Option("--use-dora", help="Learn magnitude and direction of weights separately (DoRA)."),
]
CheckpointingOption = Annotated[
    bool | None,
    typer.Option(
        "--gradient-checkpointing",
        help="Recompute activations in the backward pass: less memory, slower.",
    ),
]
QuantizationOption = Annotated[
    Literal["nf4", "int8", "keep"] | None,
    typer.Option(
        help="Quantise the frozen base, to train rows or rows+lora in little memory (QLoRA)"
        "; keep: use the quantised blocks of a GGUF file."
    ),
]
MaxLengthOption = Annotated[
    int | None, typer.Option(help="Maximum length of an input in tokens.", min=2)
]
BatchSizeOption = Annotated[
    int | None, typer.Option(help="Examples per step. Default: 16; 32 to tune encoders.", min=1)
]
MicroBatchSizeOption = Annotated[
    int | None, typer.Option(help="Examples per forward pass; gradients stay the same.", min=1)
]
LearningRateOption = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        "--lr",
        help="Peak learning rate. Default: by what trains.",
        min=0,
        max=1000,
    ),
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16"] | None,
    typer.Option(
        help="Numeric format of matrix products. Default: auto, which measures the faster one."
    ),
]
EncodingPrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16", "int8"] | None,
    typer.Option(
        help="Numeric format of matrix products: exact (fp32, the default), faster but less exact"
        " (bf16, int8), or the fastest as measured (auto)."
    ),
]
SaveStepsOption = Annotated[
    int | None, typer.Option(help="Steps between checkpoints. Default: 200.", min=1)
]
SeedOption = Annotated[int, typer.Option(help="Random seed.", min=0, max=2**63 - 1)]
TensorboardOption = Annotated[
    bool, typer.Option("--tensorboard", help="Write TensorBoard events to OUT/events.")
]


def objective_help(verb: Verb) -> str:
    """Describe the objectives of a verb in one text.

    "causal: predict each token from those before it; masked: …"
    """
    return "; ".join(f"{entry.name}: {entry.summary}" for entry in objectives(verb)) + "."


def given(**values: Any) -> dict[str, Any]:
    """Return the options that are not `None`."""
    return {name: value for name, value in values.items() if value is not None}


def lora_config(
    rank: int, modules: str, *, use_rslora: bool = False, use_dora: bool = False
) -> LoraConfig:
    """Return the LoRA settings of a rank and a comma-separated list of modules."""
    from idiolect.nn.lora import LoraConfig

    return LoraConfig(
        r=rank,
        lora_alpha=2.0 * rank,
        target_modules=tuple(modules.split(",")),
        use_rslora=use_rslora,
        use_dora=use_dora,
    )


def local_device() -> str:
    """Return the GPU of this process, or the CPU."""
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
