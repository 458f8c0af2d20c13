"""An error of the package in a process of a node is that error here, without a traceback of Ray."""

from __future__ import annotations

import pytest

from idiolect.errors import CheckpointError, InputError
from idiolect.scale.cluster import map_parts, run_tasks
from scale.clusters import cluster

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray


def test_an_error_of_a_part_or_a_task_keeps_its_class_and_its_hint() -> None:
    def read(part: int) -> int:  # nodes cannot import this module, and get it by value
        if part == 2:
            raise InputError("part 2 cannot be read", hint="correct it")
        if part > 2:
            raise CheckpointError("a later part")
        return part

    with cluster(1):
        for run in (map_parts, run_tasks):
            results = run(read, [0, 1, 2, 3])
            assert [next(results), next(results)] == [0, 1]
            with pytest.raises(InputError, match="part 2 cannot be read") as caught:
                next(results)
            assert type(caught.value) is InputError
            assert caught.value.hint == "correct it"
