"""Texts over HTTP: those of the generator, whole or in pieces, and nothing for who has left."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from idiolect.generate.batching import text_writing
from idiolect.generate.generator import Generator
from idiolect.models.language_model import LanguageModel
from idiolect.search.answers.answer_options import AnswerOptions
from idiolect.serve.app import create_app
from idiolect.serve.bodies.answer_bodies import AnswerBody
from idiolect.serve.serve_settings import ServeSettings
from serve import served

CHAT = {"messages": [{"role": "user", "content": "w5 w6"}], "temperature": 0}


@pytest.fixture(scope="module")
def generator(folder: Path) -> Generator:
    return Generator(LanguageModel.load(folder / "writer"))


def _events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_completions_are_those_of_the_generator(reader: TestClient, generator: Generator) -> None:
    expected = generator.generate(["w3 w4", "w9"], max_new_tokens=9)
    body = {"prompt": ["w3 w4", "w9"], "max_tokens": 9, "temperature": 0, "logprobs": 1}
    found = reader.post("/v1/completions", json=body).json()
    assert [one["text"] for one in found["choices"]] == [one.text for one in expected]
    logs = found["choices"][0]["logprobs"]["token_logprobs"]
    assert logs == pytest.approx(expected[0].logprobs, abs=1e-4)
    tokens = sum(len(one.ids) for one in expected)
    assert found["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": tokens,
        "total_tokens": 3 + tokens,
    }
    ids = generator.model.tokenizer.encode("w3 w4")
    same = reader.post("/v1/completions", json={"prompt": ids, "max_tokens": 9, "temperature": 0})
    assert same.json()["choices"][0]["text"] == expected[0].text
    drawn = {"prompt": "w3", "max_tokens": 6, "seed": 5, "n": 2, "temperature": 1.5, "top_p": 0.9}
    first, again = (reader.post("/v1/completions", json=drawn).json() for _ in range(2))
    assert first["choices"] == again["choices"]
    assert len(first["choices"]) == 2


def test_a_stream_is_the_whole_text_in_pieces(reader: TestClient, generator: Generator) -> None:
    prompt = generator.chat_ids(CHAT["messages"])
    (expected,) = generator.generate([prompt], max_new_tokens=12)
    body = CHAT | {"max_tokens": 12}
    whole = reader.post("/v1/chat/completions", json=body).json()
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": expected.text}
    options = {"stream": True, "stream_options": {"include_usage": True}}
    found = reader.post("/v1/chat/completions", json=body | options)
    assert found.headers["content-type"].startswith("text/event-stream")
    first, *pieces, last, usage = _events(found.text)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(one["choices"][0]["delta"]["content"] for one in pieces)
    assert text == expected.text
    assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert usage["usage"] == whole["usage"]
    assert len({one["id"] for one in (first, *pieces, last, usage)}) == 1
    plain = {"prompt": "w3 w4", "max_tokens": 9, "temperature": 0}
    text = reader.post("/v1/completions", json=plain).json()["choices"][0]["text"]
    events = _events(reader.post("/v1/completions", json=plain | {"stream": True}).text)
    assert "".join(one["choices"][0]["text"] for one in events) == text
    stop = text.split()[2]
    cut = reader.post("/v1/completions", json=plain | {"stop": [stop]}).json()["choices"][0]
    assert cut["text"] == text[: text.index(stop)]
    assert cut["finish_reason"] == "stop"


def test_errors_of_a_stream_have_their_status(reader: TestClient) -> None:
    for body in (CHAT | {"stream": True, "n": 2}, CHAT | {"stream": True, "max_tokens": 9999}):
        assert reader.post("/v1/chat/completions", json=body).status_code == 400
    long = {"prompt": "w3 " * 500, "stream": True, "max_tokens": 3}
    found = reader.post("/v1/completions", json=long)
    assert found.status_code == 400
    assert "context" in found.json()["error"]["message"]


def test_an_answer_may_have_to_match_a_schema(reader: TestClient) -> None:
    pytest.importorskip("llguidance")
    form = {"type": "json_schema", "json_schema": {"schema": {"enum": ["w5", "w6"]}}}
    found = reader.post("/v1/chat/completions", json=CHAT | {"response_format": form})
    assert found.status_code == 400
    assert "with this tokenizer" in found.json()["error"]["message"], "of whole words"


@pytest.mark.parametrize("stream", [True, False])
def test_a_text_ends_when_its_client_leaves(
    folder: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    ended = threading.Event()
    steps = 0
    choose = text_writing.choose_tokens

    def slow(*arguments: Any) -> list[int]:
        nonlocal steps
        steps += 1
        time.sleep(0.01)
        try:
            return choose(*arguments)
        except Exception:
            ended.set()
            raise

    monkeypatch.setattr(text_writing, "choose_tokens", slow)
    monkeypatch.setattr(Generator, "_stops", lambda *_: ())
    settings = ServeSettings(path=str(folder / "writer"), max_new_tokens=64)

    async def leave() -> None:
        app = create_app(settings)
        body = json.dumps({"prompt": "w3", "max_tokens": 60, "temperature": 0, "stream": stream})
        messages = [{"type": "http.request", "body": body.encode(), "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            while steps < 3:
                await asyncio.sleep(0.005)
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            pass

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "headers": [(b"content-type", b"application/json")],
            "query_string": b"",
        }
        await app(scope, receive, send)
        app.state.service.close()

    asyncio.run(leave())
    assert ended.wait(10)
    assert 3 <= steps < 55


def test_models_and_the_routes_of_a_language_model(folder: Path) -> None:
    with TestClient(create_app(ServeSettings(path=str(folder / "writer")))) as client:
        (model,) = client.get("/v1/models").json()["data"]
        assert client.get(f"/v1/models/{model['id']}").json() == model
        assert client.get("/v1/models/other").status_code == 404
        abilities = client.get("/info").json()["abilities"]
        assert {name for name, can in abilities.items() if can} == {"generate"}
        found = client.post("/search", json={"query": "a"})
        assert (found.status_code, found.json()["error"]["hint"]) == (
            404,
            "serve a run or an index",
        )


def test_answers_over_http_have_the_defaults_of_the_index() -> None:
    body, options = AnswerBody(question="Which?"), AnswerOptions()
    for name in ("min_confidence", "max_new_tokens", "mode", "namespace"):
        assert getattr(body, name) == getattr(options, name), name


def test_tokens_of_every_text_are_counted(reader: TestClient) -> None:
    def written() -> float:
        lines = reader.get("/metrics").text.splitlines()
        (line,) = (one for one in lines if one.startswith("idiolect_new_tokens_total "))
        return float(line.split()[1])

    before = written()
    body: dict[str, Any] = {"prompt": ["w3 w4", "w9"], "max_tokens": 5, "temperature": 0}
    found = reader.post("/v1/completions", json=body).json()
    assert written() - before == found["usage"]["completion_tokens"] > 1
    before = written()
    body = {"question": "w3?", "min_confidence": 0, "max_new_tokens": 6}
    assert reader.post("/answer", json=body).status_code == 200
    assert written() > before


def test_an_answer_cites_parts_of_items(tmp_path: Path) -> None:
    text = "Lamps are red. Chairs are made of wood. Tables are round."
    served.write_index(tmp_path, [served.Item("n1", text), *served.ITEMS])
    body = {"question": "What are chairs made of?", "min_confidence": 0, "mode": "lexical"}
    with served.serving(tmp_path / "index") as client:
        found = client.post("/answer", json=body).json()
        assert found["answer"].startswith("Chairs are made of wood.")
        for one in found["citations"]:
            assert (one["id"], text[one["start"] : one["end"]]) == ("n1", one["text"])
        *pieces, whole = _events(client.post("/answer", json=body | {"stream": True}).text)
        assert whole == found
        assert "".join(one["piece"] for one in pieces).strip() == found["answer"]
        none = client.post("/answer", json={"question": "zzz?", "mode": "lexical"}).json()
        assert (none["abstained"], none["citations"]) == (True, [])
