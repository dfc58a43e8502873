"""The versions are listed once, in pyproject.toml, and the lock and the imports agree with it."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
LAB = [Requirement(line) for line in EXTRAS["lab"]]
TRAIN = [Requirement(line) for line in EXTRAS["train"]]


def lines_of(name: str) -> list[str]:
    return (ROOT / name).read_text(encoding="utf-8").splitlines()


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def imported_distributions(package: str) -> set[str]:
    """The distributions of all that a package imports, without the standard library."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    found -= {*sys.stdlib_module_names, "scclip_core", "scclip_lab"}
    known = packages_distributions()
    return {canonicalize_name(known.get(name, [name.replace("_", "-")])[0]) for name in found}


def test_conda_brings_python_and_pip_installs_the_package_itself():
    lines = lines_of("environment.yml")
    start = lines.index("dependencies:") + 1
    assert [line.strip().removeprefix("- ") for line in lines[start:] if line.strip()] == [
        f"python{PROJECT['requires-python']}",
        "pip",
        "pip:",
        "-e .[lab]",
    ]


def test_the_method_imports_only_what_a_plain_install_brings():
    assert imported_distributions("scclip_core") <= names(CORE)


def test_the_experiments_import_only_what_their_extras_bring():
    assert imported_distributions("scclip_lab") <= names(CORE + LAB + TRAIN)


def test_the_lock_holds_a_version_in_range_for_every_requirement():
    pins = [Requirement(line) for line in lines_of("requirements.lock") if line[0] != "#"]
    locked = {canonicalize_name(pin.name): next(iter(pin.specifier)) for pin in pins}
    for line in (*PROJECT["dependencies"], *chain.from_iterable(EXTRAS.values())):
        requirement = Requirement(line)
        if requirement.name != PROJECT["name"]:  # an extra may name another: scclip[lab]
            pin = locked[canonicalize_name(requirement.name)]
            assert pin.operator == "=="
            assert pin.version in requirement.specifier, f"{line}, but {pin} is locked"


def test_the_lock_has_only_names_and_versions():
    for line in lines_of("requirements.lock"):  # no address of an index, a folder or a file
        assert line.startswith("# ") or re.fullmatch(r"[\w.-]+==[\w.]+", line)
