"""Conversations as token ids, with a mask of the tokens that the assistant writes.

The mask is found by rendering the conversation twice for each answer: up to the answer with the
generation prompt at the end, and up to and including the answer. The text that the second rendering
adds is written by the assistant. This is right for every template whose text grows with the
conversation, even if it adds its own system message (SmolLM2), because each rendering begins with
the first message. No `{% generation %}` marks are needed. White space after the end token, such as
the line break of ChatML, is not part of the answer: the assistant stops at that token.

A template may render an answer differently when more messages follow (some remove the reasoning
from earlier answers). Then the text does not grow, and each answer becomes its own example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from idiolect.alignment.chat.conversations import Conversation, Message
from idiolect.errors import CheckpointError
from idiolect.generate.prompts.chat_template import find_chat_template, render_chat
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.training.progress import notice

__all__ = [
    "PLAIN_TEMPLATE",
    "EncodedText",
    "LossOn",
    "encode_completion",
    "encode_conversation",
    "encode_prompt",
    "give_template",
    "prepare_prompts",
    "unusable_template",
]

LossOn = Literal["completion", "all"]
"""Which tokens have a loss: those that the assistant writes, or all."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}### Response:\n{{ message['content'] }}"
    "{{ eos_token }}\n\n"
    "{% elif message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'tool' %}### Result:\n{{ message['content'] }}\n\n"
    "{% else %}### Instruction:\n{{ message['content'] }}\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
"""Template for models without one: Alpaca's headings, without new tokens."""


@dataclass(frozen=True)
class EncodedText:
    """A training text."""

    ids: list[int]
    """The token ids."""
    written: list[bool]
    """True for the tokens that are predicted."""


def give_template(tokenizer: Tokenizer) -> bool:
    """Give a model without a chat template a plain one; return whether it had none.

    The template is saved with the model, so that `idiolect chat` uses the format it was tuned on.
    """
    if find_chat_template(tokenizer) is not None:
        return False
    tokenizer.settings["chat_template"] = PLAIN_TEMPLATE
    return True


def prepare_prompts(tokenizer: Tokenizer, prompts: Iterable[str | Sequence[Message]]) -> None:
    """Give a model without a chat template a plain one if a prompt has messages, with a notice."""
    if any(not isinstance(one, str) for one in prompts) and give_template(tokenizer):
        notice("the model has no chat template; it gets a plain one for the prompts with messages")


def unusable_template(
    failed: Mapping[int, CheckpointError], total: int, what: str
) -> CheckpointError:
    """Return the error for examples that the chat template cannot render.

    Args:
        failed: The errors by the examples' numbers.
        total: Number of all examples.
        what: What the examples are called.
    """
    first = ", ".join(map(str, list(failed)[:3]))
    reason = next(iter(failed.values()))
    return CheckpointError(
        f"{len(failed):,} of {total:,} {what} cannot be rendered (the first: {first}): "
        f"{reason.message}",
        hint="remove them (some templates permit no system message or tool), or change the model's "
        "chat template",
    )


def encode_conversation(
    tokenizer: Tokenizer, conversation: Conversation, *, loss_on: LossOn = "completion"
) -> list[EncodedText]:
    """Return a conversation as ids with a mask; several texts if the rendering does not grow.

    Args:
        tokenizer: The tokenizer, with a chat template if the conversation has messages.
        conversation: The conversation.
        loss_on: Which tokens are predicted.

    Raises:
        InputError: The model has no chat template.
        CheckpointError: The template raises an error, or does not show where an answer begins.
    """
    if not conversation.messages:
        prompt, completion = encode_completion(
            tokenizer, conversation.prompt, conversation.response
        )
        everything = loss_on == "all"
        return [
            EncodedText(prompt + completion, [everything] * len(prompt) + [True] * len(completion))
        ]
    messages = conversation.messages
    whole = render_chat(tokenizer, messages, add_generation_prompt=False)
    spans = _answer_spans(tokenizer, messages)
    if all(whole.startswith(through) for _, through in spans):
        ranges = [(len(until), len(through)) for until, through in spans]
        return [_encode(tokenizer, whole, ranges, loss_on)]
    return [
        _encode(tokenizer, through, [(len(until), len(through))], loss_on)
        for until, through in spans
    ]


def encode_prompt(tokenizer: Tokenizer, prompt: str | Sequence[Message]) -> list[int]:
    """Return the ids of a prompt: a plain text, or messages rendered with a generation prompt.

    Raises:
        InputError: The prompt has messages, and the model has no chat template.
    """
    if isinstance(prompt, str):
        ids = tokenizer.encode(prompt)
        end = tokenizer.eos_token_id
        if ids[-1:] == [end] and ids != [end]:  # some tokenizers append an end token (T5)
            ids = ids[:-1]
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
        return ids or ([] if start is None else [start])
    text = render_chat(tokenizer, prompt)
    return tokenizer.encode(text, add_special_tokens=False, parse_special_tokens=True)


def encode_completion(
    tokenizer: Tokenizer, prompt: str | Sequence[Message], completion: str
) -> tuple[list[int], list[int]]:
    """Return the ids of a prompt and of its completion, which ends with the end token.

    The prompt's ids are the same that generation starts from, whatever the completion is.

    Raises:
        InputError: The prompt has messages, and the model has no chat template.
        CheckpointError: The template does not show where the answer begins.
    """
    if isinstance(prompt, str):
        prompt_ids = encode_prompt(tokenizer, prompt)
        joint = encode_prompt(tokenizer, prompt + completion)
        grown = joint[: len(prompt_ids)] == prompt_ids
        ids = joint[len(prompt_ids) :]
        if not grown:
            ids = tokenizer.encode(completion, add_special_tokens=False)
        end = tokenizer.eos_token_id
        return prompt_ids, ids if end is None else [*ids, end]
    answered = [*prompt, {"role": "assistant", "content": completion}]
    ((until, through),) = _answer_spans(tokenizer, answered)[-1:]
    text = _encode(tokenizer, through, [(len(until), len(through))], "completion")
    first = text.written.index(True) if True in text.written else len(text.ids)
    last = max((i for i, own in enumerate(text.written) if own), default=first - 1)
    return text.ids[:first], text.ids[first : last + 1]


def _answer_spans(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Return, for each answer, the text before it and the text that includes it."""
    spans = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        until = render_chat(tokenizer, messages[:place])
        through = render_chat(tokenizer, messages[: place + 1], add_generation_prompt=False)
        content = message["content"].strip()
        if not through.startswith(until):
            # The generation prompt differs from the way the answer itself begins.
            until = render_chat(tokenizer, messages[:place], add_generation_prompt=False)
            start = through.find(content, len(until))
            until = through[:start] if through.startswith(until) and start >= 0 else through
        if content not in through[len(until) :]:
            raise CheckpointError(
                "the chat template does not show where an answer begins",
                hint="give the model another template",
            )
        spans.append((until, through))
    return spans


def _encode(
    tokenizer: Tokenizer, text: str, ranges: Sequence[tuple[int, int]], loss_on: LossOn
) -> EncodedText:
    """Encode a rendered text, and mark the tokens in the given character ranges."""
    ((ids, offsets),) = tokenizer.encode_with_offsets(
        [text], add_special_tokens=False, parse_special_tokens=True
    )
    if loss_on == "all":
        return EncodedText(ids, [True] * len(ids))
    special = set(tokenizer.special_tokens.values())
    written = [False] * len(ids)
    for start, end in ranges:
        places = [
            i for i, (first, last) in enumerate(offsets) if first >= start and last <= end > first
        ]
        ends = [i for i in places if ids[i] in special]
        if ends and not text[offsets[ends[-1]][1] : end].strip():
            places = [i for i in places if i <= ends[-1]]
        for i in places:
            written[i] = True
    return EncodedText(ids, written)
