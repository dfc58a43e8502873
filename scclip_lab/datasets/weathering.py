"""Weathered pictures: noise, blur or low contrast, by the number of the picture."""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from scclip_lab.datasets.scenes import Scene

# Standard deviation of the noise and shift towards grey, in values of 0 to 255; radius in pixels.
NOISE, RADIUS, CONTRAST, GREY = 40.0, 2.5, 0.35, 128.0
KINDS = ("noise", "blur", "low contrast")


def weather(scene: Scene, index: int) -> Scene:
    """The scene with its picture damaged in one of `KINDS`, in turn; its labels stay.

    `index` is the number of the scene: it chooses the kind, and is the seed of the noise. Raises
    ValueError for a negative one.
    """
    if index < 0:
        raise ValueError(f"index must be at least 0, got {index}")
    image, kind = scene.image.astype(np.float64), KINDS[index % len(KINDS)]
    if kind == "noise":
        image = image + np.random.default_rng(index).normal(0, NOISE, image.shape)
    elif kind == "blur":
        blurred = Image.fromarray(scene.image).filter(ImageFilter.GaussianBlur(RADIUS))
        image = np.asarray(blurred, np.float64)
    else:
        image = GREY + CONTRAST * (image - GREY)
    return replace(scene, image=np.clip(image.round(), 0, 255).astype(np.uint8))
