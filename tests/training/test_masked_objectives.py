"""Masked objectives: exact numbers, whole words, static masks, sentence pairs, translations."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import torch.nn.functional as F
from scipy import stats

from idiolect.errors import ConfigError, InputError
from idiolect.models.language_model import LanguageModel
from idiolect.text.tokenizers.tokenizer import Tokenizer
from idiolect.text.word_starts import WordStarts, word_starts
from idiolect.training.data.next_sentence_rows import NextSentenceRows
from idiolect.training.data.packed_documents import Origin, PackedDocuments, PackedRows
from idiolect.training.data.packed_pairs import PackedPairs
from idiolect.training.data.parallel_corpus import ParallelCorpus
from idiolect.training.data.token_file import TokenFile
from idiolect.training.objectives.masked import Masked, choose_tokens
from idiolect.training.objectives.next_sentence import NextSentence
from idiolect.training.objectives.translation_masked import TranslationMasked
from idiolect.training.training_config import TrainingConfig
from training import models


def bert(**fields: Any) -> LanguageModel:
    return models.model("bert", grown=False, **fields)


def pretraining_bert() -> LanguageModel:
    dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    return bert(architectures=["BertForPreTraining"], **dropout)


def xlm(languages: int = 2) -> LanguageModel:
    settings = {
        "model_type": "xlm",
        "emb_dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "n_langs": languages,
        "max_position_embeddings": 32,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "pad_token_id": 0,
    }
    return LanguageModel.new(settings, models.tokenizer(grown=False, template=True), seed=3)


def rows(count: int = 40, length: int = 50, first: int = 0, epoch: int = 0) -> PackedRows:
    """Rows of two texts of 30 and 20 tokens, with their special tokens."""
    generator = torch.Generator().manual_seed(first)
    ids = torch.randint(4, 40, (count, length), generator=generator)
    documents = torch.ones_like(ids)
    documents[:, 30:] = 2
    ids[:, [0, 30]], ids[:, [29, 49]] = 1, 2
    origins = [Origin(2 * row + text, 0, epoch) for row in range(count) for text in (0, 1)]
    return PackedRows(ids, documents, first, [o.document for o in origins], origins)


def test_the_number_of_masked_tokens_is_exact_and_their_places_are_random() -> None:
    made = bert()
    batch = Masked(made.network, made.tokenizer).prepare(rows(400))
    assert batch.labels is not None
    chosen = batch.labels >= 0
    assert (chosen[:, :30].sum(1) == 4).all(), "round(0.15 · 30) of 4.5, to even, specials counted"
    assert (chosen[:, 30:].sum(1) == 3).all()
    assert not chosen[:, [0, 29, 30, 49]].any()
    places = chosen[:, 1:29].sum(0).tolist()
    # Without replacement the variance is smaller than the test's, so it is on the safe side.
    assert stats.chisquare(places).pvalue > 0.001
    kinds = [
        int(((batch.input_ids == 3) & chosen).sum()),
        int(((batch.input_ids == rows(400).input_ids) & chosen).sum()),
    ]
    total = int(chosen.sum())
    kinds.append(total - sum(kinds))
    # Of the random tokens, one in forty is the token itself, and one in forty the mask.
    expected = np.array([0.8 + 0.1 / 40, 0.1 + 0.1 / 40, 0.1 - 0.2 / 40]) * total
    assert stats.chisquare(kinds, expected).pvalue > 0.001


def test_static_masks_repeat_after_the_duplicates() -> None:
    made = bert()
    static = Masked(made.network, made.tokenizer, duplicates=3)
    first, again = static.mask(rows(first=0)), static.mask(rows(first=0, epoch=3))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], static.mask(rows(first=0, epoch=1))[0])
    moved = rows(first=0)
    later = PackedRows(moved.input_ids, moved.document_ids, 999, moved.sources, moved.origins)
    assert torch.equal(first[0], static.mask(later)[0]), "wherever the row is in the run"


def test_whole_words_and_new_terms() -> None:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "##c", "cardia", "d"]
    engine = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    engine.add_tokens(["new term"])
    starts = word_starts(Tokenizer.from_engine(engine, {}))
    assert starts.tolist() == [True] * 6 + [False, False, True, True, True]
    uniform = np.random.default_rng(0).random((1, 12))
    words = np.array([[0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5]])
    texts = np.zeros((1, 12), int)
    for budget in range(1, 13):
        chosen = choose_tokens(uniform, texts, np.ones((1, 12), bool), np.array([budget]), words)
        assert 1 <= chosen.sum() <= budget
        for word in range(6):
            own = chosen[words == word]
            assert own.all() or not own.any()
    made = models.model("bert")
    batch = Masked(made.network, made.tokenizer, whole_word=True).prepare(rows())
    assert batch.labels is not None
    assert ((batch.labels >= 0)[:, :30].sum(1) == 4).all(), "every piece is a word here"


def test_words_whose_ends_are_marked() -> None:
    engine = tokenizers.CharBPETokenizer()  # type: ignore[attr-defined]
    engine.train_from_iterator(["low lower"] * 9, vocab_size=14, show_progress=False)
    engine.add_tokens(["newterm"])
    tokenizer = Tokenizer.from_engine(engine._tokenizer, {})
    encoding = tokenizer.engine.encode("lower low newterm lower wolow")
    words = [word for word in encoding.word_ids if word is not None]
    new = [True, *(a != b for a, b in pairwise(words))]
    assert 0 < sum(new) < len(new), "some words are divided"
    assert WordStarts(tokenizer)(np.array([encoding.ids])).tolist() == [new]


def _tokens(folder: Path, texts: list[str], *, sentences: bool = True) -> TokenFile:
    tokenizer = models.tokenizer(grown=False, template=True)
    return TokenFile.write(folder, texts, tokenizer, sentences=sentences)


def _sentences(count: int, size: int, shift: int = 0) -> str:
    return "\n".join(
        " ".join(f"w{(shift + size * i + j) % 36}" for j in range(size)) for i in range(count)
    )


def test_sentence_pairs_follow_or_come_from_elsewhere(tmp_path: Path) -> None:
    texts = [_sentences(9, 4, shift) for shift in range(8)]
    tokens = _tokens(tmp_path / "tokens", texts)
    template = Masked.template(models.tokenizer(grown=False, template=True))
    source = NextSentenceRows(tokens, template, length=28, rows=50, seed=2)
    seen: Counter[bool] = Counter()
    for _ in range(4):
        state = source.state()
        taken = source.take()
        assert taken.follows is not None
        assert taken.segment_ids is not None
        for row in range(len(taken)):
            ids, segments = taken.input_ids[row], taken.segment_ids[row]
            real = taken.document_ids[row] > 0
            a, b = ids[real & (segments == 0)].tolist(), ids[real & (segments == 1)].tolist()
            assert (a[0], a[-1], b[-1]) == (1, 2, 2)
            assert len(a) + len(b) <= 28
            assert len(a) > 2
            assert len(b) > 1
        seen.update(taken.follows.tolist())
        source.restore(state)
        assert torch.equal(source.take().input_ids, taken.input_ids), "a position resumes"
    # A document's last sentence alone has no successor, so a little more than half are random.
    assert 0.35 < seen[True] / sum(seen.values()) < 0.52
    for pair in source.pairs_of(3, 0):
        (one, start, stop), (other, other_start, _), follows = pair
        assert (one == 3, start % 4, stop % 4) == (True, 0, 0) or stop - start > 20
        assert (other == one) == follows
        assert not follows or other_start >= stop
    used = sorted(pair.first[1:] for pair in source.pairs_of(3, 1))
    assert used[0][0] == 0, "sentences that were replaced are put back"
    with pytest.raises(InputError, match="is one document"):
        NextSentenceRows(_tokens(tmp_path / "one", texts[:1]), template, length=28, rows=2)


def test_next_sentence_loss_is_the_sum_of_two_means(tmp_path: Path) -> None:
    made = pretraining_bert()
    objective = NextSentence(made.network, made.tokenizer)
    tokens = _tokens(tmp_path / "tokens", [_sentences(6, 4, shift) for shift in range(8)])
    source = NextSentenceRows(tokens, objective.template(made.tokenizer), length=24, rows=6)
    batch = objective.prepare(source.take())
    output = made.network(**batch.inputs)
    assert batch.labels is not None
    wanted = F.cross_entropy(
        output.logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100
    ) + F.cross_entropy(output.next_sentence, batch.follows)
    ours = objective.loss(made.network, batch) / batch.count
    torch.testing.assert_close(ours, wanted)
    parts = [objective.loss(made.network, batch.part(slice(i, i + 2))) for i in (0, 2, 4)]
    torch.testing.assert_close(sum(parts) / batch.count, wanted)
    with pytest.raises(InputError, match="no next-sentence head"):
        NextSentence(bert().network, made.tokenizer)


def _pairs(count: int = 12) -> ParallelCorpus:
    return ParallelCorpus(
        [(_sentences(1, 3 + i % 3, i), _sentences(1, 4, i + 9)) for i in range(count)],
        ("en", "de"),
    )


def test_translation_positions_and_languages_restart(tmp_path: Path) -> None:
    made = xlm()
    objective = TranslationMasked(made.network, made.tokenizer, language_ids={"en": 0, "de": 1})
    tokens = TokenFile.write(tmp_path / "tokens", _pairs(), made.tokenizer)
    source = PackedPairs(
        tokens, objective.template(made.tokenizer), length=30, rows=3, languages=("en", "de")
    )
    taken = source.take()
    batch = objective.prepare(taken)
    assert batch.position_ids is not None
    assert batch.language_ids is not None
    assert taken.segment_ids is not None
    for row, start, stop in taken.texts():
        segment = taken.segment_ids[row, start:stop]
        cut = int((segment == 0).sum())
        positions = batch.position_ids[row, start:stop].tolist()
        assert positions == [*range(cut), *range(stop - start - cut)]
        assert torch.equal(batch.language_ids[row, start:stop], segment)
        assert len(set(batch.attention_mask[row, start:stop].tolist())) == 1
    # Each side begins and ends as a text of its own.
    assert taken.input_ids[0, 0] == 1
    first = int((taken.segment_ids[0] == 1).nonzero()[0])
    assert (taken.input_ids[0, first - 1], taken.input_ids[0, first]) == (2, 1)
    apart = TranslationMasked(
        made.network, made.tokenizer, language_ids={"en": 0, "de": 1}, separate=1.0
    ).prepare(taken)
    assert torch.equal(apart.input_ids, batch.input_ids), "the same tokens and masks"
    assert int(apart.attention_mask.max()) == 2 * int(taken.document_ids.max())


def test_a_translation_is_seen_unless_it_is_separate(tmp_path: Path) -> None:
    made = xlm()
    tokens = TokenFile.write(tmp_path / "tokens", _pairs(), made.tokenizer)
    states = {}
    for separate in (0.0, 1.0):
        objective = TranslationMasked(
            made.network, made.tokenizer, language_ids={"en": 0, "de": 1}, separate=separate
        )
        source = PackedPairs(
            tokens, objective.template(made.tokenizer), length=30, rows=1, languages=("en", "de")
        )
        batch = objective.prepare(source.take())
        changed = batch.input_ids.clone()
        changed[0, 1] = 30 if changed[0, 1] != 30 else 31
        both = [
            made.network(**batch.inputs | {"input_ids": ids}).hidden_states
            for ids in (batch.input_ids, changed)
        ]
        second = int((batch.language_ids[0] == 1).nonzero()[0])  # type: ignore[index]
        states[separate] = torch.equal(both[0][0, second], both[1][0, second])
    assert states == {0.0: False, 1.0: True}


def test_long_pairs_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = xlm()
    corpus = ParallelCorpus([("w1 w2", "w3"), (_sentences(1, 30), "w3")])
    tokens = TokenFile.write(tmp_path / "tokens", corpus, made.tokenizer)
    template = Masked.template(made.tokenizer)
    source = PackedPairs(tokens, template, length=20, rows=2)
    assert "1 of the 2 pairs of the corpus have more than 20 tokens" in capsys.readouterr().err
    assert set(source.take().sources) == {0}
    with pytest.raises(InputError, match="none of the 2 pairs"):
        PackedPairs(tokens, template, length=5, rows=2)


def test_full_sentences_fill_rows_across_documents(tmp_path: Path) -> None:
    texts = [_sentences(5, 4, shift) for shift in range(6)]
    tokens = _tokens(tmp_path / "tokens", texts)
    made = bert()
    objective = Masked(made.network, made.tokenizer, full_sentences=True)
    source = PackedDocuments(
        tokens,
        objective.template(made.tokenizer),
        length=27,
        rows=4,
        whole_sentences=True,
    )
    for _ in range(5):
        taken = source.take()
        batch = objective.prepare(taken)
        assert int(batch.attention_mask.max()) == 1
        for row, start, stop in taken.texts():
            first = 1 if start == 0 else 0
            assert taken.input_ids[row, start] == 1 or start, "the first text has a start"
            assert (stop - start - 1 - first) % 4 == 0, "whole sentences, and an end"


def test_full_sentences_are_masked_as_one_text(tmp_path: Path) -> None:
    pieces = ["<unk>", "<s>", "</s>", "[MASK]", *(f"a{i}" for i in range(9)), "##b", "##c"]
    engine = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="<unk>")
    )
    engine.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    engine.post_processor = tokenizers.processors.BertProcessing(("</s>", 2), ("<s>", 1))
    tokenizer = Tokenizer.from_engine(engine, {"mask_token": "[MASK]", "unk_token": "<unk>"})
    texts = [f"a{i % 9}b a{i % 7}c" for i in range(200)]
    tokens = TokenFile.write(tmp_path / "tokens", texts, tokenizer, sentences=True)
    for whole_word in (False, True):
        objective = Masked(
            bert().network,
            tokenizer,
            mlm_probability=0.13,
            whole_word=whole_word,
            full_sentences=True,
        )
        config = TrainingConfig(max_length=51, batch_size=12)
        taken = objective.make_source(tokens, tokenizer, config).take()
        labels = objective.prepare(taken).labels
        assert labels is not None
        chosen = (labels >= 0).numpy()
        assert (taken.document_ids.amax(1) == 9).all(), "nine documents in each row"
        assert (chosen.sum(1) == 6).all(), "round(0.13 · 46), not one for each document"
        ends = (taken.input_ids >= pieces.index("##b")).numpy()
        split = (chosen[:, 1:] != chosen[:, :-1])[ends[:, 1:]]
        assert split.any() == (not whole_word)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mlm_probability": 1.2}, "mlm_probability is 1.2"),
        ({"mlm_probability": 0}, "mlm_probability is 0"),
        ({"duplicates": 0}, "duplicates is 0"),
        ({"duplicates": 1.5}, "duplicates is 1.5"),
        ({"whole_word": "False"}, "whole_word is 'False'"),
        ({"full_sentences": "no"}, "full_sentences is 'no'"),
    ],
)
def test_wrong_settings_of_masked(settings: dict[str, Any], message: str) -> None:
    made = bert()
    with pytest.raises(ConfigError, match=message):
        Masked(made.network, made.tokenizer, **settings)
