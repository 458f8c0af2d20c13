"""Ids and masks of SmolLM2's own template, against transformers' rendering."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.small import SMOLLM2
from idiolect.alignment.chat.chat_encoding import encode_conversation
from idiolect.alignment.chat.conversations import read_conversations
from idiolect.alignment.preference.preferences import read_judged_completions, read_preferences
from idiolect.errors import InputError
from idiolect.generate.prompts.chat_template import find_chat_template
from idiolect.text.skipped import Skipped
from idiolect.text.tokenizers.tokenizer import Tokenizer

pytestmark = pytest.mark.slow


def test_smollm2_on_real_conversations(shared: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    try:
        tokenizer = Tokenizer.load("smollm2")
    except InputError as error:
        pytest.skip(str(error))
    assert find_chat_template(tokenizer) is not None
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    data = read_conversations(shared / "data/sft/llamafactory_alpaca_en_demo.json.gz")[:20]
    for one in data:
        messages = [dict(m) for m in one.messages]
        (text,) = encode_conversation(tokenizer, one)
        rendered = theirs.apply_chat_template(messages, tokenize=False, chat_template=SMOLLM2)
        assert text.ids == theirs(rendered, add_special_tokens=False)["input_ids"]
        learnt = [id for id, own in zip(text.ids, text.written, strict=True) if own]
        answer = messages[-1]["content"] + "<|im_end|>"
        assert theirs.decode(learnt, clean_up_tokenization_spaces=False) == answer


def test_every_published_set_can_be_read(shared: Path) -> None:
    folder = shared / "data" / "preferences"
    skipped = Skipped()
    counts = {
        "hh_harmless_base_test.jsonl.gz": (2312, 0.01),
        "autoj_testdata_pairwise.jsonl.gz": (1019, 0.01),
        "llmbar_Natural.json.gz": (100, 0.01),
        "llmbar_processed_MT-Bench.json.gz": (200, 0.01),
        "llamafactory_dpo_en_demo.json.gz": (300, 0.01),
        "alpaca_eval/phi-2-sft.json.gz": (805, 0.05),
        "pandalm/testset-v1.json.gz": (999, 0.1),
    }
    for name, (most, share) in counts.items():
        found = read_preferences(folder / name, skipped=skipped, max_unreadable=share)
        assert 0.8 * most < len(found) <= most
    assert len(read_judged_completions(folder / "llamafactory_kto_en_demo.json.gz")) == 300
    assert skipped["tie"]
    sft = shared / "data" / "sft"
    assert len(read_conversations(sft / "dolly_hhrlhf_train_small.jsonl.gz")) == 1000
    assert len(read_conversations(sft / "llamafactory_glaive_toolcall_en_demo.json.gz")) == 300
