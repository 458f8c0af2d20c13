"""`PipelineConfig`: the whole of `idiolect.toml`, with the table of every stage.

>>> PipelineConfig.model_validate({"data": {"items": "items.jsonl"}}).data.items
'items.jsonl'
"""

from __future__ import annotations

from typing import Any

from pydantic import create_model

from idiolect.pipeline.settings import PipelineSettings
from idiolect.pipeline.stage_graph import all_stages

__all__ = ["PipelineConfig"]


def _tables() -> dict[str, Any]:
    tables = {stage.table: stage.settings for stage in all_stages() if stage.settings.model_fields}
    return {name: (table, table()) for name, table in tables.items()}


PipelineConfig: type[PipelineSettings] = create_model(
    "PipelineConfig",
    __base__=PipelineSettings,
    __module__=__name__,
    __doc__="The configuration of a run.",
    **_tables(),
)
"""The configuration of a run; `PipelineSettings` is its static type."""
