"""Build the site: `python site/build.py FOLDER`. Open FOLDER/index.html in a browser.

Every language that has an index page gets a folder of its own, and the pages that it has. Any
warning of Sphinx is an error.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from sphinx.cmd.build import main as sphinx_build

HERE = Path(__file__).resolve().parent
# The packages that are described, wherever others of their names may be installed.
sys.path.insert(0, str(HERE.parent))
from figure_text import FONT  # noqa: E402
from slides import build_slides  # noqa: E402
from sources import LANGUAGES, Sources, find_pages  # noqa: E402

from scclip_lab.teaching.cheat_sheet import WORDS, save_cheat_sheet  # noqa: E402

ENTRANCE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=en/index.html">
<title>SC-CLIP</title>
<p><a href="en/index.html">SC-CLIP</a></p>
</html>
"""


def build(language: str, folder: Path) -> int:
    """Build the pages of one language into a folder of its own; returns Sphinx's exit code.

    Pages that are there already stay as they are until the new ones are complete.
    """
    os.environ["SITE_LANGUAGE"] = language
    with tempfile.TemporaryDirectory() as work:
        sources, trees, pages = (Path(work) / name for name in ("sources", "trees", "pages"))
        Sources(sources, language).write()
        options = ["-q", "-W", "--keep-going", "-b", "html", "-c", str(HERE), "-d", str(trees)]
        code = sphinx_build([*options, str(sources), str(pages)])
        if code == 0:
            shutil.rmtree(folder / language, ignore_errors=True)
            shutil.move(pages, folder / language)
        return code


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the site, without a network.")
    parser.add_argument("folder", type=Path, help="where to put the pages")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        if "index" in find_pages(language):
            code = build(language, folder)
            if code:
                return code
    for language in WORDS:
        build_slides(language, folder / "en")
        save_cheat_sheet(folder / "en" / "teaching", language, FONT)
    (folder / "index.html").write_text(ENTRANCE, encoding="utf-8")
    print(f"The site is built: open {folder / 'index.html'} in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
