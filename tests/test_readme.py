"""The tables of the README files and the model card say what the stored CSVs say."""

import re
from pathlib import Path

import pytest

from scclip_lab.studies.readme import FILES, MARKED, TABLES, filled

ROOT = Path(__file__).parents[1]
# The licence and the readers' Python examples are the same in both languages, words aside.
CODE = re.compile(r"```(?:bash|python)\n(.*?)```", re.DOTALL)


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_the_tables_say_what_their_csvs_say(name):
    text = text_of(name)
    assert MARKED.search(text)
    assert filled(name) == text, "run `python -m scclip_lab tables`"


def test_every_table_stands_somewhere_and_nowhere_twice():
    found = {name: [match[1] for match in MARKED.findall(text_of(name))] for name in FILES}
    assert all(len(names) == len(set(names)) for names in found.values())
    assert set().union(*found.values()) == set(TABLES)
    assert found["README.md"] == found["README.zh.md"]


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_is_named_exists(name):
    text, folder = text_of(name), (ROOT / name).parent
    links = set(re.findall(r"\]\(((?!http)[^)#]+)\)", text))
    files = set(re.findall(r"`((?:scclip_core|scclip_lab|figures|notebooks|data)/[\w./]+)`", text))
    assert links
    assert [link for link in links if not (folder / link).exists()] == []
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_both_languages_have_the_same_sections_tables_and_commands():
    english, chinese = text_of("README.md"), text_of("README.zh.md")
    for pattern in (r"^#+ ", r"^\|", r"<!-- table [\w-]+ -->"):
        count = [len(re.findall(pattern, text, re.MULTILINE)) for text in (english, chinese)]
        assert count[0] == count[1], pattern

    def commands(text):
        blocks = "\n".join(CODE.findall(text))
        return [re.sub(r"\s*#.*", "", line) for line in blocks.splitlines()]

    assert [c for c in commands(english) if c] == [c for c in commands(chinese) if c]
