"""Sessions out of source code: the items each function calls, in the order they are evaluated.

A shopper's history is what one person took up, one after the other; here it is what one function
does. Only modules that are imported already are read, so that nothing is run to look at it.
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

# SciPy writes `xp.sum(x)` where the array's own library is to do it: NumPy, unless told otherwise.
_ARRAY_LIBRARY = {"xp": numpy}


def sessions(packages: tuple[str, ...], objects: Mapping[int, str]) -> Iterator[list[str]]:
    """Yield what each function and method of the packages calls, where that is two items or more.

    An item that is called twice in a row counts once.

    Args:
        packages: names of imported packages.
        objects: the id of the item for the `id()` of an object.
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
    """Yield the items that each function calls; functions inside it belong to it.

    Arguments are evaluated before the call that takes them:

    >>> import numpy as np
    >>> names = {id(np.sqrt): "sqrt", id(np.sum): "sum"}
    >>> list(calls("def norm(x): return np.sqrt(np.sum(x * x))", {"np": np}, names))
    [['sum', 'sqrt']]

    Args:
        source: Python source of a module.
        scope: what the names of that module mean.
        objects: the id of the item for the `id()` of an object.
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
        item = self._objects.get(id(self._meaning(node.func)))
        if item is not None:
            self.items.append(item)

    def _meaning(self, node: ast.expr) -> object:
        """Return what a dotted name stands for; of objects that are no modules nothing is asked."""
        if isinstance(node, ast.Name):
            if node.id in _ARRAY_LIBRARY:
                return _ARRAY_LIBRARY[node.id]
            return None if node.id in self._own else self._scope.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._meaning(node.value)
            if isinstance(owner, ModuleType):
                return vars(owner).get(node.attr)
        return None
