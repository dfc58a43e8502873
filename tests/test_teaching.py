"""The assignment: its grader is fair, and no submission can harm another question."""

import inspect
import json
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from scclip_lab.cli import main
from scclip_lab.exercises.solutions import chA
from scclip_lab.studies import ROOT
from scclip_lab.teaching import grading
from scclip_lab.teaching.hidden import QUESTIONS

ASSIGNMENT = ROOT / "notebooks" / "assignment.ipynb"
NAMES = {question.function: question for question in QUESTIONS}
FULL = sum(question.points for question in QUESTIONS)


def submission(folder: Path, *cells: str) -> Path:
    """The assignment with code cells behind it, which therefore count."""
    notebook = nbformat.read(ASSIGNMENT, as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    path = folder / "answers.ipynb"
    nbformat.write(notebook, path)
    return path


def solutions(*left_out: str) -> list[str]:
    """A cell for each solution."""
    return [
        inspect.getsource(function)
        for function in chA.SOLUTIONS.values()
        if function.__name__ not in left_out
    ]


def points(graded: grading.Grade) -> dict[str, float]:
    return {score.function: score.points for score in graded.questions}


def test_the_assignment_asks_for_what_is_graded():
    text = "\n".join(cell.source for cell in nbformat.read(ASSIGNMENT, as_version=4).cells)
    for name, question in NAMES.items():
        assert f"def {name}(" in text and f'check("{question.number}", {name})' in text
        assert f"{question.number[2:]}. " in text and f"({question.points} points)" in text
        wanted = list(inspect.signature(chA.SOLUTIONS[question.number]).parameters)
        cell = next(c for c in text.split("def ") if c.startswith(f"{name}("))
        assert [word for word in wanted if f"{word}: " not in cell] == []
    assert FULL == 80 and "(80 points" in text


def test_the_assignment_runs_with_open_stubs_and_stores_no_output(monkeypatch):
    notebook = nbformat.read(ASSIGNMENT, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    client = NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.resources = {"metadata": {"path": str(ASSIGNMENT.parent)}}
    client.execute()
    told = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert told.count("is open") == len(QUESTIONS) + 6


def test_solutions_get_all_points_with_every_seed(tmp_path):
    path = submission(tmp_path, *solutions())
    for seed in (0, 12345):
        graded = grading.grade(path, seed)
        assert (graded.points, graded.of) == (FULL, FULL), grading.describe(graded)


def test_stubs_get_nothing(tmp_path):
    graded = grading.grade(ASSIGNMENT)
    assert graded.points == 0 and set(points(graded).values()) == {0}
    assert "A-1 cosine_similarity: 0 of 8\n    raised NotImplementedError" in grading.describe(
        graded
    )


WRONG = {
    # Right for one token only: the batch is mixed up, and so are lengths.
    "cosine_similarity": "def cosine_similarity(tokens):\n    return tokens @ tokens.mT",
    # Fails where a similarity is exactly beta.
    "aggregate": """
def aggregate(tokens, similarity, beta):
    kept = similarity * (similarity > beta)
    return kept @ tokens / (kept.sum(-1, keepdim=True) + 1e-6)""",
    # Rows and columns are taken for each other: right on square grids, and where nothing is done.
    "repair": """
def repair(tokens, flags, rows, cols):
    return square(tokens, flags, cols, rows)""",
    # Changes its argument, and is right otherwise.
    "content_attention": """
def content_attention(similarity, gain):
    similarity -= similarity.mean((1, 2), keepdim=True)
    logits = gain * similarity
    return logits.masked_fill(logits < 0, -torch.inf).softmax(-1)""",
}


def test_a_partly_wrong_answer_gets_its_share_and_the_others_keep_theirs(tmp_path):
    square = inspect.getsource(chA.repair).replace("def repair(", "def square(")
    cells = [*solutions(*WRONG), *WRONG.values(), square]
    graded = grading.grade(submission(tmp_path, *cells))
    right = {s.function: [one.case for one in s.cases if one.right] for s in graded.questions}
    wrong = {s.function: [one.case for one in s.cases if not one.right] for s in graded.questions}
    assert wrong["aggregate"] == ["a similarity of exactly beta"]
    assert wrong["content_attention"] == [grading.UNCHANGED]
    assert right["cosine_similarity"] == []
    assert {"a square grid", "nothing is flagged"} <= set(right["repair"])
    assert "more columns than rows" in wrong["repair"]
    for name, score in points(graded).items():
        share = len(right[name]) / len(right[name] + wrong[name])
        assert score == pytest.approx(NAMES[name].points * share, abs=0.01)
        assert (score == NAMES[name].points) == (name not in WRONG)


def test_endless_and_crashing_answers_lose_their_own_points_alone(tmp_path):
    broken = {
        "flag": "def flag(scores, contamination):\n    while True:\n        pass",
        "repair": "import os\ndef repair(tokens, flags, rows, cols):\n    os._exit(0)",
        "mixed_attention": "def mixed_attention(*given):\n    raise SystemExit('no')",
    }
    graded = grading.grade(submission(tmp_path, *solutions(*broken), *broken.values()), limit=2)
    for name, score in points(graded).items():
        assert score == (0 if name in broken else NAMES[name].points), name
    told = grading.describe(graded)
    assert "A-4 flag: 0 of 6\n    not finished after 2 seconds" in told
    assert "A-5 repair: 0 of 14\n    the process ended (exit code 0)" in told
    assert "raised SystemExit: no" in told


def test_the_answers_of_the_project_cannot_be_imported(tmp_path):
    cell = """
from scclip_core.similarity import patch_similarity

def cosine_similarity(tokens):
    return patch_similarity(tokens)

def outlier_factor(points, k):
    import scclip_lab.exercises.solutions.chA as answers
    return answers.outlier_factor(points, k)
"""
    graded = grading.grade(submission(tmp_path, cell))
    assert graded.points == 0
    assert "NameError: name 'patch_similarity'" in grading.describe(graded)
    assert "raised ModuleNotFoundError" in grading.describe(graded)


def test_only_definitions_are_taken_from_a_notebook(tmp_path):
    cells = [
        "%matplotlib inline\n!ls\nEPSILON = 1e-6\nvalue = print('run')\nprint('run')",
        "this is not python",
        "import math as m\nclass Kept:\n    pass\nfor i in range(3):\n    print(i)",
        "%%time\ndef last():\n    return EPSILON",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    nbformat.write(notebook, tmp_path / "some.ipynb")
    found = [source for _, source in grading.read_definitions(tmp_path / "some.ipynb")]
    kept = ["EPSILON = 1e-06", "import math as m", "class Kept:\n    pass"]
    assert found == [*kept, "def last():\n    return EPSILON"]


def test_outputs_that_a_notebook_stores_are_not_believed(tmp_path):
    path = submission(tmp_path)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            right = nbformat.v4.new_output("stream", text="Exercise A-1: right.\n")
            cell.outputs = [right]
    nbformat.write(notebook, path)
    assert grading.grade(path).points == 0


@pytest.mark.parametrize(
    ("given", "wanted", "told"),
    [
        (torch.ones(2, 3), torch.ones(3, 2), r"shape \[3, 2\], got \[2, 3\]"),
        (torch.ones(2), torch.ones(2, dtype=torch.bool), "must be bool, got torch.float32"),
        (torch.ones(2) > 2, torch.ones(2) > 0, "2 of 2 are wrong"),
        (torch.tensor([torch.nan]), torch.ones(1), "not finite"),
        (torch.tensor([1.5]), torch.ones(1), "by up to 0.5"),
        (1.0, torch.ones(1), "must be a tensor, got float"),
        (torch.ones(3), 0.5, "must be a number"),
        (0.4, 0.5, "by up to 0.1"),
        (torch.tensor([True]), torch.ones(1), "must be numbers, got torch.bool"),
    ],
)
def test_a_wrong_value_is_told_what_is_wrong(given, wanted, told):
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(grading.compare(given, wanted))
    assert grading.compare(wanted, wanted) == ""
    assert grading.compare(torch.tensor(0.5), 0.5) == ""


def test_definitions_that_never_end_are_told(tmp_path):
    slow = "def cosine_similarity(tokens, wait=[i for i in iter(int, 1)]):\n    return tokens"
    definitions = grading.read_definitions(submission(tmp_path, slow))
    tasks = {"A-1": ("cosine_similarity", {"one": (torch.ones(1, 1, 1),)})}
    (told,) = grading.collect_answers(definitions, tasks, 1, start_limit=8).values()
    assert told == "the definitions cannot be run: not finished after 8 seconds"


def test_the_command_writes_a_grade_beside_each_submission(tmp_path, capsys):
    path, none = submission(tmp_path, *solutions()), tmp_path / "none.ipynb"
    none.write_text("{}")
    assert main(["grade", str(none), str(path), str(tmp_path / "missing.ipynb")]) == 1
    told = capsys.readouterr()
    assert f"answers.ipynb: {FULL} of {FULL} points" in told.out
    assert told.err.count("left out: SUBMISSION must be a notebook") == 2
    written = json.loads((tmp_path / "answers.grade.json").read_text())
    assert (written["points"], written["seed"]) == (FULL, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "answers.grade.json",
        "answers.ipynb",
        "none.ipynb",
    ]
    assert main(["grade", str(path), "--limit", "0"]) == 2
    assert "limit must be a finite number of seconds above 0" in capsys.readouterr().err
    assert main(["grade", str(path), "--seed", "-1"]) == 2
    assert "seed must be at least 0, got -1" in capsys.readouterr().err


def test_the_process_that_calls_functions_needs_nothing_of_the_project():
    source = (ROOT / "scclip_lab/teaching/answering.py").read_text(encoding="utf-8")
    imported = [line for line in source.splitlines() if line.startswith(("import", "from"))]
    assert not [line for line in imported if "scclip" in line]
    assert {line.split()[1].partition(".")[0] for line in imported} <= sys.stdlib_module_names
