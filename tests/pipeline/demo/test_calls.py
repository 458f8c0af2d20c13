import sys
import types

import numpy as np

from idiolect.pipeline.demo.calls import calls, sessions

OBJECTS = {id(np.sqrt): "sqrt", id(np.sum): "sum", id(np.linalg.norm): "norm"}


def of(source):
    return list(calls(source, {"np": np, "sqrt": np.sqrt, "open": open}, OBJECTS))


def test_arguments_come_before_the_call_that_takes_them():
    source = "def f(x):\n    y = np.sum(x)\n    return np.linalg.norm(np.sqrt(y), sqrt(y))"
    assert of(source) == [["sum", "sqrt", "sqrt", "norm"]]


def test_a_method_is_a_session_and_includes_nested_functions():
    source = """
class A:
    def one(self):
        np.sum(1)
    async def two(self):
        def inner():
            np.sqrt(2)
        np.sum(2)
np.sum(3)
"""
    assert of(source) == [["sum"], ["sqrt", "sum"]]


def test_local_names_hide_those_of_the_module():
    assert of("def f(np): np.sum(1)") == [[]]
    assert of("def f():\n    sqrt = open\n    sqrt(1)") == [[]]


def test_the_library_of_an_array_is_numpy():
    assert of("def f(x, xp): return xp.sum(x)") == [["sum"]]


def test_attributes_are_only_looked_up_in_modules():
    class Trap:
        def __getattr__(self, name):
            raise AssertionError("looked inside")

    assert list(calls("def f(): trap.sum(1)", {"trap": Trap()}, OBJECTS)) == [[]]


def test_sessions_of_the_modules_of_a_package(tmp_path, monkeypatch):
    path = tmp_path / "part.py"
    path.write_text(
        "def f(x): np.sum(x); np.sum(x); np.sqrt(x); np.sum(x)\ndef g(x): np.sum(x); np.sum(x)\n"
    )
    module = types.ModuleType("toy.part")
    module.__file__, module.np = str(path), np
    built_in = types.ModuleType("toy.built_in")
    other = types.ModuleType("toys")
    other.__file__, other.np = str(path), np
    for one in (module, built_in, other):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    assert list(sessions(("toy",), OBJECTS)) == [["sum", "sqrt", "sum"]]
