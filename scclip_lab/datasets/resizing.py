"""Pictures resized as the published code does it: sizes of mmcv, pixels of OpenCV.

All published evaluations here read pictures through mmsegmentation, whose `Resize` with
`scale=(2048, short side), keep_ratio=True` is OpenCV's bilinear interpolation without antialiasing.
"""

import numpy as np

# No side becomes longer than this many pixels.
LONG_SIDE = 2048
# OpenCV holds interpolation weights as whole numbers of this fraction.
ONE = 2048


def published_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """The (width, height) in pixels that a picture is resized to, as mmcv computes it.

    s = min(short_side / shorter side, 2048 / longer side); each side becomes floor(s side + 1/2)

    500 x 333 becomes 505 x 336: sides are not rounded to the model's patch.
    """
    scale = min(LONG_SIDE / max(width, height), short_side / min(width, height))
    return int(width * scale + 0.5), int(height * scale + 0.5)


def resize_bilinear(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture uint8 [H, W, 3] resized to [height, width, 3], pixel by pixel as OpenCV does.

    Pixel i of a side lies at (i + 1/2) n_in / n_out - 1/2 between its two neighbours. OpenCV
    computes in whole numbers: weights are multiples of 1/2048, four bits are dropped after the
    horizontal pass and sixteen after the vertical one. Both sides halved is the exception, for
    which it takes the rounded mean of 2 x 2 pixels.
    """
    rows, columns = picture.shape[:2]
    values = picture.astype(np.int32)
    if (rows, columns) == (2 * height, 2 * width):
        upper, lower = values[::2], values[1::2]  # [height, W, 3]
        total = upper[:, ::2] + upper[:, 1::2] + lower[:, ::2] + lower[:, 1::2]
        return (total + 2 >> 2).astype(np.uint8)
    left, share = _neighbours(columns, width)
    # Beyond the first and the last column, the nearest one counts alone.
    share[(left < 0) | (left >= columns - 1)] = 0
    a, b = _weights(share[:, None])
    first, second = (np.clip(left + i, 0, columns - 1) for i in (0, 1))
    values = values[:, first] * a + values[:, second] * b >> 4  # [H, W, 3] -> [H, width, 3]
    top, share = _neighbours(rows, height)
    a, b = _weights(share[:, None, None])
    first, second = (np.clip(top + i, 0, rows - 1) for i in (0, 1))
    values = (values[first] * a >> 16) + (values[second] * b >> 16)  # -> [height, width, 3]
    return (values + 2 >> 2).astype(np.uint8)


def _neighbours(length: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """Of every new pixel of a side, the old one before it, and how far it lies behind that."""
    places = ((np.arange(new) + 0.5) * (length / new) - 0.5).astype(np.float32)
    before = np.floor(places).astype(np.int64)
    return before, (places - before).astype(np.float32)


def _weights(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights of both neighbours in units of 1/2048, int32, shaped like `share`."""
    return tuple(np.rint(part * ONE).astype(np.int32) for part in (1 - share, share))
