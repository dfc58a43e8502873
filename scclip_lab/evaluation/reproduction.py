"""The published tables again: every method on every benchmark that is there, beside the claims.

`data/published.csv` has a row for each published number: method, backbone, data set, mIoU in
percent, kind (paper, README, article or third party) and source.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from torch import distributed

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.files import DATA, require_writable
from scclip_lab.datasets.benchmarks import BENCHMARKS, open_dataset
from scclip_lab.evaluation.metrics import mean_iou
from scclip_lab.evaluation.runner import evaluate
from scclip_lab.plots import save_table

COLUMNS = ["method", "data set", "protocol", "words", "ours", "published", "difference"]
COLUMNS += ["backbone", "kind", "source", "images", "failed"]
# The backbone that numbers are shown for where none are published for the model that runs.
BACKBONE = "ViT-B-16"
# All of the public repositories interpolate positional embeddings with this offset.
POSITION_OFFSET = 0.1


class Entry(NamedTuple):
    """How a row of the published tables is computed here.

    Attributes:
        method: name of the method in this project.
        protocol: as in `find_protocol`.
        changes: values of the protocol that differ, as in `change_protocol`.
        with_background: the same, only on benchmarks with a background class.
    """

    method: str
    protocol: str
    changes: dict[str, Any]
    with_background: dict[str, Any]


# Method as `data/published.csv` names it -> how it is computed. Vanilla CLIP has a threshold of its
# own with a background (issue 2 of github.com/mc-lan/ClearCLIP). The numbers of MaskCLIP are
# SCLIP's, so its protocol is taken; those of GEM have no public protocol and are left out.
ENTRIES = {
    "SC-CLIP": Entry("scclip-published", "scclip", {}, {}),
    "NACLIP, refined by PAMR": Entry("naclip", "naclip", {}, {}),
    "NACLIP": Entry("naclip", "naclip", {"pamr_steps": 0}, {}),
    "ClearCLIP": Entry("clearclip", "clearclip", {}, {}),
    "SCLIP": Entry("sclip", "sclip", {}, {}),
    "MaskCLIP": Entry("maskclip", "sclip", {}, {}),
    "vanilla CLIP": Entry("vanilla", "clearclip", {}, {"probability_threshold": 0.2}),
}


def read_published() -> pd.DataFrame:
    """All published numbers, one row each, with the columns of `data/published.csv`."""
    return pd.read_csv(DATA / "published.csv")


def find_roots(root: Path | None, given: Sequence[str]) -> dict[str, Path]:
    """The folder of every benchmark that is there.

    Args:
        root: folder that can hold any number of them, as mmsegmentation's data folder does.
        given: NAME=FOLDER for single ones, which come before `root`.

    Raises ValueError for what is no such pair, a folder without its benchmark, or none at all.
    """
    roots: dict[str, Path] = {}
    for pair in given:
        name, equals, folder = pair.partition("=")
        if not equals or name not in BENCHMARKS:
            allowed = f"NAME=FOLDER with a name of {', '.join(BENCHMARKS)}"
            raise ValueError(f"data must be {allowed}, got {pair!r}")
        open_dataset(name, Path(folder))  # says what lacks
        roots[name] = Path(folder)
    if root is not None:
        for name, benchmark in BENCHMARKS.items():
            if name not in roots and benchmark.find(root):
                roots[name] = root
    if not roots:
        raise ValueError(
            f"root must hold at least one of {', '.join(BENCHMARKS)}, "
            f"{'none given' if root is None else f'{root} has none'}; "
            f"`evaluate --dataset NAME --root FOLDER` shows the files of one"
        )
    return {name: roots[name] for name in BENCHMARKS if name in roots}


def reproduce(
    model: FrozenCLIP,
    roots: dict[str, Path],
    folder: Path,
    methods: Sequence[str] = tuple(ENTRIES),
    words: str = "published",
    count: int | None = None,
    workers: int = 2,
) -> pd.DataFrame:
    """mIoU of methods on benchmarks, each by its own protocol, beside what is published.

    Args:
        model: the frozen CLIP for all methods.
        roots: what `find_roots` returns.
        folder: where results are kept, in DATASET/METHOD; a stopped run goes on there.
        methods: names in `ENTRIES`.
        words: as in `read_words`, of every benchmark.
        count: only the first images of each benchmark (default: all).
        workers: number of processes that read images.

    Returns a row for each method, benchmark and published number, in percent, and writes it as
    `reproduction.csv`; without a published number, a row with ours alone. Numbers for the model's
    own architecture are taken where there are any, those for ViT-B/16 otherwise. Raises
    ValueError for an unknown method or under torchrun, before any computing.
    """
    if distributed.is_torchelastic_launched():
        raise ValueError("reproduce must run in one process; torchrun is for single `evaluate`")
    for method in methods:
        if method not in ENTRIES:
            raise ValueError(f"methods must be of {'; '.join(ENTRIES)}, got {method!r}")
    published = read_published()
    own = published[published["backbone"] == model.name]
    published = own if len(own) else published[published["backbone"] == BACKBONE]
    rows: list[dict[str, Any]] = []
    for dataset, root in roots.items():
        for method in methods:
            entry = ENTRIES[method]
            changes = entry.changes
            if BENCHMARKS[dataset].has_background:
                changes = changes | entry.with_background
            data = open_dataset(
                dataset, root, count, protocol=entry.protocol, words=words, **changes
            )
            kept = folder / dataset / method.replace(",", "").replace(" ", "-")
            require_writable("--out", kept)
            segmenter = make_method(entry.method, model, position_offset=POSITION_OFFSET)
            results = evaluate({entry.method: segmenter}, data, kept, workers=workers)
            assert results is not None, "only torchrun gives a process no results"
            ours = 100 * float(mean_iou(results.counts[entry.method].sum(0)))
            row = {
                "method": method,
                "data set": dataset,
                "protocol": data.protocol.name,
                "words": words,
                "ours": ours,
                "images": len(results.images),
                "failed": len(results.failed),
            }
            claims = published[(published["method"] == method) & (published["dataset"] == dataset)]
            for _, claim in claims.iterrows():
                told = {name: claim[name] for name in ("backbone", "kind", "source")}
                value = float(claim["mIoU"])
                rows.append(row | told | {"published": value, "difference": ours - value})
            if claims.empty:
                rows.append(row)
    table = pd.DataFrame(rows, columns=COLUMNS)
    save_table(table, "reproduction", folder)
    return table
