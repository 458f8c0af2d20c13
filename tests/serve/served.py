"""A tiny index and tiny models in folders, and applications that serve them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from encoding.models import tiny_encoder
from idiolect.search.index import Index
from idiolect.search.items import Item
from idiolect.serve.app import create_app
from idiolect.serve.serve_settings import ServeSettings
from training import models

ITEMS = [
    Item("p1", "a b c d", {"price": 20, "kind": "lamp"}),
    Item("p2", "e f g h", {"price": 30, "kind": "lamp"}),
    Item("p/3", "a c e g i", {"price": 80, "kind": "chair"}),
    Item("p4", "k l m n o p", {"price": 90, "kind": "table"}),
]
_CHAT = "{% for one in messages %}w1 {{ one.content }} {% endfor %}w2"


def write_index(folder: Path, items: list[Item] = ITEMS, **options: Any) -> Path:
    """Save an encoder, and build an index with it."""
    tiny_encoder(**options).save(folder / "encoder")
    Index.build(folder / "index", str(folder / "encoder"), items).close()
    return folder / "index"


def write_language_model(folder: Path) -> Path:
    """Save a language model with a chat template."""
    model = models.model("llama", grown=False)
    model.tokenizer.settings["chat_template"] = _CHAT
    model.save(folder)
    return folder


@contextmanager
def serving(path: Path, **settings: Any) -> Iterator[TestClient]:
    """Serve in this process; errors of the server are responses."""
    app = create_app(ServeSettings(path=str(path), **settings))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
