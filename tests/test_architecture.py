"""Imports point one way: from the experiments to the method, and never in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("scclip_core", "scclip_lab")
# The sub-packages of scclip_lab: each may import those before it, and plots.py.
LAYERS = ("datasets", "evaluation", "training", "studies", "exercises", "teaching")


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(root: Path, package: str) -> dict[str, Path]:
    return {module_name(path, root): path for path in sorted((root / package).rglob("*.py"))}


def run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node` that run when its module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from run_on_import(child)


def imports(path: Path, module: str, top_level: bool = False) -> set[tuple[str, str]]:
    """What a file imports, anywhere or only as it is imported itself: pairs of module and name.

    The name is empty for `import module`; in `from package import name` it may be a module.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in run_on_import(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:  # a relative import counts up from the package that the module is in
                package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                source = ".".join([*parts, source] if source else parts)
            found |= {(source, alias.name) for alias in node.names}
    return found


def import_cycle(root: Path, package: str) -> list[str]:
    """The modules of one import cycle among those of `package`, or nothing."""
    modules = modules_of(root, package)
    graph = {}
    for module, path in modules.items():
        pairs = imports(path, module, top_level=True)
        # `from package import module` needs that module, not what the package itself defines
        needed = {f"{a}.{b}" if f"{a}.{b}" in modules else a for a, b in pairs}
        graph[module] = needed & modules.keys()
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def imported_names(package: str) -> Iterator[tuple[str, str]]:
    """Pairs of a module of `package` and the dotted name of something that it imports."""
    for module, path in modules_of(ROOT, package).items():
        for source, name in imports(path, module):
            yield module, f"{source}.{name}".rstrip(".")


def belongs(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_the_method_imports_no_experiment_test_or_notebook():
    for module, name in imported_names("scclip_core"):
        for other in ("scclip_lab", "tests", "notebooks"):
            assert not belongs(name, other), f"{module} imports {name}"


def test_the_experiments_import_no_test_or_notebook():
    for module, name in imported_names("scclip_lab"):
        for other in ("tests", "notebooks"):
            assert not belongs(name, other), f"{module} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_is_a_package_of_its_own(package):
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_every_folder_of_the_experiments_has_its_place_in_the_order():
    folders = {path.parent.name for path in (ROOT / "scclip_lab").glob("*/*.py")}
    assert folders == set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_the_layers_before_it(layer):
    allowed = ("plots", *LAYERS[: LAYERS.index(layer) + 1])
    for module, name in imported_names("scclip_lab"):
        if belongs(module, f"scclip_lab.{layer}") and belongs(name, "scclip_lab"):
            assert any(belongs(name, f"scclip_lab.{other}") for other in allowed), (
                f"{module} imports {name}"
            )


def test_the_plots_import_no_layer():
    for module, name in imported_names("scclip_lab"):
        if module == "scclip_lab.plots":
            assert not belongs(name, "scclip_lab"), f"{module} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_in_a_circle(package):
    assert not import_cycle(ROOT, package)


@pytest.mark.parametrize(
    ("text", "circle"),
    [
        ("from package import b", True),
        ("from package.b import name", True),
        ("from . import b", True),
        ("from .b import name", True),
        ("if True:\n    import package.b", True),
        ("def late():\n    import package.b", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import package.b", False),
    ],
)
def test_a_circle_is_found_where_there_is_one(tmp_path, text, circle):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "a.py").write_text(text)
    (tmp_path / "package" / "b.py").write_text("from package.a import name")
    assert bool(import_cycle(tmp_path, "package")) == circle
