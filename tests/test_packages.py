"""The packages of `cxr/`: which may import which, and what their `__init__` holds."""

import ast
from pathlib import Path

import pytest

from tests.fixtures.project import ROOT, direct_imports

# What the modules of each package may import beside their own package: other packages, or single modules of them.
ARROWS: dict[str, set[str]] = {
    "core": set(),
    "datasets": {"core"},
    "images": {"core"},
    "models": {"core"},
    "training": {"core", "models", "evaluation.metrics"},
    "inference": {"core", "models"},
    "evaluation": {"core", "models", "inference"},
    "reporting": {"core", "datasets", "models", "inference", "evaluation"},
}
PACKAGES = sorted(ARROWS)


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def module_of(file: Path) -> str:
    """The module that a file of `cxr/` holds, as `package.module`; a package for its `__init__`."""
    return ".".join(file.relative_to(ROOT / "cxr").with_suffix("").parts).removesuffix(".__init__")


def imports_of(file: Path) -> set[str]:
    """The modules of `cxr/` that a file imports directly, without the `__init__` of packages."""
    found = [path for path in direct_imports(file) if path.is_relative_to(ROOT / "cxr") and path.name != "__init__.py"]
    return {module_of(path) for path in found}


def test_every_package_has_its_arrows() -> None:
    assert sorted(path.name for path in (ROOT / "cxr").iterdir() if (path / "__init__.py").is_file()) == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_its_arrows_allow(package: str) -> None:
    allowed = {package} | ARROWS[package]
    for file in python_files(f"cxr/{package}"):
        beyond = {module for module in imports_of(file) if not {module, module.partition(".")[0]} & allowed}
        assert not beyond, f"{file.relative_to(ROOT)} imports {sorted(beyond)}"


def test_metrics_imports_core_only() -> None:
    """Training uses this one module of evaluation, and nothing else of it."""
    assert all(module.startswith("core.") for module in imports_of(ROOT / "cxr/evaluation/metrics.py"))


def test_cxr_imports_neither_stages_nor_tools() -> None:
    for file in python_files("cxr"):
        outside = [path for path in direct_imports(file) if not path.is_relative_to(ROOT / "cxr")]
        assert not outside, f"{file.relative_to(ROOT)} imports {outside}"


def test_no_stage_imports_another_stage_or_the_model_of_the_whole_file() -> None:
    for file in python_files("stages"):
        found = {path for path in direct_imports(file) if path.is_relative_to(ROOT / "stages")}
        assert found <= {ROOT / "stages/__init__.py"}, f"{file.name} imports {found}"
        assert ROOT / "cxr/params.py" not in direct_imports(file)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
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
def test_an_init_holds_a_docstring_and_nothing_else(folder: str) -> None:
    for file in python_files(folder):
        if file.name == "__init__.py":
            tree = ast.parse(file.read_text(encoding="utf-8"))
            assert ast.get_docstring(tree), file
            assert len(tree.body) == 1, file


def functions(file: Path) -> dict[str, int]:
    """The functions of a file, and how many lines each has, its docstring, comments and blank lines left out."""
    found = {}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = {
                line
                for statement in body
                for part in ast.walk(statement)
                if isinstance(part, ast.stmt | ast.expr)
                for line in (part.lineno, part.end_lineno)
            }
            found[f"{file.relative_to(ROOT)}:{node.name}"] = 1 + len(lines)
    return found


def test_functions_are_short() -> None:
    sizes = {
        name: size
        for file in python_files("cxr", "stages", "tools", "benchmarks")
        for name, size in functions(file).items()
    }
    assert not {name: size for name, size in sizes.items() if size > 40}
    median = sorted(sizes.values())[len(sizes) // 2]
    assert median <= 8
