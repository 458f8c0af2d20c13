"""`pretrain`: go on teaching a language model, on text of a domain, without losing what it knew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from idiolect.errors import ConfigError, InputError
from idiolect.models.adapter import save_adapter
from idiolect.models.language_model import LanguageModel
from idiolect.nn.lora import LoraConfig, add_lora, merge_lora
from idiolect.nn.transformer import Transformer
from idiolect.text.corpus import Corpus
from idiolect.training.checkpoint import RunFolder
from idiolect.training.data.packed_documents import PackedDocuments, TextTemplate
from idiolect.training.data.token_file import TokenFile
from idiolect.training.distributed import Workers, without_weights
from idiolect.training.frozen_rows import (
    bytes_written,
    check_rows,
    fingerprint,
    narrow,
    row_fingerprints,
    widen,
)
from idiolect.training.loop import Objective, Trainer
from idiolect.training.objectives.causal import Causal
from idiolect.training.objectives.masked import Masked
from idiolect.training.optim import Train, choose_parameters, row_rate
from idiolect.training.progress import showing
from idiolect.training.training_config import TrainingConfig

__all__ = ["ObjectiveName", "pretrain"]

ObjectiveName = Literal["causal", "masked"]


def pretrain(
    model: LanguageModel,
    corpus: Corpus,
    *,
    out: str | Path,
    steps: int,
    train: Train = "rows",
    objective: ObjectiveName = "causal",
    replay: Corpus | None = None,
    replay_share: float = 0.1,
    unfreeze_original_rows: bool = False,
    lora: LoraConfig | None = None,
    plan: TrainingConfig | None = None,
    sharded: bool = False,
    tensorboard: bool = False,
) -> LanguageModel:
    """Train a model's rows, adapters or body on a corpus; a run that was ended is gone on with.

    The original embedding and head rows do not move, whatever trains, unless they are unfrozen.
    Under `torchrun` every process calls this with the same arguments.

    Args:
        model: What to train; its network is changed in place.
        corpus: Text of the domain.
        out: The run's folder; see `RunFolder`. The finished model is in `out/model`.
        steps: How many steps the whole run has.
        train: What trains: the added `rows`; `rows+lora`, these and adapters, which are merged at
            the end and also saved in `out/adapter`; the `body`, which is all but the vocabulary's
            rows; `all`, which is all but the original rows.
        objective: `causal` for decoders, `masked` for encoders.
        replay: General text, mixed in against forgetting.
        replay_share: Its share of the characters.
        unfreeze_original_rows: Train the published rows as well.
        lora: Size and place of the adapters.
        plan: Sizes, rates and intervals.
        sharded: Divide all weights among the processes (FSDP2).
        tensorboard: Write TensorBoard events to `out/events`.

    Returns:
        The model, trained, in evaluation mode.

    Raises:
        InputError: The corpus is smaller than one row, rows are longer than the model's positions,
            the model does not fit the objective, there is nothing to train, or the disk has no room
            for the run.
        CheckpointError: `out` holds another run, or its checkpoint is damaged.
        TrainingError: The loss is not finite or explodes.
        VerificationError: Original rows moved.
    """
    plan = plan or TrainingConfig()
    network = model.network
    if train == "rows" and plan.learning_rate is None:
        plan = replace(plan, learning_rate=row_rate(network))
    _check(network, plan, steps, objective)
    workers = Workers.join(network.device)
    folder = RunFolder(out)
    adapters = (lora or LoraConfig()) if train == "rows+lora" else None
    if workers.is_first:
        folder.begin(
            {
                "model": fingerprint(network.state_dict()),
                "tokenizer": model.tokenizer.fingerprint,
                "corpus": repr(corpus),
                "replay": None if replay is None else [repr(replay), replay_share],
                "steps": steps,
                "train": train,
                "objective": objective,
                "unfreeze_original_rows": unfreeze_original_rows,
                "lora": adapters and asdict(adapters),
                "plan": asdict(plan),
            }
        )
        if not folder.tokens.exists():
            text = corpus if replay is None else corpus.mix(replay, replay_share)
            with showing("tokenising the corpus"):
                TokenFile.write(folder.tokens, text, model.tokenizer)
    if adapters is not None:
        with torch.random.fork_rng([]):
            torch.manual_seed(plan.seed)
            add_lora(network, adapters)
    trained = choose_parameters(network, train, unfreeze_original_rows=unfreeze_original_rows)
    if workers.is_first:
        folder.check_space(bytes_written(network, trained))
    workers.wait()
    frozen = {} if unfreeze_original_rows else row_fingerprints(network)
    _train(model, trained, plan, steps, objective, folder, workers, sharded, tensorboard)
    check_rows(model.network, frozen)
    if workers.is_first:
        if adapters is not None:
            save_adapter(model, folder.adapter)
        if not folder.model.exists():
            folder.publish(model.save)
    merge_lora(model.network)
    workers.wait()
    model.network.eval()
    return model


def _train(
    model: LanguageModel,
    trained: Mapping[str, nn.Parameter],
    plan: TrainingConfig,
    steps: int,
    objective: ObjectiveName,
    folder: RunFolder,
    workers: Workers,
    sharded: bool,
    tensorboard: bool,
) -> None:
    network, tokenizer = model.network, model.tokenizer
    tokens = TokenFile(folder.tokens, tokenizer)
    source = PackedDocuments(
        tokens,
        TextTemplate.of(tokenizer, causal=objective == "causal"),
        length=plan.length,
        rows=plan.batch,
        seed=plan.seed,
        pad_id=tokenizer.pad_id,
    )
    goals: dict[str, Callable[[], Objective]] = {
        "causal": lambda: Causal(network),
        "masked": lambda: Masked(network, tokenizer, seed=plan.seed),
    }
    formats = widen(trained)
    whole = without_weights(network) if sharded else None
    trainer = Trainer(
        network,
        goals[objective](),
        source,
        plan,
        steps=steps,
        folder=folder,
        workers=workers,
        sharded=sharded,
        bytes_per_token=tokens.bytes_per_token,
    )
    trainer.run(tensorboard=tensorboard)
    if whole is not None:
        whole.load_state_dict(workers.gather(network.state_dict()), assign=True)
        model.network = whole
    narrow(model.network, formats)


def _check(network: Transformer, plan: TrainingConfig, steps: int, objective: str) -> None:
    if steps < 1:
        raise ConfigError(f"a run of {steps} steps", hint="at least 1")
    if objective not in get_args(ObjectiveName):
        raise ConfigError(
            f"objective={objective!r}", hint="one of " + ", ".join(get_args(ObjectiveName))
        )
    longest = network.config.max_positions
    if longest and plan.length > longest:
        raise InputError(
            f"rows of {plan.length} tokens, and the model has {longest} positions",
            hint=f"set length to at most {longest}",
        )
