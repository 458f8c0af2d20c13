"""Answers of an index: passages, citations that hold, abstention, streams, wrong arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idiolect.errors import ConfigError, IdiolectError, InputError, VerificationError
from idiolect.search.answers.answer import NO_ANSWER, Passage
from idiolect.search.answers.answer_evaluation import (
    GoldQuestion,
    evaluate_answers,
    read_gold_questions,
)
from idiolect.search.answers.answer_prompt import fitting_passages, messages_of
from idiolect.search.answers.citations import CitationWriter, without_markers
from idiolect.search.answers.support import WordSupport
from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.text.answer_match import answer_f1, exact_match
from search.words import Words

ITEMS = [
    Item("pump", "# Pumps\nThe pump moves 9 litres an hour. Oil it once a month.", {"kind": "a"}),
    Item("seal", "Seals are made of rubber [3]. Keep them dry.\n\nReplace them each year.", {}),
    Item("lamp", "The lamp is red. It does not move.", {"kind": "b"}),
]
TEXTS = {item.id: item.text for item in ITEMS}
QUESTION = "How many litres does the pump move?"


class Scribe:
    """Writes a fixed reply, in pieces of three characters; it remembers what it was asked."""

    def __init__(self, reply: str) -> None:
        self.reply, self.asked = reply, ""

    def write(self, messages: Sequence[dict[str, str]], max_new_tokens: int) -> Iterator[str]:
        self.asked = messages[-1]["content"]
        for start in range(0, len(self.reply), 3):
            yield self.reply[start : start + 3]

    def count(self, messages: Sequence[dict[str, str]]) -> int:
        return sum(len(message["content"].split()) for message in messages)

    def room(self, max_new_tokens: int) -> int | None:
        return None


@pytest.fixture(params=["items", "passages"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    encoder: Any = Words()
    with Index.build(tmp_path / "index", encoder, ITEMS) as built:
        if request.param == "passages":
            assert built.add_passages(8) == len(list(built.store.items(namespace=":passages"))) > 3
        yield built


def _check(answer: Any, texts: dict[str, str] = TEXTS) -> None:
    for one in (*answer.citations, *answer.passages):
        assert texts[one.id][one.start : one.end] == one.text != ""
    numbers = {int(number) for number in re.findall(r"\[(\d+)\]", answer.answer)}
    assert numbers == set(range(1, len(answer.citations) + 1))


def test_sentences_are_quoted_with_their_places(index: Index) -> None:
    answer = index.answer(QUESTION)
    _check(answer)
    assert answer.answer == "The pump moves 9 litres an hour. [1]"
    assert answer.method == "extractive"
    assert not answer.abstained
    seals = index.answer("What are seals made of?", 2)
    _check(seals)  # the source's own [3] is not a citation
    assert seals.citations[0].text == "Seals are made of rubber [3]."
    assert json.loads(json.dumps(seals.as_json()))["citations"][0] == {
        "id": "seal",
        "start": 0,
        "end": 29,
        "text": "Seals are made of rubber [3].",
    }


def test_it_abstains_without_a_fitting_passage(index: Index) -> None:
    answer = index.answer("Who won the world cup in 1998?")
    assert (answer.answer, answer.abstained, answer.citations) == (NO_ANSWER, True, ())
    gone = index.answer(QUESTION, exclude=["pump"])
    assert gone.abstained
    assert "pump" not in {passage.id for passage in gone.passages}
    _check(index.answer("Who won the world cup in 1998?", min_confidence=0))
    assert index.answer(QUESTION, filter={"kind": "b"}, min_confidence=0).passages[0].id == "lamp"


def test_a_model_s_citations_are_verified(index: Index) -> None:
    scribe = Scribe("It moves 9 litres an hour [2]. It moves 8 litres [1]. The lamp is red [77].")
    with index.answer(QUESTION, 3, model=scribe, stream=True, min_confidence=0) as stream:
        pieces = list(stream)
        answer = stream.result
    assert (
        "".join(pieces)
        == answer.answer
        == index.answer(QUESTION, 3, model=scribe, min_confidence=0).answer
    )
    _check(answer)
    assert answer.answer == "It moves 9 litres an hour [1]. The lamp is red [2]."
    assert len(pieces) == 2
    assert [one.id for one in answer.citations] == ["pump", "lamp"]
    assert all(one.attached for one in answer.citations)  # [2] and [77] said something else
    assert answer.dropped == ("It moves 8 litres.",)
    assert "[1] " in scribe.asked
    assert scribe.asked.endswith(f"Question: {QUESTION}")


def test_a_model_that_does_not_know_abstains(index: Index) -> None:
    answer = index.answer(QUESTION, model=Scribe("I don't know."))
    assert answer.abstained
    assert answer.answer == NO_ANSWER
    nothing = index.answer(QUESTION, model=Scribe("Pigs fly in purple skies."))
    assert nothing.method == "extractive"  # no passage says so: quote one instead
    assert nothing.dropped == ("Pigs fly in purple skies.",)
    _check(nothing)


def test_it_abstains_whatever_a_passage_does_not_know(index: Index) -> None:
    """A passage that says "don't know" supports the sentence, but does not make it an answer."""
    unsure_too = "I don't know how many litres the pump moves."
    index.add([Item("faq", unsure_too, {})])
    unsure = Scribe("I don't know [1].")
    choices: list[dict[str, Any]] = [{}, {"only_supported": False}]
    for options in choices:
        answer = index.answer(QUESTION, model=unsure, min_confidence=0, **options)
        assert (answer.abstained, answer.citations) == (True, ())
        assert answer.dropped == ("I don't know.",)
    partly = Scribe("The pump moves 9 litres an hour. I don't know.")
    _check(index.answer(QUESTION, model=partly, min_confidence=0), {**TEXTS, "faq": unsure_too})


def test_a_model_without_room_for_a_passage_is_an_error(index: Index) -> None:
    """The passages were quoted instead, as if no model had been given."""
    scribe = Scribe("It moves 9 litres an hour.")
    with pytest.raises(ConfigError, match="the instructions take 80 of 64 tokens"):
        index.answer(QUESTION, model=scribe, instructions="word " * 79, max_prompt_tokens=64)
    short = index.answer(QUESTION, model=scribe, instructions="word " * 40, max_prompt_tokens=64)
    assert short.method == "generated"


def test_a_reranker_orders_the_passages(index: Index) -> None:
    def by_lamp(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        return np.array(["lamp" in text for _, text in pairs], np.float32)

    assert index.answer(QUESTION, rerank=by_lamp).passages[0].id == "lamp"
    with pytest.raises(VerificationError, match="reranker"):
        index.answer(QUESTION, rerank=lambda pairs: np.full(len(pairs), np.nan))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"question": ""}, "the question is empty"),
        ({"question": 7}, "the question is an int"),
        ({"question": "x" * 20_000}, "20,000 characters"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 10**9}, "top_k is 1000000000"),
        ({"top_k": True}, "top_k is True"),
        ({"mod": "hybrid"}, "did you mean mode"),
        ({"mode": "both"}, "unknown mode 'both'"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"min_confidence": float("nan")}, "min_confidence is nan"),
        ({"exclude": "pump"}, "give a list of ids"),
        ({"rerank": "model"}, "a function that scores pairs"),
        ({"namespace": 5}, "namespace"),
        ({"filter": {"$what": 1}}, "what"),
    ],
)
def test_wrong_arguments_are_one_line(
    index: Index, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(IdiolectError, match=re.escape(message)) as error:
        index.answer(**{"question": QUESTION, **arguments})
    assert "\n" not in str(error.value)


def test_passages_follow_their_items(tmp_path: Path) -> None:
    encoder: Any = Words()
    with Index.build(tmp_path / "index", encoder, ITEMS) as index:
        index.add_passages(8)
        space = ":passages"

        def texts() -> list[str]:
            return sorted(item.text for item in index.store.items(namespace=space))

        assert "Oil it once a month." in texts()
        index.add([Item("pump", "The pump is gone.")])
        assert len(index) == 3
        assert "The pump is gone." in texts()
        assert "Oil it once a month." not in texts()
        index.update("lamp", text="The lamp is green.")
        assert "The lamp is green." in texts()
        assert "It does not move." not in texts()
        kept = texts()
        with pytest.raises(InputError, match="the store has"):
            index.update("lamp", text="The lamp is blue.", vector=[1.0, 2.0])
        assert texts() == kept, "the item was not changed"
        index.update("lamp", metadata={"kind": "c"})
        assert index.answer("green lamp", filter={"kind": "c"}).citations[0].id == "lamp"
        index.delete(["lamp"])
        assert not [text for text in texts() if "lamp" in text]
        assert index.delete(filter={"kind": {"$exists": True}}) == 0
        # A store that is changed behind the index's back leaves passages, which are not shown.
        index.store.delete(["seal"])
        assert "seal" not in {one.id for one in index.answer("rubber", min_confidence=0).passages}
        index.add_passages(16)
        assert all("pump" in text for text in texts())


def test_a_killed_write_leaves_no_item_without_passages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder: Any = Words()
    with Index.build(tmp_path / "index", encoder, ITEMS) as index:
        index.add_passages(8)
        upsert, calls = index.store.upsert, []

        def failing(items: Sequence[Item], *, namespace: str = "") -> None:
            calls.append(namespace)
            if len(calls) == 2:
                raise KeyboardInterrupt
            upsert(items, namespace=namespace)

        monkeypatch.setattr(index.store, "upsert", failing)
        with pytest.raises(KeyboardInterrupt):
            index.add([Item("new", "A new valve.")])
        assert calls == [":passages", ""]
        assert "new" not in {one.id for one in index.answer("valve", min_confidence=0).passages}
        index.add([Item("new", "A new valve.")])
        assert index.answer("new valve").citations[0].text == "A new valve."


_PASSAGES = [Passage("a", 4, 20, "The lamp is red.", 1.0), Passage("b", 0, 12, "It has 9 kg.", 0.5)]


_TOKENS = (
    "The lamp is red|It has 9 kg|Fish| |. |! |\n|[1]|[2]|[9]|[1, 2]|[|]|[1|[^2]|[[1]2]|"
    "[Passage 2]|【1】|[0]|。|x[3]"
)


@given(
    st.lists(st.sampled_from(_TOKENS.split("|")), max_size=14).map("".join),
    st.integers(1, 7),
)
@settings(max_examples=60, deadline=None)
def test_no_unknown_number_is_ever_shown(text: str, size: int) -> None:
    def written(step: int) -> tuple[str, CitationWriter]:
        work = CitationWriter(_PASSAGES, WordSupport().score, min_support=0.6)
        pieces = [text[start : start + step] for start in range(0, len(text), step)]
        shown = [one for piece in pieces for one in work.write(piece)]
        return "".join([*shown, *work.finish()]), work

    shown, work = written(size)
    numbers = re.findall(r"[\[【]\s*\^?\s*(\d+)[\d\s,]*[\]】]", shown)
    assert all(1 <= int(number) <= len(work.citations) for number in numbers)
    assert {int(number) for number in re.findall(r" \[(\d+)\]", shown)} == set(
        range(1, len(work.citations) + 1)
    )
    assert shown == written(len(text) or 1)[0]  # however it arrives


def test_markers_are_removed() -> None:
    assert without_markers("Red [1, 7][2]. So [^3] what [[4]5]【6】?") == "Red. So what?"


def test_support_by_words() -> None:
    score = WordSupport().score
    found = score(
        [
            ("The pumps moved 9 litres", "a pump moves 9 litres"),
            ("The pump moves 8 litres", "a pump moves 9 litres"),
            ("The pump does not move", "the pump moves"),
            ("It is", "It is"),
        ]
    )
    assert found.tolist() == [1.0, 0.0, 0.5, 0.0]


def test_the_prompt_keeps_to_its_budget() -> None:
    passages = [Passage("a", 0, 30, "One two three. Four five six.", 1.0)] * 3

    def count(messages: Sequence[dict[str, str]]) -> int:
        return sum(len(message["content"].split()) for message in messages)

    for room in range(4, 40):
        kept = fitting_passages("why so", passages, "", room=room, count=count)
        assert not kept or count(messages_of("why so", kept, "")) <= room
        assert all(one.text == passages[0].text[: one.end - one.start] for one in kept)
    assert len(fitting_passages("why so", passages, "", room=40, count=count)) == 3
    (one,) = fitting_passages("why so", passages, "", room=9, count=count)
    assert one.text == "One two three."


def test_evaluation_counts_by_hand(tmp_path: Path) -> None:
    encoder: Any = Words()
    questions = [
        GoldQuestion(QUESTION, ("9 litres",), ("pump",)),
        GoldQuestion("Which rubber are seals made of?", ("rubber",), ("lamp",)),
    ]
    with Index.build(tmp_path / "index", encoder, ITEMS) as index:
        found = evaluate_answers(index, questions, 3)
    assert found["document_recall_at_1"] == 0.5
    assert found["passage_recall"] == 0.5  # the second gold document lacks its answer
    assert found["contains_answer"] == 1.0
    assert found["citation_precision"] == 0.5
    assert found["verbatim"] >= 0.5
    assert found["abstained"] == 0
    assert found["abstained_without_gold"] == 0.5


def test_evaluation_counts_the_answers_that_a_model_did_not_write(tmp_path: Path) -> None:
    encoder: Any = Words()
    questions = [GoldQuestion(QUESTION, ("9 litres",))]
    with Index.build(tmp_path / "index", encoder, ITEMS) as index:
        for text, share in (("Pigs fly in purple skies.", 1.0), ("It moves 9 litres [1].", 0.0)):
            found = evaluate_answers(index, questions, 3, model=Scribe(text))
            assert found["quoted"] == share
        assert "quoted" not in evaluate_answers(index, questions, 3)


def test_exact_match_and_f1_are_squad_s() -> None:
    assert exact_match("The  Broncos!", ["broncos"]) == 1
    assert answer_f1("Denver Broncos team", ["The Denver Broncos", "x"]) == pytest.approx(0.8)
    assert answer_f1("", ["x"]) == 0


@pytest.mark.parametrize(
    "line", ['{"answer": "x"}', '{"question": "x"}', '{"question": "x", "answers": [1.5]}']
)
def test_bad_questions_name_their_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(f'{{"question": "a?", "answer": "b"}}\n{line}\n')
    assert len(read_gold_questions(file, limit=1)) == 1
    with pytest.raises(InputError, match="2"):
        read_gold_questions(file)


def test_own_vectors_have_no_passages(tmp_path: Path) -> None:
    with Index.build(tmp_path / "own", None, [("a", "a red lamp", {}, [0.6, 0.8])]) as index:
        with pytest.raises(ConfigError, match="passages can have none"):
            index.add_passages()
        with pytest.raises(InputError, match="max_length is 1"):
            index.add_passages(1)
        answer = index.answer("Which lamp is red?", mode="lexical")
        assert answer.citations[0].text == "a red lamp"


def test_a_namespace_of_passages_is_not_one_of_items(tmp_path: Path) -> None:
    """Its items would be deleted with the passages of another namespace."""
    encoder: Any = Words()
    with Index.build(tmp_path / "index", encoder, ITEMS, namespace="shop") as index:
        for call in (index.add, lambda items, **given: index.add_passages(**given)):
            with pytest.raises(InputError, match="'shop:passages' is for passages"):
                call(ITEMS, namespace="shop:passages")
        assert index.add_passages(8, namespace="shop") > 0
        count = sum(1 for _ in index.store.items(namespace="shop:passages"))
        assert index.add_passages(16, namespace="shop") < count
