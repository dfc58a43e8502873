"""The emoji atlas: one PNG sheet with every object in every drawing style, and its index.

It was built once from five icon sets of the npm registry (`python -m scclip_lab.datasets.atlas`)
and is committed under `data/emoji`, so that scenes need neither npm nor an SVG renderer. The sheet
has a row for each style and a column for each object; each cell is a drawing, cropped to its own
outline and fitted, centred, into a square of `CELL` pixels.
"""

import argparse
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scclip_core.files import DATA, atomic_write

# Side of one drawing in the sheet, in pixels.
CELL = 128

# Word in captions -> the names of icons that draw it, of which the first that a set has is taken.
OBJECTS = {
    "dog": ("dog-face",),
    "cat": ("cat-face",),
    "pig": ("pig-face",),
    "cow": ("cow-face",),
    "frog": ("frog", "frog-face"),
    "monkey": ("monkey-face",),
    "lion": ("lion", "lion-face"),
    "panda": ("panda", "panda-face"),
    "penguin": ("penguin",),
    "fish": ("tropical-fish",),
    "octopus": ("octopus",),
    "butterfly": ("butterfly",),
    "bee": ("honeybee",),
    "ladybug": ("lady-beetle",),
    "turtle": ("turtle",),
    "chick": ("hatching-chick",),
    "apple": ("red-apple",),
    "banana": ("banana",),
    "grapes": ("grapes",),
    "watermelon": ("watermelon",),
    "strawberry": ("strawberry",),
    "pineapple": ("pineapple",),
    "carrot": ("carrot",),
    "corn": ("ear-of-corn",),
    "hamburger": ("hamburger",),
    "pizza": ("pizza",),
    "donut": ("doughnut",),
    "cake": ("shortcake",),
    "ice cream": ("ice-cream",),
    "rocket": ("rocket",),
    "car": ("automobile",),
    "bus": ("bus",),
    "bicycle": ("bicycle",),
    "boat": ("sailboat",),
    "airplane": ("airplane",),
    "tractor": ("tractor",),
    "balloon": ("balloon",),
    "soccer ball": ("soccer-ball",),
    "guitar": ("guitar",),
    "umbrella": ("umbrella",),
    "clock": ("alarm-clock",),
    "sunflower": ("sunflower",),
    "rose": ("rose",),
    "cactus": ("cactus",),
    "mushroom": ("mushroom",),
    "tree": ("evergreen-tree",),
    "house": ("house",),
    "tent": ("tent",),
}

# Style -> (npm package, version, licence, where the drawings come from).
SOURCES = {
    "noto": ("@iconify-json/noto", "1.2.9", "Apache-2.0", "Noto Emoji, Google Inc"),
    "noto-v1": ("@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "Noto Emoji (v1), Google Inc"),
    "twemoji": (
        "@iconify-json/twemoji",
        "1.2.5",
        "CC-BY-4.0",
        "Twitter Emoji, Twitter and contributors",
    ),
    "emojione": (
        "@iconify-json/emojione",
        "1.2.3",
        "CC-BY-4.0",
        "Emoji One 2.3 (Colored), Emoji One",
    ),
    "fluent": (
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "MIT",
        "Fluent Emoji Flat, Microsoft Corporation",
    ),
}
TRAINING_STYLES = ("noto", "noto-v1", "twemoji", "emojione")
HELD_OUT_STYLES = ("fluent",)


@cache
def load_atlas(folder: Path = DATA / "emoji") -> dict[tuple[str, str], Image.Image]:
    """The drawings: (style, word) -> RGBA picture of CELL x CELL pixels.

    Raises FileNotFoundError when the atlas has not been built.
    """
    index = json.loads((folder / "atlas.json").read_text(encoding="utf-8"))
    sheet = Image.open(folder / "atlas.png").convert("RGBA")
    return {
        (style, word): sheet.crop((CELL * col, CELL * row, CELL * (col + 1), CELL * (row + 1)))
        for row, style in enumerate(index["styles"])
        for col, word in enumerate(index["objects"])
    }


def fetch_icons(package: str, version: str, folder: Path) -> dict[str, Any]:
    """The icon set of an npm package, downloaded by `npm pack` into `folder`: its `icons.json`.

    Raises RuntimeError where npm is missing or cannot fetch the package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            "building the atlas needs npm on the PATH (the built one is already in data/emoji)"
        )
    done = subprocess.run(
        [npm, "pack", "--silent", f"{package}@{version}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"npm could not fetch {package}@{version}: {done.stderr.strip()}")
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        icons = archive.extractfile("package/icons.json")
        if icons is None:
            raise RuntimeError(f"{package}@{version} must hold package/icons.json as a file")
        parsed: dict[str, Any] = json.load(icons)
        return parsed


def rasterise(icons: dict[str, Any], names: tuple[str, ...]) -> Image.Image:
    """One icon as a CELL x CELL RGBA picture, cropped to its outline, centred, aspect kept.

    Raises KeyError where the set has none of the names.
    """
    import resvg_py

    aliases = icons.get("aliases", {})
    found = [aliases.get(n, {}).get("parent", n) for n in names]
    name = next((n for n in found if n in icons["icons"]), None)
    if name is None:
        raise KeyError(f"icon set {icons['prefix']} has none of {names}")
    icon = icons["icons"][name]
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=4 * CELL, height=4 * CELL)
    drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    alpha = np.asarray(drawing)[..., 3] > 8
    rows, cols = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    drawing = drawing.crop((cols[0], rows[0], cols[-1] + 1, rows[-1] + 1))
    side = max(drawing.size)
    square = Image.new("RGBA", (side, side))
    square.paste(drawing, ((side - drawing.width) // 2, (side - drawing.height) // 2))
    return square.resize((CELL, CELL), Image.Resampling.LANCZOS)


def build_atlas(folder: Path) -> None:
    """Fetch the icon sets, and write `atlas.png` and its index `atlas.json` into `folder`.

    The index also holds the versions and licences of the sources.
    """
    sheet = Image.new("RGBA", (CELL * len(OBJECTS), CELL * len(SOURCES)))
    with tempfile.TemporaryDirectory() as scratch:
        for row, (package, version, _, _) in enumerate(SOURCES.values()):
            icons = fetch_icons(package, version, Path(scratch))
            for col, names in enumerate(OBJECTS.values()):
                sheet.paste(rasterise(icons, names), (CELL * col, CELL * row))
    fields = ("package", "version", "licence", "origin")
    index = {
        "cell": CELL,
        "styles": list(SOURCES),
        "objects": list(OBJECTS),
        "sources": {
            style: dict(zip(fields, source, strict=True)) for style, source in SOURCES.items()
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "atlas.png") as path:
        sheet.save(path, format="PNG", optimize=True)
    with atomic_write(folder / "atlas.json") as path:
        path.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the emoji atlas from the npm icon sets.")
    parser.add_argument(
        "--out", type=Path, default=DATA / "emoji", help="folder to write (default: %(default)s)"
    )
    build_atlas(parser.parse_args().out)
