"""The tests mirror the code, and the core keeps its promise.

Law: what a linter cannot say is said here: each module has its unit tests, each test is a sentence, and what decides does
nothing.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
SOURCE = TESTS.parent / "src" / "podvif"
MIRRORED = ("core", "csi", "daemon", "node", "controller", "host", "ipam", "kube", "neutron")

NOT_HERE = {
    "node/main.py": "it puts the real parts together, Open vSwitch's among them: tests/node runs it as a process",
    "controller/main.py": "it puts the real parts together: tests/kube runs it as a process",
}
"""Modules without a unit test file, and who tests them."""


def modules() -> list[str]:
    """Paths of the modules that need a unit test file: the mirrored folders and the vocabulary on top of them."""
    found = [*SOURCE.glob("*.py"), *(path for folder in MIRRORED for path in (SOURCE / folder).glob("*.py"))]
    return sorted(path.relative_to(SOURCE).as_posix() for path in found if not path.name.startswith("__"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("module", [module for module in modules() if module not in NOT_HERE])
def test_every_module_has_its_tests(module: str) -> None:
    """Each module of the mirrored folders and of the vocabulary has a unit test file of its own, in the same folder."""
    path = Path(module)

    assert (TESTS / "unit" / path.parent / f"test_{path.name}").is_file()


def test_every_unit_test_has_its_module() -> None:
    """Each unit test file is named after a module, so that it is found when the module changes or goes."""
    named = {
        path.relative_to(TESTS / "unit").as_posix().replace("test_init.py", "__init__.py").replace("test_", "")
        for path in (TESTS / "unit").rglob("test_*.py")
        if path != Path(__file__).resolve()
    }

    assert sorted(name for name in named if not (SOURCE / name).is_file()) == []


def test_exceptions_are_real() -> None:
    """Each exception names a module that is there and has no unit tests."""
    assert set(NOT_HERE) <= set(modules())
    assert not [name for name in NOT_HERE if (TESTS / "unit" / name.replace("/", "/test_")).exists()]


@pytest.mark.parametrize("folder", ["unit", "contract", "kube", "neutron"])
def test_every_test_is_a_sentence(folder: str) -> None:
    """The docstring of each test is the one sentence that it proves."""
    silent = [
        f"{path.name}:{function.lineno} {function.name}"
        for path in (TESTS / folder).rglob("test_*.py")
        for function in functions(ast.parse(path.read_text()))
        if function.name.startswith("test_") and not (ast.get_docstring(function) or "").endswith(".")
    ]

    assert silent == []


def calls(tree: ast.Module) -> set[str]:
    """Names of all functions that are called by their bare name."""
    return {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def test_calls_are_found() -> None:
    """The look at a module's calls sees them wherever they stand."""
    assert calls(ast.parse("def f():\n    with open(x) as y: print(len(y))")) == {"open", "print", "len"}


@pytest.mark.parametrize("path", sorted((SOURCE / "core").glob("*.py")), ids=lambda path: path.name)
def test_core_does_nothing(path: Path) -> None:
    """What decides neither opens a file nor prints, which no import would show."""
    assert calls(ast.parse(path.read_text())) & {"open", "print", "input", "exec", "eval", "__import__"} == set()


def test_nothing_is_patched() -> None:
    """No unit test replaces a part of a module: parts are given to constructors, as behaving fakes."""
    words = ("mock" + ".patch", "unittest" + ".mock", "monkeypatch." + "setattr")
    patched = [
        f"{path.name}: {word}"
        for folder in ("unit", "contract", "kube", "neutron", "fakes")
        for path in (TESTS / folder).rglob("*.py")
        for word in words
        if word in path.read_text()
    ]

    assert patched == []
