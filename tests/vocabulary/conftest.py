"""Small tokenizers of every kind, and sample text."""

from __future__ import annotations

import json
from pydoc_data.topics import topics
from typing import TYPE_CHECKING

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Tokenizer as Engine

from idiolect.text.tokenizers.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

GENERAL = [part for text in topics.values() for part in text.split("\n\n") if part.strip()][:1500]
"""Python's bundled language reference: real prose, with code and irregular spacing."""

DOMAIN = [
    f"{first} {second} {number}% of the patients, {third}."
    for number in range(1, 40)
    for first, second, third in (
        ("Measured HbA1c fell", "under metformin in", "most with type 2 diabetes"),
        ("Patients with type 2 diabetes", "(HbA1c above goal) were", "diabetic or not"),
        ("The XR-2000B meter", "agreed with the XR-2000 meter in", "metformin aside"),
        ("diabetes\nType 2 diabetes,", "says the  XR-2000BX manual, affects", "aXR-2000B too"),
        ("Metformin", "lowers HbA1c", "as in type 2 diabetes mellitus: metformins differ"),
    )
]
"""Clinical notes: jargon, codes, phrases, and longer words that begin with a term."""

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(pre_tokenizer: object, normalizer: object = None) -> Engine:
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        engine.normalizer = normalizer
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(GENERAL, trainer)
    return engine


def gpt2() -> Engine:
    return _byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))


def llama3() -> Engine:
    cut = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine = _byte_level(pre_tokenizers.Sequence([cut, rest]), normalizers.NFC())
    engine.add_special_tokens(["<|begin|>"])
    engine.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", engine.token_to_id("<|begin|>"))]
    )
    return engine


def neox() -> Engine:
    """Added tokens outside the model's vocabulary that are not special tokens."""
    engine = gpt2()
    engine.add_tokens([AddedToken(" " * n, normalized=True) for n in (4, 3, 2)])
    return engine


def llama2() -> Engine:
    engine = Engine(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    engine.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    words = pre_tokenizers.Split(Regex("▁*[^▁]+|▁+"), "isolated")
    # SentencePiece does not learn pieces that mix letters and punctuation.
    signs = pre_tokenizers.Split(Regex(r"[^▁\p{L}\p{N}]"), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence([words, signs])
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    engine.train_from_iterator(GENERAL, trainer)
    engine.pre_tokenizer = words
    pipeline = json.loads(engine.to_str())  # the bytes are pieces, not special tokens
    pipeline["added_tokens"] = pipeline["added_tokens"][:2]
    engine = Engine.from_str(json.dumps(pipeline))
    engine.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    engine.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", engine.token_to_id("<s>"))]
    )
    return engine


def t5() -> Engine:
    engine = Engine(models.Unigram())
    engine.normalizer = normalizers.NFKC()
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    engine.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=800,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    engine.train_from_iterator(GENERAL, trainer)
    engine.add_special_tokens(["<extra_id_0>"])
    return engine


def albert() -> Engine:
    engine = t5()
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    return engine


def bert(*, lowercase: bool = False) -> Engine:
    engine = Engine(models.WordPiece(unk_token="[UNK]"))
    engine.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=800,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        show_progress=False,
    )
    engine.train_from_iterator(GENERAL, trainer)
    engine.post_processor = processors.BertProcessing(
        ("[SEP]", engine.token_to_id("[SEP]")), ("[CLS]", engine.token_to_id("[CLS]"))
    )
    return engine


def uncased() -> Engine:
    return bert(lowercase=True)


LAYOUTS: dict[str, Callable[[], Engine]] = {
    f.__name__: f for f in (gpt2, llama3, neox, llama2, t5, albert, bert, uncased)
}
_made: dict[str, str] = {}


def make(layout: str) -> Tokenizer:
    """Make a tokenizer of a published layout, trained once per session."""
    if layout not in _made:
        _made[layout] = LAYOUTS[layout]().to_str()
    return Tokenizer.from_engine(Engine.from_str(_made[layout]))


@pytest.fixture(params=list(LAYOUTS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """A small tokenizer of each published layout."""
    return make(request.param)
