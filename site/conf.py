"""Sphinx's settings for the site. `build.py` gathers the sources and says which language."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from chinese_search import PairSearch  # noqa: E402
from docstrings import to_rst  # noqa: E402
from sources import LANGUAGES, REPOSITORY_URL, find_pages  # noqa: E402

from scclip_core import __version__  # noqa: E402

LANGUAGE = os.environ.get("SITE_LANGUAGE", "en")

project = "SC-CLIP"
author = "SC-CLIP contributors"
version = release = __version__
language = {"en": "en", "zh": "zh_CN"}[LANGUAGE]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
templates_path = ["templates"]
nitpicky = False
smartquotes = False

# Chapters are shown as they are stored; `make notebooks` runs them.
nb_execution_mode = "off"
nb_merge_streams = True
# Chapters show the core's source as Markdown; links in it lead to pages.
nb_render_markdown_format = "myst"
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# Docstrings name what they mean in single backquotes.
default_role = "py:obj"
add_module_names = False
autodoc_default_options = {"member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
# Every name is described where it is defined; following a constant would lead to its type.
viewcode_follow_imported_members = False

# MathJax, from a Python package that holds its files, so that neither building nor reading a page
# needs a network. MathML without any script was tried: where a reader's computer has no font for
# mathematics, roots and large brackets fall apart. `copy_files` takes only what is used.
mathjax_path = "mathjax/tex-chtml.js"
# The menu would load parts that are not copied. MathML for screen readers is made without it.
mathjax3_config = {"options": {"enableMenu": False}}

copybutton_exclude = ".linenos, .gp, .go"

html_theme = "sphinx_book_theme"
html_title = "SC-CLIP"
html_favicon = "static/icon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_context = {"default_mode": "auto"}
html_show_copyright = False
html_theme_options = {
    "logo": {"text": "SC-CLIP"},
    "search_bar_text": {"en": "Search", "zh": "搜索"}[LANGUAGE],
    "article_header_end": ["language.html", "article-header-buttons.html"],
    "navbar_persistent": [],  # the search field is in the sidebar
    "footer_content_items": [],
    "show_toc_level": 2,
    # Chapters and modules; deeper lists would be most of every page, and of the time to build.
    "max_navbar_depth": 2,
    "use_download_button": True,
    # Notebooks have the same place among the sources of the site as in the repository.
    "path_to_docs": "",
}
if REPOSITORY_URL:
    html_theme_options |= {
        "repository_url": REPOSITORY_URL,
        "repository_branch": "main",
        "use_repository_button": True,
    }
if REPOSITORY_URL and LANGUAGE == "en":  # what is opened is the English notebook
    html_theme_options["launch_buttons"] = {
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
        "notebook_interface": "jupyterlab",
    }


def translate_docstring(app, what, name, obj, options, lines) -> None:
    """Put reStructuredText in place of a docstring, and say what a class is derived from."""
    lines[:] = to_rst(lines)
    bases = obj.__bases__ if isinstance(obj, type) else ()
    told = ", ".join(f":py:obj:`{base.__name__}`" for base in bases if base is not object)
    if told:
        lines[:0] = [f"Derived from {told}.", ""]


def find_by_last_name(app, env, node, contnode):
    """Link `load_clip` from everywhere: Sphinx itself looks in the present module alone."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains.python_domain
    target = node["reftarget"]
    kinds = ["class", "data", "exception", "function"] + ["method", "property"] * ("." in target)
    found = [
        (name, entry)
        for name, entry in domain.objects.items()
        if name.endswith(f".{target}") and entry.objtype in kinds
    ]
    if len(found) != 1:
        return None
    name, entry = found[0]
    make = env.app.builder.get_relative_uri
    contnode["classes"].append(f"py-{entry.objtype}")
    address = f"{make(node['refdoc'], entry.docname)}#{entry.node_id}"
    return nodes.reference("", "", contnode, internal=True, refuri=address, reftitle=name)


def link_other_language(app, pagename, templatename, context, doctree) -> None:
    """Tell the template where this page is in the other languages, if it is."""
    up = "../" * (pagename.count("/") + 1)
    context["other_languages"] = [
        {"code": code, "name": name, "address": f"{up}{code}/{pagename}.html"}
        for code, (_, name) in LANGUAGES.items()
        if code != LANGUAGE and pagename in find_pages(code) and pagename in find_pages(LANGUAGE)
    ]


def copy_files(app, exception) -> None:
    """Copy MathJax, and give readers the notebooks as they are stored."""
    if exception or app.builder.format != "html":
        return
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    source = Path(spec.origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for part in ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions"):
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, target / part)
    for name, path in find_pages(LANGUAGE).items():
        if path.suffix == ".ipynb":
            shutil.copy(path, Path(app.outdir) / "_sources" / f"{name}.ipynb")


def setup(app: Sphinx) -> None:
    app.add_search_language(PairSearch)
    app.connect("autodoc-process-docstring", translate_docstring)
    app.connect("missing-reference", find_by_last_name)
    app.connect("html-page-context", link_other_language)
    app.connect("build-finished", copy_files)
