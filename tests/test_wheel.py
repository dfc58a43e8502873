"""The wheel carries what the method needs, and works in an environment and a folder of its own."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scclip_core

ROOT = Path(__file__).parents[1]
RUNS_A_MODEL = 120  # seconds, on a busy machine


def run(*command: str | Path, cwd: Path, timeout: int = RUNS_A_MODEL) -> str:
    """Run a command without the repository on its path, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel as built from the sdist, so that what either of them lacks is seen."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel; for all else it reads the packages of the present one.

    Lines of a .pth file are put on the path behind the environment's own packages, and .pth files
    in those folders are not read: an editable install of this project is not to be seen.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    variables = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=variables))
    present = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "present.pth").write_text("\n".join(present), encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--python", folder)
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def scripts(installed) -> Path:
    variables = {"base": str(installed), "platbase": str(installed)}
    return Path(sysconfig.get_path("scripts", scheme="venv", vars=variables))


def test_the_wheel_carries_the_model_the_words_the_types_and_the_licences(wheel):
    assert wheel.name.startswith(f"scclip-{scclip_core.__version__}-py3-none-any")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("emoji", "mini", "queries"):
        for path in (ROOT / "data" / folder).rglob("*.*"):
            assert f"scclip_core/{path.relative_to(ROOT).as_posix()}" in names
    assert "scclip_core/data/queries/published/LICENSE" in names
    assert "scclip_core/data/mini/open_clip_model.safetensors" in names
    assert "scclip_core/data/published.csv" in names
    for package in ("scclip_core", "scclip_lab"):
        for path in (ROOT / package).rglob("*.py"):
            assert path.relative_to(ROOT).as_posix() in names
        assert f"{package}/py.typed" in names
    licences = {name.partition("/licenses/")[2] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "data/README.md"}


def test_the_wheel_carries_nothing_else(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"scclip_core", "scclip_lab"}


def test_an_installed_wheel_segments_a_picture_in_another_folder(installed, scripts, tmp_path):
    python = scripts / "python"
    where = run(python, "-c", "import scclip_core; print(scclip_core.__file__)", cwd=tmp_path)
    assert Path(where.strip()).resolve().is_relative_to(installed.resolve())
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    command = (python, "-m", "scclip_core", "segment", "picture.png")
    run(*command, "--classes", "dog, cat, grass", "--out", "out", cwd=tmp_path)
    assert Image.open(tmp_path / "out" / "picture_labels.png").size == (64, 48)


def test_the_wheel_installs_a_command(installed, scripts, tmp_path):
    assert "segment" in run(scripts / "scclip", "--help", cwd=tmp_path)


def test_the_method_alone_imports_no_plots_and_no_tables(tmp_path):
    modules = sorted(path.stem for path in (ROOT / "scclip_core").glob("[!_]*.py"))
    code = f"""
import sys, importlib
sys.path.insert(0, {str(ROOT)!r})
for name in {modules!r}:
    importlib.import_module("scclip_core." + name)
print(*{{name.split(".")[0] for name in sys.modules}})
"""
    imported = set(run(sys.executable, "-c", code, cwd=tmp_path).split())
    assert "scclip_core" in imported
    assert not imported & {"matplotlib", "seaborn", "pandas", "sklearn", "scclip_lab"}
