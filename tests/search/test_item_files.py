"""Reading items from files: text fields and metadata fields."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from idiolect.search.item_files import read_items
from idiolect.search.items import Item


def test_the_fields_of_a_metadata_object_are_metadata(tmp_path: Path) -> None:
    record = {
        "id": "svd",
        "text": "decompose a matrix",
        "pages": 3,
        "metadata": {"package": "scipy", "text": "never the text", "pages": 4, "none": None},
    }
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(record))
    (item,) = read_items([path], skipped=Counter())
    assert item == Item("svd", "decompose a matrix", {"pages": 3, "package": "scipy"})
    (chosen,) = read_items([path], metadata=["metadata"], skipped=Counter())
    assert chosen.metadata == {"metadata": record["metadata"]}
