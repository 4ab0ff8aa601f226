"""The pins in requirements*.txt and constraints.txt against each other and against the environment."""

from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.fixtures.project import ROOT
from tools.doctor.machine import differs, pins

BROUGHT_BY_PYTHON = {"pip", "setuptools", "wheel"}
CONSTRAINTS = {canonicalize_name(name): version for name, version in pins(ROOT / "constraints.txt").items()}


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.name)
def test_a_requirements_file_has_the_versions_of_the_constraints(path: Path) -> None:
    assert {name: CONSTRAINTS[canonicalize_name(name)] for name in pins(path)} == pins(path)


def test_every_requirements_file_applies_the_constraints() -> None:
    assert "\n-c constraints.txt\n" in (ROOT / "requirements.txt").read_text(encoding="utf-8")
    for path in ROOT.glob("requirements-*.txt"):
        assert "\n-r requirements" in path.read_text(encoding="utf-8")


def test_the_environment_has_the_packages_of_the_constraints_alone() -> None:
    has = {canonicalize_name(package.name): package.version for package in distributions()}
    has = {name: version for name, version in has.items() if name not in BROUGHT_BY_PYTHON}
    other = {name: version for name, version in has.items() if differs(version, CONSTRAINTS.get(name, "not listed"))}
    assert not other, f"not as in constraints.txt: {other}; install requirements-dev.txt, or run `make constraints`"


def test_constraints_name_neither_hashes_nor_an_index() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") or line.count("==") == 1 for line in lines)
    assert not any(word in line for line in lines for word in ("--", "@", "://"))
