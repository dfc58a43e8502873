"""Run the chapters' notebooks and store their outputs.

`manifest.json` beside the notebooks says of which sources the stored outputs are.
"""

import ast
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from tqdm import tqdm

from scclip_core.files import DATA, atomic_write
from scclip_lab.studies import ROOT

NOTEBOOKS = ROOT / "notebooks"
MANIFEST = NOTEBOOKS / "manifest.json"
PACKAGES = ("scclip_core", "scclip_lab")
# The place of an object in memory, which is another one in each run.
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# The colours of a traceback in a terminal.
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# The tag of cells that are left to the reader's notebook.
WIDGET = "widget"
# This chapter reads what the others have stored, so it runs after them.
LEDGER = "08_claims"


def chapters() -> list[Path]:
    """The notebooks, in the order of their numbers."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def execute(path: Path, threads: int) -> NotebookNode:
    """A notebook with new outputs, without what changes from run to run.

    Cells with the tag "widget" are not run and have no output, since widgets live in an open
    notebook only; here, now and then, the reply to such a cell never came.

    Raises CellExecutionError where another cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    env = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # into how many parts printed lines come is chance
        skip_cells_with_tag=WIDGET,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    )
    client.execute(env=os.environ | env)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for shown in (output.get("data", {}) for output in cell.get("outputs", [])):
            if "text/plain" in shown:
                shown["text/plain"] = ADDRESS.sub("", shown["text/plain"])
        if WIDGET in cell.metadata.get("tags", []):
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def run(paths: Sequence[Path], write: bool, jobs: int) -> list[str]:
    """Execute notebooks, the ledger last.

    Args:
        paths: the notebooks.
        write: whether to store the outputs in them.
        jobs: how many are executed at a time.

    Returns one line for each notebook that failed; nothing is stored in it.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failed: list[str] = []

    def run_one(path: Path) -> None:
        began = time.monotonic()
        try:
            notebook = execute(path, threads)
        except CellExecutionError as error:
            failed.append(f"{path.name}: {COLOUR.sub('', str(error)).strip().splitlines()[-1]}")
            print(error, file=sys.stderr)
            return
        if write:
            with atomic_write(path) as partial:
                nbformat.write(notebook, partial)
        tqdm.write(f"{path.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)

    waves = [[p for p in paths if p.stem != LEDGER], [p for p in paths if p.stem == LEDGER]]
    with tqdm(total=len(paths), desc="notebooks") as bar, ThreadPoolExecutor(jobs) as pool:
        for wave in waves:
            # The first chapters are the shortest: begun last, they end together.
            for _ in pool.map(run_one, reversed(wave)):
                bar.update()
    return failed


def write_manifest() -> None:
    """Record that the stored outputs are those of the present sources."""
    with atomic_write(MANIFEST) as partial:
        partial.write_text(json.dumps(source_hashes(), indent=1) + "\n", encoding="utf-8")


def source_hashes() -> dict[str, str]:
    """A hash for each chapter of what its stored outputs depend on.

    That is its code cells, the bundled model, and every module of the two packages that the cells
    import, directly or through others. Comments, docstrings and formatting do not count.
    """
    model = hashlib.sha256()
    for file in sorted((DATA / "mini").glob("open_clip*")):
        model.update(file.read_bytes())
    hashes = {}
    for path in chapters():
        digest = hashlib.sha256(model.digest())
        cells = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        digest.update(json.dumps(cells).encode())
        modules = imported_modules(ast.parse("\n".join(cells)), ROOT)
        for module, file in sorted(modules.items()):
            digest.update(f"{module} {code_of(file.read_text(encoding='utf-8'))}".encode())
        hashes[path.stem] = digest.hexdigest()
    return hashes


def code_of(source: str) -> str:
    """The code of a module as a text without comments, docstrings and formatting.

    It is the syntax tree, written so that all versions of Python write it alike: `ast.dump` of some
    versions shows empty fields, of others it does not.
    """
    return repr(_canonical(_without_docstrings(ast.parse(source))))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            text = first.value if isinstance(first, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                node.body = node.body[1:]
    return tree


def _canonical(node: object) -> object:
    if isinstance(node, list):
        return [_canonical(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, _canonical(value)) for name, value in ast.iter_fields(node))
    return type(node).__name__, *(field for field in fields if field[1] not in (None, []))


def imported_modules(tree: ast.Module, root: Path) -> dict[str, Path]:
    """The modules of the two packages that a program imports, directly or through others.

    Args:
        tree: the program.
        root: the folder of the packages.

    Returns name -> file. Imports inside functions count too; those for type checkers do not. A name
    that a package imports lazily stands for its module.
    """
    found: dict[str, Path] = {}
    waiting = [tree]
    while waiting:
        for module in _imports(waiting.pop(), root):
            file = _file_of(module, root)
            if file is not None and module not in found:
                found[module] = file
                waiting.append(ast.parse(file.read_text(encoding="utf-8")))
    return found


def _imports(tree: ast.Module, root: Path) -> Iterator[str]:
    """The names of all modules that a program names in imports, with the packages around them."""
    for node in _run_nodes(tree):
        named = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = [_source_of(node.module, alias.name, root) for alias in node.names]
        for name in named:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _source_of(module: str, name: str, root: Path) -> str:
    """The module that `from module import name` reads."""
    if _file_of(f"{module}.{name}", root) is not None:
        return f"{module}.{name}"
    file = _file_of(module, root)
    if file is not None and file.name == "__init__.py":
        # What a package imports for type checkers, it imports lazily when it is used.
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and name in [
                a.asname or a.name for a in node.names
            ]:
                return node.module or module
    return module


def _file_of(module: str, root: Path) -> Path | None:
    """The file of a module of the two packages, or None for any other name."""
    path = root.joinpath(*module.split("."))
    files = (path / "__init__.py", path.with_suffix(".py"))
    if module.split(".")[0] not in PACKAGES:
        return None
    return next((file for file in files if file.is_file()), None)


def _run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below a node, but for those that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run_nodes(child)
