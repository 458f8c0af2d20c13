"""What the cluster does, in this process and without Ray: the same parts in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from idiolect.scale import ray_audit, ray_encode, ray_encoder


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run parts and tasks one after another here."""
    for module in (ray_audit, ray_encode, ray_encoder):
        monkeypatch.setattr(module, "connect", lambda address: None)
        monkeypatch.setattr(module, "run_task", lambda function: function())
        for name in ("map_parts", "run_tasks"):
            monkeypatch.setattr(module, name, _each, raising=False)
    ray_audit._tokenizer.cache_clear()
    ray_encode.encoder_of_node.cache_clear()


def _each(function: Callable[[Any], Any], items: Sequence[Any], **_: Any) -> Iterator[Any]:
    return map(function, items)
