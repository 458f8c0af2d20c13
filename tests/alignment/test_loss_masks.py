"""Which tokens a fine-tuned model learns to write: checked character by character."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.small import CHATML, LLAMA3, SMOLLM2, byte_tokenizer
from idiolect.alignment.chat.chat_encoding import (
    EncodedText,
    encode_completion,
    encode_conversation,
    encode_prompt,
    give_template,
)
from idiolect.alignment.chat.conversations import Conversation, read_conversations
from idiolect.alignment.chat.packed_conversations import conversation_batch, pack_conversations
from idiolect.alignment.preference.preferences import read_judged_completions, read_preferences
from idiolect.alignment.reinforcement.prompts import read_prompts
from idiolect.errors import CheckpointError, InputError
from idiolect.text.skipped import Skipped
from idiolect.text.tokenizers.tokenizer import Tokenizer

TALK = Conversation(
    (
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": " Bye"},
    )
)


def written(tokenizer: Tokenizer, text: EncodedText) -> list[str]:
    """The runs of tokens that are predicted, as text."""
    runs: list[list[int]] = [[]]
    for id, own in zip(text.ids, text.written, strict=True):
        if own:
            runs[-1].append(id)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run, skip_special_tokens=False) for run in runs if run]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, ["Hello.<|im_end|>", " Bye<|im_end|>"]),
        (SMOLLM2, ["Hello.<|im_end|>", " Bye<|im_end|>"]),
        (LLAMA3, ["Hello.<|eot_id|>", "Bye<|eot_id|>"]),
    ],
    ids=["chatml", "smollm2", "llama3"],
)
def test_answers_and_their_end_are_learnt_and_nothing_else(
    template: str, expected: list[str]
) -> None:
    tokenizer = byte_tokenizer(template)
    (text,) = encode_conversation(tokenizer, TALK)
    assert written(tokenizer, text) == expected
    whole = tokenizer.decode(text.ids, skip_special_tokens=False)
    assert whole.count("SmolLM") == (template == SMOLLM2), "a system message is rendered once"
    assert all(encode_conversation(tokenizer, TALK, loss_on="all")[0].written)


def test_answers_are_examples_of_their_own_if_a_template_rewrites_earlier_ones() -> None:
    forgetful = CHATML.replace(
        "message['content'] + '<|im_end|>'",
        "(message['content'] if loop.last or message['role'] == 'user' else '…') + '<|im_end|>'",
    )
    tokenizer = byte_tokenizer(forgetful)
    texts = encode_conversation(tokenizer, TALK)
    assert [written(tokenizer, text) for text in texts] == [
        ["Hello.<|im_end|>"],
        [" Bye<|im_end|>"],
    ]


def test_a_template_that_hides_its_answers_is_refused() -> None:
    tokenizer = byte_tokenizer("{% for message in messages %}x{% endfor %}")
    with pytest.raises(CheckpointError, match="where an answer begins"):
        encode_conversation(tokenizer, Conversation(({"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"})))  # fmt: skip


def test_the_prompt_is_what_generation_starts_from() -> None:
    tokenizer = byte_tokenizer(SMOLLM2)
    messages = TALK.messages[:1]
    prompt, completion = encode_completion(tokenizer, messages, "Fine.")
    assert prompt == encode_prompt(tokenizer, messages)
    assert tokenizer.decode(completion, skip_special_tokens=False) == "Fine.<|im_end|>"
    plain = byte_tokenizer()
    prompt, completion = encode_completion(plain, "a ", "b")
    assert prompt == encode_prompt(plain, "a ")
    assert completion[-1] == plain.eos_token_id, "an end that is also the padding is still learnt"


def test_a_model_without_a_template_gets_one_that_ends_its_answers() -> None:
    tokenizer = byte_tokenizer()
    assert give_template(tokenizer)
    assert not give_template(tokenizer)
    (text,) = encode_conversation(tokenizer, TALK)
    assert written(tokenizer, text) == ["Hello.<|im_end|>", " Bye<|im_end|>"]


def test_packed_conversations_fill_rows_and_keep_their_labels() -> None:
    lengths = [5, 9, 4, 1, 7, 3]
    rows = pack_conversations(lengths, 10)
    assert sorted(number for row in rows for number in row) == list(range(6))
    assert [sum(lengths[i] for i in row) for row in rows] == [9, 10, 10]
    texts = [EncodedText([1, 2, 3], [False, True, True]), EncodedText([4, 5], [True, True])]
    batch = conversation_batch([texts], 0)
    assert batch.attention_mask.tolist() == [[1, 1, 1, 2, 2]]
    assert batch.labels is not None
    assert batch.labels.tolist() == [[2, 3, -100, 5, -100]], "nothing predicts another's first"


def test_forms_of_conversations_and_what_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
        '{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}\n'
        '{"instruction": "a", "input": "", "output": "b"}\n'
        '{"prompt": "a", "response": "b"}\n'
        '{"messages": [{"role": "assistant", "content": "b"}, {"role": "user", "content": "a"}]}\n'
        '{"instruction": "a", "output": " "}\n'
    )
    skipped = Skipped()
    found = read_conversations(path, skipped=skipped, max_unreadable=0.5)
    assert [len(one.messages) for one in found] == [2, 2, 2, 0]
    assert found[0] == found[1] == found[2]
    assert skipped == {"roles out of order": 1, "empty answer": 1}
    assert skipped.places["roles out of order"] == ["data.jsonl line 5"]
    with pytest.raises(InputError, match=r"2 of 6 conversations cannot be used: .*line 5"):
        read_conversations(path)


def test_a_field_with_the_system_message_is_read_in_every_form(tmp_path: Path) -> None:
    def first(read: Any, record: dict[str, Any]) -> Any:
        path = tmp_path / "one.jsonl"
        path.write_text(json.dumps({"system": "Be brief.", **record}))
        return read(path)[0]

    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "a"}
    answer = {"role": "assistant", "content": "b"}
    sides = {"chosen": "b", "rejected": "c"}
    for record in ({"prompt": "a"}, {"input": "a"}, {"prompt": [user]}):
        assert first(read_preferences, {**record, **sides}).prompt == (system, user)
    for given in ({"prompt": "a", "completion": "b"}, {"messages": [user, answer]}):
        judged = {**given, "label": True}
        assert first(read_judged_completions, judged).prompt == (system, user)
    for record in ({"prompt": "a"}, {"messages": [user, answer]}):
        assert first(read_prompts, record).prompt == (system, user)
    for record in ({"prompt": "a", "response": "b"}, {"prompt": [user], "response": "b"}):
        assert first(read_conversations, record).messages == (system, user, answer)
