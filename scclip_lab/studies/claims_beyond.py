"""The ledger's claims on the article's future directions, which it states as suggestions."""

from scclip_lab.studies import rules_beyond as rules
from scclip_lab.studies.claim import Claim
from scclip_lab.studies.rules_results import not_measured

BEYOND = (
    Claim(
        "6",
        "future direction: similar ideas serve other vision tasks (better than the values do)",
        "SC-CLIP minus the values in five tasks, paired, both groups of styles",
        "10_verdicts",
        rules.carries_over,
    ),
    Claim(
        "6",
        "future direction: anomalies can be detected more efficiently",
        "nine detectors against exact LOF: what they find, what repair does, time",
        "11_verdicts",
        rules.cheaper_detector,
    ),
    Claim(
        "6",
        "future direction: parameters can be chosen adaptively",
        "the rule without labels that is best on validation scenes, on test scenes; four models,"
        " four data sets",
        "12_regret",
        rules.chosen_without_labels,
    ),
    Claim(
        "6",
        "future direction: the method extends to larger pretrained models",
        "needs their weights; layers, shapes, memory and time are looked at with random ones",
        "13_models",
        not_measured,
    ),
)
