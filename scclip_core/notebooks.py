"""Run the notebooks and store their outputs; build the pages for readers without Jupyter.

`python -m scclip_core.notebooks` executes all chapters in place, `--check` executes them in fast mode and
writes nothing, `--site DIR` turns the stored ones into HTML that needs no network.
"""

import argparse
import hashlib
import html
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from tqdm import tqdm

from scclip_core.files import DATA, atomic_write

ROOT = DATA.parent
NOTEBOOKS = ROOT / "notebooks"
MANIFEST = NOTEBOOKS / "manifest.json"
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # where an object lies in memory, other in each run
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # of a traceback in a terminal
LEDGER = "08_claims"  # reads what the other chapters stored, so it runs after them


def chapters() -> list[Path]:
    """The notebooks, in the order of their numbers."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def execute(path: Path, threads: int) -> NotebookNode:
    """A notebook with fresh outputs and nothing in them that changes from run to run.

    Outputs of cells tagged "widget" are dropped: they live in a running notebook only. Raises
    CellExecutionError where a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    env = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    )
    client.execute(env=os.environ | env)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for shown in (output.get("data", {}) for output in cell.get("outputs", [])):
            if "text/plain" in shown:
                shown["text/plain"] = ADDRESS.sub("", shown["text/plain"])
        if "widget" in cell.metadata.get("tags", []):
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def run(paths: Sequence[Path], write: bool, jobs: int) -> list[str]:
    """Execute notebooks, `jobs` at a time, the ledger last; returns what failed, one line each."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    failed: list[str] = []

    def one(path: Path) -> None:
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
            for _ in pool.map(one, wave):
                bar.update()
    return failed


def sources() -> dict[str, str]:
    """Hashes of what the stored outputs depend on: the package with the bundled weights, and each notebook's
    cells.
    """
    files = [*sorted((ROOT / "scclip_core").rglob("*.py")), *sorted((DATA / "mini").glob("open_clip*"))]
    core = hashlib.sha256()
    for file in files:
        core.update(file.read_bytes())
    found = {"core": core.hexdigest()}
    for path in chapters():
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells]
        found[path.stem] = hashlib.sha256(json.dumps(cells).encode()).hexdigest()
    return found


def build_site(folder: Path) -> None:
    """Write `index.html` and a page for each chapter into `folder`; nothing is fetched when they are read."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab")
    exporter.mathjax_url = exporter.require_js_url = exporter.jquery_url = exporter.mermaid_js_url = ""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in tqdm(chapters(), desc="pages"):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells = [_for_page(cell) for cell in notebook.cells]
        page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
        with atomic_write(folder / f"{path.stem}.html") as partial:
            partial.write_text(page, encoding="utf-8")
        title = notebook.cells[0].source.splitlines()[0].lstrip("# ")
        rows.append(f'<li><a href="{path.stem}.html">{html.escape(title)}</a></li>')
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>SC-CLIP, chapter by chapter</title>'
        "<style>body{font:18px/1.6 sans-serif;max-width:42em;margin:3em auto;padding:0 1em}</style>"
        "<h1>SC-CLIP, chapter by chapter</h1>"
        f"<ul style='list-style:none;padding:0'>{''.join(rows)}</ul></html>\n"
    )
    with atomic_write(folder / "index.html") as partial:
        partial.write_text(body, encoding="utf-8")


def _for_page(cell: NotebookNode) -> NotebookNode:
    """A cell as a page shows it: links between chapters lead to pages, answers are folded."""
    if "answer" in cell.metadata.get("tags", []):
        folded = f"<details><summary>Answers</summary>\n\n```python\n{cell.source}\n```\n\n</details>"
        return nbformat.v4.new_markdown_cell(folded)
    if cell.cell_type == "markdown":
        cell.source = cell.source.replace(".ipynb)", ".html)")
    return cell


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run the notebooks and store their outputs.")
    parser.add_argument("names", nargs="*", help="chapters such as 02_lof_outliers (default: all)")
    parser.add_argument("--check", action="store_true", help="execute in fast mode, write nothing")
    parser.add_argument("--jobs", type=int, default=2, help="at a time (default: %(default)s)")
    parser.add_argument("--site", type=Path, metavar="DIR", help="only turn the stored notebooks into HTML")
    args = parser.parse_args()
    if args.site:
        return build_site(args.site)
    known = {path.stem: path for path in chapters()}
    unknown = sorted(set(args.names) - set(known))
    if unknown:
        parser.error(f"names must be of {', '.join(known)}, got {', '.join(unknown)}")
    if args.check:
        os.environ["SCCLIP_FAST"] = "1"
    failed = run([known[name] for name in args.names or known], not args.check, max(1, args.jobs))
    if failed:
        sys.exit("\n".join(failed))
    if not args.check and not args.names:
        with atomic_write(MANIFEST) as partial:
            partial.write_text(json.dumps(sources(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
