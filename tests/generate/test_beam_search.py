"""Beam search against transformers' and against all sequences; batches and single texts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import transformers

from idiolect.errors import ConfigError, InputError
from idiolect.generate.beam_search import beam_search
from idiolect.generate.strategies import greedy
from idiolect.models.registry import find_family
from idiolect.models.translators import TRANSLATORS
from idiolect.nn.network import Network

END = 2


def network(vocab_size: int = 13, seed: int = 0, **settings: Any) -> Network:
    shape = {
        "vocab_size": vocab_size,
        "hidden_size": 8,
        "pad_token_id": 0,
        "decoder_start_token_id": 1,
        "eos_token_id": END,
    }
    settings = settings | shape
    family = find_family(settings)
    made = family.network(family.config(settings))
    made.init_weights(seed)
    with torch.no_grad():  # so that the choices differ
        made.tokens.weight.mul_(6)
    return made.eval()


def sources() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[3, 4, 5, 6, 2], [7, 8, 2, 0, 0], [9, 10, 11, 2, 0]])
    return ids, (ids > 0).long()


@pytest.mark.parametrize("name", TRANSLATORS)
def test_one_beam_is_greedy_and_batched_is_single(name: str) -> None:
    made = network(**TRANSLATORS[name])
    ids, mask = sources()
    options: dict[str, Any] = {"max_new_tokens": 7, "eos_token_id": {END}}
    one = beam_search(made, ids, mask, num_beams=1, **options)
    assert one.token_ids.tolist() == greedy(made, ids, mask, **options).tolist()
    together = beam_search(made, ids, mask, num_beams=3, **options)
    for row, present in enumerate(mask.bool()):
        alone = beam_search(made, ids[row : row + 1, present], num_beams=3, **options)
        found = alone.token_ids[0].tolist()
        assert together.token_ids[row, : len(found)].tolist() == found
        torch.testing.assert_close(together.scores[row], alone.scores[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_many_beams_find_the_best_of_all(penalty: float) -> None:
    made = network(vocab_size=5, model_type="seq2seq", attention="dot")
    source = torch.tensor([[3, 4, 2]])
    every = []
    for length in (1, 2, 3):
        for tokens in itertools.product(range(5), repeat=length):
            if END in tokens[:-1] or (length < 3 and tokens[-1] != END):
                continue
            target = torch.tensor([tokens])
            with torch.no_grad():
                logits = made(source, decoder_input_ids=made.shift_right(target)).logits
            total = logits.log_softmax(-1).gather(-1, target[..., None]).sum().item()
            every.append((total / length**penalty, list(tokens)))
    best, tokens = max(every)
    found = beam_search(
        made,
        source,
        num_beams=125,
        max_new_tokens=3,
        eos_token_id={END},
        length_penalty=penalty,
    )
    assert found.token_ids[0].tolist() == tokens
    assert found.scores[0].item() == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("penalty", [0.6, 1.0, 2.0])
def test_equals_transformers(penalty: float) -> None:
    settings: dict[str, Any] = {
        "vocab_size": 40,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "max_position_embeddings": 40,
        "init_std": 0.6,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(3)
    theirs = transformers.BartForConditionalGeneration(transformers.BartConfig(**settings)).eval()
    family = find_family({"model_type": "bart"})
    ours = family.network(family.config({"model_type": "bart", **settings}))
    table = family.names({"model_type": "bart", **settings})
    weights = theirs.state_dict()
    ours.load_state_dict(
        {
            name: table.source(name).extract(weights[table.source(name).full_name])
            for name in ours.state_dict()
        }
    )
    ids = torch.tensor([[5, 6, 7, 8, 9, 2], [10, 11, 12, 2, 1, 1], [13, 14, 2, 1, 1, 1]])
    mask = (ids != 1).long()
    wanted = theirs.generate(
        ids,
        attention_mask=mask,
        num_beams=4,
        max_new_tokens=12,
        length_penalty=penalty,
        early_stopping=False,
        do_sample=False,
    )[:, 1:]
    found = beam_search(
        ours.eval(),
        ids,
        mask,
        num_beams=4,
        max_new_tokens=12,
        eos_token_id={2},
        length_penalty=penalty,
    ).token_ids
    for one, other in zip(found.tolist(), wanted.tolist(), strict=True):
        strip = [[t for t in row if t not in (1, 2)] for row in (one, other)]
        assert strip[0] == strip[1]


def test_bad_values_are_refused() -> None:
    made = network(model_type="seq2seq")
    ids, mask = sources()
    with pytest.raises(ConfigError, match="num_beams is 0"):
        beam_search(made, ids, mask, num_beams=0, max_new_tokens=3, eos_token_id={END})
    causal = find_family({"model_type": "gpt2"})
    decoder = causal.network(
        causal.config({"model_type": "gpt2", "vocab_size": 9, "n_embd": 8, "n_head": 2})
    )
    with pytest.raises(InputError, match="encoder-decoders"):
        beam_search(decoder, ids, mask, num_beams=2, max_new_tokens=3, eos_token_id={END})
