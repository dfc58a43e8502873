"""Tests of the exercises of chapter 6: sliding windows, and labels with a background threshold."""

import torch
from torch import Tensor

from scclip_core.segmentation import sliding_logits, upsample
from scclip_lab.exercises import Attempt, exercise


@exercise("06-4")
def sliding_average(attempt: Attempt) -> None:
    """The mean over windows: attempt(compute, image [3, H, W], window, stride) -> [C, H, W]."""
    image = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))
    given = attempt(lambda cut: cut, image, 32, 8)
    assert given is not None and given.shape == image.shape, (
        "a compute that returns its window must give the picture's own shape, [3, 40, 56]"
    )
    assert torch.allclose(given, image, atol=1e-5), (
        "a compute that returns its window must give the picture back: divide the sum at every"
        " pixel by the number of windows that cover it"
    )
    given = attempt(lambda cut: cut, image, 24, 16)
    assert torch.isfinite(given).all() and torch.allclose(given, image, atol=1e-5), (
        "with windows of 24 at a step of 16, a picture 56 wide needs windows at 0, 16 and 32, and"
        " one 40 high at 0 and 16; where the steps do not fit, the last window is moved back"
    )
    given = attempt(lambda cut: cut, image[:, :35, :50], 24, 16)
    assert torch.isfinite(given).all() and torch.allclose(given, image[:, :35, :50], atol=1e-5), (
        "a picture of 35 x 50 ends between two steps: the last window is moved back so that it"
        " ends with the picture"
    )

    def centred(cut: Tensor) -> Tensor:
        """What depends on the window: its values less their mean."""
        return cut - cut.mean((2, 3), keepdim=True)

    (wanted,) = sliding_logits(lambda cut: centred(cut).movedim(1, -1), [image], 32, 12)
    assert torch.allclose(attempt(centred, image, 32, 12), wanted, atol=1e-5), (
        "each window has to be computed by itself, and counted once"
    )
    small = image[:, :16, :20]
    assert torch.allclose(attempt(centred, small, 32, 16), centred(small[None])[0], atol=1e-5), (
        "a picture smaller than the window is one window of its own size"
    )


@exercise("06-5")
def threshold_for_background(attempt: Attempt) -> None:
    """attempt(logits [rows, cols, C], size, scale, threshold) -> labels [H, W], 0: background."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.rand(4, 5, 3, generator=generator) / 5
    large = upsample(logits[None], (12, 15))[0]  # [3, 12, 15]
    given = attempt(logits, (12, 15), 40.0, 0.0)
    assert tuple(given.shape) == (12, 15), (
        f"a label for every pixel of the given size, [12, 15], got {list(given.shape)}"
    )
    blocks = logits.argmax(-1).repeat_interleave(3, 0).repeat_interleave(3, 1)
    assert not torch.equal(given, blocks), (
        "the logits must be enlarged before a word is chosen, not the labels after it"
    )
    assert torch.equal(given, large.argmax(0)), (
        "with a threshold of 0 every pixel keeps its most probable class; enlarge bilinearly, with"
        " align_corners=False"
    )
    assert not attempt(logits, (12, 15), 40.0, 1.1).any(), (
        "no probability reaches 1.1, so every pixel is background, class 0"
    )
    probability, label = (40.0 * large).softmax(0).max(0)
    wanted = label.where(probability >= 0.6, torch.zeros_like(label))
    assert torch.equal(attempt(logits, (12, 15), 40.0, 0.6), wanted), (
        "at a threshold of 0.6 some labels differ: the probabilities are a softmax over the classes"
        " of scale times the enlarged logits, and pixels below the threshold become 0"
    )
