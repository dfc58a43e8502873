"""What `predict` returns: a label map at the picture's own size, to look at and to save."""

import colorsys
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scclip_core.files import atomic_write

# The colours of Okabe and Ito, which colour-blind readers can tell apart.
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")


def palette(n: int) -> np.ndarray:
    """Colours of `n` classes, uint8 [n, 3]: Okabe and Ito's seven, then evenly spread hues."""
    safe = [tuple(bytes.fromhex(colour[1:])) for colour in OKABE_ITO[:n]]
    rest = n - len(safe)
    hues = (
        colorsys.hls_to_rgb(i / rest, 0.7 if i % 2 == 0 else 0.4, 0.65) for i in range(max(rest, 0))
    )
    spread = [tuple(round(255 * channel) for channel in colour) for colour in hues]
    return np.array(safe + spread, np.uint8).reshape(n, 3)


def overlay(
    picture: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float = 0.55
) -> np.ndarray:
    """A picture uint8 [H, W, 3] with its label map [H, W] laid over it, in `colours` [C, 3]."""
    mixed: np.ndarray = (1 - opacity) * picture + opacity * colours[labels]
    return mixed.round().astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Prediction:
    """A segmented picture.

    Attributes:
        picture: the picture as upright RGB, uint8 [H, W, 3].
        labels: the class of every pixel, int64 [H, W], indices into `classes`.
        classes: the first name of every class.
        scores: [C, H, W], the cosine similarity of every pixel with every class, float32 at least,
            if they were asked for.
    """

    picture: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    scores: np.ndarray | None = None

    @property
    def colours(self) -> np.ndarray:
        """The colour of every class, uint8 [C, 3]."""
        return palette(len(self.classes))

    def shares(self) -> dict[str, float]:
        """The share of the picture that each class covers; they sum to 1."""
        pixels = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return dict(zip(self.classes, (pixels / self.labels.size).tolist(), strict=True))

    def overlay(self, opacity: float = 0.55) -> Image.Image:
        """The picture with the label map laid over it; `opacity` in [0, 1]."""
        if not 0 <= opacity <= 1:
            raise ValueError(f"opacity must be in [0, 1], got {opacity!r}")
        return Image.fromarray(overlay(self.picture, self.labels, self.colours, opacity))

    def save(self, folder: str | Path, name: str, with_overlay: bool = False) -> list[Path]:
        """Write NAME_labels.png and NAME.json into a folder, made if need be; returns the paths.

        The label map is a palette PNG: the value of a pixel is the index of its class, so there
        can be at most 256 classes. The JSON holds size, names, colours and shares. With
        `with_overlay`, NAME_overlay.png is written too. Raises ValueError for more classes,
        OSError where the folder cannot be written.
        """
        check_palette(self.classes)
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(self.labels.astype(np.uint8))
        image.putpalette(self.colours.flatten().tolist())
        written = result_paths(target, name, with_overlay)
        with atomic_write(written[0]) as partial:
            image.save(partial, format="PNG")
        with atomic_write(written[1]) as partial:
            partial.write_text(json.dumps(self._summary(), indent=1) + "\n", encoding="utf-8")
        if with_overlay:
            with atomic_write(written[2]) as partial:
                self.overlay().save(partial, format="PNG")
        return written

    def _summary(self) -> dict[str, object]:
        rows = [
            {"label": i, "name": name, "colour": colour, "share": round(share, 6)}
            for i, ((name, share), colour) in enumerate(
                zip(self.shares().items(), self.colours.tolist(), strict=True)
            )
        ]
        return {"height": self.labels.shape[0], "width": self.labels.shape[1], "classes": rows}

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the overlay."""
        buffer = io.BytesIO()
        self.overlay().save(buffer, format="PNG")
        return buffer.getvalue()


def result_paths(folder: Path, name: str, with_overlay: bool) -> list[Path]:
    """What `Prediction.save` writes: label map, JSON and, if asked for, the overlay, in order."""
    ends = ("_labels.png", ".json", "_overlay.png")
    return [folder / f"{name}{end}" for end in (ends if with_overlay else ends[:2])]


def check_palette(classes: Sequence[object]) -> None:
    """Raise ValueError for more classes than a palette PNG can hold, 256."""
    if len(classes) > 256:
        raise ValueError(f"classes must be at most 256 for a palette PNG, got {len(classes)}")
