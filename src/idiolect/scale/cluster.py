"""Run a function on every part of a corpus, on the nodes of a Ray cluster.

Each part is one Ray Data task. Tasks are stateless, so the tasks of a lost node run again on
another one. Objects that a task loads, such as a model, are cached in its process for later tasks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from idiolect.errors import IdiolectError, InputError, MissingDependencyError
from idiolect.training.progress import show_progress

__all__ = ["connect", "map_parts", "run_task", "run_tasks"]

_PART, _RESULT = "part", "result"
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def connect(address: str) -> None:
    """Connect to a cluster, unless this process is already connected.

    Args:
        address: For example `10.0.0.1:6379`; `auto` for the cluster that this machine is a node of;
            `local` to start one on this machine for this process.

    Raises:
        MissingDependencyError: Ray is not installed.
        InputError: There is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(
            "Ray is not installed", hint="pip install 'idiolect[ray]' on every node"
        ) from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, logging_level="warning", log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise InputError(
                f"no Ray cluster at {address}: {str(error).splitlines()[0]}",
                hint="start one with `ray start --head`, and give its address or `auto`; if it has"
                " a token, set RAY_AUTH_MODE=token here too",
            ) from error
    context = ray.data.DataContext.get_current()
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.enable_progress_bars = False


def map_parts(
    function: Callable[[_Item], _Result],
    parts: Sequence[_Item],
    *,
    cpus: float = 1,
    gpus: float = 0,
) -> Iterator[_Result]:
    """Apply a function to every part on the cluster, and yield the results in order of the parts.

    Only parts that are being processed are in memory. If a node is lost, its tasks run again, so
    the function must be idempotent. Each result is yielded once.

    Args:
        function: Called with a part, in a process of a node.
        parts: The parts; each is one task.
        cpus: Processors per task.
        gpus: GPUs per task.

    Raises:
        IdiolectError: The function raised this error; other errors are those of Ray.
    """
    import ray

    if not parts:
        return
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    numbered = [{_PART: number} for number in range(len(parts))]
    shared = ray.put(list(parts))

    def apply(batch: dict[str, Any]) -> dict[str, Any]:
        todo = ray.get(shared)
        results = np.empty(len(batch[_PART]), object)
        for i, number in enumerate(batch[_PART].tolist()):
            try:
                results[i] = (number, function(todo[number]), None)
            except IdiolectError as error:  # Ray Data would keep only its text
                results[i] = (number, None, (_kind(error), error.message, error.hint))
        return {_RESULT: results}

    data = ray.data.from_items(numbered, override_num_blocks=len(parts)).map_batches(
        apply, batch_size=1, num_cpus=cpus, num_gpus=gpus or None
    )
    expected = 0
    for row in data.iter_rows():
        number, result, failure = row[_RESULT]
        if failure is not None:
            kind, message, hint = failure
            raise kind(message, hint=hint)
        if number != expected:
            raise RuntimeError(f"part {number} came instead of {expected}")
        expected += 1
        yield result
    if expected != len(parts):
        raise RuntimeError(f"{expected} of {len(parts)} parts came back")


def run_task(function: Callable[[], _Result]) -> _Result:
    """Call a function in a process of a node, and return its result.

    Raises:
        IdiolectError: The function raised one.
    """
    return next(run_tasks(lambda _: function(), [None]))


def run_tasks(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    *,
    gpus: float = 0,
    progress: bool = False,
) -> Iterator[_Result]:
    """Apply a function to a few items in parallel on the cluster, and yield results in order.

    Raises:
        IdiolectError: The function raised one.
    """
    import ray
    from ray.exceptions import RayTaskError

    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=-1)(_applied)
    shared = ray.put(function)
    with show_progress("tasks", len(items), shown=progress) as activity:
        for waiting in [task.remote(shared, item) for item in items]:
            try:
                result: _Result = ray.get(waiting)
            except RayTaskError as error:
                raise _own_error(error) from error
            activity.advance(1)
            yield result


def _applied(function: Callable[[_Item], _Result], item: _Item) -> _Result:
    return function(item)


def _own_error(error: BaseException) -> BaseException:
    """Return the `IdiolectError` that a task raised, if any, without Ray's traceback."""
    cause: BaseException | None = error
    while cause is not None:
        for one in (getattr(cause, "cause", None), cause):
            if isinstance(one, IdiolectError):
                return _kind(one)(one.message, hint=one.hint)
        cause = cause.__cause__
    return error


def _kind(error: IdiolectError) -> type[IdiolectError]:
    """Return the class of an error, or of the error that Ray has derived a class from."""
    kind = next(k for k in type(error).__mro__ if k.__module__ == "idiolect.errors")
    assert issubclass(kind, IdiolectError)
    return kind
