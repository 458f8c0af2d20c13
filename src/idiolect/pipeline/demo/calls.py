"""Sessions from source code: the items that each function calls, in order of evaluation.

A function plays the role of a shopper, and its calls are the items viewed. Only
modules that are already imported are read, so no code is executed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy

__all__ = ["calls", "sessions"]

# SciPy writes `xp.sum(x)` for the library of the array `x`, which is NumPy by default.
_ARRAY_LIBRARY = {"xp": numpy}


def sessions(packages: tuple[str, ...], objects: Mapping[int, str]) -> Iterator[list[str]]:
    """Yield the items that each function or method of the packages calls, if at least two.

    Consecutive calls of the same item count once.

    Args:
        packages: Names of imported packages.
        objects: An item's id by the `id()` of its object.
    """
    for name in sorted(sys.modules):
        module = sys.modules[name]
        if name.partition(".")[0] not in packages or not isinstance(module, ModuleType):
            continue
        path = Path(getattr(module, "__file__", None) or "")
        if path.suffix == ".py":
            for items in calls(path.read_text(encoding="utf-8"), vars(module), objects):
                session = [item for item, _ in groupby(items)]
                if len(session) > 1:
                    yield session


def calls(source: str, scope: Mapping[str, Any], objects: Mapping[int, str]) -> Iterator[list[str]]:
    """Yield the items that each function calls, including those of nested functions.

    Arguments are evaluated before their call:

    >>> import numpy as np
    >>> names = {id(np.sqrt): "sqrt", id(np.sum): "sum"}
    >>> list(calls("def norm(x): return np.sqrt(np.sum(x * x))", {"np": np}, names))
    [['sum', 'sqrt']]

    Args:
        source: Python source of a module.
        scope: The values of the module's names.
        objects: An item's id by the `id()` of its object.
    """
    for function in _functions(ast.parse(source)):
        visitor = _Calls(function, scope, objects)
        visitor.visit(function)
        yield visitor.items


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield the functions of a module and the methods of its classes, outermost only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        elif not isinstance(node, ast.expr):
            yield from _functions(node)


class _Calls(ast.NodeVisitor):
    def __init__(
        self,
        function: ast.FunctionDef | ast.AsyncFunctionDef,
        scope: Mapping[str, Any],
        objects: Mapping[int, str],
    ) -> None:
        self._own = {
            node.arg if isinstance(node, ast.arg) else node.id
            for node in ast.walk(function)
            if isinstance(node, ast.arg)
            or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        }
        self._scope = scope
        self._objects = objects
        self.items: list[str] = []

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        item = self._objects.get(id(self._value(node.func)))
        if item is not None:
            self.items.append(item)

    def _value(self, node: ast.expr) -> object:
        """Return the value of a dotted name; attributes are only looked up in modules."""
        if isinstance(node, ast.Name):
            if node.id in _ARRAY_LIBRARY:
                return _ARRAY_LIBRARY[node.id]
            return None if node.id in self._own else self._scope.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._value(node.value)
            if isinstance(owner, ModuleType):
                return vars(owner).get(node.attr)
        return None
