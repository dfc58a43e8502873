"""Grades submissions of the assignment: definitions are read out of a notebook, and tried out.

Outputs that are stored in a notebook are never looked at, and none of its cells is run as it is.
"""

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import torch
from torch import Tensor

from scclip_core.files import atomic_write
from scclip_lab.teaching import answering
from scclip_lab.teaching.hidden import QUESTIONS, Cases, Question

# Seconds to import torch and to define the functions of a submission.
START_LIMIT = 120.0
# The case that every question has besides.
UNCHANGED = "arguments stay as they are"
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-3, 1e-4
KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Judged:
    """A case of a question: whether the answer is right, and otherwise what is wrong."""

    case: str
    right: bool
    told: str = ""


@dataclass(frozen=True)
class Score:
    """What a question has earned: points, of how many, and why."""

    question: str
    function: str
    points: float
    of: int
    cases: tuple[Judged, ...]


@dataclass(frozen=True)
class Grade:
    """What a submission has earned."""

    submission: str
    seed: int
    points: float
    of: int
    questions: tuple[Score, ...]


def read_definitions(path: Path) -> list[tuple[str, str]]:
    """Imports, functions, classes and constants of a notebook's code cells: names and sources.

    A constant is an assignment without a call, such as `EPSILON = 1e-6`. Lines of IPython (% and
    !) are left out. A cell that is no Python loses its own definitions alone. Raises ValueError
    for a file that is no notebook.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
        cells = [str(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    except Exception as error:  # of json and of nbformat, each with several kinds
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ValueError(f"SUBMISSION must be a notebook, {path} is not ({reason})") from error
    found = []
    for cell in cells:
        lines = ("" if line.startswith(("%", "!")) else line for line in cell.splitlines())
        try:
            statements = ast.parse("\n".join(lines)).body
        except (SyntaxError, ValueError, RecursionError):
            continue
        for node in statements:
            constant = isinstance(node, ast.Assign | ast.AnnAssign) and not any(
                isinstance(part, ast.Call) for part in ast.walk(node)
            )
            if isinstance(node, KEPT) or constant:
                found.append((getattr(node, "name", ""), ast.unparse(node)))
    return found


def draw_cases(question: Question, seed: int) -> Cases:
    """The cases of a question; the same seed draws the same."""
    place = QUESTIONS.index(question) if question in QUESTIONS else 0
    return question.cases(torch.Generator().manual_seed(1000 * seed + place))


def collect_answers(
    definitions: list[tuple[str, str]],
    tasks: dict[str, tuple[str, Cases]],
    limit: float,
    start_limit: float = START_LIMIT,
) -> dict[str, dict[str, Any] | str]:
    """What the functions of a submission return: number -> answers by case, or what went wrong.

    They are called in a process of its own. One that takes longer than `limit` seconds for a
    question, or that ends, is replaced by a new one for the questions that remain.
    """
    answers: dict[str, dict[str, Any] | str] = {}
    with tempfile.TemporaryDirectory(prefix="scclip-grade-") as name:
        folder = Path(name)
        text = json.dumps(definitions)
        (folder / "source.json").write_text(text, encoding="utf-8")
        torch.save(tasks, folder / "cases.pt")
        while rest := [number for number in tasks if number not in answers]:
            (folder / "ready").unlink(missing_ok=True)
            with run_process(folder, rest) as process:
                told = wait_for(folder / "ready", process, start_limit)
                if told:
                    answers |= dict.fromkeys(rest, f"the definitions cannot be run: {told}")
                    break
                for number in rest:
                    told = wait_for(folder / f"{number}.pt", process, limit)
                    answers[number] = told or load_answers(folder / f"{number}.pt")
                    if told:
                        break
    return answers


@contextlib.contextmanager
def run_process(folder: Path, numbers: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process that calls the functions; it is killed at the end, with what it has started."""
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-I", answering.__file__, str(folder), *numbers],
        stdin=nothing,
        stdout=nothing,
        stderr=nothing,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()


def wait_for(file: Path, process: subprocess.Popen[bytes], limit: float) -> str:
    """Wait until a file is there; returns what went wrong instead, or nothing."""
    end = time.monotonic() + limit
    while not file.exists():
        # The file may have been written just before the process ended.
        if process.poll() is not None and not file.exists():
            return f"the process ended (exit code {process.returncode})"
        if time.monotonic() > end:
            return f"not finished after {limit:g} seconds"
        time.sleep(0.02)
    return ""


def load_answers(file: Path) -> dict[str, Any] | str:
    """Answers by case, read so that no code of the file can run."""
    try:
        loaded = torch.load(file, weights_only=True)
    except Exception as error:  # whatever a submission has put there
        return f"the answers cannot be read ({type(error).__name__})"
    return loaded if isinstance(loaded, dict) else "the answers cannot be read"


def compare(given: Any, wanted: Any) -> str:
    """What is wrong with a value; nothing where it is right."""
    if not isinstance(wanted, Tensor):
        if isinstance(given, Tensor) and given.numel() != 1:
            return f"must be a number, got a tensor of shape {list(given.shape)}"
        wanted, given = torch.tensor(wanted), torch.as_tensor(given).reshape(())
    elif not isinstance(given, Tensor):
        return f"must be a tensor, got {type(given).__name__}"
    if given.shape != wanted.shape:
        return f"must have the shape {list(wanted.shape)}, got {list(given.shape)}"
    if wanted.dtype == torch.bool:
        if given.dtype != torch.bool:
            return f"must be bool, got {given.dtype}"
        wrong = int((given != wanted).sum())
        return f"{wrong} of {wanted.numel()} are wrong" if wrong else ""
    if given.is_complex() or given.dtype == torch.bool:
        return f"must be numbers, got {given.dtype}"
    given, wanted = given.double(), wanted.double()
    if not given.isfinite().all():
        return "has values that are not finite"
    if torch.allclose(given, wanted, RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE):
        return ""
    return f"differs from the right answer by up to {float((given - wanted).abs().max()):.2g}"


def judge(question: Question, cases: Cases, answers: dict[str, Any] | str) -> Score:
    """The score of a question: its cases, and that arguments are left alone, count alike."""
    judged, kept = [], True
    for case, arguments in cases.items():
        answer = answers if isinstance(answers, str) else answers.get(case)
        if not isinstance(answer, dict) or "value" not in answer:
            told = answer.get("error") if isinstance(answer, dict) else answer
            judged.append(Judged(case, False, str(told or "no answer")))
            continue
        told = compare(answer["value"], question.answer(*arguments))
        judged.append(Judged(case, not told, told))
        kept = kept and answer.get("kept") is True
    # A function that does nothing leaves its arguments alone, which is worth no point.
    unchanged = kept and any(one.right for one in judged)
    told = "" if unchanged else "an argument is changed" if not kept else "no case is right"
    judged.append(Judged(UNCHANGED, unchanged, told))
    points = question.points * sum(one.right for one in judged) / len(judged)
    return Score(
        question.number, question.function, round(points, 2), question.points, tuple(judged)
    )


def check_options(seed: int, limit: float) -> None:
    """Raise ValueError for a seed below 0, or a limit that is not above 0."""
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    if not 0 < limit < float("inf"):
        raise ValueError(f"limit must be a finite number of seconds above 0, got {limit:g}")


def grade(path: Path, seed: int = 0, limit: float = 10.0) -> Grade:
    """Grade a notebook; a function that is wrong, crashes or never ends loses its own points.

    Args:
        path: the submission.
        seed: of the cases, >= 0.
        limit: seconds for all cases of a question.

    Raises ValueError for a file that is no notebook, or values that are out of range.
    """
    check_options(seed, limit)
    definitions = read_definitions(path)
    cases = {question.number: draw_cases(question, seed) for question in QUESTIONS}
    tasks = {question.number: (question.function, cases[question.number]) for question in QUESTIONS}
    answers = collect_answers(definitions, tasks, limit)
    scores = tuple(judge(q, cases[q.number], answers[q.number]) for q in QUESTIONS)
    points, of = (round(sum(getattr(s, name) for s in scores), 2) for name in ("points", "of"))
    return Grade(path.name, seed, points, int(of), scores)


def describe(graded: Grade) -> str:
    """A line for each question, and one for each case that is wrong."""
    lines = [f"{graded.submission}: {graded.points:g} of {graded.of} points"]
    for score in graded.questions:
        lines.append(f"  {score.question} {score.function}: {score.points:g} of {score.of}")
        wrong = [one for one in score.cases if not one.right]
        reasons = {one.told for one in wrong if one.case != UNCHANGED}
        if not score.points and len(reasons) == 1:
            lines.append(f"    {reasons.pop()}")
        else:
            lines += [f"    {one.case}: {one.told}" for one in wrong]
    return "\n".join(lines)


def save_grade(graded: Grade, path: Path) -> None:
    """Write a grade as JSON; nothing half-written is ever there."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(asdict(graded), indent=1) + "\n", encoding="utf-8")
