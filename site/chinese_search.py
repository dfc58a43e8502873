"""The search of the Chinese pages, where no spaces divide the words.

A run of Chinese characters is indexed by every two that follow one another, and by each alone; a
query is cut in the same way, and all of its pairs have to be on a page. So any term is found,
without a dictionary of words. (Sphinx's own search finds Chinese with a dictionary alone.)
"""

import re

from sphinx.search import SearchLanguage

# A run of Chinese characters, or a word in Latin letters.
RUN = re.compile(r"[\u3400-\u9fff]+|[A-Za-z0-9_]+")


class PairSearch(SearchLanguage):
    """A search whose words are pairs of Chinese characters, and Latin words as they are."""

    lang = "zh"
    language_name = "Chinese"
    js_splitter_code = r"""
var splitQuery = (query) =>
  (query.match(/[\u3400-\u9fff]+|[A-Za-z0-9_]+/g) || []).flatMap((run) =>
    run < "\u3400" || run.length < 2
      ? [run]
      : Array.from({ length: run.length - 1 }, (_, i) => run.slice(i, i + 2))
  );
"""

    def split(self, input: str) -> list[str]:
        """The words of a text: pairs of Chinese characters, single ones, and Latin words."""
        words = []
        for run in RUN.findall(input):
            if run < "\u3400":
                words.append(run)
            else:
                words += [run[i : i + 2] for i in range(len(run) - 1)]
                words += run
        return words

    def stem(self, word: str) -> str:
        """A word as it is looked up: in small letters."""
        return word.lower()
