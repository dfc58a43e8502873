"""What the website is made of: pages by language, links, docstrings, the Chinese search."""

from tests.site_pages import CHAPTERS, CHAPTERS_IN, ROOT, SITE


def test_languages_are_told_apart_by_the_names_of_files(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SITE))
    import sources

    for name in ("index.md", "index.zh.md", "glossary.md", "more/page.zh.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(sources, "PAGES", tmp_path)
    english, chinese = sources.find_pages("en"), sources.find_pages("zh")
    assert english["index"] == tmp_path / "index.md" and "glossary" in english
    assert chinese["index"] == tmp_path / "index.zh.md"
    assert chinese["more/page"] == tmp_path / "more" / "page.zh.md"
    assert "glossary" not in chinese and "more/page" not in english
    assert {f"notebooks/{stem}" for stem in CHAPTERS} <= set(english)


def test_links_between_files_become_links_between_pages(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SITE))
    import sources

    chapter = ROOT / "notebooks" / f"{CHAPTERS[0]}.ipynb"

    def relinked(text, repository=""):
        made = sources.Sources(tmp_path, "en", repository)
        return made.relink(text, chapter, f"notebooks/{chapter.stem}")

    assert relinked("[a `b`](../data/mini/README.md#data)") == "[a `b`](/project/model_card#data)"
    assert relinked("[x](../scclip_core/pipeline.py)") == "[x](/api/core/pipeline)"
    assert relinked("[x](../scclip_lab/evaluation/metrics.py)") == "[x](/api/lab/evaluation)"
    assert relinked("![x](../figures/gallery.png)") == "![x](../figures/gallery.png)"
    assert relinked("[x](https://arxiv.org/a)") == "[x](https://arxiv.org/a)"
    # What is no page is a link only where there is a hosted repository to lead to.
    assert relinked("[x](../LICENSE)") == "x"
    hosted = relinked("[x](../LICENSE)", "https://host/owner/name")
    assert hosted == "[x](https://host/owner/name/blob/main/LICENSE)"
    code = "```python\na[0](../LICENSE)\n```"
    assert relinked(code) == code


def test_links_of_a_chinese_page_lead_to_chinese_pages_first(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SITE))
    import sources

    chapter = ROOT / "notebooks" / f"{CHAPTERS_IN['zh'][0]}.ipynb"

    def relinked(text):
        made = sources.Sources(tmp_path, "zh", "")
        return made.relink(text, chapter, f"notebooks/{chapter.stem}")

    assert relinked("[a](../data/mini/README.md)") == "[a](/project/model_card)"
    assert relinked("[a](/glossary)") == "[a](/glossary)"
    assert relinked("[a](../README.zh.md)") == "[a](/index)"
    english = '<a hreflang="en" href="../../en/{}">a</a>'
    assert relinked("[a](../CHANGELOG.md#b)") == english.format("project/changelog.html#b")
    assert relinked("[a](/api/core/clip)") == english.format("api/core/clip.html")
    assert relinked("[a](../scclip_core/clip.py)") == english.format("api/core/clip.html")


def test_the_chinese_search_finds_any_run_of_characters(monkeypatch):
    monkeypatch.syspath_prepend(str(SITE))
    from chinese_search import PairSearch

    search = PairSearch({})
    assert search.split("异常因子，LOF") == ["异常", "常因", "因子", "异", "常", "因", "子", "LOF"]
    assert search.split("层 8") == ["层", "8"]
    assert search.stem("LOF") == "lof"


def test_docstrings_become_restructured_text(monkeypatch):
    monkeypatch.syspath_prepend(str(SITE))
    from docstrings import to_rst

    given = """A sum over |x| and `name`s.

    y = a * b_

    Args:
        x, y: numbers, as
            in arXiv 2411.15869.

    Returns [B, N]. Raises ValueError for `0 / 0`."""
    lines = [line[4:] if line.startswith("    ") else line for line in given.splitlines()]
    assert [line for line in to_rst(lines) if line] == [
        "A sum over \\|x\\| and :py:obj:`name`\\ s.",
        ".. code-block:: text",
        "    y = a * b_",
        "**Arguments**",
        "- **x, y**: numbers, as in `arXiv 2411.15869 <https://arxiv.org/abs/2411.15869>`__.",
        "**Returns** [B, N]. **Raises** ValueError for ``0 / 0``.",
    ]
