"""The stage `pretrain`: continued pre-training on domain text.

A model without a language-model head, as encoders are often published, is trained to reproduce
the base's vectors: it reads a text with the new tokens, the base reads it in the old pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from idiolect.pipeline.settings import SettingsTable
from idiolect.pipeline.stage import Control, Stage, Work
from idiolect.pipeline.stage_models import load_encoder
from idiolect.pipeline.systems import MeasuredSystem
from idiolect.pipeline.training_summary import (
    SAVE_STEPS,
    TrainingSummary,
    summarize_training,
    tokens_read,
)

if TYPE_CHECKING:
    from idiolect.encoding.encoder import Encoder
    from idiolect.nn.lora import LoraConfig
    from idiolect.training.training_config import TrainingConfig

__all__ = ["STAGE", "PretrainMetrics", "PretrainSettings", "pretrain", "training_steps"]

_HEAD_RATE, _IMITATION_RATE = 3e-4, 1e-4
_STEPS, _PASSES = 300, 10
_BYTES_PER_TOKEN = 4
"""Of usual tokenizers on English; the number of steps must not depend on the new tokens."""


class PretrainSettings(SettingsTable):
    """Settings of continued pre-training."""

    steps: int | None = Field(default=None, ge=1)
    """Number of training steps. By default 300, or fewer if these would read the corpus more than
    ten times."""
    train: Literal["rows+lora", "body", "all"] = "all"
    """What is trained in addition to the new rows; published rows are never trained."""
    max_length: int = Field(default=256, ge=2)
    """Maximum tokens per sequence."""
    batch_size: int = Field(default=8, ge=1)
    """Sequences per step."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """By default 3e-4, and 1e-4 for a model without a language-model head, which learns to
    reproduce the base's vectors."""
    replay_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of general text, if there is any."""
    lora_r: int = Field(default=8, ge=1)
    """Rank of the adapters of `rows+lora`."""
    use_rslora: bool = False
    """Scale adapters by alpha / √rank (rsLoRA)."""
    use_dora: bool = False
    """Learn magnitude and direction of weights separately (DoRA)."""
    quantization: Literal["nf4", "int8"] | None = None
    """Quantize the frozen base weights while `rows+lora` train. The base of this stage is a
    directory, so quantized blocks of a GGUF file are not available."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, slower."""

    @field_validator("quantization")
    @classmethod
    def _check_quantization(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("train", "rows+lora") != "rows+lora":
            raise ValueError("it needs train = 'rows+lora': quantised weights are frozen")
        return value

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Numeric format of matrix products; `auto` measures which is faster."""


class PretrainMetrics(TrainingSummary):
    """Metrics of the stage."""

    train: str
    """Which parameters were trained."""
    objective: str
    """causal, masked, or imitation of the base's vectors."""
    notes: list[str]
    """Notes for readers."""


def pretrain(work: Work[PretrainSettings]) -> PretrainMetrics:
    """Continue pre-training.

    Without new tokens an encoder has nothing to imitate, so as a control it stays equal to the
    base. A model with a language-model head that was not distilled trains on additional tokens, as
    many as distillation read, so that the control without new tokens has the same budget.
    """
    from idiolect.training.objectives.objective_registry import default_objective
    from idiolect.training.pretrain import pretrain as train_on_text
    from idiolect.training.training_config import TrainingConfig

    settings, data = work.settings, work.data
    encoder = load_encoder(work, work.model, whole=True)
    model, network = encoder.model, encoder.model.network
    length = min(settings.max_length, network.config.max_position_embeddings or settings.max_length)
    has_head = network.has_language_head
    config = TrainingConfig(
        max_length=length,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate or (_HEAD_RATE if has_head else _IMITATION_RATE),
        gradient_checkpointing=settings.gradient_checkpointing,
        precision=settings.precision,
        save_steps=SAVE_STEPS,
        seed=work.config.seed,
    )
    if not has_head:
        return _imitate(work, encoder, config)
    steps = training_steps(settings, data.corpus[0], length)
    if model.extension is None:
        more = sum(tokens_read(folder) for name, folder in work.done.items() if name == "distill")
        steps += round(more / (length * settings.batch_size))
    objective = default_objective(network.kind, tokenizer=model.tokenizer)
    train_on_text(
        model,
        data.corpus[0],
        output_dir=work.folder,
        steps=steps,
        train=settings.train,
        objective=objective,
        replay=data.general[0] if data.general and settings.replay_share else None,
        replay_share=settings.replay_share,
        lora=_adapters(settings),
        quantization=settings.quantization,
        config=config,
    )
    summary = summarize_training(work.folder)
    return {**summary, "train": settings.train, "objective": objective, "notes": []}


def training_steps(settings: PretrainSettings, texts: Iterable[str], length: int) -> int:
    """Return the number of steps; by default few for a small corpus.

    After about sixteen passes, repeated text teaches a model next to nothing more (Muennighoff et
    al. 2023, 2305.16264), and a model that knows a small corpus by heart is worse on other text.

    Args:
        settings: The table of the stage.
        texts: The corpus.
        length: Tokens per sequence.
    """
    if settings.steps is not None:
        return settings.steps
    size, step = 0, length * settings.batch_size * _BYTES_PER_TOKEN
    for text in texts:
        size += len(text.encode())
        if _PASSES * size >= _STEPS * step:
            return _STEPS
    return max(1, math.ceil(_PASSES * size / step))


def _adapters(settings: PretrainSettings) -> LoraConfig:
    from idiolect.nn.lora import LoraConfig

    return LoraConfig(
        r=settings.lora_r,
        lora_alpha=2.0 * settings.lora_r,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
    )


def _imitate(
    work: Work[PretrainSettings], encoder: Encoder, config: TrainingConfig
) -> PretrainMetrics:
    """Train an encoder with new tokens to reproduce the vectors of the base without them."""
    from idiolect.encoding.tune_on_text import tune_on_text
    from idiolect.models.quantized_weights import quantize_loaded

    settings = work.settings
    summary: TrainingSummary = {"steps": 0, "tokens": 0, "loss_first": 0.0, "loss_last": 0.0}
    if encoder.model.extension is None:
        encoder.save(work.folder / "model")
    else:
        if settings.quantization is not None:
            quantize_loaded(encoder.model.network, settings.quantization)
        tune_on_text(
            encoder,
            work.data.corpus[0],
            output_dir=work.folder,
            objective="imitate",
            teacher=load_encoder(work, work.base, whole=True),
            steps=training_steps(settings, work.data.corpus[0], config.max_length),
            train=settings.train,
            lora=_adapters(settings),
            config=config,
        )
        summary = summarize_training(work.folder)
    note = (
        "the base has no language-model head, so pre-training was replaced by training to "
        "reproduce the base's vectors of texts with new tokens; the control without new tokens is "
        "the base, tuned in the same way"
    )
    return {**summary, "train": settings.train, "objective": "imitation", "notes": [note]}


STAGE = Stage(
    name="pretrain",
    run=pretrain,
    settings=PretrainSettings,
    metrics=PretrainMetrics,
    inputs=("items", "corpus", "general"),
    shared=("encoder",),
    model_from="distill",
    systems=(
        MeasuredSystem(
            name="pretraining", label="+ pre-training", predicts=True, against=("vocabulary",)
        ),
    ),
    controls=(
        Control(
            name="plain",
            after=("distill",),
            systems=(
                MeasuredSystem(
                    name="plain.pretraining",
                    label="no new tokens, adapted",
                    control=True,
                    ranks=False,
                    predicts=True,
                ),
            ),
        ),
        Control(
            name="random",
            model_from="random.distill",
            systems=(
                MeasuredSystem(
                    name="random.pretraining",
                    label="random tokens, adapted",
                    control=True,
                    ranks=False,
                    predicts=True,
                ),
            ),
        ),
    ),
)
