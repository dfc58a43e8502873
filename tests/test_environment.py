"""The two descriptions of the environment, for pip and for conda, say the same."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_conda_and_pip_ask_for_the_same_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines()
    pip = [line.strip().removeprefix("- ") for line in lines[lines.index("  - pip:") + 1 :] if line.strip()]
    assert sorted(pip) == sorted(project["dependencies"])
    assert f"  - python{project['requires-python']}" in lines
