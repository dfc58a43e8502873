"""Show the method's own source in a chapter, so that what is read is what runs."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from IPython.display import Markdown

from scclip_lab.studies import ROOT


def show_source(*functions: Callable[..., Any]) -> Markdown:
    """The source of functions or classes, in colours, each under a link to its file.

    Raises TypeError for what has no source in Python, such as functions of torch itself.
    """
    parts = []
    for function in functions:
        place = (
            Path(inspect.getfile(inspect.unwrap(function))).resolve().relative_to(ROOT).as_posix()
        )
        source = inspect.cleandoc("\n" + inspect.getsource(function))
        parts.append(f"From [{place}](../{place}):\n\n```python\n{source}\n```")
    return Markdown("\n\n".join(parts))
