"""The commands of `python -m scclip_lab`: what they call, and one clear line for bad arguments.

What `evaluate` does is in `test_runs`, and the commands of the method itself are in `test_cli`.
"""

import subprocess
import sys

import pytest

from scclip_lab.cli import main

COMMANDS = (
    *("evaluate", "reproduce", "evaluate-mini", "figures", "tables"),
    *("bench", "notebooks", "train", "finetune", "distil"),
)


def test_help_reads_well_and_loads_no_heavy_library():
    code = (
        "import sys, scclip_lab.cli as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'open_clip', 'pandas', 'matplotlib', 'nbformat'}\n"
        "assert not heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_experiment_explains_its_options(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"python -m scclip_lab {command}" in capsys.readouterr().out


def test_figures_are_made_anew_and_drawn_from_stored_numbers(monkeypatch, tmp_path):
    from scclip_lab import studies
    from scclip_lab.studies import main_figures

    calls = []
    monkeypatch.setattr(main_figures, "make_figures", lambda *args: calls.append(args))
    monkeypatch.setattr(studies, "redraw_all", lambda *args: calls.append(args))
    assert main(["figures", "--quick", "--out", str(tmp_path / "out")]) == 0
    assert calls == [(tmp_path / "out", True), (tmp_path / "out",)]


def test_bench_stores_its_ratios_and_then_the_times_of_the_chapters(monkeypatch, tmp_path):
    import pandas as pd

    from scclip_lab.evaluation import timing
    from scclip_lab.studies import ch07_timing

    table = pd.DataFrame({"what": ["vanilla"], "ratio": [1.0], "processor": ["x"], "python": ["3"]})
    calls = []
    monkeypatch.setattr(timing, "bench_all", lambda repeats: calls.append(repeats) or table)
    monkeypatch.setattr(ch07_timing, "measure", lambda: calls.append("chapters"))
    assert main(["bench", "--repeats", "3", "--out", str(tmp_path)]) == 0
    assert calls == [3, "chapters"]
    assert (tmp_path / "bench.csv").is_file()


def test_training_gets_its_options(monkeypatch, tmp_path):
    import pandas as pd

    from scclip_lab.training import curriculum, distil, finetune, train

    calls = []
    monkeypatch.setattr(train, "train_bundled", lambda *args: calls.append(args))
    monkeypatch.setattr(finetune, "fine_tune_all", lambda *args: calls.append(args) or table)
    table = pd.DataFrame({"value": [1.0]})
    out, file = tmp_path / "out", tmp_path / "run.pt"
    options = ["--out", str(out), "--checkpoint", str(file), "--seed", "7"]
    assert main(["train", *options]) == 0
    options = ["--out", str(out), "--work", str(tmp_path), "--count", "5", "--seed", "8"]
    assert main(["finetune", *options]) == 0
    monkeypatch.setattr(distil, "distil_all", lambda *args: calls.append(args))
    assert main(["distil", "--out", str(out)]) == 0
    assert calls == [(curriculum.CURRICULUM, 7, file, out), (5, 8, out, tmp_path), (out,)]


@pytest.fixture
def notebooks(monkeypatch, tmp_path):
    """Two chapters that are not run; what would be done with them is noted."""
    from scclip_lab.studies import notebooks

    calls = []
    paths = [tmp_path / "01_first.ipynb", tmp_path / "02_second.ipynb"]
    monkeypatch.setattr(notebooks, "chapters", lambda: paths)
    monkeypatch.setattr(notebooks, "run", lambda *args: calls.append(args) or [])
    monkeypatch.setattr(notebooks, "write_manifest", lambda: calls.append("manifest"))
    monkeypatch.setenv("SCCLIP_FAST", "0")
    return paths, calls


def test_all_chapters_are_stored_with_a_manifest(notebooks):
    paths, calls = notebooks
    assert main(["notebooks"]) == 0
    assert calls == [(paths, True, 2), "manifest"]


def test_single_and_checked_chapters_leave_the_manifest_alone(notebooks):
    paths, calls = notebooks
    assert main(["notebooks", "02_second", "--jobs", "1"]) == 0
    assert main(["notebooks", "--check"]) == 0
    assert calls == [(paths[1:], True, 1), (paths, False, 2)]


def test_chapters_that_fail_are_listed(notebooks, monkeypatch, capsys):
    from scclip_lab.studies import notebooks as module

    monkeypatch.setattr(module, "run", lambda *args: ["01_first.ipynb: broken"])
    assert main(["notebooks"]) == 1
    assert "01_first.ipynb: broken" in capsys.readouterr().err
    assert not notebooks[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["03_third"], "NAME must be of 01_first, 02_second, got 03_third"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
    ],
)
def test_chapters_that_do_not_exist_get_one_line(notebooks, capsys, arguments, message):
    assert main(["notebooks", *arguments]) == 2
    assert message in capsys.readouterr().err
