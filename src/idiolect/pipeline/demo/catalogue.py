"""A real catalogue for the demo: the public functions and classes of NumPy and SciPy.

Names, docstrings and source files are read from the installed packages; nothing is downloaded.

- An item is an object with a docstring. Aliases (`numpy.acosh`, `numpy.arccosh`) are one item.
- The summary of a docstring is a query. It is removed from the text to encode.
- The See Also section lists related items, as judged by its authors. It is removed as well.
- Items are split into two parts: one for tests, the other for training pairs. Items that share a
  name, a summary or a body (`numpy.linalg.qr`, `scipy.linalg.qr`) are in the same part.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from idiolect.errors import MissingDependencyError
from idiolect.pipeline.demo.docstrings import Docstring

__all__ = ["MODULES", "Catalogue", "Entry"]

MODULES = (
    *("numpy", "numpy.exceptions", "numpy.fft", "numpy.lib.stride_tricks", "numpy.linalg"),
    *("numpy.polynomial", "numpy.polynomial.polynomial", "numpy.random", "numpy.rec"),
    *("numpy.strings", "numpy.testing"),
    *("scipy.cluster.hierarchy", "scipy.cluster.vq", "scipy.constants", "scipy.datasets"),
    *("scipy.differentiate", "scipy.fft", "scipy.integrate", "scipy.interpolate", "scipy.io"),
    *("scipy.io.arff", "scipy.io.matlab", "scipy.io.wavfile", "scipy.linalg"),
    *("scipy.linalg.interpolative", "scipy.ndimage", "scipy.odr", "scipy.optimize"),
    *("scipy.optimize.elementwise", "scipy.signal", "scipy.signal.windows", "scipy.sparse"),
    *("scipy.sparse.csgraph", "scipy.sparse.linalg", "scipy.spatial", "scipy.spatial.distance"),
    *("scipy.spatial.transform", "scipy.special", "scipy.stats", "scipy.stats.contingency"),
    *("scipy.stats.qmc", "scipy.stats.sampling"),
)
"""The public modules of both projects, except those that duplicate functions.

Masked arrays (numpy.ma, scipy.stats.mstats), older modules (numpy.char, scipy.fftpack) and series
in other polynomials copy their docstrings, so no search could distinguish them.
"""

# Sections without a description: code and its output, sources, lists of members.
_LEFT_OUT = ("Examples", "References", "Methods")
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")


@dataclass(frozen=True)
class Entry:
    """One item of the catalogue."""

    id: str
    """Its full name, `numpy.linalg.eigh`."""
    title: str
    """Its signature, `numpy.linalg.eigh(a, UPLO='L')`."""
    summary: str
    """Its purpose in one sentence, which the body does not repeat."""
    body: str
    """The rest of its description, without See Also."""
    examples: str
    """Example code with its output; may be empty."""
    kind: str
    """`function` or `class`."""
    aliases: tuple[str, ...] = ()
    """Other names of the same object."""
    related: tuple[str, ...] = ()
    """Ids of the items in its See Also section."""
    tested: bool = False
    """Whether it is used in tests; such items are in no training pair."""

    @property
    def text(self) -> str:
        """The text to encode and index."""
        return f"{self.title}\n\n{self.body}"

    @property
    def document(self) -> str:
        """The text for a language model: the text above, then the examples."""
        return f"{self.text}\n\nExamples\n{self.examples}" if self.examples else self.text


@dataclass(frozen=True)
class Catalogue:
    """The items of the installed packages, and the objects they belong to."""

    entries: Mapping[str, Entry]
    """The items by id."""
    names: Mapping[str, str]
    """The id by name, including aliases."""
    objects: Mapping[int, str] = field(repr=False)
    """The id by `id()` of the object, to recognize it under a private name."""

    @classmethod
    def read(cls, modules: tuple[str, ...] = MODULES, *, tested: float = 0.3) -> Catalogue:
        """Read the installed packages.

        Args:
            modules: The modules to read; missing ones are skipped, as releases differ.
            tested: Approximate share of items that are used in tests.

        Raises:
            MissingDependencyError: A package is not installed.
        """
        found: dict[int, Any] = {}
        called: defaultdict[int, list[str]] = defaultdict(list)
        for module in _imported(modules):
            for name in sorted(getattr(module, "__all__", None) or dir(module)):
                member = getattr(module, name, None)
                if not name.startswith("_") and _is_item(member):
                    found[id(member)] = member
                    called[id(member)].append(f"{module.__name__}.{name}")
        entries: dict[str, Entry] = {}
        names: dict[str, str] = {}
        objects: dict[int, str] = {}
        related: dict[str, tuple[str, ...]] = {}
        for key, member in found.items():
            first, *others = sorted(called[key], key=lambda name: _preference(member, name))
            parsed = Docstring.parse(inspect.cleandoc(member.__doc__))
            body = parsed.text(without=_LEFT_OUT)
            if not parsed.summary or not body:
                continue
            entries[first] = Entry(
                id=first,
                title=_title(first, member, parsed.signature),
                summary=parsed.summary,
                body=body,
                examples=_steady(dict(parsed.sections).get("Examples", "")),
                kind="class" if isinstance(member, type) else "function",
                aliases=tuple(others),
            )
            names |= dict.fromkeys(called[key], first)
            objects[key] = first
            related[first] = parsed.related
        chosen = _tested(entries, tested)
        complete = {
            name: replace(
                entry,
                related=tuple(dict.fromkeys(_resolve(name, related[name], names))),
                tested=name in chosen,
            )
            for name, entry in sorted(entries.items())
        }
        return cls(complete, names, objects)

    def searches(self) -> Iterator[tuple[Entry, tuple[str, ...]]]:
        """Yield each item with a summary to search for, and the ids of all items that share it."""
        same: defaultdict[str, list[str]] = defaultdict(list)
        for entry in self.entries.values():
            same[_folded(entry.summary)].append(entry.id)
        for answers in same.values():
            first = self.entries[answers[0]]
            if first.tested:
                yield first, tuple(answers)

    def neighbours(self) -> dict[str, set[str]]:
        """Return for each item those that it lists under See Also, or that list it there."""
        either: dict[str, set[str]] = {name: set() for name in self.entries}
        for entry in self.entries.values():
            for other in entry.related:
                either[entry.id].add(other)
                either[other].add(entry.id)
        return either


def _imported(modules: tuple[str, ...]) -> Iterator[ModuleType]:
    for name in modules:
        package = name.partition(".")[0]
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"the demo reads the documentation of {package}, which is not installed",
                hint="pip install 'idiolect[demo]'",
            ) from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecations of a release
                yield importlib.import_module(name)
        except ModuleNotFoundError:
            continue


def _is_item(member: object) -> bool:
    """Return whether an object is callable and has its own docstring."""
    doc = getattr(member, "__doc__", None)
    if not callable(member) or not isinstance(doc, str):
        return False
    return isinstance(member, type) or doc is not getattr(type(member), "__doc__", None)


def _preference(member: object, name: str) -> tuple[bool, bool, int, int, str]:
    """Return the sort key of an object's name: its own name first, then the shortest."""
    own = getattr(member, "__name__", "")
    home = f"{getattr(member, '__module__', None) or ''}.{own}"
    return name != home, name.rpartition(".")[2] != own, name.count("."), len(name), name


def _title(name: str, member: object, signature: str) -> str:
    """Return the full name with its parameters, from the docstring or the object."""
    if "(" not in signature:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                signature = str(inspect.signature(member))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return name
    parameters = signature[signature.index("(") :]
    return name + _ADDRESS.sub("...", parameters)  # addresses differ in every process


def _steady(examples: str) -> str:
    """Drop output that may vary between processes."""
    return "\n".join(line for line in examples.splitlines() if "# may vary" not in line)


def _resolve(name: str, related: tuple[str, ...], names: Mapping[str, str]) -> Iterator[str]:
    """Yield the ids of the names in a See Also section, looked up from the inner scope outwards."""
    scopes = name.split(".")[:-1]
    for other in related:
        candidates = [".".join((*scopes[:depth], other)) for depth in range(len(scopes), -1, -1)]
        candidates.append(f"numpy.{other}")
        target = next((names[one] for one in candidates if one in names), name)
        if target != name:
            yield target


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _tested(entries: Mapping[str, Entry], share: float) -> set[str]:
    """Choose the items to use in tests.

    Items that share a name, a summary or a body are grouped, and a hash of the group's first id
    decides. A new release of a package therefore moves few items.
    """
    parent = {name: name for name in entries}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    holders: dict[tuple[str, str], str] = {}
    for name, entry in sorted(entries.items()):
        keys = {("name", one.rpartition(".")[2].casefold()) for one in (name, *entry.aliases)}
        keys |= {("summary", _folded(entry.summary)), ("body", _folded(entry.body))}
        for key in sorted(keys):
            one, other = root(holders.setdefault(key, name)), root(name)
            parent[max(one, other)] = min(one, other)
    border = int(share * 2**64)

    def chosen(group: str) -> bool:
        digest = hashlib.blake2b(group.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") < border

    return {name for name in entries if chosen(root(name))}
