"""Segmenting picture files: what the command line's `segment` does, one file after another."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from scclip_core.files import atomic_write
from scclip_core.pictures import open_picture
from scclip_core.pipeline import SCCLIP
from scclip_core.plots import overlay, palette, save_label_png
from scclip_core.segmentation import Windows, check_windows, label_map, sliding_logits
from scclip_core.text import Classes

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def find_pictures(given: Sequence[Path]) -> list[Path]:
    """The files given, and every picture file of the folders given, sorted by name.

    Raises ValueError for a path that does not exist, a folder without pictures, or two pictures whose results
    would have the same name.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise ValueError(f"IMAGE folder {path} holds no picture ({', '.join(sorted(SUFFIXES))})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"IMAGE {path} does not exist")
    first: dict[str, Path] = {}
    for path in found:
        twin = first.setdefault(path.stem, path)
        if twin is not path:
            raise ValueError(
                f"IMAGE {twin} and {path} would be written under one name, {path.stem}: rename one of them"
            )
    return found


def check_output(folder: Path) -> None:
    """Make the output folder and try to write there; ValueError if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "probe.tmp") as path:
            path.touch()
        (folder / "probe.tmp").unlink()
    except OSError as error:
        raise ValueError(
            f"--out must be a folder that can be written, {folder} is not ({error.strerror})"
        ) from error


def segment_file(
    segmenter: SCCLIP, path: Path, classes: Classes, windows: Windows
) -> tuple[np.ndarray, np.ndarray]:
    """The picture uint8 [H, W, 3] and its label map [H, W] at the same size, indices into `classes`."""
    picture = open_picture(path)
    image = segmenter.model.preprocess(picture, windows.short_side)  # [3, h, w]
    named, text = segmenter.embed_classes(classes)
    (logits,) = sliding_logits(segmenter, [image], text, windows.window, windows.stride)  # [Q, h, w]
    return np.asarray(picture), label_map(logits, named, (picture.height, picture.width)).cpu().numpy()


def segment_files(
    segmenter: SCCLIP, paths: Sequence[Path], classes: Classes, folder: Path, windows: Windows, overlays: bool
) -> dict[Path, str]:
    """Segment every file into `folder`: NAME_labels.png, NAME.json and, if asked for, NAME_overlay.png.

    A file that cannot be read is left out and the rest go on. Returns {file: why} of those left out.
    """
    patch = segmenter.model.patch_size
    check_windows(patch, windows.window, windows.stride)
    if windows.short_side is not None and windows.short_side < patch:
        raise ValueError(f"short_side must be at least one patch, {patch} pixels, got {windows.short_side}")
    named, _ = segmenter.embed_classes(classes)
    words = [names[0] for names in named]
    colours = palette(len(words))
    failed: dict[Path, str] = {}
    for path in tqdm(paths, desc="segment", unit="picture"):
        try:
            picture, labels = segment_file(segmenter, path, classes, windows)
        except ValueError as error:
            failed[path] = str(error)
            tqdm.write(f"left out: {error}")
            continue
        save_label_png(labels, colours, folder / f"{path.stem}_labels.png")
        if overlays:
            with atomic_write(folder / f"{path.stem}_overlay.png") as partial:
                Image.fromarray(overlay(picture, labels, colours)).save(partial, format="PNG")
        share = np.bincount(labels.ravel(), minlength=len(words)) / labels.size
        summary = {
            "picture": path.name,
            "height": labels.shape[0],
            "width": labels.shape[1],
            "model": segmenter.model.name,
            "self_attention": segmenter.config.self_attention,
            "torch": str(torch.__version__),
            "classes": [
                {
                    "label": i,
                    "names": list(names),
                    "colour": colours[i].tolist(),
                    "share": round(float(share[i]), 6),
                }
                for i, names in enumerate(named)
            ],
        }
        with atomic_write(folder / f"{path.stem}.json") as partial:
            partial.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return failed
