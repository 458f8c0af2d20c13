"""`idiolect pretrain` and `merge`: train a language model on text; merge an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from idiolect.cli.refusals import refuse_existing_model, refuse_lora, refuse_unused
from idiolect.cli.text_options import (
    FieldOption,
    MaxUnreadableOption,
    SourcesArgument,
    UnitOption,
)
from idiolect.cli.training_options import (
    TRAIN,
    UNFREEZE,
    BatchSizeOption,
    CheckpointingOption,
    DoraOption,
    LearningRateOption,
    LoraModulesOption,
    LoraRankOption,
    MaxLengthOption,
    MicroBatchSizeOption,
    PrecisionOption,
    QuantizationOption,
    RsLoraOption,
    RunFolderOption,
    SaveStepsOption,
    TensorboardOption,
    TrainedPart,
    given,
    local_device,
    lora_config,
    objective_help,
)
from idiolect.errors import ConfigError
from idiolect.text.skipped import MAX_UNREADABLE
from idiolect.training.objectives.objective_registry import find_objective

if TYPE_CHECKING:
    from idiolect.models.language_model import LanguageModel

__all__ = ["merge", "pretrain"]

_CHOICES = ("steps", "train", "objective", "unfreeze_original_rows")
_SAMPLING = ("sampling_alpha", "sampling_temperature", "sampling_cap")


def pretrain(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="The model: a directory or a hub id. With --config, the new model's tokenizer."
        ),
    ],
    sources: SourcesArgument,
    out: RunFolderOption,
    steps: Annotated[int | None, typer.Option(help="Total steps.", min=1)] = None,
    train: Annotated[TrainedPart | None, TRAIN] = None,
    objective: Annotated[
        str | None,
        typer.Option(help=f"{objective_help('pretrain')} Default: the one that fits the model."),
    ] = None,
    objective_setting: Annotated[
        list[str] | None,
        typer.Option(help="Setting of the objective: NAME=VALUE, such as mask_ratio=0.35."),
    ] = None,
    languages: Annotated[
        str | None,
        typer.Option(help="Language of each of SOURCES, such as en,de. Each is its own corpus."),
    ] = None,
    sampling_alpha: Annotated[
        float | None,
        typer.Option(
            help="Several languages: exponent of corpus shares. Default: 0.5.", min=0, max=10
        ),
    ] = None,
    sampling_temperature: Annotated[
        float | None,
        typer.Option(help="1 / alpha, instead of --sampling-alpha.", min=0.01, max=1e6),
    ] = None,
    sampling_cap: Annotated[
        int | None, typer.Option(help="Maximum tokens of a language that count.", min=1)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Train from scratch: .toml or .json with the model config."),
    ] = None,
    replay: Annotated[
        list[str] | None, typer.Option(help="General text to replay against forgetting.")
    ] = None,
    replay_share: Annotated[
        float, typer.Option(help="Share of --replay, in characters.", min=0, max=1)
    ] = 0.1,
    validation: Annotated[
        list[str] | None, typer.Option(help="Held-out text for the validation loss.")
    ] = None,
    field: FieldOption = None,
    per: UnitOption = "line",
    max_unreadable: MaxUnreadableOption = MAX_UNREADABLE,
    unfreeze_original_rows: Annotated[bool | None, UNFREEZE] = None,
    lora_r: LoraRankOption = 8,
    lora_target_modules: LoraModulesOption = "query,value",
    use_rslora: RsLoraOption = False,
    use_dora: DoraOption = False,
    quantization: QuantizationOption = None,
    gradient_checkpointing: CheckpointingOption = None,
    max_length: MaxLengthOption = None,
    batch_size: BatchSizeOption = None,
    micro_batch_size: MicroBatchSizeOption = None,
    learning_rate: LearningRateOption = None,
    schedule: Annotated[
        Literal["cosine", "wsd", "constant", "exponential"] | None,
        typer.Option(help="Learning-rate decay after warm-up."),
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "sgd", "nt-asgd"] | None,
        typer.Option(help="Default: adamw. nt-asgd averages weights late (AWD-LSTM)."),
    ] = None,
    precision: PrecisionOption = None,
    save_steps: SaveStepsOption = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.", min=0)] = None,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Under torchrun: shard the weights (FSDP2).")
    ] = False,
    tensorboard: TensorboardOption = False,
    diagnose: Annotated[
        bool,
        typer.Option("--diagnose", help="Report the gradients over steps and back through time."),
    ] = False,
) -> None:
    """Train a language model on text. Run it again to resume.

    OUT also holds checkpoints and metrics.jsonl. Original embedding rows never change unless they
    are unfrozen.

    Example: [bold]idiolect pretrain ./gpt2-medical abstracts.jsonl --train rows --steps 2000
    --replay books/ -o runs/rows[/bold]

    BART's objective: [bold]idiolect pretrain ./bart abstracts.jsonl --objective denoising
    --objective-setting mask_ratio=0.35 --train all --steps 2000 -o runs/bart[/bold]

    Two languages: [bold]idiolect pretrain ./xlm train.en train.de --languages en,de
    --objective translation_masked --train all --steps 2000 -o runs/xlm[/bold]

    From scratch: [bold]idiolect pretrain ./tokenizer books/ --config small.toml -o runs/new[/bold]

    The file has the tables `model` with the fields of a config.json, `training` with steps,
    batch_size, learning_rate and so on, and `objective` with the objective's settings.
    """
    from idiolect.cli.training_text_options import RunText, is_for_pairs, parse_settings
    from idiolect.models.language_model import LanguageModel
    from idiolect.training.pretrain import pretrain as run
    from idiolect.training.training_config import TrainingConfig

    if objective is not None:
        find_objective("pretrain", objective)
    shape, table, of_objective = ({}, {}, {}) if config is None else _read(config)
    of_objective = of_objective | parse_settings(objective_setting or ())
    settings = table | given(
        steps=steps,
        train=train,
        objective=objective,
        unfreeze_original_rows=unfreeze_original_rows,
        max_length=max_length,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        optimizer=optimizer,
        gradient_checkpointing=gradient_checkpointing,
        precision=precision,
        save_steps=save_steps,
        seed=seed,
        sampling_alpha=sampling_alpha,
        sampling_temperature=sampling_temperature,
        sampling_cap=sampling_cap,
    )
    choices = {n: settings.pop(n) for n in (*_CHOICES, *_SAMPLING) if n in settings}
    plan = TrainingConfig.from_dict(settings)
    if "steps" not in choices:
        raise ConfigError("the number of steps is missing", hint="give --steps")
    if config is not None:
        choices = {"train": "all", "unfreeze_original_rows": True} | choices
    trained = choices.get("train", "rows")
    if trained != "rows+lora":
        refuse_lora(context, f"--train {trained}")
    if not replay:
        refuse_unused(context, "there is no --replay", "replay_share")
    pairs = is_for_pairs(str(choices.get("objective", "causal")))
    if languages is None and not pairs:
        refuse_unused(context, "there is one corpus; --languages names several", *_SAMPLING)
    if pairs:
        refuse_unused(context, "pairs are the lines of two files", "field", "per")
    if config is None:
        start = LanguageModel.load(model, device=local_device(), quantization=quantization)
    else:
        refuse_unused(context, "--config trains new weights, all of them", "quantization")
        start = _new(shape, model, plan.seed)
    text = RunText(
        sources,
        languages=languages,
        replay=replay or (),
        validation=validation or (),
        pairs=pairs,
        field=field,
        per=per,
        max_unreadable=max_unreadable,
    )
    run(
        start,
        text.corpus,
        output_dir=out,
        objective_settings=of_objective,
        replay=text.replay,
        replay_share=replay_share,
        validation=text.validation,
        lora=lora_config(lora_r, lora_target_modules, use_rslora=use_rslora, use_dora=use_dora),
        quantization=quantization,
        config=plan,
        sharded=sharded,
        tensorboard=tensorboard,
        diagnose=diagnose,
        **choices,
    )
    text.report()
    typer.echo(f"the model is in {out / 'model'}")
    if diagnose:
        typer.echo(f"the report on its gradients is in {out / 'report.html'}")
    if (out / "adapter").is_dir():
        _explain_adapter(model, out, quantization)


def merge(
    model: Annotated[str, typer.Argument(help="The base that the adapter was trained for.")],
    adapter: Annotated[
        Path, typer.Argument(help="Directory of an adapter, or the OUT of a pretrain run.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the merged model.")],
    quantization: Annotated[
        Literal["nf4", "int8", "keep"] | None,
        typer.Option(help="Merge into the quantised base. Default: full precision."),
    ] = None,
) -> None:
    """Merge a LoRA adapter, and the rows trained with it, into its base.

    Without --quantization the change is added to the base's full-precision weights. With it, to
    the values that the quantised base has, as in the OUT/model of a pretrain run with this option.
    The merged model is in full precision either way.

    Example: [bold]idiolect merge ./gpt2-medical runs/lora -o ./gpt2-medical-merged[/bold]
    """
    from idiolect.models.language_model import LanguageModel
    from idiolect.models.merging import merge_adapter

    refuse_existing_model(out)
    base = LanguageModel.load(model, quantization=quantization)
    names = merge_adapter(base, adapter)
    base.save(out)
    into = "full-precision weights" if quantization is None else f"{quantization} values"
    typer.echo(f"{len(names)} adapted layers merged into the {into} of {model}: {out}")
    trained_over = _quantization_of(adapter)
    if trained_over != quantization and trained_over is not None:
        typer.echo(
            f"the adapter was trained over the base in {trained_over}: these outputs differ "
            f"slightly from those of {adapter / 'model'}; compare both with idiolect evaluate"
        )


def _explain_adapter(model: str, out: Path, quantization: str | None) -> None:
    """Print what the adapter was merged into, and how to use it otherwise."""
    typer.echo(f"the adapter alone is in {out / 'adapter'}, in peft's layout")
    if quantization is not None:
        typer.echo(
            f"{out / 'model'} is in full precision: the base's {quantization} values plus the "
            f"adapter, as trained; to merge into the base's own weights: "
            f"idiolect merge {model} {out} -o DIRECTORY"
        )


def _quantization_of(run: Path) -> str | None:
    """Return how the base of a run was quantised; `None` if it was not, or for a bare adapter."""
    from idiolect.text.files import read_json

    record = run / "run.json"
    found = read_json(record).get("quantization") if record.exists() else None
    return None if found is None else str(found)


def _new(shape: dict[str, Any], tokenizer: str, seed: int) -> LanguageModel:
    from idiolect.text.tokenizers.tokenizer import Tokenizer
    from idiolect.training.added_tokens import new_model

    model: LanguageModel = new_model(shape, Tokenizer.load(tokenizer), seed=seed)
    model.network.to(local_device())
    return model


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the model config, the training settings and the objective settings of a file."""
    import tomllib

    from idiolect.text.files import read_json, read_text

    if path.suffix == ".toml":
        try:
            values = tomllib.loads(read_text(path))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: {error}", hint="see toml.io for the syntax") from error
    else:
        values = read_json(path)
    if "model_type" in values:
        return values, {}, {}
    tables = [values.get("model"), values.get("training", {}), values.get("objective", {})]
    found = [one for one in tables if isinstance(one, dict)]
    if len(found) < len(tables):
        raise ConfigError(
            f"{path} has no table [model]", hint="add one with the fields of a config.json"
        )
    shape, training, objective = found
    return shape, training, objective
