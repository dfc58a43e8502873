"""Claims of the article on what the method achieves: gains, settings, scores, time."""

from scclip_lab.studies import rules_results as rules
from scclip_lab.studies.ch05_ablation import CLAIMED, MODULES
from scclip_lab.studies.claim import Claim

# Parameters, and what the article says of their settings.
SETTINGS = {
    "pre_adjust_idx": "layer 8 is the best for the first aggregation",
    "post_adjust_idx": "layer 3 is the best for the second aggregation",
    "multi_start_idx": "fusion from layer 3 avoids the noise of the first layers",
    "multi_end_idx": "fusion up to layer 9 avoids the abstraction of the last layers",
    "beta": "beta = 0.4 filters noise best",
    "lof_neighbors": "k = 30 neighbours for LOF",
    "contamination": "contamination 0.05",
    "mix": "alpha = 0.5 mixes the two kinds of attention best",
}
RESULTS = (
    Claim(
        "overview",
        "no parameter is updated",
        "all parameters compared before and after a forward pass",
        "08_reasons",
        rules.nothing_is_trained,
    ),
    Claim(
        "2, stage 4",
        "aggregation smooths noise away",
        "mIoU after one step against none",
        "03_smoothing",
        rules.first_step,
    ),
    Claim(
        "4.2",
        "res_cls = 0.3 is the best balance",
        "sweep 0 to 1, mIoU",
        "04_residual",
        rules.best_residual,
    ),
    Claim(
        "4.2",
        "res_cls above 0.5 loses detail",
        "objects right at 0.75 against 0.3",
        "04_residual",
        rules.lost_by_residual("objects right", 0.75),
    ),
    Claim(
        "4.2",
        "res_cls below 0.1 loses coherence",
        "background right at 0 against 0.3",
        "04_residual",
        rules.lost_by_residual("background right", 0.0),
    ),
    *(
        Claim(
            "5.2",
            f"{MODULES[name]} gains {gain} points",
            "added in the article's order, paired; sign alone is judged",
            "05_modules",
            rules.added_gain(name),
        )
        for name, gain in CLAIMED.items()
    ),
    Claim(
        "5.2",
        "gains sum to 14.8, the total is 12.6: they overlap",
        "sum of left-out gains above the total",
        "05_modules",
        rules.overlapping_gains,
    ),
    *(
        Claim(
            "4.1, 4.2",
            text,
            "best of a sweep on validation scenes, tried on test scenes, paired",
            "05_confirmed",
            rules.best_in_sweep(name),
        )
        for name, text in SETTINGS.items()
    ),
    Claim(
        "5.1",
        "plain CLIP reaches 52.1 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        rules.needs_real_weights("vanilla"),
    ),
    Claim(
        "5.1",
        "SC-CLIP reaches 64.7 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        rules.needs_real_weights("scclip"),
    ),
    Claim(
        "5.1",
        "fine-tuned CLIP reaches 68.3 mIoU on VOC",
        "needs OpenAI's weights and VOC",
        "evaluate_mini",
        rules.not_measured,
    ),
    Claim(
        "5.1",
        "fine-tuning reaches more than SC-CLIP (68.3 against 64.7)",
        "1,000 labelled scenes, paired difference",
        "09_finetuned",
        rules.fine_tuned_is_better,
    ),
    Claim(
        "5.1",
        "SC-CLIP is better than plain CLIP",
        "paired difference on test scenes",
        "evaluate_mini",
        rules.better_than_vanilla,
    ),
    Claim(
        "6",
        "more than 30 % is to be gained by the forward pass alone",
        "ratio of mIoU to vanilla",
        "evaluate_mini",
        rules.room_for_gain,
    ),
    Claim(
        "5.1",
        "inference takes 1.2x",
        "side by side with open_clip",
        "bench",
        rules.time_ratio,
    ),
    Claim(
        "5.3",
        "about 20 % more forward time",
        "side by side with open_clip",
        "bench",
        rules.twenty_percent_more_time,
    ),
    Claim(
        "5.3",
        "LOF is O(N^2)",
        "exponent of its time",
        "07_growth",
        rules.grows_as("LOF alone", 2),
    ),
    Claim(
        "5.3",
        "similarity is O(N^2 d)",
        "exponent of its time",
        "07_growth",
        rules.grows_as("similarity alone", 2),
    ),
    Claim(
        "5.3",
        "adding up the layers is O(L N d)",
        "exponent of its time",
        "07_growth",
        rules.grows_as("sum of layers alone", 1),
    ),
)
