"""Tests of the exercises of chapter 12: Otsu's threshold, and mutual information."""

import numpy as np
import torch

from scclip_core.adapt import entropy
from scclip_lab.exercises import Attempt, exercise
from scclip_lab.studies.ch12_rules import BINS, otsu_threshold


@exercise("12-4")
def cuts_between_two_classes(attempt: Attempt) -> None:
    """attempt(values [K]) -> the threshold between two classes with the means furthest apart."""
    bin_width = 2 / BINS
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(-0.4, 0.03, 500), rng.normal(0.5, 0.03, 500)])
    given = attempt(two.copy())
    assert np.ndim(given) == 0, f"one number is needed, got an array of shape {np.shape(given)}"
    assert -0.25 < given < 0.35, (
        f"between two heaps around -0.4 and 0.5 the cut must lie between them, got {given:.2f}"
    )
    uneven = np.concatenate([rng.normal(-0.4, 0.03, 950), rng.normal(0.5, 0.03, 50)])
    assert -0.25 < attempt(uneven.copy()) < 0.35, (
        "the shares w_0 and w_1 belong into the product, and so does the *squared* distance of the"
        " means: the median or the overall mean is no cut between a large and a small heap"
    )
    wide = np.concatenate([rng.normal(-0.2, 0.15, 900), rng.normal(0.5, 0.1, 300)])
    given, wanted = attempt(wide.copy()), otsu_threshold(wide)
    assert abs(given - wanted) <= 2 * bin_width, (
        f"w_0 w_1 (m_0 - m_1)^2 is largest at {wanted:.3f} here, got {given:.3f}; w_0 and m_0 are"
        " of the values below the threshold, w_1 and m_1 of the others"
    )


@exercise("12-5")
def how_much_pictures_differ(attempt: Attempt) -> None:
    """attempt(predicted [K, C]) -> entropy of the mean prediction minus the mean entropy, nats."""
    sure = torch.eye(4)
    given = torch.as_tensor(attempt(sure.clone()))
    assert given.ndim == 0, f"one number is needed, got shape {tuple(given.shape)}"
    assert not given.isnan(), "0 log 0 counts as 0: torch.special.entr knows that"
    assert abs(given - np.log(4)) < 1e-4, (
        f"four sure predictions of four classes have log 4 = {np.log(4):.3f} nats, got"
        f" {float(given):.3f}; the logarithm is the natural one"
    )
    same = torch.tensor([0.7, 0.2, 0.1]).expand(5, 3)
    assert abs(attempt(same.clone())) < 1e-4, (
        "predictions that are all the same have none: the entropy of their mean is the mean of"
        " their entropies"
    )
    mixed = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).mul(2).softmax(-1)
    wanted = entropy(mixed.mean(0)) - entropy(mixed).mean()
    assert torch.allclose(torch.as_tensor(attempt(mixed.clone())), wanted, atol=1e-4), (
        f"H(mean of p) - mean of H(p) is {float(wanted):.3f} here: the mean of the predictions is"
        " taken over the rows, an entropy over the classes"
    )
