"""Arguments of public functions: what is plainly meant is accepted, and the rest is one clear line.

>>> list_of_texts(text for text in ("a", "b"))
['a', 'b']
>>> list_of_texts({"a": "b"})
Traceback (most recent call last):
idiolect.errors.InputError: texts is a dict, not a list of texts (pass list(texts.values()))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from idiolect.errors import InputError

__all__ = [
    "check_mapping",
    "check_path",
    "check_whole",
    "iterate",
    "iterate_texts",
    "list_of_texts",
    "load_if_named",
    "wrong_type",
]

_Kind = TypeVar("_Kind")


def wrong_type(value: object, name: str, wanted: str, hint: str = "") -> InputError:
    """Return the error for an argument of another type."""
    kind = "None" if value is None else _article(type(value).__name__)
    return InputError(f"{name} is {kind}, not {wanted}", hint=hint)


def check_path(value: object, name: str) -> Path:
    """Return a path.

    Raises:
        InputError: It is neither a text nor a path, or it is empty or no possible path.
    """
    if not isinstance(value, str | PathLike):
        raise wrong_type(value, name, "a path", "pass a str or a pathlib.Path")
    if str(value) == "":
        raise InputError(f"{name} is empty", hint="pass the path of a file or folder")
    if "\0" in str(value):
        raise InputError(f"{name} has a NUL character", hint="check the path")
    return Path(value)


def check_whole(value: object, name: str, least: int | None = None) -> int:
    """Return a whole number; NumPy's are accepted.

    Raises:
        InputError: It is not a whole number, or below the least one.
    """
    whole = not isinstance(value, bool) and hasattr(value, "__index__")
    number = int(value) if whole else 0  # type: ignore[call-overload]
    if not whole or (least is not None and number < least):
        bound = "" if least is None else f" of at least {least}"
        raise InputError(f"{name} is {value!r}", hint=f"pass a whole number{bound}")
    return number


def check_mapping(value: object, name: str, wanted: str, hint: str = "") -> Mapping[Any, Any]:
    """Return a mapping.

    Raises:
        InputError: It is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise wrong_type(value, name, wanted, hint)
    return value


def load_if_named(value: Any, kind: type[_Kind], name: str) -> _Kind:
    """Return an object of a class; a path or a name is loaded, as by the class's own `load`.

    An object that holds exactly one of the class is accepted for it, as a model for its tokenizer.

    Raises:
        InputError: It is of another type; or as `load` does.
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
    """Return values that can be iterated and are more than one text, number or table.

    Raises:
        InputError: They are not.
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
    """Yield texts, checked one by one.

    Raises:
        InputError: They are not several texts, or an element is not a text.
    """
    for number, text in enumerate(iterate(texts, name, "a list of texts")):
        if not isinstance(text, str):
            raise wrong_type(text, f"{name.removesuffix('s')} {number}", "a text", "pass strings")
        yield text


def list_of_texts(texts: Any, name: str = "texts") -> list[str]:
    """Return texts as a list; they may be a generator, a tuple, an array or a column of a table.

    Raises:
        InputError: They are not several texts in an order, or an element is not a text.
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
