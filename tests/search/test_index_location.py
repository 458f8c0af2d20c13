"""An index is found in its folder or in that of its run."""

from __future__ import annotations

from pathlib import Path

import pytest

from idiolect.errors import InputError
from idiolect.search.store.store import Store
from idiolect.serve.served_folder import ServedFolder


def test_the_folder_that_holds_the_run_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "shop" / "run" / "stages").mkdir(parents=True)
    for opened in (Store.open, ServedFolder.find):
        with pytest.raises(InputError, match=r"did you mean .*/shop/run"):
            opened(str(tmp_path / "shop"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="check the path, or build one"):
        Store.open(str(tmp_path / "empty"))
