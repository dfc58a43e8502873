"""Chapter 8, the ledger: every claim of the seed beside what the stored numbers of the other chapters say.

No result is typed here: each row reads a stored table and derives its verdict by a rule.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.studies import figure, stored, verdicts
from scclip_core.studies.ablation import CLAIMED, MODULES


@dataclass(frozen=True)
class Claim:
    """One claim: seed section, what it says, how it is tested here, on what, and the rule that judges it."""

    section: str
    says: str
    test: str
    source: str
    judge: verdicts.Rule


def ledger() -> pd.DataFrame:
    """A row a claim: section, claim, test, source, result, verdict."""
    rows = []
    for claim in CLAIMS:
        result, verdict = claim.judge(stored(claim.source))
        rows.append((claim.section, claim.says, claim.test, f"figures/{claim.source}.csv", result, verdict))
    return pd.DataFrame(rows, columns=["seed", "claim", "tested by", "numbers", "result", "verdict"])


COLOURS = {
    verdicts.HOLDS: "#009E73",
    verdicts.FAILS: "#D55E00",
    verdicts.UNDECIDED: "#F0E442",
    verdicts.UNTESTED: "0.75",
}
PARTS = {
    "2": "2: the eight stages",
    "3": "3: anomalies, attention",
    "4": "4: parameters",
    "5": "5: quality and cost",
    "6": "6: potential",
}


@figure("08_ledger")
def draw_ledger(table: pd.DataFrame) -> Figure:
    """How many claims of each part of the seed got which verdict."""
    parts = table["seed"].astype(str).str[0]
    drawn, axis = plt.subplots(figsize=(11, 3.6))
    left = np.zeros(len(PARTS))
    for verdict, colour in COLOURS.items():
        given = parts[table["verdict"].str.startswith(verdict)]
        counts = np.array([(given == part).sum() for part in PARTS])
        axis.barh(list(PARTS.values()), counts, left=left, color=colour, label=verdict)
        left = left + counts
    axis.invert_yaxis()
    axis.set(xlabel="claims", ylabel="part of the seed")
    axis.legend(frameon=False, fontsize=11, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn


SETTINGS = {
    "pre_adjust_idx": (8, "layer 8 is the best for the first aggregation"),
    "post_adjust_idx": (3, "layer 3 is the best for the second aggregation"),
    "multi_start_idx": (3, "fusion from layer 3 avoids the noise of the first layers"),
    "multi_end_idx": (10, "fusion up to layer 9 avoids the abstraction of the last layers"),
    "beta": (0.4, "beta = 0.4 filters noise best"),
    "lof_neighbors": (30, "k = 30 neighbours for LOF"),
    "contamination": (0.05, "contamination 0.05"),
}
CLAIMS = (
    Claim(
        "2, stage 1",
        "tokens are [B, 197, 768]",
        "run of ViT-B/16's shapes",
        "01_walks",
        verdicts.shape("embedded", "[1, 197, 768]"),
    ),
    Claim(
        "2, stage 4",
        "similarity is [B, 196, 196]",
        "run of ViT-B/16's shapes",
        "01_walks",
        verdicts.shape("similarity_mid", "[1, 196, 196]"),
    ),
    Claim(
        "2, stage 8",
        "features are [B, 196, 512]",
        "run of ViT-B/16's shapes",
        "01_walks",
        verdicts.shape("projected", "[1, 196, 512]"),
    ),
    Claim(
        "2, stage 3",
        "about 10 of 196 tokens are flagged",
        "flags of a scene",
        "02_stage_three",
        verdicts.flags,
    ),
    *(
        Claim(
            "3.1",
            f"anomalies come from: {source}",
            "planted at known patches, found by LOF above chance",
            "02_detectors",
            verdicts.found(source),
        )
        for source in ("border", "occlusion", "rare texture", "lighting")
    ),
    Claim(
        "3.1",
        "local density makes LOF the right detector",
        "five detectors on planted anomalies",
        "02_detectors",
        verdicts.best_detector,
    ),
    Claim(
        "4.2",
        "beta = 0.4 is near the median similarity",
        "median at layer 8, within 0.1",
        "03_kept",
        verdicts.median,
    ),
    Claim(
        "4.2",
        "beta = 0.4 keeps 30 to 40 % (layer 8)",
        "counted on test scenes",
        "03_kept",
        verdicts.kept(8),
    ),
    Claim(
        "4.2",
        "beta = 0.4 keeps 30 to 40 % (layer 3)",
        "counted on test scenes",
        "03_kept",
        verdicts.kept(3),
    ),
    Claim(
        "2, stage 4",
        "aggregation smooths noise away",
        "mIoU after one step against none",
        "03_smoothing",
        verdicts.first_step,
    ),
    Claim(
        "3.3",
        "content attention keeps to related regions",
        "share on the same label, against qk",
        "04_purity",
        verdicts.attention("share on the same label", True),
    ),
    Claim(
        "3.3",
        "content attention is less noisy",
        "lower entropy than qk",
        "04_purity",
        verdicts.attention("entropy", False),
    ),
    Claim(
        "4.2",
        "res_cls = 0.3 is the best balance",
        "sweep 0 to 1, mIoU",
        "04_residual",
        verdicts.residual_best,
    ),
    Claim(
        "4.2",
        "res_cls above 0.5 loses detail",
        "object pixels right at 0.75 against 0.3",
        "04_residual",
        verdicts.residual("object pixels right", 0.75),
    ),
    Claim(
        "4.2",
        "res_cls below 0.1 loses coherence",
        "background pixels right at 0 against 0.3",
        "04_residual",
        verdicts.residual("background pixels right", 0.0),
    ),
    *(
        Claim(
            "5.2",
            f"{MODULES[name]} gains {gain} points",
            "added in the seed's order, paired; sign alone is judged",
            "05_modules",
            verdicts.gain(name),
        )
        for name, gain in CLAIMED.items()
    ),
    Claim(
        "5.2",
        "gains sum to 14.8, the total is 12.6: they overlap",
        "sum of left-out gains above the total",
        "05_modules",
        verdicts.overlap,
    ),
    *(
        Claim(
            "4.1, 4.2", says, "sweep on validation scenes, paired", "05_sweeps", verdicts.swept(name, value)
        )
        for name, (value, says) in SETTINGS.items()
    ),
    Claim(
        "5.1",
        "plain CLIP reaches 52.1 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        verdicts.untested("vanilla"),
    ),
    Claim(
        "5.1",
        "SC-CLIP reaches 64.7 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        verdicts.untested("seed"),
    ),
    Claim(
        "5.1",
        "fine-tuned CLIP reaches 68.3 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        verdicts.no_row,
    ),
    Claim(
        "5.1",
        "fine-tuning reaches more than SC-CLIP (68.3 against 64.7)",
        "image tower tuned on 1,000 labelled scenes, paired difference",
        "09_finetuned",
        verdicts.fine_tuned,
    ),
    Claim(
        "5.1",
        "SC-CLIP is better than plain CLIP",
        "paired difference on test scenes",
        "evaluate_mini",
        verdicts.over_vanilla,
    ),
    Claim(
        "6",
        "more than 30 % is to be gained by the forward pass alone",
        "ratio of mIoU to vanilla",
        "evaluate_mini",
        verdicts.potential,
    ),
    Claim(
        "5.1",
        "inference takes 1.2x",
        "side by side with open_clip",
        "bench",
        verdicts.ratio,
    ),
    Claim(
        "5.3",
        "about 20 % more computation",
        "torch's counter of operations",
        "07_operations",
        verdicts.operations,
    ),
    Claim(
        "5.3",
        "LOF is O(N^2)",
        "exponent of its time",
        "07_growth",
        verdicts.growth("LOF alone"),
    ),
    Claim(
        "5.3",
        "similarity is O(N^2 d)",
        "exponent of its time",
        "07_growth",
        verdicts.growth("similarity alone"),
    ),
)
