"""Docstrings of this project as reStructuredText.

They are written to be read in the source: |x| is a length, [B, N, C] a shape, a formula stands
alone between blank lines, and "Returns" and "Raises" begin sentences. As reStructuredText, which
Sphinx expects, bars and stars are marks and formulas run together; its napoleon reads headings
("Returns:") that are not used here. So they are translated.
"""

import re

ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")
CODE = re.compile(r"`([^`]+)`")
NAME = re.compile(r"[A-Za-z_][\w.]*")
SENTENCE = re.compile(r"(^|(?<=[.;] ))(Returns|Raises)(?= )")
ITEM = re.compile(r"([\w*]+(?:, [\w*]+)*): (.*)")
LABELS = {"Args:": "Arguments", "Attributes:": "Attributes", "Values:": "Values"}


def inline(text: str) -> str:
    """A sentence or more: names in backquotes become links where there is something to link to."""
    parts = CODE.split(text)
    told = ""
    for i, part in enumerate(parts):
        if i % 2 == 0:
            escaped = re.sub(r"([\\*|_])", r"\\\1", part)
            escaped = ARXIV.sub(r"`arXiv \1 <https://arxiv.org/abs/\1>`__", escaped)
            told += SENTENCE.sub(r"\1**\2**", escaped)
            continue
        # An escaped space ends a mark that touches a letter, and is not shown.
        before = "\\ " if told and told[-1].isalnum() else ""
        after = "\\ " if parts[i + 1][:1].isalnum() else ""
        code = f":py:obj:`{part}`" if NAME.fullmatch(part) else f"``{part}``"
        told += before + code + after
    return told


def indentation(line: str) -> int:
    """How many spaces a line begins with."""
    return len(line) - len(line.lstrip())


def items_of(lines: list[str]) -> list[str]:
    """An indented list of names and what they are, as a list with the names set bold."""
    least = min(map(indentation, lines))
    items: list[str] = []
    for line in lines:
        if indentation(line) == least or not items:
            items.append(line.strip())
        else:
            items[-1] += f" {line.strip()}"
    told = []
    for item in items:
        found = ITEM.fullmatch(item)
        told.append(f"- **{found[1]}**: {inline(found[2])}" if found else f"- {inline(item)}")
    return told


def is_formula(lines: list[str]) -> bool:
    """Whether a paragraph is a formula: a sentence would end with a full stop."""
    return not lines[-1].rstrip().endswith((".", ":", "?"))


def to_rst(lines: list[str]) -> list[str]:
    """A docstring, line by line, as reStructuredText."""
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            blocks[-1].append(line.rstrip())
        elif blocks[-1]:
            blocks.append([])
    told: list[str] = []
    for number, block in enumerate(filter(None, blocks)):
        starts = [i for i in range(1, len(block)) if indentation(block[i])]
        if indentation(block[0]):
            told += [*items_of(block), ""]
        elif starts and block[starts[0] - 1].endswith(":"):
            head = block[: starts[0]]
            label = LABELS.get(head[0]) if len(head) == 1 else None
            told += [f"**{label}**" if label else inline(" ".join(head)), ""]
            told += [*items_of(block[starts[0] :]), ""]
        elif number and is_formula(block):
            told += [".. code-block:: text", "", *(f"    {line}" for line in block), ""]
        else:
            told += [inline(" ".join(line.strip() for line in block)), ""]
    return told
