"""Slides of a lecture: a Markdown file becomes one page, which needs no network to be shown.

Slides are divided by lines of `---`. A slide may begin with lines such as `layout: side` and
`stage: 3`, and what follows a line of `???` is for the speaker. Numbers come from `facts`, figures
from the repository.
"""

import html
import re
from dataclasses import dataclass
from pathlib import Path

import facts
from figure_text import describe_figures, draw_all
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from reference import ROOT

from scclip_lab.studies.translation import PAGE_MARK

FOLDER = ROOT / "site" / "slides"
# Where the slides of each language lie, in the folder of the English pages.
PAGES = {"en": "teaching/slides.html", "zh": "teaching/slides.zh.html"}
LAYOUTS = ("plain", "side", "title", "wide")
SETTING = re.compile(r"(layout|stage): (\w+)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^()\s]+)\)")
STAGES = range(1, 9)
# Of a page: title, what the buttons are called, and the keys.
WORDS = {
    "en": {
        "title": "SC-CLIP: a lecture of 90 minutes",
        "previous": "Previous slide",
        "next": "Next slide",
        "notes": "Notes",
        "speaker": "Speaker's window",
        "other": "中文",
        "site": "All pages",
        "keys": "← → or space: move · N: notes · S: speaker's window · F: full screen",
        "stages": "Stages of SC-CLIP",
    },
    "zh": {
        "title": "SC-CLIP：90 分钟讲座",
        "previous": "上一页",
        "next": "下一页",
        "notes": "讲稿",
        "speaker": "讲者窗口",
        "other": "English",
        "site": "所有页面",
        "keys": "← → 或空格：翻页 · N：讲稿 · S：讲者窗口 · F：全屏",
        "stages": "SC-CLIP 的阶段",
    },
}


@dataclass(frozen=True)
class Slide:
    """One slide: Markdown of what is shown and of what is said, a layout, a stage of 1 to 8."""

    text: str
    notes: str = ""
    layout: str = "plain"
    stage: int | None = None


def source_of(language: str) -> Path:
    """The file that the slides of a language are written in."""
    return FOLDER / f"lecture{'' if language == 'en' else '.' + language}.md"


def parse(text: str) -> list[Slide]:
    """The slides of a Markdown file. Raises ValueError for a layout or stage that is not known."""
    slides = []
    for part in re.split(r"^---$", PAGE_MARK.sub("", text), flags=re.MULTILINE):
        shown, _, notes = part.strip().partition("\n???\n")
        settings = {}
        while found := SETTING.match(shown):
            settings[found[1]] = found[2]
            shown = shown[found.end() :].lstrip("\n")
        layout, stage = settings.get("layout", "plain"), settings.get("stage")
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be of {', '.join(LAYOUTS)}, got {layout!r}")
        if stage is not None and (not stage.isdigit() or int(stage) not in STAGES):
            raise ValueError(f"stage must be in 1..8, got {stage!r}")
        slides.append(Slide(shown.strip(), notes.strip(), layout, int(stage) if stage else None))
    return slides


def markdown() -> MarkdownIt:
    """What turns Markdown into HTML; formulas are left for MathJax."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    dollarmath_plugin(parser, double_inline=True)

    def formula(tokens, place, options, env):
        block = tokens[place].type.startswith("math_block") or tokens[place].markup == "$$"
        opened, closed = ("\\[", "\\]") if block else ("\\(", "\\)")
        return f'<span class="math">{opened}{html.escape(tokens[place].content)}{closed}</span>'

    for kind in ("math_inline", "math_inline_double", "math_block"):
        parser.renderer.rules[kind] = formula
    return parser


def render(slide: Slide, number: int, count: int, parser: MarkdownIt, words: dict[str, str]) -> str:
    """A slide as an element of the page; the first picture fills the room that the text leaves."""
    pictures = PICTURE.findall(slide.text)
    text = parser.render(PICTURE.sub("", slide.text))
    figures = "".join(
        f'<figure><img src="{html.escape(address)}" alt="{html.escape(alt)}"></figure>'
        for alt, address in pictures
    )
    strip = "".join(
        f"<li{' class=here' if stage == slide.stage else ''}>{stage}</li>" for stage in STAGES
    )
    strip = f'<ol class="stages" aria-label="{words["stages"]}">{strip}</ol>' if slide.stage else ""
    classes = f"slide {slide.layout}" + (f" stage{slide.stage}" if slide.stage else "")
    if not pictures and slide.layout == "plain":
        classes += " words"
    return (
        f'<section id="{number}" class="{classes}">'
        f'<div class="sheet"><div class="text">{text}</div>{figures}</div>'
        f'<footer>{strip}<span>SC-CLIP</span><span class="number">{number} / {count}</span>'
        f'</footer><aside class="notes">{parser.render(slide.notes)}</aside></section>'
    )


def build_slides(language: str, folder: Path) -> None:
    """Write the slides of a language into the folder of the English pages."""
    source = source_of(language)
    words, page = WORDS[language], folder / PAGES[language]
    page.parent.mkdir(parents=True, exist_ok=True)
    text = source.read_text(encoding="utf-8")
    shown = {Path(address).stem for _, address in PICTURE.findall(text)}
    told = describe_figures(shown) if language == "en" else {}
    drawn = draw_all(facts.catalogue(language), shown) if language != "en" else {}

    def place(found: re.Match[str]) -> str:
        original = (source.parent / found[2]).resolve()
        name, content = original.name, original.read_bytes()
        if original.stem in drawn:
            name, content = f"{original.stem}.{language}.png", drawn[original.stem]
        copied = page.parent / "figures" / name
        copied.parent.mkdir(exist_ok=True)
        copied.write_bytes(content)
        alt = found[1] or told.get(original.stem, "")
        if not alt:
            raise ValueError(f"the picture {original.name} must be told in words in {source.name}")
        return f"![{alt.replace('[', '(').replace(']', ')')}](figures/{name})"

    text = PICTURE.sub(place, facts.fill(text, language))
    slides, parser = parse(text), markdown()
    sections = [
        render(slide, number, len(slides), parser, words) for number, slide in enumerate(slides, 1)
    ]
    other = "zh" if language == "en" else "en"
    link = f'<a lang="{other}" href="{Path(PAGES[other]).name}">{words["other"]}</a>'
    values = {
        "language": {"en": "en", "zh": "zh-CN"}[language],
        "style": (FOLDER / "slides.css").read_text(encoding="utf-8"),
        "script": (FOLDER / "slides.js").read_text(encoding="utf-8"),
        "slides": "\n".join(sections),
        "pair": link,
        **words,
    }
    template = (FOLDER / "page.html").read_text(encoding="utf-8")
    filled = re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)
    page.write_text(filled, encoding="utf-8")
