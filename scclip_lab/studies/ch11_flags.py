"""Chapter 11: how many patches to flag, decided by the scores themselves and not by a budget."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scclip_core.anomaly import flag_anomalies, local_outlier_factor
from scclip_core.clip import FrozenCLIP
from scclip_core.pipeline import SCCLIP
from scclip_lab.evaluation.metrics import mean_interval
from scclip_lab.studies.ch11_planting import CASES, layers_after, plant, scenes_in_batches

# What a rule does: scores [B, N] -> bool [B, N].
Rule = Callable[[Tensor], Tensor]


def above_limit(scores: Tensor, limit: float = 1.5) -> Tensor:
    """True where a score is above a fixed limit, the same for all images; [B, N] -> bool [B, N]."""
    return scores > limit


def above_gap(scores: Tensor, share: float = 0.1) -> Tensor:
    """True above the largest gap between neighbouring scores, [B, N] -> bool [B, N].

    The scores are sorted, s_1 >= s_2 >= ...; flagged are s_1 to s_m with the m, of those up to
    `share` of N, at which s_m - s_(m + 1) is largest. At least one patch is flagged.
    """
    ranked = scores.sort(1, descending=True).values
    most = max(1, int(share * scores.shape[1]))
    gaps = ranked[:, :most] - ranked[:, 1 : most + 1]  # [B, most]
    return scores >= ranked.gather(1, gaps.argmax(1, keepdim=True))


def above_deviation(scores: Tensor, factor: float = 3.5) -> Tensor:
    """True far above the median, by the median absolute deviation; [B, N] -> bool [B, N].

    s_i - median(s) > factor * 1.4826 * median over j of |s_j - median(s)|

    1.4826 makes the deviation that of the standard deviation where scores are normal; the factor
    is that of Iglewicz and Hoaglin (1993).
    """
    middle = scores.median(1, keepdim=True).values
    deviation = 1.4826 * (scores - middle).abs().median(1, keepdim=True).values
    return scores - middle > factor * deviation


RULES: dict[str, Rule] = {
    "5 % of the patches": lambda scores: flag_anomalies(scores, 0.05),
    "LOF above 1.5": above_limit,
    "largest gap": above_gap,
    "median absolute deviation": above_deviation,
}


def count_flags(model: FrozenCLIP, count: int, seed: int = 7) -> pd.DataFrame:
    """What every rule flags by the exact local outlier factor, with nothing planted and by case.

    Returns a row for each rule, case and measure: "flagged" (patches of an image), "precision"
    (share of the flagged patches that were planted, 0 where none is flagged) and "recall" (share
    of the planted ones that are flagged), means over `count` test scenes with 95 % bootstrap
    intervals.
    """
    segmenter = SCCLIP(model)
    found: dict[tuple[str, str, str], list[float]] = {}
    for first, scenes in scenes_in_batches(count, seed):
        for case in ("nothing", *CASES):
            images, where = plant(scenes, case, model, seed, first)
            tokens = layers_after(segmenter, images, where, case)[-1][:, 1:]
            scores = local_outlier_factor(tokens, 30)
            for rule, flag in RULES.items():
                flags = flag(scores)
                number, right = flags.sum(1), (flags & where).sum(1)
                measured = {"flagged": number.float()}
                if case != "nothing":
                    measured["precision"] = right / number.clamp(min=1)
                    measured["recall"] = right / where.sum(1)
                for measure, values in measured.items():
                    found.setdefault((rule, case, measure), []).extend(values.tolist())
    rows = [(*key, *mean_interval(np.array(values), seed)) for key, values in found.items()]
    columns = ["rule", "case", "measure", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def as_ranks(scores: Tensor) -> Tensor:
    """Scores as shares of the image's patches with a lower score, [B, N] -> [B, N]."""
    return scores.argsort(1).argsort(1).to(torch.float32) / (scores.shape[1] - 1)
