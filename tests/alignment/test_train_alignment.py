"""Objectives in the training session: first losses, invariances, resuming, and bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from idiolect.alignment.chat.chat_encoding import encode_conversation
from idiolect.alignment.chat.conversations import Conversation
from idiolect.alignment.chat.fine_tune import alignment_config, fine_tune
from idiolect.alignment.chat.packed_conversations import pack_conversations
from idiolect.alignment.chat.supervised import SupervisedTuning
from idiolect.alignment.judging.pair_judges import AnswerPair, LikelihoodJudge
from idiolect.alignment.preference.completion_batch import (
    CompletionBatch,
    EncodedCompletion,
    score_texts,
)
from idiolect.alignment.preference.preference_objective import (
    PreferenceObjective,
    PreferenceSettings,
)
from idiolect.alignment.preference.preferences import (
    JudgedCompletion,
    Preference,
    judged_completions,
    read_judged_completions,
    read_preferences,
)
from idiolect.alignment.preference.train_preferences import preference_config, train_preferences
from idiolect.alignment.reinforcement.policy_settings import PolicySettings
from idiolect.alignment.reinforcement.prompts import PolicyPrompt
from idiolect.alignment.reinforcement.rewards import (
    AnswerReward,
    FunctionReward,
    SearchReward,
    load_reward,
)
from idiolect.alignment.reinforcement.train_policy import policy_config, train_policy
from idiolect.alignment.reward.reward_model import RewardModel
from idiolect.alignment.reward.reward_objective import train_reward
from idiolect.cli.align.judge import judge
from idiolect.errors import CheckpointError, ConfigError, InputError, TrainingError
from idiolect.generate.generator import Generation, Generator
from idiolect.generate.prompts.chat_template import find_chat_template
from idiolect.models.language_model import LanguageModel
from idiolect.nn.lora import LoraConfig, add_lora, lora_layers, without_adapters
from idiolect.pipeline.report.alignment_page import write_alignment_report
from idiolect.text.skipped import Skipped
from idiolect.training.session import TrainingSession
from training import models

PAIRS = [
    Preference(f"w{i} w{i + 1}", f" w{i + 2} w{i + 3} w{i + 4}", f" w{i + 5}") for i in range(8)
]
PROMPTS = [PolicyPrompt(f"w{i} w{i + 1} w{i + 2}") for i in range(8)]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def liked_words(prompts: object, completions: list[str], records: object) -> list[float]:
    """Count the words w4 to w11."""
    liked = {f"w{i}" for i in range(4, 12)}
    return [float(sum(word in liked for word in text.split())) for text in completions]


@pytest.mark.parametrize("train", ["all", "rows+lora"])
def test_dpo_begins_at_ln_2_and_learns_with_its_original_rows_frozen(
    tmp_path: Path, train: Any
) -> None:
    model = models.model(grown=False)
    before = models.fingerprint(model.network.tokens.weight)  # type: ignore[arg-type]
    config = preference_config(batch_size=4, learning_rate=1e-2, max_length=32)
    train_preferences(
        model, PAIRS, output_dir=tmp_path, epochs=10, train=train, config=config,
        lora=LoraConfig(r=2),
    )  # fmt: skip
    first, *_, last = lines(tmp_path)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert last["loss"] < 0.9 * math.log(2)
    assert last["rewards/accuracies"] == 1
    assert models.fingerprint(model.network.tokens.weight) == before  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "first"), [("ipo", 25.0), ("kto", 0.5), ("orpo", None), ("simpo", None)]
)
def test_other_preference_losses_begin_and_fall(
    tmp_path: Path, loss: Any, first: float | None
) -> None:
    data: Any = judged_completions(PAIRS) if loss == "kto" else PAIRS
    config = preference_config(batch_size=8, learning_rate=1e-2, max_length=32)
    train_preferences(
        models.model(grown=False), data, output_dir=tmp_path, steps=8, config=config,
        settings=PreferenceSettings(loss=loss),
    )  # fmt: skip
    found = lines(tmp_path)
    if first is not None:
        assert found[0]["loss"] == pytest.approx(first, abs=1e-4)
    assert found[-1]["loss"] < found[0]["loss"]


def test_another_run_does_not_use_the_reference_of_one_that_was_killed_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = preference_config(batch_size=8, max_length=32)
    swapped = [Preference(pair.prompt, pair.rejected, pair.chosen) for pair in PAIRS]

    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSession, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            train_preferences(models.model(grown=False), PAIRS, output_dir=tmp_path, config=config)
    train_preferences(models.model(grown=False), swapped, output_dir=tmp_path, config=config)
    assert lines(tmp_path)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)


def test_completions_of_other_prompts_are_cut_to_the_length_of_a_text(tmp_path: Path) -> None:
    """KTO puts the completion of a short prompt after a long one; both may be too long together."""
    long, short = " ".join(["w1"] * 24), "w2 w3"
    data = [JudgedCompletion(long, f" {short}", True), JudgedCompletion(short, f" {long}", False)]
    model = models.model("gpt2", grown=False, n_positions=32)
    config = preference_config(batch_size=2)
    kto = PreferenceSettings(loss="kto")
    train_preferences(model, data, output_dir=tmp_path, settings=kto, config=config)
    assert lines(tmp_path)[0]["tokens"] <= 4 * 32


@torch.no_grad()
def test_padding_and_order_change_nothing() -> None:
    network = models.model(grown=False).network
    texts = [EncodedCompletion([4, 5, 2], [6, 7, 2]), EncodedCompletion([8], [9, 2])]
    found = score_texts(network, CompletionBatch.of([texts], pad_id=0)).log_probs
    # Padding with the end token hides no end token of a text.
    for pad_id in (2, 11):
        other = score_texts(network, CompletionBatch.of([texts], pad_id=pad_id)).log_probs
        assert torch.equal(found, other)
    alone = [score_texts(network, CompletionBatch.of([[one]])).log_probs for one in reversed(texts)]
    assert torch.allclose(torch.cat(alone, 1), found.flip(1), atol=1e-6)
    batch = CompletionBatch.of([texts])
    rolled = {
        name: torch.stack([getattr(batch, name)[0, 0], getattr(batch, name)[0, 1].roll(3)])[None]
        for name in ("input_ids", "attention_mask", "labels", "completion")
    }
    left = score_texts(network, replace(batch, **rolled)).log_probs
    assert torch.allclose(left, found, atol=1e-6)
    logits = network(torch.tensor([[4, 5, 2, 6, 7, 2]])).logits[0].log_softmax(-1)
    by_hand = logits[[2, 3, 4], [6, 7, 2]].sum()
    assert float(found[0, 0]) == pytest.approx(float(by_hand), abs=1e-5)


def gradient(objective: Any, network: Any, batch: Any, size: int) -> torch.Tensor:
    network.zero_grad()
    for start in range(0, len(batch), size):
        objective.loss(network, batch.part(slice(start, start + size))).backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    network = models.model(grown=False).network
    examples = [
        [EncodedCompletion([4, 5], [6 + i, 2]), EncodedCompletion([4, 5], [7] * (i + 1))]
        for i in range(4)
    ]
    for loss in ("dpo", "orpo"):
        settings = PreferenceSettings(loss=loss)  # type: ignore[arg-type]
        objective = PreferenceObjective(network, examples, settings)
        batch = objective.batch(range(4))
        whole, parts = (gradient(objective, network, batch, size) for size in (4, 1))
        assert torch.allclose(whole, parts, atol=1e-5)


def test_packed_conversations_have_the_loss_of_unpacked_ones() -> None:
    model = models.model(grown=False)
    texts = [
        text
        for i in range(6)
        for text in encode_conversation(
            model.tokenizer, Conversation((), f"w{i} w{i + 1}", f" w{i + 2}" * (i + 1))
        )
    ]
    packed = pack_conversations([len(text.ids) for text in texts], 20)
    assert len(packed) < 4
    found = [
        SupervisedTuning(model.network, texts, rows).mean_loss(model.network)
        for rows in (packed, [[i] for i in range(6)])
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_the_base_is_the_reference_under_lora() -> None:
    network = models.model(grown=False).network
    ids = torch.tensor([[4, 5, 6]])
    before = network(ids).logits
    add_lora(network, LoraConfig(r=2, use_dora=True))
    for layer in lora_layers(network).values():
        torch.nn.init.normal_(layer.lora_b)
    assert not torch.allclose(network(ids).logits, before)
    with without_adapters(network):
        assert torch.equal(network(ids).logits, before)


@pytest.mark.parametrize("algorithm", ["ppo", "rloo", "grpo"])
def test_a_policy_begins_at_its_reference_and_raises_the_reward(
    tmp_path: Path, algorithm: Any
) -> None:
    group = 1 if algorithm == "ppo" else 4
    settings = PolicySettings(
        algorithm=algorithm, max_new_tokens=4, num_generations=group, beta=0.01,
        updates=2 if algorithm == "ppo" else 1,
    )  # fmt: skip
    config = policy_config(batch_size=32, learning_rate=1e-2, max_length=32)
    reward = FunctionReward(liked_words)
    model = models.model(grown=False)
    train_policy(
        model, PROMPTS * 4, reward, output_dir=tmp_path, settings=settings, steps=20, config=config
    )
    found = lines(tmp_path)
    first, last = found[0], found[-1]
    assert first["ratio"] == pytest.approx(1, abs=1e-6)
    assert first["kl"] == pytest.approx(0, abs=1e-5)
    assert first["clip_share"] == 0
    assert last["kl_estimate"] > 0
    means = [sum(one["reward"] for one in part) / 6 for part in (found[:6], found[-6:])]
    assert means[1] > means[0] + 0.25


def test_a_run_killed_within_a_rollout_resumes_bit_identical(tmp_path: Path) -> None:
    settings = PolicySettings(algorithm="ppo", max_new_tokens=4, updates=4, kl_target=1.0)
    config = policy_config(batch_size=4, learning_rate=1e-3, max_length=32, save_steps=1)

    def run(folder: str, reward: Callable[..., list[float]]) -> Any:
        model = models.model(grown=False)
        return train_policy(
            model, PROMPTS, FunctionReward(reward), output_dir=tmp_path / folder,
            settings=settings, steps=7, config=config,
        ).network.state_dict()  # fmt: skip

    whole = run("whole", liked_words)
    calls = 0

    def killed(*given: Any) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return liked_words(*given)

    with pytest.raises(KeyboardInterrupt):
        run("killed", killed)
    # The last checkpoint before the second rollout is lost, so the first one is resumed inside.
    (tmp_path / "killed" / "checkpoints").exists()
    resumed = run("killed", liked_words)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert [one["loss"] for one in lines(tmp_path / "killed")] == [
        one["loss"] for one in lines(tmp_path / "whole")
    ]


def test_samples_may_contain_line_separators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = Generator.generate

    def separated(generator: Generator, *given: Any, **options: Any) -> list[Generation]:
        found = generate(generator, *given, **options)
        return [replace(one, text=f"one\u2028two\x85{one.text}") for one in found]

    monkeypatch.setattr(Generator, "generate", separated)
    settings = PolicySettings(max_new_tokens=4, num_generations=4)
    config = policy_config(batch_size=8, max_length=32)
    train_policy(
        models.model(grown=False), PROMPTS, FunctionReward(liked_words), output_dir=tmp_path,
        settings=settings, steps=3, config=config,
    )  # fmt: skip
    kept = (tmp_path / "samples.jsonl").read_text().removesuffix("\n").split("\n")
    assert [json.loads(line)["rollout"] for line in kept] == [0] * 4 + [1] * 4 + [2] * 4
    assert "Last texts" in write_alignment_report(tmp_path).read_text()


def test_rewards_that_teach_nothing_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = PolicySettings(max_new_tokens=2, num_generations=2)
    config = policy_config(batch_size=4, max_length=32)

    def run(folder: str, value: float) -> None:
        train_policy(
            models.model(grown=False), PROMPTS, FunctionReward(lambda p, c, r: [value] * len(c)),
            output_dir=tmp_path / folder, settings=settings, steps=1, config=config,
        )  # fmt: skip

    run("constant", 1.0)
    said = capsys.readouterr().err
    assert "have the reward 1, which teaches nothing" in said
    with pytest.raises(TrainingError, match="the reward is nan for the prompt 'w"):
        run("nan", math.nan)


def test_bad_input_is_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '{"prompt": "w1", "chosen": "w2", "rejected": "w3"}\n'
        '{"prompt": "w1", "chosen": "w2", "rejected": "w2"}\n'
        '{"prompt": "w1", "chosen": "", "rejected": "w2"}\n'
        '{"chosen": "\\n\\nHuman: w1\\n\\nAssistant: w2", '
        '"rejected": "\\n\\nHuman: w1\\n\\nAssistant: w3"}\n'
        '{"instruction": "w1", "output_1": "w2", "output_2": "w3", "preference": 2}\n'
        '{"instruction": "w1", "output_1": "w2", "output_2": "w3", "preference": 0}\n'
    )
    skipped = Skipped()
    found = read_preferences(path, skipped=skipped, max_unreadable=0.5)
    assert [(one.chosen, one.rejected) for one in found] == [
        ("w2", "w3"),
        ("w2", "w3"),
        ("w3", "w2"),
    ]
    assert skipped == {"chosen equals rejected": 1, "empty completion": 1, "tie": 1}
    with pytest.raises(InputError, match="2 of 5 preferences cannot be used"):
        read_preferences(path)
    config = preference_config(batch_size=1, max_length=8)
    long = Preference(" w1" * 8, " w2", " w3")
    train_preferences(
        models.model(grown=False), [long, PAIRS[0]], output_dir=tmp_path / "a", config=config
    )
    assert "1 of 2 examples have a prompt of 8 tokens or more" in capsys.readouterr().err
    with pytest.raises(InputError, match="all 1 examples have a prompt of 8 tokens or more"):
        train_preferences(
            models.model(grown=False), [long], output_dir=tmp_path / "b", config=config
        )
    with pytest.raises(InputError, match="there is one prompt only"):
        train_preferences(
            models.model(grown=False),
            [JudgedCompletion("w1", " w2", True), JudgedCompletion("w1", " w3", False)],
            output_dir=tmp_path / "c",
            settings=PreferenceSettings(loss="kto"),
        )


def test_cells_of_csv_and_judgements_between_1_and_2_are_read(tmp_path: Path) -> None:
    path = tmp_path / "judged.csv"
    path.write_text("prompt,completion,label\nw1,w2,true\nw1,w3,0\n")
    assert [one.good for one in read_judged_completions(path)] == [True, False]
    path.write_text("prompt,completion,label\nw1,w2,good\n")
    with pytest.raises(InputError, match="label is neither true nor false"):
        read_judged_completions(path)
    path.write_text(
        "instruction,output_1,output_2,preference\nw1,w2,w3,1\nw1,w2,w3,1.98\nw1,w2,w3,1.5\n"
        "w1,w2,w3,nan\n"
    )
    skipped = Skipped()
    found = read_preferences(path, skipped=skipped, max_unreadable=0.5)
    assert [one.chosen for one in found] == ["w2", "w3"]
    assert skipped == {"tie": 1, "no judgement": 1}
    path.write_text("prompt,chosen,rejected,margin\nw1,w2,w3,0.5\nw1,w2,w3,\n")
    assert [one.margin for one in read_preferences(path)] == [0.5, 0.0]


def test_sft_learns_what_it_is_shown(tmp_path: Path) -> None:
    data = [Conversation((), f"w{i}", f" w{i + 1} w{i + 2}") for i in range(8)]
    config = alignment_config(batch_size=4, learning_rate=1e-2, max_length=16)
    model = fine_tune(
        models.model(grown=False), data, output_dir=tmp_path, steps=50, validation=data[:4],
        config=config, packing=True,
    )  # fmt: skip
    found = lines(tmp_path)
    assert found[-1]["loss"] < 0.6 * found[0]["loss"]
    assert found[-1]["validation_loss"] < 0.6 * found[0]["loss"]
    assert (tmp_path / "model" / "config.json").exists()
    assert model.network.training is False


def test_verifiers_and_search_as_rewards() -> None:
    given = [PolicyPrompt("q", {"answer": "#### 1,200", "relevant": ["a"]})] * 3
    assert AnswerReward()(given, ["it is 1200.", "1200 or 7", "none"]) == [1, 0, 0]
    counted = [PolicyPrompt("q", {"answer": answer}) for answer in ("5", "-5", "-5")]
    assert AnswerReward()(counted, ["from 3-5", "it is -5", "12-17=-5"]) == [1, 1, 1]
    ranked = {"good": ["a", "b"], "second": ["b", "a"]}
    reward = SearchReward(lambda queries: [ranked[query] for query in queries])
    found = reward(given, ["good", "second", " "])
    assert found == pytest.approx([1, 1 / math.log2(3), 0])


def test_a_conversation_of_several_texts_is_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A template that rewrites earlier answers makes each answer a text of its own."""
    model = models.model(grown=False)
    model.tokenizer.settings["chat_template"] = (
        "{% for message in messages %}{{ message['content'] if loop.last or "
        "message['role'] == 'user' else 'w9' }} {% endfor %}"
    )
    turns = [{"role": ("user", "assistant")[i % 2], "content": f"w{i}"} for i in range(40)]
    config = alignment_config(batch_size=2, max_length=16)
    fine_tune(model, [Conversation(tuple(turns))], output_dir=tmp_path, steps=1, config=config)
    said = capsys.readouterr().err
    assert "1 of 1 conversations are cut after 16 tokens" in said
    assert "left out" not in said


def test_records_without_what_the_reward_needs_are_named_before_training(tmp_path: Path) -> None:
    for reward, record in ((AnswerReward(), {"answer": " "}), (SearchReward(lambda q: []), {})):
        complete = {"answer": "7", "relevant": {"a": 1}}
        prompts = [PolicyPrompt(f"w{i}", record if i == 5 else complete) for i in range(8)]
        settings = PolicySettings(max_new_tokens=2, num_generations=2)
        with pytest.raises(InputError, match=r"1 of 8 have none .the first: 'w5'"):
            train_policy(
                models.model(grown=False), prompts, reward,
                output_dir=tmp_path / "run", settings=settings, config=policy_config(batch_size=4),
            )  # fmt: skip
        assert not (tmp_path / "run").exists()


def test_errors_in_a_reward_function_name_its_line(tmp_path: Path) -> None:
    path = tmp_path / "reward.txt"  # any ending; data classes look their module up
    path.write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Word:\n    length: int\n"
        "def score(prompts, completions, records):\n"
        "    return [Word(len(text)).length for text in completions]\n"
        "def wrong(prompts, completions, records):\n    return records[0]['key']\n"
    )
    assert load_reward(f"python:{path}:score")([PROMPTS[0]], ["w1"]) == [2]
    with pytest.raises(TrainingError, match=r"raised KeyError: 'key' .reward.txt line 9"):
        load_reward(f"python:{path}:wrong")([PROMPTS[0]], ["w1"])
    path.write_text("import math\ndef score(:\n")
    with pytest.raises(InputError, match=r"SyntaxError: .* .reward.txt line 2"):
        load_reward(f"python:{path}:score")


def test_only_conversations_give_a_model_a_chat_template(tmp_path: Path) -> None:
    """Plain texts are learnt as they are, so that a template would be a format never seen."""
    config = alignment_config(batch_size=2, max_length=64)
    plain = [Conversation((), f"w{i}", f" w{i + 1}") for i in range(4)]
    turns = ({"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"})
    for name, data in (("plain", plain), ("chat", [*plain, Conversation(turns)])):
        fine_tune(
            models.model(grown=False), data, output_dir=tmp_path / name, steps=1, config=config
        )
        saved = LanguageModel.load(tmp_path / name / "model").tokenizer
        assert (find_chat_template(saved) is not None) == (name == "chat")


def test_prompts_with_messages_give_a_model_a_chat_template(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most published preferences have messages, and ORPO starts from models without a template."""
    turns = ({"role": "user", "content": "w1"},)
    pairs = [Preference(turns, "w2", "w3"), *PAIRS[:3]]
    config = preference_config(batch_size=2, max_length=64)
    train_preferences(
        models.model(grown=False), pairs, output_dir=tmp_path / "orpo", steps=1, config=config,
        settings=PreferenceSettings(loss="orpo"),
    )  # fmt: skip
    train_policy(
        models.model(grown=False), [PolicyPrompt(turns)] * 2, FunctionReward(liked_words),
        output_dir=tmp_path / "grpo", steps=1, config=policy_config(batch_size=4),
        settings=PolicySettings(max_new_tokens=2, num_generations=2),
    )  # fmt: skip
    for name in ("orpo", "grpo"):
        saved = LanguageModel.load(tmp_path / name / "model").tokenizer
        assert find_chat_template(saved) is not None
    assert capsys.readouterr().err.count("has no chat template") == 2
    plain = AnswerPair("w1", "w2", "w3")
    judge = LikelihoodJudge(models.model(grown=False))
    before = judge([plain])
    assert judge([AnswerPair(turns, "w2", "w3"), plain])[1] == pytest.approx(before[0])
    assert judge([plain]) == pytest.approx(before)


def test_answers_that_are_cut_for_a_reward_model_or_judge_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = " w1" * 80
    pairs = [*PAIRS[:3], Preference("w1", long + " w2", long + " w3")]
    for name in ("llama", "bert"):
        model = RewardModel.of(models.model(name, grown=False), max_length=16)
        train_reward(model, pairs, output_dir=tmp_path / name, steps=1)
        said = capsys.readouterr().err
        assert "1 of 4 pairs are cut to 16 tokens, 1 of which have equal sides then" in said
    answers = [AnswerPair(one.prompt, one.chosen, one.rejected) for one in pairs]
    LikelihoodJudge(models.model(grown=False)).report_cut(answers)
    assert "1 of 4 pairs are cut to 64 tokens" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="need a causal model"):
        LikelihoodJudge(models.model("bert", grown=False))


def test_a_reward_model_is_published_with_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed while scores are normalised leaves no model with other scores."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    def run() -> RewardModel:
        model = RewardModel.of(models.model("bert", grown=False), max_length=16)
        return train_reward(model, PAIRS, output_dir=tmp_path, steps=1)

    with monkeypatch.context() as changed:
        changed.setattr(RewardModel, "normalise", killed)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert not (tmp_path / "model").exists()
    made = run()
    loaded = RewardModel.load(tmp_path / "model")
    assert (loaded.mean, loaded.std, loaded.max_length) == (made.mean, made.std, 16)


def test_messages_that_a_template_refuses_are_counted_and_named(tmp_path: Path) -> None:
    """Gemma's and Mistral's templates refuse system messages, for example."""
    model = models.model(grown=False)
    model.tokenizer.settings["chat_template"] = (
        "{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ message['content'] }} {% endfor %}"
    )
    system, user = {"role": "system", "content": "w1"}, {"role": "user", "content": "w2"}
    prompts = [(system, user) if i in (2, 4) else (user,) for i in range(6)]
    message = r"2 of 6 {} cannot be rendered .the first: 3, 5.: .*System role not supported"
    answer = {"role": "assistant", "content": "w3"}
    talks = [Conversation((*one, answer)) for one in prompts]
    with pytest.raises(CheckpointError, match=message.format("conversations")):
        fine_tune(model, talks, output_dir=tmp_path / "a")
    pairs = [Preference(one, "w3", "w4") for one in prompts]
    with pytest.raises(CheckpointError, match=message.format("examples")):
        train_preferences(model, pairs, output_dir=tmp_path / "b")
    given = [PolicyPrompt(one) for one in prompts]
    with pytest.raises(CheckpointError, match=message.format("prompts")):
        train_policy(model, given, AnswerReward(), output_dir=tmp_path / "c")


def test_judged_files_of_one_name_have_one_result_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models.model(grown=False).save(tmp_path / "model")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        line = json.dumps({"prompt": "w1", "chosen": f"w2 w{len(folder)}", "rejected": "w3"})
        (tmp_path / folder / "test.jsonl").write_text(line)
    files = [tmp_path / folder / "test.jsonl" for folder in ("a", "b")]
    judge(files, "log-probability", str(tmp_path / "model"), as_json=True)
    assert list(json.loads(capsys.readouterr().out)) == [str(path) for path in files]
    judge(files[:1], "log-probability", str(tmp_path / "model"), as_json=True)
    assert list(json.loads(capsys.readouterr().out)) == ["test.jsonl"]


def without_end() -> LanguageModel:
    made = models.model(grown=False)
    del made.tokenizer.settings["eos_token"]
    assert made.tokenizer.eos_token_id is None
    return made


def test_an_answer_without_tokens_loses_to_any_other() -> None:
    judge = LikelihoodJudge(without_end())
    pairs = [AnswerPair("w1", "", "w2"), AnswerPair("w1", "w2", ""), AnswerPair("w1", "", "")]
    pairs.append(AnswerPair("w1", "w2", "w3"))
    first, second, tie, usual = judge(pairs)
    assert (first, second, tie) == (0.0, 1.0, 0.5)
    assert 0 < usual < 1


def test_what_a_judge_returns_is_not_called_the_reward(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the judge's reward is nan for the prompt"):
        train_policy(
            models.model(grown=False),
            PROMPTS,
            FunctionReward(liked_words),
            judge=FunctionReward(lambda prompts, texts, records: [math.nan] * len(texts)),
            output_dir=tmp_path,
            steps=1,
            settings=PolicySettings(max_new_tokens=2, num_generations=2),
            config=policy_config(batch_size=4),
        )


@pytest.mark.parametrize("good", [True, False])
def test_kto_tells_if_all_examples_have_one_label(
    good: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, labels: list[bool]) -> str:
        train_preferences(
            models.model(grown=False),
            [JudgedCompletion(f"w{i}", " w9", label) for i, label in enumerate(labels)],
            output_dir=tmp_path / name,
            settings=PreferenceSettings(loss="kto"),
            steps=1,
        )
        return capsys.readouterr().err

    assert f"all 3 examples are {'good' if good else 'bad'}: KTO" in run("one", [good] * 3)
    assert "examples are" not in run("both", [True, False])


def test_a_damaged_record_of_a_reward_model_is_named(tmp_path: Path) -> None:
    RewardModel.of(models.model("bert", grown=False), max_length=16).save(tmp_path)
    path = tmp_path / "reward.json"
    record = json.loads(path.read_text())
    for damage in (
        *({"max_length": value} for value in ("16", 16.5, True, 3, 10**6)),
        {"mean": math.nan},
        {"std": math.inf},
    ):
        path.write_text(json.dumps(record | damage))
        with pytest.raises(CheckpointError, match=r"reward\.json is damaged"):
            RewardModel.load(tmp_path)


def test_a_model_that_cannot_learn_to_end_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, model in (("none", without_end()), ("end", models.model(grown=False))):
        fine_tune(model, [Conversation((), "w1", " w2")], output_dir=tmp_path / name, steps=1)
        told = "has no end token" in capsys.readouterr().err
        assert told is (name == "none")
