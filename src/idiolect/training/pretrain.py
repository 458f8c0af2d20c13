"""`pretrain`: continue a language model's own training on text of a domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from idiolect.errors import ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.models.quantized_weights import (
    Quantization,
    check_quantization,
    quantize_loaded,
)
from idiolect.nn.lora import LoraConfig
from idiolect.text.arguments import checked, load_if_named
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.added_tokens import add_tokens
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.language_ids import find_language_ids
from idiolect.training.objectives.objective_registry import (
    ObjectiveEntry,
    check_kind,
    default_objective,
    find_objective,
)
from idiolect.training.objectives.objective_settings import check_settings
from idiolect.training.optim import Train, row_rate
from idiolect.training.progress import notice
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig
from idiolect.training.training_text import CorpusSampling, TrainingText
from idiolect.training.validation import validation_loss

__all__ = ["pretrain"]


@checked
def pretrain(
    model: LanguageModel,
    corpus: Any,
    *,
    output_dir: str | Path,
    steps: int,
    train: Train = "rows",
    objective: str | None = None,
    objective_settings: Mapping[str, Any] | None = None,
    replay: Any = None,
    replay_share: float = 0.1,
    sampling_alpha: float | None = None,
    sampling_temperature: float | None = None,
    sampling_cap: int | None = None,
    validation: Any = None,
    unfreeze_original_rows: bool = False,
    lora: LoraConfig | None = None,
    quantization: Quantization | None = None,
    config: TrainingConfig | None = None,
    sharded: bool = False,
    tensorboard: bool = False,
    diagnose: bool = False,
) -> LanguageModel:
    """Train a model's rows, adapters or body on a corpus. Run it again to resume.

    The original embedding and head rows never change, unless they are unfrozen.
    Under `torchrun` every process calls this with the same arguments.

    Args:
        model: The model, whose network is changed in place; or a name or path to load.
        corpus: Text of the domain: a corpus, a path, or a list of texts; or a dict of these by
            language. For `translation_masked`, a list of pairs of texts, or a dict of such lists by
            languages, such as `{"en-de": pairs}`.
        output_dir: The run's folder; see `RunFolder`. The finished model is in `output_dir/model`.
        steps: Number of steps of the whole run.
        train: The parameters to train. `rows`: the added rows; `rows+lora`: added rows and
            adapters, which are merged at the end and also saved in `output_dir/adapter`; `body`:
            everything except the vocabulary rows; `all`: everything except the original rows.
        objective: `causal`, `masked`, `masked+next_sentence`, `translation_masked`,
            `span_corruption`, `denoising` or `prefix`; by default the one for this kind of network.
            Special tokens that it needs and the tokenizer lacks are added, with a notice.
        objective_settings: Settings of the objective: arguments of its class.
        replay: General text, in the same form, mixed in to reduce forgetting.
        replay_share: Share of the replayed text in the characters, or in the rows if the corpus is
            a dict or pairs.
        sampling_alpha: With several corpora, the exponent of a corpus's share of the tokens: 1
            samples in proportion to size, a smaller value favours small corpora. By default 0.5.
        sampling_temperature: 1 / alpha, as an alternative.
        sampling_cap: With several corpora, the maximum size in tokens that a corpus counts with.
        validation: Held-out text; its loss is measured every `config.eval_steps` steps and at the
            end, and decides when `nt-asgd` starts averaging.
        unfreeze_original_rows: Train the published rows as well.
        lora: Size and target layers of the adapters.
        quantization: Quantise the frozen matrices of the layers, with `rows` or `rows+lora` (QLoRA,
            Dettmers et al. 2023, 2305.14314): `nf4`, `int8`, or `keep` for the unchanged blocks of
            a GGUF file. A model given by name is quantised while it is loaded, so it is never in
            memory in full precision. Vocabulary rows are not re-quantised, so the original ones
            keep their published values. The finished model is in full precision.
        config: Sizes, rates and intervals.
        sharded: Shard all weights among the processes (FSDP2).
        tensorboard: Write TensorBoard events to `output_dir/events`.
        diagnose: Measure the gradients, in a recurrent network also back through time, and report
            them in `output_dir/report.html`.

    Returns:
        The model, trained, in evaluation mode.

    Raises:
        ConfigError: The objective is unknown or cannot train this kind of network; or the
            quantization is unknown, has no blocks to keep, or leaves nothing to train.
        InputError: The corpus is smaller than one row, rows are longer than the model's positions,
            there is nothing to train, or the disk does not have enough space for the run.
        CheckpointError: `output_dir` contains another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
        VerificationError: Original rows changed.
    """
    check_quantization(quantization)
    if quantization is not None and train in ("body", "all"):
        raise ConfigError(
            f"train={train!r} and quantization={quantization!r}: quantised weights are frozen",
            hint="train rows or rows+lora, or omit the quantization",
        )
    if isinstance(model, str | Path):
        model = LanguageModel.load(model, quantization=quantization)
    model = load_if_named(model, LanguageModel, "model")
    name = objective or default_objective(
        model.network.kind, model=f"{model.family.title} models", tokenizer=model.tokenizer
    )
    entry = find_objective("pretrain", name)
    check_kind(entry, model.network.kind)
    config = TrainingConfig() if config is None else TrainingConfig.of(config)
    settings = check_settings(entry.load(), name, objective_settings or {})
    text = TrainingText(
        corpus,
        replay=replay,
        replay_share=replay_share,
        sampling=CorpusSampling(
            alpha=sampling_alpha, temperature=sampling_temperature, cap=sampling_cap
        ),
        pairs=entry.data == "pairs",
    )
    held_out = None
    if validation is not None:
        held_out = TrainingText(validation, pairs=entry.data == "pairs", name="validation")
    _check_optimizer(config, held_out)
    _check_length(model, config)
    model = _complete(model, entry, settings, config, frozen=not unfreeze_original_rows)
    network, tokenizer = model.network, model.tokenizer
    if quantization is not None:
        quantize_loaded(network, quantization)
    if train == "rows" and config.learning_rate is None and config.optimizer == "adamw":
        config = replace(config, learning_rate=row_rate(network))
    languages = find_language_ids(model, entry.load().languages_are, text.languages)

    def create() -> Any:
        given = settings if languages is None else {**settings, "language_ids": languages}
        return entry.load().create(network, tokenizer, seed=config.seed, **given)

    training_objective = create()
    session = TrainingSession(
        model,
        out=output_dir,
        config=config,
        steps=steps,
        train=train,
        lora=lora,
        unfreeze_original_rows=unfreeze_original_rows,
        sharded=sharded,
        tensorboard=tensorboard,
    )
    session.begin(
        {
            "model": fingerprint(network.state_dict()),
            "tokenizer": tokenizer.fingerprint,
            "corpus": text.record(),
            "objective": name,
            "objective_settings": settings,
            "validation": None if held_out is None else held_out.record(),
            "quantization": quantization,
        }
    )
    sentences = training_objective.needs_sentences
    text.tokenize(session, session.folder.tokens, tokenizer, sentences=sentences)
    validate = None
    if held_out is not None:
        folder = session.folder.validation_tokens
        held_out.tokenize(session, folder, tokenizer, sentences=sentences)
        # A separate objective instance, since that of the training may carry states.
        validate = _validator(session, create(), held_out, tokenizer, config)
    session.train(
        training_objective,
        text.source(training_objective, tokenizer, config),
        bytes_per_token=text.bytes_per_token,
        validate=validate,
        diagnose=diagnose,
    )
    session.publish(model.save)
    return model


def _complete(
    model: LanguageModel,
    entry: ObjectiveEntry,
    settings: Mapping[str, Any],
    config: TrainingConfig,
    *,
    frozen: bool,
) -> LanguageModel:
    """Return the model with the special tokens that its objective needs, and report new ones."""
    names = entry.load().missing_tokens(model.tokenizer, max_length=config.max_length, **settings)
    if not names:
        return model
    shown = names[0] if len(names) == 1 else f"{len(names)} tokens, {names[0]} to {names[-1]},"
    notice(f"the tokenizer lacks {shown} which {entry.name} needs: added")
    return add_tokens(model, names, seed=config.seed, frozen=frozen)


def _validator(
    session: TrainingSession,
    objective: Any,
    text: TrainingText,
    tokenizer: Tokenizer,
    config: TrainingConfig,
) -> Callable[[], float]:
    """Return a function that measures the loss on the validation text."""
    unvaried = replace(config, varied_length=False)
    sources = text.sources(objective, tokenizer, unvaried)
    # The session's network, which is another object while the weights are sharded.
    return lambda: validation_loss(session.model.network, objective, *sources)


def _check_optimizer(config: TrainingConfig, validation: TrainingText | None) -> None:
    if config.optimizer == "nt-asgd" and validation is None:
        raise ConfigError(
            "nt-asgd averages once the validation loss no longer improves, and there is no "
            "validation text",
            hint="pass validation, or choose the optimizer sgd",
        )


def _check_length(model: LanguageModel, config: TrainingConfig) -> None:
    longest = model.network.config.max_position_embeddings
    if longest and config.max_length > longest:
        raise InputError(
            f"rows of {config.max_length} tokens, and the model has {longest} positions",
            hint=f"set max_length to at most {longest}",
        )
