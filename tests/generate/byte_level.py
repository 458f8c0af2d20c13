"""A small random model with a byte-level vocabulary, for constraints."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Engine

from idiolect.generate.generator import Generator
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers.tokenizer import Tokenizer


def byte_level_generator(texts: Sequence[str], terms: Sequence[str] = ()) -> Generator:
    """Return a generator whose vocabulary was learned from some texts, and has some terms more."""
    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    engine.add_tokens([AddedToken(term, normalized=False) for term in terms])
    settings = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "eos_token_id": 1,
    }
    tokenizer = Tokenizer(engine, {"bos_token": "<s>", "eos_token": "</s>"})
    return Generator(LanguageModel.new(settings, tokenizer))
