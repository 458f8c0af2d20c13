"""Validate arguments of public functions: accept obvious equivalents, else raise a one-line error.

>>> list_of_texts(text for text in ("a", "b"))
['a', 'b']
>>> list_of_texts({"a": "b"})
Traceback (most recent call last):
idiolect.errors.InputError: texts is a dict, not a list of texts (pass list(texts.values()))
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from functools import cache, wraps
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from idiolect.errors import InputError

__all__ = [
    "check_mapping",
    "check_path",
    "check_whole",
    "checked",
    "iterate",
    "iterate_texts",
    "list_of_texts",
    "load_if_named",
    "wrong_type",
]

_Kind = TypeVar("_Kind")
_Function = TypeVar("_Function", bound=Callable[..., Any])
_SIMPLE: dict[Any, tuple[tuple[type, ...], str]] = {
    int: ((numbers.Integral,), "a whole number"),
    float: ((numbers.Real,), "a number"),
    bool: ((), "True or False"),
    str: ((str,), "a text"),
    Path: ((str, PathLike), "a path"),
    Mapping: ((Mapping,), "a dict"),
    dict: ((Mapping,), "a dict"),
}
"""For each annotated type: the types of arguments it accepts, and its name in messages."""


def checked(function: _Function) -> _Function:
    """Decorate a public function to check its arguments of simple types against its annotations.

    Simple types are numbers, strings, paths, mappings, literals and classes. The function itself
    checks anything that needs more than the type, such as a list of texts or a number's range.
    """
    signature = inspect.signature(function)

    @cache
    def kinds() -> dict[str, tuple[Any, ...]]:
        found = {}
        for name, parameter in signature.parameters.items():
            try:
                annotation = eval(parameter.annotation, function.__globals__)
            except (NameError, TypeError):  # imported for type checking only, or no annotation
                continue
            union = get_origin(annotation) in (Union, UnionType)
            members = get_args(annotation) if union else (annotation,)
            members = tuple(get_origin(one) or one for one in members)
            if all(one in (None, type(None), Literal) or _is_simple(one) for one in members):
                found[name] = members
        return found

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # Python's own error names the argument
        for name, value in given.items():
            if name in kinds():
                _check(value, name, kinds()[name])
        return function(*args, **kwargs)

    return cast(_Function, call)


def _is_simple(kind: Any) -> bool:
    """Return whether a type is checked here; classes with `load` or `of` convert values instead."""
    if kind in _SIMPLE:
        return True
    own = isinstance(kind, type) and kind.__module__.startswith("idiolect.")
    return (
        own
        and not hasattr(kind, "load")
        and not hasattr(kind, "of")
        and not getattr(kind, "_is_protocol", False)
    )


def _check(value: Any, name: str, kinds: tuple[Any, ...]) -> None:
    if Path in kinds and value is not None:
        check_path(value, name)
        return
    names = []
    for kind in (str if kind is Literal else kind for kind in kinds):
        if kind in (None, type(None)):
            if value is None:
                return
            continue
        types, wanted = _SIMPLE.get(kind, ((kind,), _article(getattr(kind, "__name__", ""))))
        names.append(wanted)
        truth = isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
        if truth if kind is bool else isinstance(value, types) and not truth:
            return
    raise wrong_type(value, name, " or ".join(names))


def wrong_type(value: object, name: str, wanted: str, hint: str = "") -> InputError:
    """Return the error for an argument of the wrong type."""
    kind = "None" if value is None else _article(type(value).__name__)
    return InputError(f"{name} is {kind}, not {wanted}", hint=hint)


def check_path(value: object, name: str) -> Path:
    """Return a path.

    Raises:
        InputError: The value is neither a string nor a path, or it is empty or not a valid path.
    """
    if not isinstance(value, str | PathLike):
        raise wrong_type(value, name, "a path", "pass a str or a pathlib.Path")
    if str(value) == "":
        raise InputError(f"{name} is empty", hint="pass the path of a file or folder")
    if "\0" in str(value):
        raise InputError(f"{name} has a NUL character", hint="check the path")
    return Path(value)


def check_whole(value: object, name: str, least: int | None = None) -> int:
    """Return an integer; NumPy integers are accepted.

    Raises:
        InputError: The value is not an integer, or is below `least`.
    """
    bound = "" if least is None else f" of at least {least}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise wrong_type(value, name, f"a whole number{bound}")
    if least is not None and value < least:
        raise InputError(f"{name} is {value!r}", hint=f"pass a whole number{bound}")
    return int(value)


def check_mapping(value: object, name: str, wanted: str, hint: str = "") -> Mapping[Any, Any]:
    """Return a mapping.

    Raises:
        InputError: The value is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise wrong_type(value, name, wanted, hint)
    return value


def load_if_named(value: Any, kind: type[_Kind], name: str) -> _Kind:
    """Return an instance of a class; a path or a name is loaded with the class's `load`.

    An object with exactly one attribute of the class stands for it, such as a model for its
    tokenizer.

    Raises:
        InputError: The value is of another type; or as `load` raises.
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, str | PathLike):
        loaded: _Kind = kind.load(value)  # type: ignore[attr-defined]
        return loaded
    held = [part for part in getattr(value, "__dict__", {}).values() if isinstance(part, kind)]
    if len(held) == 1:
        return held[0]
    raise wrong_type(
        value, name, _article(kind.__name__), f"pass one, or its path for {kind.__name__}.load"
    )


def iterate(values: Any, name: str, wanted: str) -> Iterable[Any]:
    """Return an iterable of values; a single string, a mapping or a DataFrame is refused.

    Raises:
        InputError: The values are not such an iterable.
    """
    if isinstance(values, str):
        raise InputError(f"expected {wanted}, not one text", hint="pass [text]")
    if isinstance(values, Mapping):
        raise wrong_type(values, name, wanted, f"pass list({name}.values())")
    if hasattr(values, "columns"):
        raise wrong_type(values, name, wanted, f"pass one column, such as {name}['text']")
    if isinstance(values, bytes | bytearray) or not _can_be_iterated(values):
        raise wrong_type(values, name, wanted)
    result: Iterable[Any] = values
    return result


def iterate_texts(texts: Any, name: str = "texts") -> Iterator[str]:
    """Yield texts, checking each one.

    Raises:
        InputError: The value is not an iterable of texts, or an element is not a string.
    """
    for number, text in enumerate(iterate(texts, name, "a list of texts")):
        if not isinstance(text, str):
            what = "text" if name == "texts" else f"{name}: text"
            raise wrong_type(text, f"{what} {number}", "a text", "pass strings")
        yield text


def list_of_texts(texts: Any, name: str = "texts") -> list[str]:
    """Return texts as a list; they may be a generator, a tuple, an array or a column of a table.

    Raises:
        InputError: The value is not an ordered iterable of texts, or an element is not a string.
    """
    if isinstance(texts, Set):
        raise wrong_type(texts, name, "a list of texts", f"pass sorted({name}), to give an order")
    return list(iterate_texts(texts, name))


def _can_be_iterated(values: Any) -> bool:
    try:
        iter(values)
    except TypeError:
        return False
    return True


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiouAEIO" else f"a {name}"
