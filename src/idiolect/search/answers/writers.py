"""Writers of answers: a local model, or a server with an OpenAI-compatible API."""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from idiolect.errors import ConfigError, InputError, OfflineError

if TYPE_CHECKING:
    from idiolect.generate.generator import Generator

__all__ = ["EndpointWriter", "LocalWriter", "Writer", "writer_of"]

_Messages = Sequence[dict[str, str]]
_MAX_LINE = 1 << 20
_MAX_ERROR = 4096
_MAX_TOKEN = 64
"""Maximum average characters per token, to limit the length of a reply."""


@runtime_checkable
class Writer(Protocol):
    """Writes a reply to a conversation."""

    def write(self, messages: _Messages, max_new_tokens: int) -> Iterator[str]:
        """Yield the reply in pieces."""

    def count(self, messages: _Messages) -> int:
        """Return the number of tokens of a conversation, or an estimate that is not too low."""

    def room(self, max_new_tokens: int) -> int | None:
        """Return the maximum number of tokens of a conversation; None if that is not known."""


class LocalWriter:
    """Writes with a local model, by greedy decoding.

    Args:
        generator: The model.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def write(self, messages: _Messages, max_new_tokens: int) -> Iterator[str]:
        """Yield the reply in pieces.

        Raises:
            InputError: The conversation does not fit into the model's context.
        """
        yield from self.generator.stream(
            self._ids(messages), max_new_tokens=max_new_tokens, stop=("\nQuestion:",)
        )

    def count(self, messages: _Messages) -> int:
        """Return the number of tokens of a conversation."""
        return len(self._ids(messages))

    def room(self, max_new_tokens: int) -> int | None:
        """Return the maximum number of tokens of a conversation; None if there is no limit."""
        most = self.generator.context_length
        return None if most is None else max(1, most - max_new_tokens)

    def _ids(self, messages: _Messages) -> list[int]:
        from idiolect.generate.prompts.chat_template import find_chat_template

        tokenizer = self.generator.model.tokenizer
        if find_chat_template(tokenizer) is None:
            text = "\n\n".join(message["content"] for message in messages)
            return tokenizer.encode(f"{text}\nAnswer:")
        # Otherwise the name of a special token in a text could end the passage or the user's turn.
        marks = [token for token in tokenizer.special_tokens if len(token) > 1]
        return self.generator.chat_ids(
            [{**one, "content": _without(one["content"], marks)} for one in messages]
        )


class EndpointWriter:
    """A model behind `/chat/completions`, as OpenAI, vLLM, llama.cpp or Ollama serve it.

    Redirects are not followed, so that the key is not sent to another server.

    Args:
        url: The base URL, without `/chat/completions`, such as `http://127.0.0.1:8000/v1`.
        model: Name of the model.
        api_key: Sent as a bearer token, if any.
        timeout: Seconds to wait for the connection and for each piece.

    Raises:
        ConfigError: The URL or the key is not valid.
    """

    def __init__(
        self, url: str, model: str, *, api_key: str | None = None, timeout: float = 60.0
    ) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise ConfigError(
                f"{url!r} is no address of a server", hint="such as http://127.0.0.1:8000/v1"
            )
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ConfigError("the API key has characters that no key has", hint="copy it again")
        if not 0 < timeout < math.inf:
            raise ConfigError(f"timeout is {timeout}", hint="pass seconds above 0")
        self.url, self.model, self.timeout = url, model, timeout
        self._host, self._port, self._scheme = parts.hostname, port, parts.scheme
        self._path = f"{parts.path.rstrip('/')}/chat/completions"
        self._headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def write(self, messages: _Messages, max_new_tokens: int) -> Iterator[str]:
        """Yield the reply in pieces.

        Raises:
            OfflineError: The server cannot be reached, or the connection breaks.
            InputError: The server rejects the request, or its response has an unknown format.
        """
        kind = (
            http.client.HTTPSConnection if self._scheme == "https" else http.client.HTTPConnection
        )
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_new_tokens,
            "temperature": 0,
            "stream": True,
        }
        with closing(kind(self._host, self._port, timeout=self.timeout)) as connection:
            try:
                connection.request("POST", self._path, json.dumps(body), self._headers)
                with connection.getresponse() as response:
                    if response.status != 200:
                        raise self._refused(response)
                    left = max_new_tokens * _MAX_TOKEN  # a server may ignore the limit
                    for piece in self._pieces(response):
                        yield piece[:left]
                        left -= len(piece)
                        if left <= 0:
                            return
            except (http.client.HTTPException, OSError) as error:
                raise OfflineError(
                    f"{self.url}: {error or type(error).__name__}",
                    hint="check the address, and that the server runs",
                ) from error

    def count(self, messages: _Messages) -> int:
        """Return an estimate: one token per three bytes."""
        return sum(len(message["content"].encode()) // 3 + 8 for message in messages)

    def room(self, max_new_tokens: int) -> int | None:
        """Return None: only the server knows the context length of its model."""
        return None

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[str]:
        if "event-stream" not in response.headers.get("Content-Type", ""):
            yield from self._texts(response.read(_MAX_LINE), "message")
            return
        while line := response.readline(_MAX_LINE):
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield from self._texts(data, "delta")

    def _texts(self, data: bytes, key: str) -> Iterator[str]:
        """Yield the text of a reply, or of a piece of one."""
        try:
            choices: Any = json.loads(data)["choices"]
            text = choices[0][key].get("content") if choices else None
            if text is not None and not isinstance(text, str):
                raise TypeError("the content is no text")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{self.url} answers in another form: {data[:80]!r}",
                hint="it must serve OpenAI's /chat/completions",
            ) from error
        if text:
            yield text

    def _refused(self, response: http.client.HTTPResponse) -> InputError:
        body = response.read(_MAX_ERROR).decode(errors="replace")
        try:
            body = str(json.loads(body)["error"]["message"])
        except (ValueError, LookupError, TypeError):
            body = body[:200]
        return InputError(
            f"{self.url} refuses the request ({response.status}): {' '.join(body.split())}",
            hint="check the name of the model and the key",
        )


def writer_of(model: Any) -> Writer:
    """Return a writer for a writer, a generator, a language model or a model's name.

    Raises:
        InputError: `model` is none of these, or no model has this name.
    """
    if isinstance(model, Writer):
        return model
    from idiolect.generate.generator import Generator

    return LocalWriter(model if isinstance(model, Generator) else Generator(model))


def _without(text: str, marks: Sequence[str]) -> str:
    """Return a text without the names of special tokens."""
    for mark in marks:
        if mark in text:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text
