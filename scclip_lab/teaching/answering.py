"""Calls the functions of a submission, in a process of its own.

It is a script, `python -I answering.py FOLDER NUMBER ...`, and imports nothing of this project.
It knows the arguments of the cases and no right answer; the process that judges never runs a line
of the submission.
"""

import contextlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

# What the submission has to do without: there the answers are for the taking.
CLOSED = ("scclip_core", "scclip_lab")


def main(folder: Path, numbers: list[str]) -> None:
    """Call the function of every question in `numbers`, and leave `NUMBER.pt` in the folder.

    The folder holds `source.json`, pairs of a name and the source of its definition, and
    `cases.pt`, number -> (function, case -> arguments). A file `ready` tells that time counts.
    """
    import torch

    torch.set_num_threads(1)
    tasks = torch.load(folder / "cases.pt", weights_only=True)
    sources = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(CLOSED))  # an import of them fails
    namespace: dict[str, Any] = {"__name__": "submission"}
    failed: dict[str, str] = {}
    for name, source in sources:
        try:
            exec(source, namespace)
        except Exception as error:
            failed[name] = f"cannot be defined: {type(error).__name__}: {error}"
    (folder / "ready").touch()
    for number in numbers:
        name, cases = tasks[number]
        function = namespace.get(name)
        if not callable(function):
            told = failed.get(name, f"{name} is not defined")
            answers = {case: {"error": told} for case in cases}
        else:
            answers = {case: call(function, arguments) for case, arguments in cases.items()}
        partial = folder / f"{number}.partial"
        torch.save(answers, partial)
        os.replace(partial, folder / f"{number}.pt")


def call(function: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The value that a function returns, and whether it left its arguments alone; or the error."""
    torch = importlib.import_module("torch")
    given = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    try:
        value = function(*given)
    except BaseException as error:  # sys.exit, too
        return {"error": f"raised {type(error).__name__}: {error}"[:300]}
    pairs = zip(given, arguments, strict=True)
    kept = all(torch.equal(a, b) for a, b in pairs if isinstance(b, torch.Tensor))
    if not isinstance(value, bool | int | float | torch.Tensor):
        with contextlib.suppress(Exception):  # arrays of numpy, and lists of numbers
            value = torch.as_tensor(value)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().as_subclass(torch.Tensor).clone()
    elif not isinstance(value, bool | int | float):
        return {"error": f"returned {type(value).__name__}, not a tensor or a number"}
    return {"value": value, "kept": kept}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
