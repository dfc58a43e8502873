"""Chapter 8, the ledger: every claim of the article beside what the stored numbers say of it.

No result is typed here: each row reads a table that another chapter has stored, and a rule of
`checks` derives its verdict.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_lab.studies import checks, figure, load_table
from scclip_lab.studies.ch05_ablation import CLAIMED, MODULES


@dataclass(frozen=True)
class Claim:
    """One claim of the article.

    Attributes:
        section: of the article.
        text: what is claimed.
        test: how it is tested here.
        source: the stored table that is read, a name in `figures/`.
        judge: the rule that turns the table into a result and a verdict.
    """

    section: str
    text: str
    test: str
    source: str
    judge: checks.Rule


def ledger() -> pd.DataFrame:
    """A row for each claim: section, claim, tested by, numbers, result, verdict."""
    rows = []
    for claim in CLAIMS:
        result, verdict = claim.judge(load_table(claim.source))
        source = f"figures/{claim.source}.csv"
        rows.append((claim.section, claim.text, claim.test, source, result, verdict))
    columns = ["section", "claim", "tested by", "numbers", "result", "verdict"]
    return pd.DataFrame(rows, columns=columns)


COLOURS = {
    checks.HOLDS: "#009E73",
    checks.FAILS: "#D55E00",
    checks.UNDECIDED: "#F0E442",
    checks.UNTESTED: "0.75",
}
# The parts of the article, by the first character of a section.
PARTS = {
    "2": "2: the eight stages",
    "3": "3: anomalies, attention",
    "4": "4: parameters",
    "5": "5: quality and cost",
    "6": "6: potential",
}


@figure("08_ledger")
def draw_ledger(table: pd.DataFrame) -> Figure:
    """How many claims of each part of the article got which verdict."""
    parts = table["section"].astype(str).str[0]
    drawn, axis = plt.subplots(figsize=(11, 3.6))
    left = np.zeros(len(PARTS))
    for verdict, colour in COLOURS.items():
        chosen = parts[table["verdict"].str.startswith(verdict)]
        counts = np.array([(chosen == part).sum() for part in PARTS])
        axis.barh(list(PARTS.values()), counts, left=left, color=colour, label=verdict)
        left = left + counts
    axis.invert_yaxis()
    axis.set(xlabel="claims", ylabel="part of the article")
    axis.legend(frameon=False, fontsize=11, loc="upper left", bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn


# The article's settings, and what it says of them.
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
        checks.shape("hook_embed", "[1, 197, 768]"),
    ),
    Claim(
        "2, stage 4",
        "similarity is [B, 196, 196]",
        "run of ViT-B/16's shapes",
        "01_walks",
        checks.shape("stage4.thresholded", "[1, 196, 196]"),
    ),
    Claim(
        "2, stage 8",
        "features are [B, 196, 512]",
        "run of ViT-B/16's shapes",
        "01_walks",
        checks.shape("stage8.projected", "[1, 196, 512]"),
    ),
    Claim(
        "2, stage 3",
        "about 10 of 196 tokens are flagged",
        "flags of a scene",
        "02_stage_three",
        checks.flagged_patches,
    ),
    *(
        Claim(
            "3.1",
            f"anomalies come from: {source}",
            "planted at known patches, found by LOF above chance",
            "02_detectors",
            checks.planted_found(source),
        )
        for source in ("border", "occlusion", "rare texture", "lighting")
    ),
    Claim(
        "3.1",
        "local density makes LOF the right detector",
        "five detectors on planted anomalies",
        "02_detectors",
        checks.best_detector,
    ),
    Claim(
        "4.2",
        "beta = 0.4 is near the median similarity",
        "median at layer 8, within 0.1",
        "03_kept",
        checks.median_similarity,
    ),
    Claim(
        "4.2",
        "beta = 0.4 keeps 30 to 40 % (layer 8)",
        "counted on test scenes",
        "03_kept",
        checks.share_kept(8),
    ),
    Claim(
        "4.2",
        "beta = 0.4 keeps 30 to 40 % (layer 3)",
        "counted on test scenes",
        "03_kept",
        checks.share_kept(3),
    ),
    Claim(
        "2, stage 4",
        "aggregation smooths noise away",
        "mIoU after one step against none",
        "03_smoothing",
        checks.first_step,
    ),
    Claim(
        "3.3",
        "content attention keeps to related regions",
        "share on the same label, against qk",
        "04_purity",
        checks.content_against_qk("share on the same label", True),
    ),
    Claim(
        "3.3",
        "content attention is less noisy",
        "lower entropy than qk",
        "04_purity",
        checks.content_against_qk("entropy", False),
    ),
    Claim(
        "4.2",
        "res_cls = 0.3 is the best balance",
        "sweep 0 to 1, mIoU",
        "04_residual",
        checks.best_residual,
    ),
    Claim(
        "4.2",
        "res_cls above 0.5 loses detail",
        "object pixels right at 0.75 against 0.3",
        "04_residual",
        checks.lost_by_residual("object pixels right", 0.75),
    ),
    Claim(
        "4.2",
        "res_cls below 0.1 loses coherence",
        "background pixels right at 0 against 0.3",
        "04_residual",
        checks.lost_by_residual("background pixels right", 0.0),
    ),
    *(
        Claim(
            "5.2",
            f"{MODULES[name]} gains {gain} points",
            "added in the article's order, paired; sign alone is judged",
            "05_modules",
            checks.added_gain(name),
        )
        for name, gain in CLAIMED.items()
    ),
    Claim(
        "5.2",
        "gains sum to 14.8, the total is 12.6: they overlap",
        "sum of left-out gains above the total",
        "05_modules",
        checks.overlapping_gains,
    ),
    *(
        Claim(
            "4.1, 4.2",
            text,
            "sweep on validation scenes, paired",
            "05_sweeps",
            checks.best_in_sweep(name, value),
        )
        for name, (value, text) in SETTINGS.items()
    ),
    Claim(
        "5.1",
        "plain CLIP reaches 52.1 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        checks.needs_real_weights("vanilla"),
    ),
    Claim(
        "5.1",
        "SC-CLIP reaches 64.7 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        checks.needs_real_weights("scclip"),
    ),
    Claim(
        "5.1",
        "fine-tuned CLIP reaches 68.3 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        checks.not_measured,
    ),
    Claim(
        "5.1",
        "fine-tuning reaches more than SC-CLIP (68.3 against 64.7)",
        "image tower tuned on 1,000 labelled scenes, paired difference",
        "09_finetuned",
        checks.fine_tuned_is_better,
    ),
    Claim(
        "5.1",
        "SC-CLIP is better than plain CLIP",
        "paired difference on test scenes",
        "evaluate_mini",
        checks.better_than_vanilla,
    ),
    Claim(
        "6",
        "more than 30 % is to be gained by the forward pass alone",
        "ratio of mIoU to vanilla",
        "evaluate_mini",
        checks.room_for_gain,
    ),
    Claim(
        "5.1",
        "inference takes 1.2x",
        "side by side with open_clip",
        "bench",
        checks.time_ratio,
    ),
    Claim(
        "5.3",
        "about 20 % more computation",
        "torch's counter of operations",
        "07_operations",
        checks.more_operations,
    ),
    Claim(
        "5.3",
        "LOF is O(N^2)",
        "exponent of its time",
        "07_growth",
        checks.quadratic_growth("LOF alone"),
    ),
    Claim(
        "5.3",
        "similarity is O(N^2 d)",
        "exponent of its time",
        "07_growth",
        checks.quadratic_growth("similarity alone"),
    ),
)
