"""What the tasks of chapter 10 share: whose features are read, and tables of paired scores."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SWITCHES
from scclip_core.dense import DenseCLIP
from scclip_core.images import normalise
from scclip_core.last_block import Values
from scclip_core.segmentation import upsample
from scclip_core.sharing import shared_results
from scclip_lab.datasets.scenes import WORDS
from scclip_lab.evaluation.metrics import GAINED, mean_interval
from scclip_lab.studies import METHOD_NAMES
from scclip_lab.studies.reading import PATCH

# The methods that every task compares; the others are compared with the first named here.
BASE = "values"
METHODS = ("vanilla", "values", "maskclip", "clearclip", "scclip", "scclip-published")
# SC-CLIP with one module switched off.
MODULES = {f"without {switch.replace('_', ' ')}": switch for switch in SWITCHES}
# The layers whose similarities guide SC-CLIP, read directly.
LAYERS = (3, 8)
# How figures call what is read.
NAMES = {
    **METHOD_NAMES,
    "pixels": "raw pixels",
    "values, by words": "values, by the word",
    "scclip, by words": "SC-CLIP, by the word",
    **{f"layer {i}": f"layer {i}, patch tokens" for i in range(12)},
}
COLUMNS = ["measure", "styles", "method", "base", *GAINED]


class Reader(Protocol):
    """Whatever turns images [B, 3, H, W] into unit vectors of patches, [B, rows, cols, D]."""

    def features(self, images: Tensor, /) -> Tensor: ...


class LayerTokens(Values):
    """The patch tokens of one layer as they are: no last block, no projection, unit length.

    `layer` counts block outputs from 0, up to the last block but one.
    """

    def __init__(self, model: FrozenCLIP, layer: int):
        super().__init__(model)
        if not 0 <= layer < model.depth - 1:
            raise ValueError(f"layer must be in 0..{model.depth - 2}, got {layer}")
        self.layer = layer

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """The tokens of the layer, [B, N, C]."""
        return self.encode(images, self.layer + 1)[self.layer][:, 1:]

    def finish(self, tokens: Tensor, grid: tuple[int, int], normalize: bool = True) -> Tensor:
        """Tokens [B, N, C] on their grid, [B, rows, cols, C]."""
        return torch.unflatten(F.normalize(tokens, dim=-1) if normalize else tokens, 1, grid)


class Pixels:
    """The pixels of every patch as a vector, its mean taken off: what needs no model at all."""

    def features(self, images: Tensor, /) -> Tensor:
        """[B, 3, H, W] -> [B, rows, cols, 3 * 16 * 16]."""
        columns = F.unfold(images, PATCH, stride=PATCH).mT  # [B, N, 3 * 16 * 16]
        columns = columns - columns.mean(-1, keepdim=True)
        grid = (images.shape[2] // PATCH, images.shape[3] // PATCH)
        return torch.unflatten(F.normalize(columns, dim=-1), 1, grid)


def word_readers(model: FrozenCLIP, modules: bool = False) -> dict[str, DenseCLIP]:
    """The methods by name; with `modules` also SC-CLIP without each of its modules."""
    readers = {name: make_method(name, model) for name in METHODS}
    if modules:
        readers |= {
            name: make_method("scclip", model, **{switch: False})
            for name, switch in MODULES.items()
        }
    return readers


def all_readers(
    model: FrozenCLIP, layers: Sequence[int] = LAYERS, modules: bool = False
) -> dict[str, Reader]:
    """What needs no words to be read: raw pixels, layers, and every method."""
    below = {f"layer {i}": LayerTokens(model, i) for i in layers}
    return {"pixels": Pixels(), **below, **word_readers(model, modules)}


@torch.no_grad()
def read_all(readers: Mapping[str, Reader], images: Tensor) -> dict[str, Tensor]:
    """Features [B, rows, cols, D] of every reader; they share what they have in common."""
    with shared_results():
        return {name: reader.features(images) for name, reader in readers.items()}


def as_input(model: FrozenCLIP, images: np.ndarray) -> Tensor:
    """Images uint8 [B, H, W, 3] as the model takes them, [B, 3, H, W]."""
    values = torch.from_numpy(images).permute(0, 3, 1, 2)
    return normalise(values, model.mean, model.std).to(model.device, model.dtype)


def name_pixels(reader: DenseCLIP, features: Tensor, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [rows, cols, D] read with all words: labels and their logits, [side, side] each."""
    text = reader.embed_classes(WORDS)[1]
    logits = upsample((features.to(text.dtype) @ text.T)[None], (side, side))[0]  # [Q, side, side]
    best, labels = logits.max(0)
    return labels.numpy(), best.numpy()


def base_of(name: str) -> str:
    """What a reader is compared with: SC-CLIP where a module is off, else the values."""
    return "scclip" if name in MODULES else BASE


def score_rows(
    measure: str, styles: str, scores: Mapping[str, np.ndarray], seed: int
) -> list[tuple[object, ...]]:
    """The mean of a score over pictures, [I] for each reader, and its paired difference.

    Rows have the `COLUMNS`; where the base of a reader was not measured, the last three are NaN.
    """
    rows: list[tuple[object, ...]] = []
    for name, values in scores.items():
        base = base_of(name)
        gain = [np.nan] * 3
        if base in scores:
            gain = list(mean_interval(values - scores[base], seed))
        rows.append((measure, styles, name, base, *mean_interval(values, seed), *gain))
    return rows


def show_scores(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """One measure as a table to be read: per cent with interval, and points against the base."""
    part = table[table["measure"] == measure]
    value, low, high = (100 * part[name] for name in ("value", "low", "high"))
    gain, gain_low, gain_high = (100 * part[name] for name in GAINED[3:])
    interval = [f"{v:.1f} [{a:.1f}, {b:.1f}]" for v, a, b in zip(value, low, high, strict=True)]
    against = [
        "" if np.isnan(g) else f"{g:+.1f} [{a:+.1f}, {b:+.1f}]"
        for g, a, b in zip(gain, gain_low, gain_high, strict=True)
    ]
    names = [
        NAMES.get(name, f"SC-CLIP {name}" if name in MODULES else name) for name in part["method"]
    ]
    shown = pd.DataFrame({"features": names, "styles": part["styles"].to_numpy()})
    return (
        shown.assign(**{f"{measure} (%)": interval, "minus the base": against})
        .pivot(index="features", columns="styles")
        .reindex(list(dict.fromkeys(names)))
        .fillna("")
    )
