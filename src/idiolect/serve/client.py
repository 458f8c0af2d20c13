"""`Client`: the interface of an `Index`, over HTTP.

>>> client = Client("http://localhost:8000")                            # doctest: +SKIP
>>> client.search("crimson light", top_k=3)                             # doctest: +SKIP
[Hit(id='p1', score=1.0, text='a red lamp', metadata={}, highlight='')]
>>> client.encode(["a red lamp"]).shape                                 # doctest: +SKIP
(1, 384)
"""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Self, TypeVar
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike, NDArray

from idiolect.errors import InputError, MissingDependencyError, OfflineError
from idiolect.search.index_search import Mode
from idiolect.search.item_forms import as_items
from idiolect.search.items import Hit, Hits, Item
from idiolect.search.metadata import encode_metadata
from idiolect.text.arguments import checked, list_of_texts

__all__ = ["Client"]

_T = TypeVar("_T")
_ITEMS_A_REQUEST = 500
_TEXTS_A_REQUEST = 256
_LONGEST_WAIT = 30.0


class Client:
    """A server, used like an index. Safe for concurrent use by several threads.

    Args:
        url: The URL of the server.
        api_key: The API key, if the server requires one.
        timeout: Seconds to wait for a response.
        retries: Maximum number of retries if the server is busy; it says when to retry.
        http: An `httpx.Client` to use instead, such as one with another transport.

    Raises:
        MissingDependencyError: The package httpx is not installed.
    """

    @checked
    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        http: Any = None,
    ) -> None:
        try:
            import httpx
        except ModuleNotFoundError:
            raise MissingDependencyError(
                "the client needs the package httpx", hint="pip install 'idiolect[client]'"
            ) from None

        self.url, self._retries = url.rstrip("/"), retries
        self._failures: tuple[type[Exception], ...] = (httpx.TransportError, httpx.InvalidURL)
        self._http = http or httpx.Client(base_url=self.url, timeout=timeout)
        if api_key is not None:
            self._http.headers["Authorization"] = f"Bearer {api_key}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __repr__(self) -> str:
        return f"<Client {self.url!r}>"

    def __len__(self) -> int:
        spaces = self._post("/describe_index_stats", {})["namespaces"]
        return int(spaces[""]["vectorCount"]) if "" in spaces else 0

    def __contains__(self, id: object) -> bool:
        id = id.id if isinstance(id, Item) else id
        return isinstance(id, str) and self.get(id) is not None

    @property
    def info(self) -> dict[str, Any]:
        """What is served, and its capabilities; see `/info`."""
        return self._request("GET", "/info")

    def search(
        self,
        text: str,
        top_k: int = 10,
        mode: Mode = "hybrid",
        *,
        filter: Mapping[str, Any] | None = None,
        namespace: str = "",
        mmr_diversity: float = 0.0,
    ) -> Hits:
        """Find the best items for a query; see `Index.search`.

        Raises:
            InputError: An argument is not valid.
            OfflineError: The server cannot be reached, or is still busy after all retries.
        """
        body = {"query": text, "top_k": top_k, "mode": mode, "filter": filter}
        body |= {"namespace": namespace, "mmr_diversity": mmr_diversity}
        return _hits(self._post("/search", body)["hits"])

    def search_many(
        self,
        texts: Iterable[str],
        top_k: int = 10,
        mode: Mode = "hybrid",
        *,
        filter: Mapping[str, Any] | None = None,
        namespace: str = "",
    ) -> list[Hits]:
        """Find the best items for each of several queries; see `Index.search_many`."""
        found: list[Hits] = []
        for some in _parts(list_of_texts(texts), 100):
            body = {"queries": some, "top_k": top_k, "mode": mode, "filter": filter}
            answer = self._post("/search_many", body | {"namespace": namespace})
            found += [_hits(hits) for hits in answer["results"]]
        return found

    def search_vectors(
        self,
        vectors: ArrayLike,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,
        namespace: str = "",
    ) -> list[Hits]:
        """Find the items nearest to each of several vectors; see `Index.search_vectors`."""
        rows = np.atleast_2d(np.asarray(vectors, np.float32)).tolist()
        body = {"vectors": rows, "top_k": top_k, "filter": filter, "namespace": namespace}
        return [_hits(hits) for hits in self._post("/search_vectors", body)["results"]]

    def similar(
        self,
        item_id: str,
        top_k: int = 10,
        *,
        filter: Mapping[str, Any] | None = None,
        namespace: str = "",
    ) -> Hits:
        """Find the items nearest to an item; see `Index.similar`."""
        body = {"id": item_id, "top_k": top_k, "filter": filter, "namespace": namespace}
        return _hits(self._post("/similar", body)["hits"])

    def recommend(self, history: Iterable[str], top_k: int = 10, exclude_seen: bool = True) -> Hits:
        """Recommend the next items after a history; see `Recommender.recommend`."""
        body = {"history": [*history], "top_k": top_k, "exclude_seen": exclude_seen}
        return _hits(self._post("/recommend", body)["hits"])

    def rerank(
        self, query: str, documents: Iterable[str], top_k: int | None = None
    ) -> list[tuple[int, float]]:
        """Rerank documents for a query: return (index, score) of each, best first."""
        body = {"query": query, "documents": list_of_texts(documents), "top_n": top_k}
        results = self._post("/rerank", body)["results"]
        return [(one["index"], one["relevance_score"]) for one in results]

    def answer(self, question: str, top_k: int = 5) -> dict[str, Any]:
        """Answer a question from the index: `answer`, `citations`, `abstained`, `passages`."""
        return self._post("/answer", {"question": question, "top_k": top_k})

    def audit(self, text: str) -> dict[str, Any]:
        """Return how the tokenizers of the base and of the run split a text."""
        return self._post("/audit", {"text": text})

    def encode(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        dimensions: int | None = None,
    ) -> NDArray[np.float32]:
        """Encode texts; see `Encoder.encode`. Shape: (texts, dimensions)."""
        rows: list[NDArray[np.float32]] = []
        for some in _parts(list_of_texts(texts), _TEXTS_A_REQUEST):
            body = {"input": some, "encoding_format": "base64", "prompt_name": prompt_name}
            found = self._post("/v1/embeddings", body | {"dimensions": dimensions})["data"]
            rows += [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in found]
        return np.stack(rows) if rows else np.zeros((0, self.info["dimensions"]), np.float32)

    def generate(self, prompt: str, *, max_new_tokens: int = 64, **options: Any) -> str:
        """Continue a text, by default by greedy decoding.

        Args:
            prompt: The text.
            max_new_tokens: Maximum number of new tokens.
            options: Further fields of OpenAI's `/v1/completions`, such as `temperature` and `stop`.
        """
        body = {"prompt": prompt, "max_tokens": max_new_tokens, "temperature": 0, **options}
        return str(self._post("/v1/completions", body)["choices"][0]["text"])

    # Items

    def get(self, id: str, *, namespace: str = "") -> Item | None:
        """Return the item with an id, with its vector; None if there is none."""
        path = f"/items/{quote(id, safe='')}"
        found = self._send("GET", path, params={"namespace": namespace, "vector": "true"})
        if found.status_code == 404:
            return None
        one = self._read(found)
        vector = np.asarray(one["vector"], np.float32) if one.get("vector") else None
        return Item(one["id"], one["text"], one["metadata"], vector)

    def add(self, items: Iterable[Any], *, namespace: str = "") -> Counter[str]:
        """Add or replace items; see `Index.add`. Items are on disk when a request returns."""
        counts = Counter[str]()
        for some in _parts(as_items(items), _ITEMS_A_REQUEST):
            plain, _ = encode_metadata(some)
            body = {"items": [_record(item) for item in plain], "namespace": namespace}
            counts.update(self._post("/items", body))
        return counts

    def update(
        self,
        id: str,
        *,
        text: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        vector: ArrayLike | None = None,
        namespace: str = "",
    ) -> None:
        """Change fields of an item; see `Index.update`."""
        row = None if vector is None else np.asarray(vector, np.float32).tolist()
        self._request(
            "PATCH",
            f"/items/{quote(id, safe='')}",
            {"text": text, "metadata": metadata, "vector": row},
            {"namespace": namespace},
        )

    def delete(
        self,
        ids: Iterable[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        namespace: str = "",
    ) -> int:
        """Delete items by id or by filter, and return how many there were."""
        given = None if ids is None else list_of_texts(ids)
        body = {"ids": given, "filter": filter, "namespace": namespace}
        return int(self._post("/items/delete", body)["deleted"])

    # Requests

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._request("POST", path, body)

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        return self._read(self._send(method, path, json=body, params=params))

    def _send(self, method: str, path: str, **content: Any) -> Any:
        """Send a request; retry if the server is busy."""
        for attempt in range(self._retries + 1):
            try:
                found = self._http.request(method, path, **content)
            except self._failures as error:
                raise OfflineError(
                    f"cannot reach {self.url}: {error}", hint="is `idiolect serve` running there?"
                ) from None
            if found.status_code not in (429, 503) or attempt == self._retries:
                break
            wait = found.headers.get("retry-after", "1")
            time.sleep(min(float(wait) if wait.isdigit() else 1.0, _LONGEST_WAIT))
        return found

    def _read(self, found: Any) -> dict[str, Any]:
        try:
            answer = found.json()
        except ValueError:
            answer = None  # of a proxy, or of the pages of another server
        if found.is_success and isinstance(answer, dict):
            return answer
        try:
            error = answer["error"]
            message, hint = str(error["message"]), str(error["hint"])
        except (KeyError, TypeError):
            what = ", but with no JSON object" if found.is_success else ""
            message, hint = (
                f"{self.url} answered {found.status_code}{what}",
                "is this an idiolect server?",
            )
        is_wrong = 400 <= found.status_code < 500 and found.status_code != 429
        kind = InputError if is_wrong else OfflineError
        raise kind(message, hint=hint)


def _hits(records: Sequence[Mapping[str, Any]]) -> Hits:
    return [Hit(one["id"], one["score"], one["text"], one["metadata"]) for one in records]


def _record(item: Item) -> dict[str, Any]:
    vector = None if item.vector is None else np.asarray(item.vector, np.float32).tolist()
    return {"id": item.id, "text": item.text, "metadata": item.metadata, "vector": vector}


def _parts(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield lists of up to `size` values."""
    stream = iter(values)
    while part := list(islice(stream, size)):
        yield part
