"""The pages of the API reference, made of docstrings and comments."""

import ast
import importlib
import re
from pathlib import Path

from docstrings import inline

ROOT = Path(__file__).resolve().parents[1]
# The modules of the core in the order in which to read them; any others follow.
READING_ORDER = (
    "config",
    "clip",
    "loading",
    "anomaly",
    "similarity",
    "attention",
    "pipeline",
    "text",
    "segmentation",
    "dense",
    "hooks",
    "prediction",
    "baselines",
    "last_block",
    "gem",
    "resclip",
    "registers",
    "rfclip",
    "floss",
)
# Lines of site/pages/api.md that are replaced by lists of pages.
MARKS = ("<!-- public names -->", "<!-- core -->", "<!-- lab -->")


def core_modules() -> list[str]:
    """The modules of `scclip_core`, in the order in which to read them."""
    present = {path.stem for path in (ROOT / "scclip_core").glob("*.py") if path.stem[0] != "_"}
    first = [name for name in READING_ORDER if name in present]
    return [f"scclip_core.{name}" for name in [*first, *sorted(present - set(first))]]


def lab_packages() -> dict[str, list[str]]:
    """The packages of `scclip_lab` and their modules; what lies beside them comes last."""
    lab = ROOT / "scclip_lab"
    found = {}
    for folder in [*sorted(path.parent for path in lab.glob("*/__init__.py")), lab]:
        package = ".".join(folder.relative_to(ROOT).parts)
        files = sorted(path for path in folder.glob("*.py") if path.stem[0] != "_")
        found[package] = [f"{package}.{path.stem}" for path in files]
    return found


def page_of_module(module: str) -> str:
    """The name of the page that a module of the core, or a package of the lab, is on."""
    package, _, rest = module.partition(".")
    return f"api/{package.removeprefix('scclip_')}/{rest or package}"


def source_of(module: str) -> Path:
    """The file of a module, or of a package."""
    path = ROOT / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def summary_of(module: str) -> str:
    """The first sentence of a module's docstring, without importing it."""
    text = ast.get_docstring(ast.parse(source_of(module).read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def constants_of(module: str) -> list[str]:
    """reStructuredText of the public constants of a module, with the comment above each.

    Autodoc leaves them out: it reads comments that begin with `#:` alone.
    """
    text = source_of(module).read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        else:
            continue
        if not isinstance(target, ast.Name) or not re.match(r"[A-Z]", target.id):
            continue
        comment: list[str] = []
        for line in reversed(lines[: node.lineno - 1]):
            if not line.startswith("# "):
                break
            comment.insert(0, line[2:])
        value = ast.unparse(node.value) if node.value else ""
        found += ["", f".. py:data:: {target.id}"]
        if value and len(value) <= 80:
            found.append(f"   :value: {value}")
        if comment:
            found += ["", f"   {inline(' '.join(comment))}"]
    return ["", ".. rubric:: Constants and types", *found] if found else []


def describe_module(module: str) -> list[str]:
    """reStructuredText that describes a module.

    Of a module of the lab that cannot be imported, only the summary is told.
    """
    try:
        importlib.import_module(module)
    except Exception as error:  # one of the lab's many libraries is missing
        if module.startswith("scclip_core"):
            raise
        kind = type(error).__name__
        return ["", inline(summary_of(module)), "", f"(It cannot be imported here: {kind}.)"]
    text = ["", f".. automodule:: {module}", "   :members:"]
    return [*text, "", f".. py:currentmodule:: {module}", *constants_of(module)]


def heading(text: str, underline: str) -> list[str]:
    """A heading of reStructuredText."""
    return ["", text, underline * len(text)]


def reference_pages() -> dict[str, str]:
    """The pages of the API reference: name -> reStructuredText."""
    pages = {}
    for module in core_modules():
        pages[page_of_module(module)] = [*heading(module, "="), *describe_module(module)]
    for package, modules in lab_packages().items():
        text = [*heading(package, "="), *describe_module(package)]
        for module in modules:
            text += [*heading(module, "-"), *describe_module(module)]
        pages[page_of_module(package)] = text
    return {name: "\n".join(text).strip() + "\n" for name, text in pages.items()}


def reference_lists() -> dict[str, str]:
    """What replaces the marks of the page that introduces the reference: mark -> MyST."""

    def table(head: str, rows: list[tuple[str, str]]) -> str:
        return "\n".join([f"| {head} | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)])

    def with_tree(head: str, modules: list[str]) -> str:
        rows = [
            (
                f"[{name.partition('.')[2] or name}](/{page_of_module(name)})",
                summary_of(name).replace("|", "\\|"),
            )
            for name in modules
        ]
        entries = "\n".join(f"/{page_of_module(name)}" for name in modules)
        return f"{table(head, rows)}\n\n```{{toctree}}\n:hidden:\n\n{entries}\n```"

    core = importlib.import_module("scclip_core")
    places = {
        name: f"scclip_core.{module}" for name, module in core._MODULES.items() if name[0] != "_"
    }
    names = [
        (f"{{py:obj}}`{name} <{places[name]}.{name}>`", f"[{places[name]}](/{page})")
        for name in core.__all__
        for page in [page_of_module(places[name])]
    ]
    return dict(
        zip(
            MARKS,
            (
                table("`from scclip_core import ...`", names),
                with_tree("module", core_modules()),
                with_tree("package", list(lab_packages())),
            ),
            strict=True,
        )
    )
