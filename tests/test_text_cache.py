"""Text embeddings on disk: found again, never trusted when damaged, never needed."""

from pathlib import Path

import pytest
import torch
from open_clip.transformer import QuickGELU
from platformdirs import user_cache_path

from scclip_core import FrozenCLIP, text_cache
from scclip_core import text as text_module
from scclip_core.text import PROMPTS_ON_DISK, embed_names
from tests.conftest import tiny_clip

TEMPLATES = ("a photo of {}", "a drawing of {}")
NAMES = ["dog", "cat", "tree"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SCCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(text_module, "PROMPTS_ON_DISK", 6)
    return tmp_path / "cache"


def fresh(seed=0):
    return FrozenCLIP(tiny_clip(seed), "tiny")


def forbid(model, monkeypatch):
    def encode(*_):
        raise AssertionError("the text tower was run")

    monkeypatch.setattr(model, "encode_text", encode)


def test_a_second_run_reads_what_the_first_has_embedded(folder, monkeypatch):
    first = embed_names(fresh(), NAMES, TEMPLATES)
    assert len(list(folder.iterdir())) == 1
    again = fresh()
    forbid(again, monkeypatch)
    assert torch.equal(embed_names(again, NAMES, TEMPLATES), first)


def test_few_prompts_are_not_written(folder):
    embed_names(fresh(), NAMES[:2], TEMPLATES)
    assert not folder.exists()


def test_more_prompts_than_the_least_are_written_too(folder):
    embed_names(fresh(), [*NAMES, "sea"], TEMPLATES)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(("prompts", "files"), [(999, 0), (1000, 1)])
def test_a_thousand_prompts_are_worth_a_file(folder, monkeypatch, prompts, files):
    monkeypatch.setattr(text_module, "PROMPTS_ON_DISK", PROMPTS_ON_DISK)
    model = fresh()
    monkeypatch.setattr(model, "encode_text", lambda given: torch.ones(len(given), 24))
    embed_names(model, [f"thing {i}" for i in range(prompts)], ("{}",))
    assert len(list(folder.glob("*"))) == files


def test_the_users_own_cache_folder_is_the_default(monkeypatch):
    monkeypatch.delenv("SCCLIP_CACHE")
    assert text_cache.folder() == user_cache_path("scclip")
    monkeypatch.setenv("SCCLIP_CACHE", "elsewhere")
    assert text_cache.folder() == Path("elsewhere")


def test_other_weights_and_other_prompts_have_files_of_their_own(folder):
    one, other = embed_names(fresh(0), NAMES, TEMPLATES), embed_names(fresh(1), NAMES, TEMPLATES)
    embed_names(fresh(0), NAMES[::-1], TEMPLATES)
    assert not torch.allclose(one, other)
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_damaged_file_is_embedded_afresh(folder, content):
    expected = embed_names(fresh(), NAMES, TEMPLATES)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-9] if content is None else content)
    assert torch.equal(embed_names(fresh(), NAMES, TEMPLATES), expected)
    assert torch.equal(embed_names(fresh(), NAMES, TEMPLATES), expected)


def test_a_folder_that_cannot_be_made_is_no_error(folder):
    folder.write_text("a file stands here")
    assert embed_names(fresh(), NAMES, TEMPLATES).shape == (3, 24)


def test_another_activation_has_a_file_of_its_own(folder):
    clips = [tiny_clip(), tiny_clip()]
    for block in clips[1].transformer.resblocks:
        block.mlp.gelu = QuickGELU()
    files = {text_cache.file_for(FrozenCLIP(clip), ["dog"]) for clip in clips}
    assert len(files) == 2
