"""`Generator`: batches, seeds, stops, streams, guesses, guidance, penalties and bad input."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import transformers
from transformers.utils.chat_template_utils import render_jinja_template

from idiolect.errors import CheckpointError, ConfigError, InputError
from idiolect.generate.generator import Generator
from idiolect.generate.logits_processors import BadWords, NoRepeatNgram, Penalties, WrittenRow
from idiolect.generate.prompts.chat_template import find_chat_template, render_chat
from idiolect.generate.speculative import _accept_or_draw
from idiolect.generate.strategies import greedy
from idiolect.generate.transcript import Transcript
from idiolect.models.language_model import LanguageModel
from training import models

PROMPTS = ["w1 w2 w3", "w4 w5 w6 w7 w8 w9", "w2", "w9 w8", "w3 w4 w3 w4 w3"]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(models.model("llama", grown=False))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3},
        {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": 4},
        {"do_sample": True, "mirostat_tau": 3.0},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"guidance_scale": 1.5},
        {"dola_layers": [0, 1]},
        {"dola_layers": [0, 1], "num_beams": 2},
        {"penalty_alpha": 0.6, "top_k": 4},
    ],
    ids=str,
)
def test_a_text_does_not_depend_on_its_batch(generator: Generator, options: Any) -> None:
    whole = generator.generate(PROMPTS, max_new_tokens=9, **options)
    few = generator.generate(PROMPTS, max_new_tokens=9, batch_size=2, **options)
    assert [one.ids for one in few] == [one.ids for one in whole]
    assert [one.prompt for one in whole] == list(range(len(PROMPTS)))
    alone = generator.generate(PROMPTS[:1], max_new_tokens=9, **options)[0]
    assert alone.ids == whole[0].ids
    assert alone.logprob == pytest.approx(whole[0].logprob, abs=1e-4)


def test_greedy_and_its_log_probabilities(generator: Generator) -> None:
    network, ids = generator.model.network, generator.model.tokenizer.encode(PROMPTS[0])
    found = generator.generate(PROMPTS[0], max_new_tokens=6, eos_token_id=[], top_logprobs=3)[0]
    assert found.ids == greedy(network, torch.tensor([ids]), max_new_tokens=6)[0].tolist()
    assert found.finish_reason == "length"
    with torch.no_grad():
        logits = network(torch.tensor([ids + found.ids])).logits[0, len(ids) - 1 : -1]
    logs = logits.log_softmax(-1)
    own = logs.gather(1, torch.tensor(found.ids)[:, None]).sum()
    assert found.logprob == pytest.approx(float(own), abs=1e-4)
    assert [top[0][0] for top in found.top_logprobs] == found.ids


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 4}, {"assistant": "other"}])
def test_guesses_do_not_change_greedy_search(generator: Generator, options: Any) -> None:
    if "assistant" in options:
        options = {"assistant": models.model("llama", grown=False)}
    plain = generator.generate(PROMPTS, max_new_tokens=20)
    guessed = generator.generate(PROMPTS, max_new_tokens=20, **options)
    assert [one.ids for one in guessed] == [one.ids for one in plain]


def test_accepted_and_residual_draws_have_the_distribution_of_the_model() -> None:
    random = np.random.default_rng(3)
    p, q = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    for source in (q, None):
        counts = np.zeros(4)
        for _ in range(8000):
            guess = int(random.choice(4, p=[0.1, 0.2, 0.3, 0.4]))
            counts[_accept_or_draw(p, guess, source, random)] += 1
        expected = 8000 * np.array([0.5, 0.3, 0.15, 0.05])
        assert ((counts - expected) ** 2 / expected).sum() < 16.3  # χ², 3 degrees, p = 0.001
    assert _accept_or_draw(p, 1, p, random) == 1


def test_stop_strings_cross_the_borders_of_tokens(generator: Generator) -> None:
    free = generator.generate(PROMPTS[1], max_new_tokens=12, eos_token_id=[])[0]
    stop = free.text[4:9]
    found = generator.generate(PROMPTS[1], max_new_tokens=12, eos_token_id=[], stop=stop)[0]
    assert found.finish_reason == "stop"
    assert found.text == free.text[: free.text.index(stop)]
    pieces = list(generator.stream(PROMPTS[1], max_new_tokens=12, eos_token_id=[], stop=stop))
    assert "".join(pieces) == found.text
    assert "".join(generator.stream(PROMPTS[1], max_new_tokens=12, eos_token_id=[])) == free.text


def test_a_transcript_holds_back_what_may_become_a_stop(generator: Generator) -> None:
    tokenizer = generator.model.tokenizer
    transcript = Transcript(tokenizer, ["w3 w4"])
    ids = tokenizer.encode("w1 w3 w4 w5", add_special_tokens=False)
    pieces = [transcript.add(token) for token in ids]
    assert transcript.stopped
    assert "w3" not in "".join(pieces)


def test_processors_equal_those_of_transformers() -> None:
    scores = torch.randn(2, 30, generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([[3, 4, 5, 3, 4], [7, 7, 8, 7, 7]])
    rows = [WrittenRow(row[:2], row[2:]) for row in ids.tolist()]
    for ours, theirs in (
        (Penalties(1.3), transformers.RepetitionPenaltyLogitsProcessor(1.3)),
        (NoRepeatNgram(2), transformers.NoRepeatNGramLogitsProcessor(2)),
        (
            BadWords(((5,), (3, 4, 9))),
            transformers.generation.NoBadWordsLogitsProcessor([[5], [3, 4, 9]], eos_token_id=2),
        ),
    ):
        assert torch.allclose(ours(scores.clone(), rows), theirs(ids, scores.clone()))
    reduced = Penalties(presence=0.5, frequency=0.25)(scores.clone(), rows)
    assert float(scores[1, 7] - reduced[1, 7]) == pytest.approx(1.0)
    assert float(scores[1, 3] - reduced[1, 3]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 1.0}, "did you mean temperature"),
        ({"temperature": 0.5}, "no effect without do_sample"),
        ({"num_beams": 2, "do_sample": True}, "exclude each other"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "at least 9 and at most 3"),
        ({"num_return_sequences": 3, "num_beams": 2}, "3 sequences of 2 beams"),
        ({"stop": "a", "bad_words": ["a"]}, "in bad_words and in stop"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"do_sample": "no"}, "do_sample is 'no'"),
        ({"num_beams": 2, "early_stopping": "soon"}, "early_stopping is 'soon'"),
        ({"num_beams": 2, "top_logprobs": 2}, "not kept of beams"),
        ({"do_sample": True, "mirostat_tau": float("nan")}, "mirostat_tau is nan"),
        ({"penalty_alpha": 0.5, "top_k": 2.5}, "top_k is 2.5"),
        ({"eos_token_id": "x"}, "'x' in eos_token_id"),
        ({"eos_token_id": [10**6]}, "1000000 in eos_token_id"),
        ({"bad_words": [5]}, "5 in bad_words"),
        ({"num_beams": 2, "force_words": [["a", 5]]}, "5 in force_words"),
        ({"dola_layers": [1], "guidance_scale": 1.5}, "dola_layers excludes"),
        ({"dola_layers": [1], "prompt_lookup_num_tokens": 2}, "dola_layers excludes"),
        ({"guidance_scale": 1.5, "penalty_alpha": 0.5, "top_k": 4}, "guidance_scale excludes"),
        ({"negative_prompts": "w1"}, "no effect without guidance_scale"),
        ({"amateur": "other", "guidance_scale": 1.5}, "an amateur excludes guidance_scale"),
        ({"amateur": "other", "assistant": "other"}, "an amateur excludes contrastive"),
        ({"assistant": "other", "num_beams": 2}, "an assistant excludes beams"),
        ({"assistant": "other", "dola_layers": [1]}, "an assistant excludes guidance_scale"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
    ],
    ids=str,
)
def test_contradictions_are_errors(generator: Generator, options: Any, message: str) -> None:
    given = {k: generator.model if value == "other" else value for k, value in options.items()}
    with pytest.raises(ConfigError, match=message):
        generator.generate("w1", **given)


def test_prompts_beyond_the_context_are_named(generator: Generator) -> None:
    most = generator.context_length
    assert most is not None
    with pytest.raises(InputError, match=f"prompt 1 has {most} tokens"):
        generator.generate([[5], [5] * most])
    cut = generator.generate([[5] * (most - 2)], max_new_tokens=9, eos_token_id=[])[0]
    assert (len(cut.ids), cut.finish_reason) == (2, "context")


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([5, 6, 7], "prompt 0 is neither a text nor a list of token ids"),
        (["a", [5, 2.5]], "prompt 1 is neither"),
        ([[5, 10**6]], "prompt 0 has the id 1000000"),
        ([[-1]], "prompt 0 has the id -1"),
        ([b"w1"], "prompt 0 is neither"),
        (None, "the prompts are None"),
    ],
)
def test_prompts_that_are_no_ids_are_named(
    generator: Generator, prompts: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generator.generate(prompts)


def test_contrastive_search_and_layer_contrast_run(generator: Generator) -> None:
    plain = generator.generate(PROMPTS[:2], max_new_tokens=6)
    certain = generator.generate(PROMPTS[:2], max_new_tokens=6, penalty_alpha=1e-9, top_k=4)
    assert [one.ids for one in certain] == [one.ids for one in plain]
    every = generator.generate(PROMPTS[:2], max_new_tokens=6, penalty_alpha=0.6, top_k=10**6)
    assert all(len(one.ids) == 6 for one in every)
    generator.generate(PROMPTS[:2], max_new_tokens=4, dola_layers=[0])
    with pytest.raises(ConfigError, match="no earlier layer 99"):
        generator.generate(PROMPTS[:2], dola_layers=[99])


def test_contrastive_search_writes_nothing_that_is_forbidden(generator: Generator) -> None:
    def permit(scores: torch.Tensor, rows: Any) -> torch.Tensor:
        scores[:, [token for token in range(scores.shape[-1]) if token not in (5, 6)]] = -torch.inf
        return scores

    found = generator.generate(
        PROMPTS, max_new_tokens=8, penalty_alpha=0.9, top_k=8, processors=[permit]
    )
    assert {token for one in found for token in one.ids} <= {5, 6}


def test_dola_contrasts_with_the_head_after_an_earlier_layer(generator: Generator) -> None:
    network = generator.model.network
    states: list[torch.Tensor] = []
    hook = network.decoder.layers[0].register_forward_hook(
        lambda *args: states.append(args[2][0, -1])
    )
    found = generator.generate(PROMPTS, max_new_tokens=6, eos_token_id=[], dola_layers=[1])
    plain = generator.generate(PROMPTS, max_new_tokens=6, eos_token_id=[])
    assert [one.ids for one in found] != [one.ids for one in plain]
    for prompt, one in zip(PROMPTS, found, strict=True):
        ids = generator.model.tokenizer.encode(prompt)
        for place, token in enumerate(one.ids):
            read = torch.tensor([ids + one.ids[:place]])
            with torch.no_grad():
                last = network(read).logits[0, -1].log_softmax(-1)
                early = network.score_vocabulary(states[-1]).log_softmax(-1)
            kept = last >= last.max() + np.log(0.1)
            scores = (last - early).masked_fill(~kept, -torch.inf)
            assert scores[token] == pytest.approx(float(scores.max()), abs=1e-4)
    hook.remove()


def test_a_template_cannot_leave_its_sandbox(generator: Generator) -> None:
    chat = [{"role": "user", "content": "hello"}]
    tokenizer = generator.model.tokenizer
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    assert render_chat(tokenizer, chat, template=template) == "<user>hello"
    for bad in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
        "{% if %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ messages[0].role|dictsort }}",
        "{{ 'x' * 10 ** 15 }}",
    ):
        with pytest.raises(CheckpointError, match="chat template cannot be used"):
            render_chat(tokenizer, chat, template=bad)
    with pytest.raises(InputError, match="no chat template"):
        render_chat(tokenizer, chat)
    # Published settings describe a token by a text or a dictionary, and may be damaged.
    described = {"content": "<s>", "lstrip": False, "__type": "AddedToken"}
    settings = {"bos_token": described, "eos_token": 5}
    with mock.patch.object(tokenizer, "settings", settings):
        assert render_chat(tokenizer, chat, template="{{ bos_token }}|{{ eos_token }}") == "<s>|"
    with mock.patch.object(tokenizer, "settings", {"chat_template": ["a", {"name": "default"}]}):
        assert find_chat_template(tokenizer) is None


def test_templates_are_rendered_as_in_transformers(generator: Generator) -> None:
    chat = [{"role": "user", "content": "<é>"}, {"role": "assistant", "content": "b"}]
    tokenizer = generator.model.tokenizer
    for template in (
        # SmolLM3 marks what the assistant writes.
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}\n"
        "  {% generation %}\n{{ m.content }}{% endgeneration %}\n{% endif %}{% endfor %}|",
        # Mistral asks for tools, which are None if there are none.
        "{% if tools is not none %}[TOOLS]{% endif %}{{ documents is defined }}",
        "{{ messages|tojson(ensure_ascii=False, separators=(',', ':')) }}",
        "{{ messages[0]|tojson(indent=2, sort_keys=True) }}",
        "{{ messages[0]|tojson(True) }}",
        "{{ pad_token }}{{ messages[0].content }}{{ sep_token }}",
    ):
        with mock.patch.object(tokenizer, "settings", {"pad_token": "<p>", "sep_token": "<s>"}):
            ours = render_chat(tokenizer, chat, template=template)
        theirs, _ = render_jinja_template(
            [chat], chat_template=template, pad_token="<p>", sep_token="<s>"
        )
        assert [ours] == theirs


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "temperature": 3.0, "num_return_sequences": 4},
        {"num_beams": 4},
        {"guidance_scale": 1.5},
        {"dola_layers": [0]},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"prompt_lookup_num_tokens": 3},
        {"assistant": 128, "do_sample": True},
        {"assistant": 160},
        {"amateur": 160},
        {"amateur": 128},
        {"min_new_tokens": 3, "eos_token_id": None},
    ],
    ids=str,
)
def test_rows_without_a_token_are_never_generated(options: dict[str, Any]) -> None:
    """The rows of a network are often padded, in models of one family to different numbers."""

    def padded(rows: int, seed: int) -> LanguageModel:
        model = models.model("llama", grown=False)
        return LanguageModel.new({**model.settings, "vocab_size": rows}, model.tokenizer, seed=seed)

    helpers = {
        name: padded(rows, 2) for name, rows in options.items() if name in ("assistant", "amateur")
    }
    model = padded(144, 1)
    size = len(model.tokenizer)
    assert size < 128
    # Rows without a token were not trained; these would be the most likely ones.
    with torch.no_grad():
        model.network.vocabulary_rows()["tokens.weight"][size:] *= 5
    generator = Generator(model)
    found = generator.generate(PROMPTS, **{"max_new_tokens": 12, **options, **helpers})
    assert all(token < size for one in found for token in one.ids)
    shared = Generator(model)
    assert shared.share()
    again = shared.generate(PROMPTS, **{"max_new_tokens": 12, **options, **helpers})
    assert [one.ids for one in again] == [one.ids for one in found]
    with pytest.raises(InputError, match=f"has the id {size}, but"):
        generator.generate([[size]])
