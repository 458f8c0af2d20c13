"""`shapes_only`: build modules whose weights have a shape, but no values and no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from idiolect.errors import ConfigError

__all__ = ["shapes_only"]

_MAKES_TENSORS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.arange)


class _ShapesOnly(TorchFunctionMode):
    """Skips the functions of `torch.nn.init`, and limits the number of tensors.

    On the "meta" device these functions compute nothing, but some import torch's compiler, which
    takes longer than building and loading a small model.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = self.left = most

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == torch.nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func not in _MAKES_TENSORS:
            return func(*args, **kwargs)
        self.left -= 1
        if self.left < 0:
            raise ConfigError(f"a network of more than {self.most:,} tensors is described")
        try:
            return func(*args, **kwargs)
        except (RuntimeError, TypeError) as error:
            raise ConfigError(f"no tensor has the size {args}") from error


@contextmanager
def shapes_only(most: int = 1_000_000) -> Iterator[None]:
    """Build modules on the "meta" device, without initial values.

    Args:
        most: Maximum number of tensors. A malicious `config.json` may ask for billions.

    Raises:
        ConfigError: There are more tensors, or one has an impossible size.
    """
    with torch.device("meta"), _ShapesOnly(most):
        yield
