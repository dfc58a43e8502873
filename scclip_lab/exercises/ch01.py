"""Tests of the exercises of chapter 1: patches of a picture, their words, and upsampling."""

import torch
import torch.nn.functional as F

from scclip_core.segmentation import upsample
from scclip_lab.exercises import Attempt, exercise


@exercise("01-4")
def cut_into_patches(attempt: Attempt) -> None:
    """A picture as flattened patches: attempt([3, H, W], size) -> [N, 3 * size * size]."""
    image = torch.arange(3 * 4 * 6.0).view(3, 4, 6)
    given = attempt(image, 2)
    assert given.shape == (6, 12), (
        f"4 x 6 pixels have 2 x 3 patches of 3 * 2 * 2 numbers: [6, 12], got {list(given.shape)}"
    )
    assert set(given[0].tolist()) == set(image[:, :2, :2].flatten().tolist()), (
        "the first patch holds the pixels of rows 0, 1 and columns 0, 1 of all three channels; a"
        " view alone cuts along the memory, so permute before you flatten"
    )
    assert set(given[1].tolist()) == set(image[:, :2, 2:4].flatten().tolist()), (
        "patches are counted along the rows of the grid: the second is right of the first"
    )
    assert torch.equal(given, F.unfold(image[None], 2, stride=2)[0].T), (
        "the pixels are right, their order within a patch is not: channel, then row, then column,"
        " which is the order of the weights of the patch embedding"
    )


@exercise("01-5")
def words_of_patches(attempt: Attempt) -> None:
    """The word of every patch: attempt([N, C], [C, D], [Q, D]) -> int64 [N]."""
    generator = torch.Generator().manual_seed(0)
    tokens, projection = (torch.randn(*s, generator=generator) for s in ((40, 8), (8, 5)))
    words = F.normalize(torch.randn(6, 5, generator=generator), dim=-1)
    given = attempt(tokens, projection, words)
    assert given.shape == (40,), (
        f"one word for each of 40 patches: the shape is [40], got {list(given.shape)}"
    )
    wanted = (tokens @ projection @ words.T).argmax(-1)
    opposite = (tokens @ projection @ words.T).argmin(-1)
    assert not torch.equal(given, opposite), "the largest cosine is the nearest word, not the least"
    assert torch.equal(given, wanted), (
        "some patches get another word: project the tokens first, then take the cosines with all"
        " words, and the largest over the words, the last dimension"
    )
    # Words of other lengths point the same way.
    longer = words * torch.tensor([1.0, 9.0, 1.0, 9.0, 1.0, 9.0])[:, None]
    assert torch.equal(attempt(tokens, projection, longer), wanted), (
        "a longer word vector wins too often: a cosine divides by the lengths of both vectors"
    )


@exercise("01-6")
def bilinear_upsampling(attempt: Attempt) -> None:
    """A map at another size, bilinear: attempt([rows, cols], height, width) -> [height, width]."""
    flat = torch.full((3, 4), 2.0)
    given = attempt(flat, 12, 8)
    assert given.shape == (12, 8), f"the result must be [12, 8], got {list(given.shape)}"
    assert torch.allclose(given, torch.full((12, 8), 2.0)), (
        "a map that is 2 everywhere stays so: the weights of the neighbours sum to 1, at the border"
        " too, where a place outside the grid is moved back to its edge"
    )
    step = torch.tensor([[0.0, 1.0]])
    row = attempt(step, 1, 8)[0]
    assert len(row.unique()) > 2, (
        "between two cells the values must change gradually; this is the nearest cell's value"
    )
    assert torch.allclose(row, torch.tensor([0, 0, 1, 3, 5, 7, 8, 8.0]) / 8), (
        "two cells 0 and 1 over eight pixels give 0, 0, 1/8, 3/8, 5/8, 7/8, 1, 1: pixel x lies at"
        f" (x + 1/2) * cols / width - 1/2 on the grid; got {row.tolist()}"
    )
    maps = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    wanted = upsample(maps[None, :, :, None], (20, 21))[0, 0]
    assert torch.allclose(attempt(maps, 20, 21), wanted, atol=1e-5), (
        "along one row it is right, on a map it is not: rows and columns are interpolated by the"
        " same rule, one after the other"
    )
