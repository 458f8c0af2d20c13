"""The house's order: who may import whom, what is public, and that everything public is told."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import idiolect
from conftest import ROOT

SOURCE = ROOT / "src" / "idiolect"

# Each floor may use the floors below it; rooms on one floor do not know each other.
FLOORS = (
    {"errors"},
    {"nn", "text"},
    {"models"},
    {"training"},
    {"vocabulary", "words"},
    {"encoding", "generate"},
    {"tasks", "ranking", "search"},
    # recommend answers from the index, and reranks with LambdaMART
    {"alignment", "prompting", "recommend"},
    {"pipeline"},
    {"serve", "scale", "integrations"},
    {"cli"},
    {"__main__"},
)
# The oracles of tests and benchmarks, and the opponents.
NEVER = {
    "transformers",
    "peft",
    "sentence_transformers",
    "sentencepiece",
    "tiktoken",
    "gensim",
    "hnswlib",
    "faiss",
    "usearch",
    "diskannpy",
    "ranx",
}
# Rooms that stay useful without the rest of the house.
ONLY = {"nn": {"torch"}, "search/diskann": {"numpy", "numba", "llvmlite"}}
STANDARD = set(sys.stdlib_module_names) | {"__future__"}


def _modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """Every module a file imports anywhere in it, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _room(name: str) -> str | None:
    """The room of a module's full name: `idiolect.nn.config` is in `nn`."""
    parts = name.split(".")
    return parts[1] if parts[0] == "idiolect" and len(parts) > 1 else None


def _floor(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def _forbidden(path: Path, here: str) -> list[str]:
    """The imports of a file that do not point down from its room."""
    rooms = {name: _room(name) for name in _imports(path)}
    return [
        name
        for name, room in rooms.items()
        if room not in (None, here, "__version__") and _floor(room) >= _floor(here)
    ]


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if here != "__init__":
        assert not _forbidden(path, here)


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_oracle_is_imported(path: Path) -> None:
    outside = {name.split(".")[0] for name in _imports(path)}
    assert not outside & NEVER
    place = path.relative_to(SOURCE).as_posix()
    for room, allowed in ONLY.items():
        if place.startswith(f"{room}/"):
            assert outside <= allowed | STANDARD | {"idiolect"}


def test_a_forbidden_arrow_would_be_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from idiolect.models import registry\n")
    assert "idiolect.models" in _forbidden(bad, "nn")
    assert "idiolect.models" in _forbidden(bad, "text")
    assert not _forbidden(bad, "training")


def _import_graph() -> dict[str, set[str]]:
    """The modules that each module imports, also inside functions or for type checking only."""
    names = {path: ".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in _modules()}
    modules = {f"idiolect.{name.removesuffix('.__init__')}" for name in names.values()}
    return {
        f"idiolect.{name.removesuffix('.__init__')}": _imports(path) & modules
        for path, name in names.items()
        if name != "__init__"
    }


def _cycle(graph: dict[str, set[str]]) -> list[str]:
    """The modules that are on a cycle or lead to one; empty if there is no cycle."""
    remaining = {name: imports & graph.keys() for name, imports in graph.items()}
    while ready := {name for name, imports in remaining.items() if not imports & remaining.keys()}:
        remaining = {name: remaining[name] for name in remaining.keys() - ready}
    return sorted(remaining)


def test_no_import_cycles() -> None:
    assert not _cycle(_import_graph())


def test_an_import_cycle_would_be_seen() -> None:
    graph = _import_graph()
    assert "idiolect.text.corpus" in graph["idiolect.cli.tokenizer"], "for type checking"
    graph["idiolect.text.records"].add("idiolect.text.corpus")
    assert {"idiolect.text.records", "idiolect.text.corpus"} <= set(_cycle(graph))
    assert "idiolect.text.fields" not in _cycle(graph)


def _imported() -> list[ModuleType]:
    names = [m.name for m in pkgutil.walk_packages(idiolect.__path__, "idiolect.")]
    return [importlib.import_module(name) for name in names]


@pytest.mark.parametrize("module", _imported(), ids=lambda m: m.__name__)
def test_public_names_are_exported_and_told(module: ModuleType) -> None:
    assert inspect.getdoc(module), "the module has no docstring"
    own = {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__
        and (inspect.isclass(value) or inspect.isfunction(value))
    }
    exported = set(getattr(module, "__all__", ()))
    public = {name for name in own if not name.startswith("_")} | _constants(module)
    assert public <= exported, f"public, but not in __all__: {sorted(public - exported)}"
    for name in exported:
        assert hasattr(module, name), f"__all__ names {name}, which is not there"
    for name in set(own) & exported:
        _assert_told(own[name], f"{module.__name__}.{name}")


def _constants(module: ModuleType) -> set[str]:
    """Names without an underscore that a module assigns at its top level."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    targets = [
        target
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def _assert_told(value: object, name: str) -> None:
    assert inspect.getdoc(value), f"{name} has no docstring"
    if not inspect.isclass(value):
        return
    for member, method in vars(value).items():
        told = getattr(method, "__func__", getattr(method, "fget", method))
        if not member.startswith("_") and inspect.isfunction(told):
            assert told.__doc__, f"{name}.{member} has no docstring"


def test_top_level_names_resolve() -> None:
    assert sorted(idiolect.__all__) == dir(idiolect)
    for name in idiolect.__all__:
        assert getattr(idiolect, name) is not None
    with pytest.raises(AttributeError):
        idiolect.nothing_of_this_name  # noqa: B018


def test_benchmarks_and_examples_import_what_exists() -> None:
    """They run for minutes, so the tests do not run them; a name that moved would go unseen."""
    files = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").rglob("*.py")]
    missing = [
        f"{file.name}: {node.module}.{alias.name}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("idiolect.")
        for alias in node.names
        if not hasattr(importlib.import_module(str(node.module)), alias.name)
    ]
    assert files
    assert not missing


def test_files_stay_short() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in _modules()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 420
    }
    assert not long, "find the second idea in these files"


def _library() -> list[Path]:
    """All modules but those of commands, which are named as the verbs they run."""
    modules = (path for path in _modules() if path.name != "__init__.py")
    return [path for path in modules if "cli" not in path.relative_to(SOURCE).parts]


def test_every_file_has_a_name_of_its_own() -> None:
    names = Counter(path.name for path in _library())
    assert not [name for name, count in names.items() if count > 1]


def test_every_public_type_has_a_name_of_its_own() -> None:
    types = Counter(
        node.name if isinstance(node, ast.ClassDef) else node.targets[0].id  # type: ignore[attr-defined]
        for path in _library()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) or _is_alias(node)
    )
    assert not [name for name, count in types.items() if count > 1 and not name.startswith("_")]


def _is_alias(node: ast.stmt) -> bool:
    """Whether a statement names a type: `Mode = Literal[...]`."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
        return False
    name = node.targets[0].id
    return name[:1].isupper() and not name.isupper()


def test_folders_stay_small() -> None:
    files = Counter(path.parent for path in _modules() if path.name != "__init__.py")
    assert not {str(folder): count for folder, count in files.items() if count > 20}


def test_import_is_light() -> None:
    """Importing the package or the command line brings none of the heavy libraries."""
    code = (
        "import sys, idiolect, idiolect.cli.main; "
        "print(sorted({'torch', 'tokenizers', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
