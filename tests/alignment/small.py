"""A tokenizer of one token a byte, and three published chat templates."""

from __future__ import annotations

from idiolect.text.tokenizers import bpe
from idiolect.text.tokenizers.tokenizer import Tokenizer

SPECIAL = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
)

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}" + CHATML.removeprefix("{% for message in messages %}")
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def byte_tokenizer(template: str | None = None) -> Tokenizer:
    """One token a byte, so that a mask of tokens is a mask of characters."""
    made = bpe.train(["a"], 256 + len(SPECIAL), special_tokens=SPECIAL)
    made.settings.update({"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>"})
    if template is not None:
        made.settings["chat_template"] = template
    return made
