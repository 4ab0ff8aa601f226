"""Structure of the code: imports between packages, names, and the length of functions."""

import ast
from pathlib import Path
from statistics import median
from types import UnionType

import pytest

from tests.fixtures.project import ROOT, direct_imports

# Packages, or single modules of them, that each package of cxr/ may import.
ALLOWED_IMPORTS: dict[str, set[str]] = {
    "core": set(),
    "datasets": {"core"},
    "images": {"core"},
    "models": {"core"},
    "training": {"core", "models", "evaluation.metrics"},
    "inference": {"core", "models"},
    "evaluation": {"core", "models", "inference"},
    "reporting": {"core", "datasets", "models", "inference", "evaluation"},
}
CODE = ("cxr", "stages", "tools", "benchmarks")
PACKAGES = sorted(ALLOWED_IMPORTS)
# Functions that each data set implements with one signature; the registry has the function that dispatches to them.
SAME_INTERFACE = {"read_lists", "read_patients", "read_table"}


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def module_of(file: Path) -> str:
    """Return the dotted name of a file of `cxr/`, relative to `cxr`."""
    return ".".join(file.relative_to(ROOT / "cxr").with_suffix("").parts).removesuffix(".__init__")


def imports_of(file: Path) -> set[str]:
    """Return the modules of `cxr/` that a file imports directly, without packages."""
    found = [path for path in direct_imports(file) if path.is_relative_to(ROOT / "cxr") and path.name != "__init__.py"]
    return {module_of(path) for path in found}


def test_allowed_imports_list_every_package() -> None:
    assert sorted(path.name for path in (ROOT / "cxr").iterdir() if (path / "__init__.py").is_file()) == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_the_allowed_packages(package: str) -> None:
    allowed = {package} | ALLOWED_IMPORTS[package]
    for file in python_files(f"cxr/{package}"):
        forbidden = {module for module in imports_of(file) if not {module, module.partition(".")[0]} & allowed}
        assert not forbidden, f"{file.relative_to(ROOT)} imports {sorted(forbidden)}"


def test_metrics_imports_core_only() -> None:
    """The stage train depends on this module of evaluation and on no other."""
    assert all(module.startswith("core.") for module in imports_of(ROOT / "cxr/evaluation/metrics.py"))


def test_cxr_imports_neither_stages_nor_tools() -> None:
    for file in python_files("cxr"):
        outside = [path for path in direct_imports(file) if not path.is_relative_to(ROOT / "cxr")]
        assert not outside, f"{file.relative_to(ROOT)} imports {outside}"


def test_no_stage_imports_another_stage_or_the_parameters_of_all_stages() -> None:
    for file in python_files("stages"):
        found = {path for path in direct_imports(file) if path.is_relative_to(ROOT / "stages")}
        assert found <= {ROOT / "stages/__init__.py"}, f"{file.name} imports {found}"
        assert ROOT / "cxr/params.py" not in direct_imports(file)


def test_there_are_no_import_cycles() -> None:
    graph = {module_of(file): imports_of(file) for file in python_files("cxr")}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("folder", ["cxr", "stages"])
def test_an_init_file_contains_only_a_docstring(folder: str) -> None:
    for file in python_files(folder):
        if file.name == "__init__.py":
            tree = ast.parse(file.read_text(encoding="utf-8"))
            assert ast.get_docstring(tree), file
            assert len(tree.body) == 1, file


def shared_names(kind: type | UnionType, *folders: str) -> dict[str, list[str]]:
    """Return the public top-level definitions of a kind whose name occurs in several files, with the files."""
    files: dict[str, list[str]] = {}
    for file in python_files(*folders):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            name = getattr(node, "name", "_")
            if isinstance(node, kind) and not name.startswith("_"):
                files.setdefault(name, []).append(str(file.relative_to(ROOT)))
    return {name: paths for name, paths in files.items() if len(paths) > 1}


def test_no_two_classes_have_one_name() -> None:
    assert not shared_names(ast.ClassDef, *CODE)


def test_no_two_functions_of_cxr_have_one_name() -> None:
    shared = shared_names(ast.ClassDef | ast.FunctionDef, "cxr")
    assert not {name: paths for name, paths in shared.items() if name not in SAME_INTERFACE}


def function_lengths(file: Path) -> dict[str, int]:
    """Return the number of lines of each function, without its docstring, comments and blank lines."""
    text = file.read_text(encoding="utf-8")
    lengths = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            start = (first.end_lineno or 0) if ast.get_docstring(node) else first.lineno - 1
            lines = [line.strip() for line in text.splitlines()[start : node.end_lineno]]
            lengths[f"{file.relative_to(ROOT)}:{node.name}"] = 1 + sum(line[:1] not in ("", "#") for line in lines)
    return lengths


def test_functions_are_short() -> None:
    lengths = {name: length for file in python_files(*CODE) for name, length in function_lengths(file).items()}
    assert not {name: length for name, length in lengths.items() if length > 40}
    assert median(lengths.values()) <= 8
