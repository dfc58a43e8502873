"""`scclip`: the model that its options ask for, and help that says how a command is written."""

import subprocess
import sys

import pytest
import torch

from scclip_core import cli, loading
from scclip_core.cli import load_model

# loading


def arguments(*options):
    return cli.build_parser().parse_args(["info", *options])


def test_the_bundled_model_in_single_precision_on_the_cpu_is_the_default():
    model = load_model(arguments())
    assert (model.name, model.dtype, model.device.type) == ("mini", torch.float32, "cpu")


def test_model_weights_and_precision_are_handed_on():
    options = ("--model", "ViT-B/32", "--pretrained", "random", "--precision", "bf16")
    model = load_model(arguments(*options))
    assert (model.name, model.patch_size, model.dtype) == ("ViT-B-32", 32, torch.bfloat16)


def test_a_gpu_that_is_not_there_is_told(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["info", "--device", "cuda:1"]) == 2
    told = capsys.readouterr().err
    assert "--device must be cpu on this machine, which has no usable GPU, got cuda:1" in told


@pytest.mark.parametrize(
    ("given", "rank", "used"),
    [
        ("cuda", "3", "cuda:3"),
        ("cuda", None, "cuda"),
        ("cuda:1", "3", "cuda:1"),
        ("cpu", "3", "cpu"),
    ],
)
def test_each_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch, given, rank, used):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loading, "load_clip", lambda *options: options)
    if rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert load_model(arguments("--device", given)) == ("mini", None, "fp32", used)


# help


@pytest.mark.parametrize("wrong", [["segment"], ["segment", "a.png"], ["walk"], []])
def test_a_command_line_that_cannot_be_read_says_how_to_write_it(wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(wrong)
    assert stop.value.code == 2
    assert "usage: scclip" in capsys.readouterr().err


def test_help_reads_well_and_loads_no_torch():
    code = (
        "import sys, scclip_core.cli as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: scclip")
    for command in ("segment", "trace", "info"):
        assert command in done.stdout


def test_the_package_is_the_command():
    command = [sys.executable, "-m", "scclip_core", "segment", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: scclip segment")
    assert "--classes" in done.stdout
