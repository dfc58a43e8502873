"""The ledger's claims on the article's future directions, which it states as suggestions."""

from scclip_lab.studies import rules_beyond as rules
from scclip_lab.studies.claim import Claim

BEYOND = (
    Claim(
        "6",
        "future direction: similar ideas serve other vision tasks",
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
)
