"""Loading: what fits is loaded, the rest is refused by name, and no code in a file is executed."""

import json
import logging
import pickle
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from scclip_core import FrozenCLIP, load_clip
from scclip_core.loading import load_folder
from tests.conftest import TEXT, VISION, tiny_clip

ARCHITECTURE = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}


@pytest.fixture(scope="module", autouse=True)
def tiny_architecture(tmp_path_factory):
    """open_clip knows the tiny architecture by name, plain and with QuickGELU."""
    folder = tmp_path_factory.mktemp("configs")
    (folder / "tiny-16.json").write_text(json.dumps(ARCHITECTURE))
    (folder / "tiny-16-quickgelu.json").write_text(json.dumps({**ARCHITECTURE, "quick_gelu": True}))
    (folder / "no-class-token.json").write_text(
        json.dumps({**ARCHITECTURE, "vision_cfg": {**VISION, "pool_type": "avg"}})
    )
    open_clip.add_model_config(folder)


@pytest.fixture
def weights(tmp_path) -> Path:
    file = tmp_path / "tiny.safetensors"
    save_file(
        {name: tensor.contiguous() for name, tensor in tiny_clip().state_dict().items()}, file
    )
    return file


def activation(model: FrozenCLIP) -> type:
    return type(model.blocks[0].mlp.gelu)


def test_a_safetensors_file_and_a_checkpoint_load_the_same(tmp_path, weights, images):
    checkpoint = tmp_path / "tiny.pt"
    torch.save({"state_dict": tiny_clip().state_dict()}, checkpoint)
    a, b = load_clip("tiny-16", weights), load_clip("tiny-16", checkpoint)
    assert torch.equal(a.embed(images), b.embed(images))
    assert torch.equal(a.visual.proj, tiny_clip().visual.proj)


def test_random_weights_must_be_asked_for(images):
    assert load_clip("tiny-16", "random").depth == 12
    with pytest.raises(ValueError, match="pretrained must be given for tiny-16"):
        load_clip("tiny-16")


def test_openai_weights_get_quickgelu_by_name_file_or_record(tmp_path, weights, monkeypatch):
    assert activation(load_clip("tiny-16", weights)) is torch.nn.GELU
    assert activation(load_clip("tiny-16-quickgelu", weights)) is QuickGELU
    named = weights.rename(tmp_path / "vit_openai.safetensors")
    assert activation(load_clip("tiny-16", named)) is QuickGELU
    asked = {}

    def create(name, pretrained=None, **options):
        asked.update(options, pretrained=pretrained)
        return tiny_clip()

    monkeypatch.setattr(open_clip, "create_model", create)
    load_clip("ViT-B-16", "openai")
    assert asked == {"pretrained": "openai", "force_quick_gelu": True, "cache_dir": None}
    load_clip("ViT-B-16", "laion2b_s34b_b88k")
    assert asked["force_quick_gelu"] is False


def test_downloads_go_to_the_folder_asked_for(tmp_path, monkeypatch):
    asked = {}

    def create(name, **options):
        asked.update(options, name=name)
        return tiny_clip()

    monkeypatch.setattr(open_clip, "create_model", create)
    load_clip("ViT-B/16", "openai", cache_dir=tmp_path)
    assert asked["cache_dir"] == str(tmp_path)
    assert asked["name"] == "ViT-B-16"


def test_a_name_may_be_written_with_the_slash_of_its_paper():
    assert load_clip("tiny/16", "random").name == "tiny-16"


def test_without_a_network_one_message_says_what_to_do(monkeypatch):
    def create(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(RuntimeError) as error:
        load_clip("ViT-B-16", "openai")
    for part in (
        "ViT-B-16 / openai could not be downloaded",
        "give its path as pretrained",
        ".safetensors",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ViT-B16", "got 'ViT-B16'; near it: .*ViT-B-16"),
        ("RN50", "RN50 is a ResNet"),
        ("ViT-B-16-SigLIP", "timm .vit_base_patch16_siglip_224. that pools by attention"),
        ("PE-Core-B-16", "timm .vit_pe_core_base_patch16_224. that pools by attention"),
        ("coca_ViT-B-32", "coca_ViT-B-32 reads the image through a pooler of learned queries"),
        ("coca_base", "coca_base is no plain CLIP: it has a text decoder"),
        ("roberta-ViT-B-32", "roberta-ViT-B-32 is no plain CLIP: its text tower is one of Hugging"),
        ("EVA02-B-16", "timm .eva02_base.* blocks turn queries and keys by their positions"),
        ("MobileCLIP-B", "timm .vit_base_mci_224., whose blocks keep their weights elsewhere"),
        ("ViTamin-B", "timm .vitamin_base_224. without plain ViT blocks over one grid"),
        ("vit_relpos_medium_patch16_cls_224", "adds relative positions"),
        ("vit_medium_patch16_gap_256", "timm .* without a class token that is read"),
        ("ViT-L-14-worldwide", "no plain CLIP: it has a tokenizer of Hugging Face"),
        ("ViT-L-14-CLIPA", "has no class token that is read: the image is the mean of its patches"),
        ("no-class-token", "no-class-token has no class token"),
        (3, "name must be mini or an open_clip ViT, got 3"),
    ],
)
def test_other_models_are_refused_by_name(name, told):
    with pytest.raises(ValueError, match=told):
        load_clip(name, "random")


@pytest.mark.parametrize("pretrained", ["no-such-tag", "missing.pt"])
def test_an_unknown_tag_lists_those_that_exist(pretrained):
    with pytest.raises(ValueError, match=rf"laion2b_s34b_b88k.*got '{pretrained}'"):
        load_clip("ViT-B-16", pretrained)


def test_weights_of_another_architecture_are_refused_with_what_differs(tmp_path):
    file = tmp_path / "wide.safetensors"
    save_file({k: v.contiguous() for k, v in tiny_clip(width=96).state_dict().items()}, file)
    with pytest.raises(
        ValueError, match=r"must hold the weights of tiny-16.*needed \(64,\).*in all"
    ):
        load_clip("tiny-16", file)


def test_truncated_files_are_refused(tmp_path, weights):
    checkpoint = tmp_path / "tiny.pt"
    torch.save(tiny_clip().state_dict(), checkpoint)
    for file in (weights, checkpoint):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(ValueError, match="must be a file of plain tensors"):
            load_clip("tiny-16", file)


@pytest.mark.parametrize("content", [b"", b"hello, I am text", b"\x80\x04\x95"])
def test_files_that_are_no_weights_are_refused(tmp_path, content):
    file = tmp_path / "odd.pt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="pretrained must"):
        load_clip("tiny-16", file)


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_code_in_a_file_is_not_executed(tmp_path, save):
    target, file = tmp_path / "executed", tmp_path / "evil.pt"
    if save == "torch":
        torch.save({"state_dict": Evil(target)}, file)
    else:
        file.write_bytes(pickle.dumps(Evil(target)))
    with pytest.raises(ValueError, match="pretrained must be a file of plain tensors"):
        load_clip("tiny-16", file)
    assert not target.exists()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = {name: tensor.contiguous() for name, tensor in tiny_clip().state_dict().items()}
    state["visual.proj"] = state["visual.proj"].clone().fill_(torch.nan)
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match=r"finite weights.*visual\.proj"):
        load_clip("tiny-16", tmp_path / "nan.safetensors")


def test_a_list_is_no_dictionary_of_tensors(tmp_path):
    torch.save([1, 2, 3], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="pretrained must"):
        load_clip("tiny-16", tmp_path / "list.pt")


def test_the_bundled_layout_loads_here_and_by_open_clip_alone(tmp_path, images, caplog):
    state = {name: tensor.half().contiguous() for name, tensor in tiny_clip().state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    words = ["dog", "cat"]
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": ARCHITECTURE, "preprocess_cfg": {}, "words": words})
    )
    with caplog.at_level(logging.WARNING):
        ours = load_folder(tmp_path)
    assert not caplog.records
    theirs = FrozenCLIP(open_clip.create_model(f"local-dir:{tmp_path}"))
    assert ours.dtype == torch.float32
    assert torch.equal(ours.embed(images), theirs.embed(images))
    assert ours.words == ("dog", "cat") and theirs.words == ()


def test_a_missing_bundled_model_is_told(tmp_path):
    with pytest.raises(RuntimeError, match=r"bundled model is missing: .*model\.safetensors"):
        load_folder(tmp_path)
    (tmp_path / "open_clip_model.safetensors").touch()
    with pytest.raises(RuntimeError, match=r"bundled model is missing: .*config\.json"):
        load_folder(tmp_path)
    with pytest.raises(ValueError, match="pretrained must be left out for mini"):
        load_clip("mini", "openai")


def test_positions_of_the_trained_grid_are_the_table_itself(model):
    assert model.positions((8, 8)) is model.visual.positional_embedding
    assert model.positions((4, 10)).shape == (41, 64)
    assert torch.equal(model.positions((4, 10))[0], model.visual.positional_embedding[0])


def test_other_modules_are_refused():
    told = r"model must be an open_clip CLIP, got Linear; load one with load_clip\("
    with pytest.raises(TypeError, match=told):
        FrozenCLIP(torch.nn.Linear(2, 2))
    for pooling in ({"pool_type": "avg"}, {"attentional_pool": True}):
        with pytest.raises(
            ValueError, match="class token through plain attention, custom does not"
        ):
            FrozenCLIP(tiny_clip(**pooling))
    vision = CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, head_width=8, image_size=32)
    resnet = CLIP(24, vision, CLIPTextCfg(**TEXT))
    with pytest.raises(ValueError, match="ViT image tower, small has a ModifiedResNet"):
        FrozenCLIP(resnet, "small")
