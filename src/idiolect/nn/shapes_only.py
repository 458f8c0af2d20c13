"""`shapes_only`: build modules whose weights have shapes, but neither values nor memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["shapes_only"]


class _NoInitialization(TorchFunctionMode):
    """Skips the functions of `torch.nn.init`.

    On the "meta" device they compute nothing, but some import torch's compiler, which takes longer
    than building and loading a small model.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Build modules on the "meta" device, without initial values."""
    with torch.device("meta"), _NoInitialization():
        yield
