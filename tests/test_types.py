"""The package from outside: its names, what its import brings in, what a type checker sees."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scclip_core

ROOT = Path(__file__).parents[1]
PUBLIC = {
    "METHODS",
    "SCCLIP",
    "DenseCLIP",
    "FrozenCLIP",
    "Prediction",
    "SCCLIPConfig",
    "load_clip",
    "make_method",
}
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
)
needs_mypy = pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy")


def python(code: str) -> str:
    """Run code in a process of its own, and return what it prints."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Names and imports.


def test_the_public_names_are_listed_and_found():
    assert set(scclip_core.__all__) == PUBLIC
    assert set(dir(scclip_core)) >= PUBLIC
    for name in PUBLIC:
        assert getattr(scclip_core, name) is not None
    assert scclip_core.SCCLIP.__module__ == "scclip_core.pipeline"
    assert scclip_core.load_clip.__module__ == "scclip_core.loading"


def test_dir_names_everything_once_and_in_order():
    names = dir(scclip_core)
    assert names == sorted(set(names))


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'scclip_core' has no attribute 'load_klip'"):
        scclip_core.load_klip  # noqa: B018


def test_the_version_has_three_numbers():
    assert re.fullmatch(r"\d+\.\d+\.\d+", scclip_core.__version__)


def test_a_star_import_brings_the_public_names_alone():
    found = python("from scclip_core import *; print(*[n for n in dir() if n[0] != '_'])")
    assert set(found.split()) == PUBLIC


def test_importing_the_package_does_not_import_torch():
    python(
        "import sys, scclip_core, scclip_core.config, scclip_core.cli\n"
        "scclip_core.SCCLIPConfig, dir(scclip_core)\n"
        "assert not {'torch', 'open_clip', 'numpy', 'PIL'} & set(sys.modules)"
    )


def test_the_whole_package_imports_no_plots_and_no_tables():
    python(
        "import importlib, pkgutil, sys, scclip_core\n"
        "names = [m.name for m in pkgutil.iter_modules(scclip_core.__path__)]\n"
        "assert {'pipeline', 'cli', 'baselines', 'prediction'} <= set(names)\n"
        "for name in names:\n"
        "    if name != '__main__':\n"
        "        importlib.import_module(f'scclip_core.{name}')\n"
        "assert 'torch' in sys.modules\n"
        "heavy = {'matplotlib', 'seaborn', 'pandas', 'sklearn', 'scipy', 'scclip_lab'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )


# Types.


def mypy(*files: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "scclip_core", *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "scclip_core" / "py.typed").is_file()


@needs_mypy
def test_the_method_and_the_snippets_of_the_readme_type_check(tmp_path):
    assert BLOCKS
    files = [tmp_path / f"readme_{number}.py" for number in range(1, 1 + len(BLOCKS))]
    for file, block in zip(files, BLOCKS, strict=True):
        file.write_text(block, encoding="utf-8")
    done = mypy(*files)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_mypy
def test_a_type_checker_sees_through_the_lazy_imports(tmp_path):
    mistakes = tmp_path / "mistakes.py"
    mistakes.write_text(
        "from scclip_core import SCCLIP, SCCLIPConfig, load_clip, make_method\n"
        "model = load_clip(3)\n"
        "config = SCCLIPConfig(beta='0.4')\n"
        "segmenter = SCCLIP(model, {'beta': 0.5})\n"
        "prediction = make_method('gem', model).predict('a.png', ['dog'])\n"
        "prediction.lables\n"
        "segmenter.predict('a.png', 3)\n"
    )
    done = mypy(mistakes)
    assert done.returncode == 1, done.stdout + done.stderr
    wrong = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert wrong == {2, 3, 4, 6, 7}, done.stdout
