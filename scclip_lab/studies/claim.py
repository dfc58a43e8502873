"""A claim of the article: what is claimed, how it is tested here, and the rule that judges it."""

from dataclasses import dataclass

from scclip_lab.studies.verdicts import Rule


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
    judge: Rule
