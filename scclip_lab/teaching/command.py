"""The command `python -m scclip_lab grade`."""

import argparse
import sys
from pathlib import Path
from typing import Any


def add_grade(commands: Any) -> None:
    """Add the command `grade` to the sub-parsers of `scclip_lab.cli`."""
    parser = commands.add_parser(
        "grade", help="grade submissions of the assignment, notebooks/assignment.ipynb"
    )
    add = parser.add_argument
    add("submissions", nargs="+", type=Path, metavar="SUBMISSION", help="notebooks")
    add("--seed", type=int, default=0, help="of the hidden cases (%(default)s)")
    add("--limit", type=float, default=10.0, help="seconds for a question (%(default)s)")
    parser.set_defaults(run=run_grade)


def run_grade(args: argparse.Namespace) -> int:
    """`grade`: NAME.grade.json beside each submission; one that cannot be read is left out."""
    # torch takes seconds to import.
    from scclip_lab.teaching.grading import check_options, describe, grade, save_grade

    check_options(args.seed, args.limit)
    failed = False
    for path in args.submissions:
        try:
            graded = grade(path, args.seed, args.limit)
        except ValueError as error:
            failed = True
            print(f"left out: {error}", file=sys.stderr)
            continue
        save_grade(graded, path.with_suffix(".grade.json"))
        print(describe(graded), flush=True)
    return 1 if failed else 0
