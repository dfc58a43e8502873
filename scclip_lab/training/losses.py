"""The losses of the bundled model; all truth is about whole images."""

import math

import torch.nn.functional as F
from torch import Tensor

# Weight of the coverage in the window loss.
COVERAGE = 2.0


def contrastive_loss(logits: Tensor, matches: Tensor) -> Tensor:
    """CLIP's loss in both directions, where a pair can match several times.

    The cross entropy of each image with all texts that are true of it, in equal shares, and of
    each text with all images that it is true of; texts that are true of no image are left out.

    Args:
        logits: scaled cosine similarities, [B, T].
        matches: bool [B, T], whether text t is true of image b; every image has a true text.

    Returns the mean of both directions, a scalar (Radford et al. 2021, section 2.3).
    """
    target = matches.float()
    by_image = F.cross_entropy(logits, target / target.sum(1, keepdim=True))
    used = matches.any(0)
    columns = target[:, used]
    by_text = F.cross_entropy(logits[:, used].T, (columns / columns.sum(0)).T)
    return (by_image + by_text) / 2


def pool_windows(tokens: Tensor, side: int, pool: int) -> Tensor:
    """Means of all pool x pool windows of patches: [B, side * side, C] -> [B, I, C]."""
    maps = tokens.mT.unflatten(2, (side, side))  # [B, C, side, side]
    return F.avg_pool2d(maps, pool, stride=1).flatten(2).mT


def window_loss(
    logits: Tensor, present: Tensor, power: float, weight: Tensor | None = None
) -> Tensor:
    """Multiple-instance loss: windows of an image against the words that are in it somewhere.

    With p_iw the softmax over words of window i, W the words of the image, and I windows:

    candidates = mean_i -log sum_{w in W} p_iw
    coverage = mean_{w in W} -log (mean_i p_iw^power)^(1 / power)

    The first asks of every window to be one of the image's words; the second, that each of the
    words is seen in some windows: in many, where the power is 1, and at least in few, where it is
    large (a generalised mean approaches the maximum).

    Args:
        logits: scaled cosine similarities of windows with words, [B, I, words].
        present: bool [B, words], which words are true of the image.
        power: >= 1.
        weight: of the words in the mean of the coverage, [B, words] (default: equal). With a power
            of 1 the coverage is smallest where the windows' shares are as these weights.

    Returns candidates + 2 coverage, a scalar.
    """
    log_p = logits.float().log_softmax(-1)  # [B, I, words]
    candidates = -log_p.masked_fill(~present[:, None], -math.inf).logsumexp(-1).mean()
    count = log_p.shape[1]
    log_mean = ((power * log_p).logsumexp(1) - math.log(count)) / power  # [B, words]
    counted = present if weight is None else present * weight  # [B, words]
    coverage = -(log_mean * counted).sum() / counted.sum()
    return candidates + COVERAGE * coverage
