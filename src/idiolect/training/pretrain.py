"""`pretrain`: continue a language model's own training on text of a domain."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.models.quantized_weights import (
    Quantization,
    check_quantization,
    quantize_loaded,
)
from idiolect.nn.lora import LoraConfig
from idiolect.text.arguments import checked, load_if_named
from idiolect.text.corpus import Corpus
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.data.packed_documents import PackedDocuments
from idiolect.training.data.segment_stream import SegmentStream
from idiolect.training.data.token_file import TokenFile
from idiolect.training.frozen_rows import fingerprint
from idiolect.training.objectives.causal import CausalStream
from idiolect.training.objectives.objective_registry import (
    check_kind,
    default_objective,
    find_objective,
)
from idiolect.training.optim import Train, row_rate
from idiolect.training.progress import notice, track
from idiolect.training.session import TrainingSession
from idiolect.training.training_config import TrainingConfig
from idiolect.training.validation import validation_loss

__all__ = ["pretrain"]


@checked
def pretrain(
    model: LanguageModel,
    corpus: Corpus,
    *,
    output_dir: str | Path,
    steps: int,
    train: Train = "rows",
    objective: str | None = None,
    replay: Corpus | None = None,
    replay_share: float = 0.1,
    validation: Corpus | None = None,
    unfreeze_original_rows: bool = False,
    lora: LoraConfig | None = None,
    quantization: Quantization | None = None,
    config: TrainingConfig | None = None,
    sharded: bool = False,
    tensorboard: bool = False,
    diagnose: bool = False,
) -> LanguageModel:
    """Train a model's rows, adapters or body on a corpus. Run it again to resume.

    The original embedding and head rows do not move, whatever trains, unless they are unfrozen.
    Under `torchrun` every process calls this with the same arguments.

    Args:
        model: The model, whose network is changed in place; or a name or path to load.
        corpus: Text of the domain: a corpus, a path, or a list of texts.
        output_dir: The run's folder; see `RunFolder`. The finished model is in `output_dir/model`.
        steps: Steps of the whole run.
        train: What trains: the added `rows`; `rows+lora`, added rows and adapters, which are merged
            at the end and also saved in `output_dir/adapter`; the `body`, everything but the
            vocabulary's rows; `all`, everything but the original rows.
        objective: `causal` or `masked`; by default the one for this kind of network. See
            `idiolect.training.objectives.objective_registry`.
        replay: General text, mixed in to reduce forgetting.
        replay_share: Its share of the characters.
        validation: Text that is not trained on; its loss is measured every `config.eval_steps`
            steps and at the end, and decides when `nt-asgd` averages.
        unfreeze_original_rows: Train the published rows as well.
        lora: Size and place of the adapters.
        quantization: Keep the frozen matrices of the layers in few bits, with `rows` or `rows+lora`
            (QLoRA, Dettmers et al. 2023, 2305.14314): `nf4`, `int8`, or `keep` for the blocks of a
            GGUF file as they are. A model given by its name is quantised while it is loaded, so it
            never is in memory in full precision. Vocabulary rows are not quantised anew, so the
            original ones keep their published values. The finished model is in full precision.
        config: Sizes, rates and intervals.
        sharded: Divide all weights among the processes (FSDP2).
        tensorboard: Write TensorBoard events to `output_dir/events`.
        diagnose: Measure the gradients, in a recurrent network also back through time, and report
            them in `output_dir/report.html`.

    Returns:
        The model, trained, in evaluation mode.

    Raises:
        ConfigError: An unknown objective, or one that cannot train this kind of network; a
            quantization that is unknown, has no blocks to keep, or leaves nothing to train.
        InputError: The corpus is smaller than one row, rows are longer than the model's positions,
            there is nothing to train, or the disk has no room for the run.
        CheckpointError: `output_dir` holds another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
        VerificationError: Original rows moved.
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
    if quantization is not None:
        quantize_loaded(model.network, quantization)
    corpus = Corpus.of(corpus)
    replay = None if replay is None else Corpus.of(replay, "replay")
    validation = None if validation is None else Corpus.of(validation, "validation")
    config = TrainingConfig() if config is None else TrainingConfig.of(config)
    _check_optimizer(config, validation)
    network, tokenizer = model.network, model.tokenizer
    if train == "rows" and config.learning_rate is None and config.optimizer == "adamw":
        config = replace(config, learning_rate=row_rate(network))
    name = objective or default_objective(network.kind, model=f"{model.family.title} models")
    entry = find_objective("pretrain", name)
    check_kind(entry, network.kind)
    _check_length(model, config)
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
            "corpus": repr(corpus),
            "replay": None if replay is None else [repr(replay), replay_share],
            "objective": name,
            "validation": None if validation is None else repr(validation),
            "quantization": quantization,
        }
    )
    folder = session.folder
    text = corpus if replay is None else corpus.mix(replay, replay_share)
    tokens = _tokenize(session, text, folder.tokens, tokenizer)

    def create() -> Any:
        return entry.load().create(network, tokenizer, seed=config.seed)

    training_objective = create()
    validate = None
    if validation is not None:
        held_out = _tokenize(session, validation, folder.validation_tokens, tokenizer)
        # An objective of its own, since the one that trains may carry states.
        validate = _validator(session, create(), held_out, tokenizer, config)
    session.train(
        training_objective,
        _source(training_objective, tokens, tokenizer, config),
        bytes_per_token=tokens.bytes_per_token,
        validate=validate,
        diagnose=diagnose,
    )
    session.publish(model.save)
    return model


def _source(
    objective: Any,
    tokens: TokenFile,
    tokenizer: Tokenizer,
    config: TrainingConfig,
    name: str = "the corpus",
) -> SegmentStream | PackedDocuments:
    """Return the batches of an objective: one long text if it carries states, or documents."""
    template = objective.template(tokenizer)
    if isinstance(objective, CausalStream):
        return SegmentStream(
            tokens,
            template,
            length=config.max_length,
            rows=config.batch_size,
            seed=config.seed,
            varies=config.varied_length,
            name=name,
        )
    return PackedDocuments(
        tokens,
        template,
        length=config.max_length,
        rows=config.batch_size,
        seed=config.seed,
        pad_id=tokenizer.pad_token_id,
        name=name,
    )


def _validator(
    session: TrainingSession,
    objective: Any,
    tokens: TokenFile,
    tokenizer: Tokenizer,
    config: TrainingConfig,
) -> Callable[[], float]:
    """Return what measures the loss on the validation text."""
    unvaried = replace(config, varied_length=False)
    source = _source(objective, tokens, tokenizer, unvaried, "the validation text")
    # The session's network, which is another object while the weights are divided.
    return lambda: validation_loss(session.model.network, objective, source)


def _tokenize(
    session: TrainingSession, text: Corpus, folder: Path, tokenizer: Tokenizer
) -> TokenFile:
    """Tokenize a corpus in the first process, unless that was done before."""

    def write() -> None:
        if not _is_intact(folder, tokenizer):
            TokenFile.write(folder, track(text, "tokenizing the corpus, documents"), tokenizer)

    session.on_first(write)
    return TokenFile(folder, tokenizer)


def _check_optimizer(config: TrainingConfig, validation: Corpus | None) -> None:
    if config.optimizer == "nt-asgd" and validation is None:
        raise ConfigError(
            "nt-asgd averages once the validation loss no longer improves, and there is no "
            "validation text",
            hint="pass validation, or choose the optimizer sgd",
        )


def _is_intact(folder: Path, tokenizer: Tokenizer) -> bool:
    """Return whether a corpus was tokenized; damaged files are named and deleted."""
    if not folder.exists():
        return False
    try:
        TokenFile(folder, tokenizer)
    except CheckpointError as error:
        notice(f"{error.message}; tokenizing the corpus again")
        shutil.rmtree(folder)
        return False
    return True


def _check_length(model: LanguageModel, config: TrainingConfig) -> None:
    longest = model.network.config.max_position_embeddings
    if longest and config.max_length > longest:
        raise InputError(
            f"rows of {config.max_length} tokens, and the model has {longest} positions",
            hint=f"set max_length to at most {longest}",
        )
