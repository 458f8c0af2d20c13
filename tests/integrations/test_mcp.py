"""The tools of `idiolect mcp`, called by the protocol's own client."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from encoding.models import tiny_encoder
from idiolect.search.index import Index
from idiolect.search.items import Item

pytest.importorskip("mcp")

from mcp import Client

from idiolect.integrations.mcp_tools import make_server

ITEMS = [Item("1", "a b c", {"kind": "x"}), Item("2", "d d a", {"kind": "y"})]


def _call(server: Any, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    async def run() -> list[Any]:
        async with Client(server) as client:
            names = sorted(tool.name for tool in (await client.list_tools()).tools)
            return [names, *[await client.call_tool(name, given) for name, given in calls]]

    return asyncio.run(run())


def test_an_assistant_searches_and_cannot_write(tmp_path: Path) -> None:
    with Index.build(tmp_path / "index", tiny_encoder(), ITEMS) as index:
        names, found, item, missing, alone, wrong, many, add = _call(
            make_server(index),
            ("search", {"query": "d d", "filter": {"kind": "y"}}),
            ("get", {"id": "1"}),
            ("get", {"id": "7"}),
            ("similar", {"id": "7"}),
            ("search", {"query": "a", "filter": {"kind": {"$no": 1}}}),
            ("search", {"query": "a", "top_k": 10**9}),
            ("add", {"id": "3", "text": "b"}),
        )
        assert names == ["get", "search", "similar"]
        assert [hit["id"] for hit in found.structured_content["result"]] == ["2"]
        assert item.structured_content["text"] == "a b c"
        for failed, reason in ((missing, "no item '7'"), (alone, "'7'"), (wrong, "$no")):
            assert failed.is_error
            assert reason in failed.content[0].text  # the assistant can correct its call
        assert many.is_error
        assert add.is_error
        assert len(index) == 2


def test_a_writable_server_adds_and_deletes(tmp_path: Path) -> None:
    with Index.build(tmp_path / "index", tiny_encoder(), ITEMS) as index:
        names, *done, empty = _call(
            make_server(index, writable=True),
            ("add", {"id": "3", "text": "b b"}),
            ("delete", {"id": "1"}),
            ("add", {"id": "2", "text": " "}),
        )
        assert not any(one.is_error for one in done)
        assert "not stored" in empty.content[0].text
        assert names == ["add", "delete", "get", "search", "similar"]
        assert {item.id for item in index} == {"2", "3"}
