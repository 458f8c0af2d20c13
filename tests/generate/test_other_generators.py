"""`Generator` on networks that keep a state instead of tokens, beside reading everything anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from idiolect.errors import ConfigError, InputError
from idiolect.generate.generator import Generator
from idiolect.generate.token_sampling import Sampling
from idiolect.models.language_model import LanguageModel
from idiolect.models.translators import TRANSLATORS
from idiolect.training.seeds import derive_seed
from training import models

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [14], [15, 16], [17, 18, 17, 18, 17]]
SHAPES: dict[str, dict[str, Any]] = {
    "lstm": {"model_type": "lstm", "hidden_size": 16, "num_layers": 1},
    "gru": {"model_type": "gru", "hidden_size": 16, "num_layers": 2},
    "awd-lstm": {"model_type": "awd-lstm", "hidden_size": 16, "num_layers": 2},
    "seq2seq": {**TRANSLATORS["luong"], "hidden_size": 16},
    "copying": {**TRANSLATORS["pointer"], "hidden_size": 16},
}


@pytest.fixture(scope="module", params=SHAPES)
def generator(request: pytest.FixtureRequest) -> Generator:
    model = LanguageModel.new(SHAPES[request.param], models.tokenizer(grown=False))
    with torch.no_grad():  # so that the choices differ
        model.network.tokens.weight.mul_(8)
    model.network.eval()
    assert model.network.has_own_logits == (request.param == "copying")
    return Generator(model)


def _scores(generator: Generator, source: list[int], ids: list[int]) -> torch.Tensor:
    """Score the next token after reading everything anew. Shape: (vocabulary,)."""
    network = generator.model.network
    with torch.no_grad():
        if network.kind == "causal":
            return network(torch.tensor([source + ids])).logits[0, -1]
        start = network.start_ids(torch.tensor([source]))
        read = torch.cat([start, torch.tensor([ids], dtype=torch.long)], dim=1)
        return network(torch.tensor([source]), decoder_input_ids=read).logits[0, -1]


def test_greedy_and_sampling_equal_reading_anew(generator: Generator) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": []}
    greedy = generator.generate(PROMPTS, batch_size=3, **options)
    drawn = generator.generate(PROMPTS, batch_size=3, do_sample=True, top_k=5, seed=4, **options)
    for number, prompt in enumerate(PROMPTS):
        random = np.random.default_rng(derive_seed(4, number, 0))
        for place in range(6):
            ids = greedy[number].ids
            assert ids[place] == int(_scores(generator, prompt, ids[:place]).argmax())
            ids = drawn[number].ids
            scores = _scores(generator, prompt, ids[:place])[None]
            token = Sampling(top_k=5).draw(scores, torch.tensor([random.random()]))
            assert ids[place] == int(token)
    assert len({tuple(one.ids) for one in greedy}) > 1
    texts = list(generator.stream(PROMPTS[0], **options))
    assert "".join(texts) == greedy[0].text


def test_beams_equal_reading_anew(generator: Generator) -> None:
    size, steps = 3, 4
    options: dict[str, Any] = {"num_beams": size, "max_new_tokens": steps, "eos_token_id": []}
    found = generator.generate(PROMPTS, num_return_sequences=size, **options)
    for number, prompt in enumerate(PROMPTS):
        beams: list[tuple[float, list[int]]] = [(0.0, [])]
        for _ in range(steps):
            longer = [
                (total + log, [*ids, token])
                for total, ids in beams
                for token, log in enumerate(
                    _scores(generator, prompt, ids).log_softmax(-1).tolist()
                )
            ]
            beams = sorted(longer, reverse=True)[:size]
        ours = found[number * size : (number + 1) * size]
        assert [one.ids for one in ours] == [ids for _, ids in beams]
        assert [one.logprob for one in ours] == pytest.approx([s for s, _ in beams], abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 1}], ids=str)
def test_padded_texts_equal_single_ones(generator: Generator, options: Any) -> None:
    ends = list(range(20, 30))  # so that texts leave the batch at different times
    whole = generator.generate(PROMPTS, max_new_tokens=9, eos_token_id=ends, **options)
    few = generator.generate(PROMPTS, max_new_tokens=9, eos_token_id=ends, batch_size=1, **options)
    assert [one.ids for one in few] == [one.ids for one in whole]
    assert [one.logprob for one in few] == pytest.approx([w.logprob for w in whole], abs=1e-4)


def test_coverage_does_not_depend_on_padding(generator: Generator) -> None:
    options: dict[str, Any] = {"num_beams": 3, "coverage_penalty": 0.3, "max_new_tokens": 5}
    if generator.model.network.kind == "causal":
        with pytest.raises(ConfigError, match="this model has none"):
            generator.generate(PROMPTS, **options)
        return
    whole = generator.generate(PROMPTS, batch_size=15, **options)
    alone = generator.generate(PROMPTS, batch_size=1, **options)
    assert [one.ids for one in alone] == [one.ids for one in whole]
    assert [one.score for one in alone] == pytest.approx([w.score for w in whole], abs=1e-4)


def test_guesses_need_a_cache_that_forgets(generator: Generator) -> None:
    with pytest.raises(InputError, match="cannot take back"):
        generator.generate(PROMPTS[4:], prompt_lookup_num_tokens=2, max_new_tokens=30)


def test_contrastive_search_without_a_penalty_is_greedy_search(generator: Generator) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "eos_token_id": []}
    plain = generator.generate(PROMPTS, **options)
    certain = generator.generate(PROMPTS, penalty_alpha=1e-9, top_k=4, **options)
    assert [one.ids for one in certain] == [one.ids for one in plain]


def test_layers_are_contrasted_in_transformers_only(generator: Generator) -> None:
    with pytest.raises(ConfigError, match="layers of a Transformer's decoder"):
        generator.generate(PROMPTS, dola_layers=[0])
