"""Fonts that come as a file, for the languages whose characters matplotlib's own font lacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from matplotlib import font_manager


@contextmanager
def known_font(file: Path) -> Iterator[str]:
    """Within the block, matplotlib knows the font in a file; gives its name.

    A font of the system that has the same name is not known meanwhile, so that all machines draw
    alike. Afterwards the file is forgotten: it may be reduced to few of the characters that others
    look for under its name.
    """
    known = font_manager.fontManager.ttflist
    before, name = list(known), font_manager.FontProperties(fname=file).get_name()
    known[:] = [entry for entry in known if entry.name != name]
    font_manager.fontManager.addfont(file)
    try:
        yield name
    finally:
        known[:] = before
