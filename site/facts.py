"""Numbers in the text of pages and slides, read from the stored tables when the site is built.

`{{ caption 05_modules }}` in a Markdown file is replaced by what the fact `caption` returns for
`05_modules`. No page holds a number that measuring again would change.
"""

import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache

from figure_text import HERE, Catalogue

from scclip_core.config import SCCLIPConfig
from scclip_lab import studies
from scclip_lab.studies import captions, captions_results, readme, tables
from scclip_lab.studies import ch05_ablation as chapter
from scclip_lab.studies.ch08_claims import ledger

MARK = re.compile(r"\{\{ (\w+)((?: [^{}\s]+)*) \}\}")
# A fact of a language: its arguments, as words -> Markdown.
Fact = Callable[..., str]
FACTS: dict[str, Fact] = {}
# Chinese words that the tables of the README files do not have, or have in another sense.
CHINESE = readme.CHINESE | {
    "claim (points, VOC)": "文章的论断（百分点，VOC）",
    "here: mIoU": "这里：mIoU",
    "verdict": "判定",
    "claim": "论断",
    "here": "这里的结果",
    "none": "无",
    "all modules": "所有模块",
    # As the figures and chapters call the modules.
    "anomaly repair": "修复",
    "calibrated attention": "定制注意力",
    "multi-level fusion": "多层次融合",
    "how measured": "怎样测量",
    "sum of the gains": "增益之和",
    "total gain": "总增益",
    "the article's claim": "文章的论断",
    "here, alone": "这里：单独使用",
    "here, added": "这里：依次加上",
    "here, left out": "这里：逐个去掉",
}
LANGUAGE_WORDS: dict[str, dict[str, str]] = {"en": {}, "zh": CHINESE}


def fact(function: Fact) -> Fact:
    """Register a function under its name."""
    FACTS[function.__name__] = function
    return function


def fill(text: str, language: str = "en") -> str:
    """Markdown with every mark replaced. Raises ValueError for a fact that is not known."""

    def replace(found: re.Match[str]) -> str:
        name, arguments = found[1], found[2].split()
        if name not in FACTS:
            raise ValueError(f"a fact must be of {', '.join(sorted(FACTS))}, got {name!r}")
        return FACTS[name](language, *arguments)

    return MARK.sub(replace, text)


@cache
def catalogue(language: str) -> Catalogue:
    """The translations of the figures' texts, captions among them, into a language."""
    return Catalogue.read(HERE / f"labels.{language}.csv")


def told_in(language: str, text: str) -> str:
    """A caption in a language. Raises ValueError where its translation is missing."""
    if language == "en":
        return text
    told = catalogue(language).translate(text)
    if told == text:
        raise ValueError(f"labels.{language}.csv has no translation of {text!r}")
    return told


def markdown(language: str, header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with its words in a language."""
    words = LANGUAGE_WORDS[language]
    lines = [[words.get(cell, cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@fact
def caption(language: str, name: str) -> str:
    """The finding of a figure, made of its own numbers."""
    return told_in(language, captions.CAPTIONS[name](studies.load_table(name)))


@fact
def table(language: str, name: str) -> str:
    """A table of the README files."""
    chinese = readme.CHINESE if language == "zh" else {}
    return str(readme.TABLES[name](lambda word: chinese.get(word, word))).strip()


@fact
def config(language: str, name: str) -> str:
    """The default of a hyper-parameter."""
    defaults = {one.name: one.default for one in fields(SCCLIPConfig)}
    return f"{defaults[name]:g}" if type(defaults[name]) is float else str(defaults[name])


@fact
def score(language: str, method: str, measure: str, styles: str = "training") -> str:
    """A score of the bundled model with its interval, in per cent; `_` stands for a space."""
    stored = studies.load_table("evaluate_mini")
    stored = stored[stored["objects"].astype(str) == "all"]
    where = {"method": method, "measure": measure.replace("_", " "), "styles": styles}
    return str(tables.in_percent(tables.row_where(stored, **where)))


@fact
def modules(language: str, ablation: str = "added") -> str:
    """The gain of each module in the training styles, beside the gain that the article claims."""
    stored = studies.load_table("05_modules").query("styles == 'training'")
    measures = ("mIoU", "objects right", "background right")
    names = [(ablation, key, title) for key, title in chapter.MODULES.items()]
    rows = []
    for kind, key, title in [*names, ("total", "all modules", "all modules")]:
        claimed = chapter.CLAIMED.get(key)
        cells = [
            tables.in_percent(tables.row_where(stored, ablation=kind, module=key, measure=measure))
            for measure in measures
        ]
        total = f"{chapter.CLAIMED_TOTAL:+.1f}" if kind == "total" else "none"
        rows.append([title, f"{claimed:+.1f}" if claimed else total, *cells])
    return markdown(language, ["module", "claim (points, VOC)", "here: mIoU", *measures[1:]], rows)


@fact
def signs(language: str) -> str:
    """Which modules gain and which lose in the training styles, by every measure, as a list.

    A module gains where all three intervals (alone, added, left out) lie above zero, and loses
    where all three lie below.
    """
    stored = studies.load_table("05_modules").query("styles == 'training'")
    words = LANGUAGE_WORDS[language]
    told = {
        "en": ("gain: ", "Lose: ", "none", ", ", " ", ". ", "."),
        "zh": ("增益：", "损失：", "无", "、", "，", "；", "。"),
    }[language]
    lines = []
    for measure in ("mIoU", "objects right", "background right"):
        part = stored[stored["measure"] == measure].groupby("module")
        lowest, highest = part["low"].min(), part["high"].max()
        gain, lose = (
            told[3].join(words.get(t, t) for key, t in chapter.MODULES.items() if kept[key])
            for kept in (lowest > 0, highest < 0)
        )
        lines.append(
            f"- **{words.get(measure, measure)}**{told[4]}{told[0]}{gain or told[2]}{told[5]}"
            f"{told[1]}{lose or told[2]}{told[6]}"
        )
    return "\n".join(lines)


@fact
def sums(language: str, measure: str = "mIoU") -> str:
    """The sums of gains against the total in the training styles, in points."""
    stored = studies.load_table("05_overlap").query("styles == 'training'")
    rows = [
        [str(row["whose"]), f"{row['sum of gains']:+.1f}", f"{row['total gain']:+.1f}"]
        for _, row in stored[stored["measure"] == measure].iterrows()
    ]
    return markdown(language, ["how measured", "sum of the gains", "total gain"], rows)


@fact
def claims(language: str, *sections: str) -> str:
    """The ledger's rows of some sections of the article: claim, verdict, what is measured."""
    judged = ledger()
    told = [not {*sections}.isdisjoint(row.split(", ")) for row in judged["section"]]
    columns = ["claim", "verdict", "result"]
    rows = [
        [told_in(language, row[column]) for column in columns] for _, row in judged[told].iterrows()
    ]
    return markdown(language, ["claim", "verdict", "here"], rows)


@fact
def verdicts(language: str) -> str:
    """How many claims got which verdict."""
    return told_in(language, captions_results.ledger(ledger()))
