"""A claim of the article: what is claimed, how it is tested here, and the rule that judges it."""

from collections.abc import Callable
from dataclasses import dataclass

from scclip_lab.studies.verdicts import Rule


def nothing() -> str:
    """No published number stands beside the claim, or it is the article's own."""
    return ""


@dataclass(frozen=True)
class Claim:
    """One claim of the article.

    Attributes:
        section: of the article.
        text: what is claimed.
        test: how it is tested here.
        source: the stored table that is read, a name in `figures/`.
        judge: the rule that turns the table into a result and a verdict.
        published: what is told elsewhere of the same number, with who tells it; "" for nothing.
    """

    section: str
    text: str
    test: str
    source: str
    judge: Rule
    published: Callable[[], str] = nothing
