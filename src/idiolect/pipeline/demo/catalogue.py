"""A real catalogue on any machine: the public functions and classes of NumPy and SciPy.

Nobody here wrote it, and nothing is fetched: names, docstrings and source files are read from the
packages that are installed.

- An item is an object with a docstring. Its aliases (`numpy.acosh`, `numpy.arccosh`) are one item.
- The summary of a docstring is a query. It is taken out of the text that is encoded.
- The See Also section is people's judgement of what is related. It is taken out as well.
- Items are divided in two. Tests ask about one part only, and pairs to tune on come from the other
  only. Items with a name, a summary or a body in common (`numpy.linalg.qr`, `scipy.linalg.qr`)
  stay on one side.
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
"""The public modules of the two projects, but for those that hold the same functions once more.

Masked arrays (numpy.ma, scipy.stats.mstats), older modules (numpy.char, scipy.fftpack) and series
in other polynomials copy their docstrings from here, and no search could tell them apart.
"""

# Sections that are no description: code and its output, sources, lists of members.
_LEFT_OUT = ("Examples", "References", "Methods")
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")


@dataclass(frozen=True)
class Entry:
    """One item of the catalogue."""

    id: str
    """Its full name, `numpy.linalg.eigh`."""
    title: str
    """How it is called, `numpy.linalg.eigh(a, UPLO='L')`."""
    summary: str
    """What it does, in a sentence; taken out of what follows."""
    body: str
    """The rest of its description, without See Also."""
    examples: str
    """The code people are shown, with its output; can be empty."""
    kind: str
    """`function` or `class`."""
    aliases: tuple[str, ...] = ()
    """The other names of the same object."""
    related: tuple[str, ...] = ()
    """Ids of the items its See Also names."""
    tested: bool = False
    """Whether tests ask about it; where they do, it is in no pair to tune on."""

    @property
    def text(self) -> str:
        """What is encoded and indexed."""
        return f"{self.title}\n\n{self.body}"

    @property
    def document(self) -> str:
        """What a language model reads: the text, then the examples."""
        return f"{self.text}\n\nExamples\n{self.examples}" if self.examples else self.text


@dataclass(frozen=True)
class Catalogue:
    """The items of the installed packages, and which object is which item."""

    entries: Mapping[str, Entry]
    """Every item by its id."""
    names: Mapping[str, str]
    """The id for every name an item can be called by, aliases included."""
    objects: Mapping[int, str] = field(repr=False)
    """The id for the `id()` of every object, to recognise it under a private name."""

    @classmethod
    def read(cls, modules: tuple[str, ...] = MODULES, *, tested: float = 0.3) -> Catalogue:
        """Read the installed packages.

        Args:
            modules: where to look; one that this release of a package lacks is passed over.
            tested: about which share of the items tests ask.

        Raises:
            MissingDependencyError: a package is not installed.
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
        asked = _asked(entries, tested)
        complete = {
            name: replace(
                entry,
                related=tuple(dict.fromkeys(_resolve(name, related[name], names))),
                tested=name in asked,
            )
            for name, entry in sorted(entries.items())
        }
        return cls(complete, names, objects)

    def searches(self) -> Iterator[tuple[Entry, tuple[str, ...]]]:
        """Yield each item to ask for by its summary, and the ids of all that have that summary."""
        same: defaultdict[str, list[str]] = defaultdict(list)
        for entry in self.entries.values():
            same[_folded(entry.summary)].append(entry.id)
        for answers in same.values():
            first = self.entries[answers[0]]
            if first.tested:
                yield first, tuple(answers)

    def neighbours(self) -> dict[str, set[str]]:
        """Return for each item those that it names under See Also, or that name it there."""
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
                warnings.simplefilter("ignore")  # whatever a release deprecates
                yield importlib.import_module(name)
        except ModuleNotFoundError:
            continue


def _is_item(member: object) -> bool:
    """Tell whether something is a function, a class or acts as one, with its own docstring."""
    doc = getattr(member, "__doc__", None)
    if not callable(member) or not isinstance(doc, str):
        return False
    return isinstance(member, type) or doc is not getattr(type(member), "__doc__", None)


def _preference(member: object, name: str) -> tuple[bool, bool, int, int, str]:
    """Order the names of an object: the one it gives itself, then the shortest."""
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
    return name + _ADDRESS.sub("...", parameters)  # it would be another text in every process


def _steady(examples: str) -> str:
    """Drop output that may vary: of some distributions it is drawn anew in every process."""
    return "\n".join(line for line in examples.splitlines() if "# may vary" not in line)


def _resolve(name: str, related: tuple[str, ...], names: Mapping[str, str]) -> Iterator[str]:
    """Yield the ids that a See Also means: a name is looked up from the inside outwards."""
    scopes = name.split(".")[:-1]
    for other in related:
        candidates = [".".join((*scopes[:depth], other)) for depth in range(len(scopes), -1, -1)]
        candidates.append(f"numpy.{other}")
        target = next((names[one] for one in candidates if one in names), name)
        if target != name:
            yield target


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _asked(entries: Mapping[str, Entry], share: float) -> set[str]:
    """Choose the items that tests ask about.

    Items that share a name, a summary or a body are joined into groups first, and a hash of the
    group's first id decides, so that a new release of a package moves few items.
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
