"""Weights files in detail: what may lie beside the weights, which names mean QuickGELU, dtypes."""

import json

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from scclip_core import load_clip
from tests.conftest import TEXT, VISION, tiny_clip


@pytest.fixture(scope="module", autouse=True)
def small_architecture(tmp_path_factory):
    """open_clip knows a small architecture by name."""
    file = tmp_path_factory.mktemp("configs") / "small-16.json"
    file.write_text(json.dumps({"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}))
    open_clip.add_model_config(file)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in tiny_clip().state_dict().items()}


def test_the_numbers_that_openai_saves_beside_its_weights_are_allowed(tmp_path, state):
    beside = {
        name: torch.tensor(128) for name in ("input_resolution", "context_length", "vocab_size")
    }
    save_file({**state, **beside}, tmp_path / "weights.safetensors")
    assert torch.equal(
        load_clip("small-16", tmp_path / "weights.safetensors").visual.proj, state["visual.proj"]
    )


def test_a_tensor_that_the_model_has_no_place_for_is_refused(tmp_path, state):
    save_file({**state, "decoder.weight": torch.zeros(2)}, tmp_path / "more.safetensors")
    with pytest.raises(ValueError, match=r"decoder\.weight not known \(1 in all\)"):
        load_clip("small-16", tmp_path / "more.safetensors")


def test_a_tensor_that_is_missing_is_named(tmp_path, state):
    del state["visual.ln_post.bias"]
    save_file(state, tmp_path / "fewer.safetensors")
    with pytest.raises(
        ValueError, match=r"visual\.ln_post\.bias missing, needed \(64,\) \(1 in all\)"
    ):
        load_clip("small-16", tmp_path / "fewer.safetensors")


def test_a_refused_file_stays_as_it_is(tmp_path, state):
    file = tmp_path / "more.safetensors"
    save_file({**state, "decoder.weight": torch.zeros(2)}, file)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="not known"):
        load_clip("small-16", file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ViT-OpenAI.safetensors", QuickGELU), ("ViT-laion.safetensors", torch.nn.GELU)],
)
def test_the_files_own_name_alone_chooses_the_activation(tmp_path_factory, state, name, kind):
    folder = tmp_path_factory.mktemp("from-openai")  # the folder's name says nothing of the weights
    save_file(state, folder / name)
    model = load_clip("small-16", folder / name)
    assert {type(block.mlp.gelu) for block in model.blocks} == {kind}
    assert {type(block.mlp.gelu) for block in model.clip.transformer.resblocks} == {kind}


def test_the_activation_changes_what_the_model_sees(tmp_path, state, images):
    for name in ("openai.safetensors", "other.safetensors"):
        save_file(state, tmp_path / name)
    quick, plain = (
        load_clip("small-16", tmp_path / f"{n}.safetensors").visual(images)
        for n in ("openai", "other")
    )
    assert not torch.allclose(quick, plain, atol=1e-4)


PRECISIONS = {
    "fp32": torch.float32,
    "fp64": torch.float64,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_is_loaded_in_the_precision_asked_for(precision):
    model = load_clip("small-16", "random", precision)
    assert {p.dtype for p in model.parameters()} == {PRECISIONS[precision]}
    assert model.dtype == PRECISIONS[precision]


def test_single_precision_is_the_default():
    assert load_clip("small-16", "random").dtype == torch.float32
    assert load_clip("mini").dtype == torch.float32


@pytest.mark.parametrize("precision", ["float32", torch.float16, None])
def test_another_precision_is_refused_before_anything_is_loaded(precision, monkeypatch):
    monkeypatch.setattr(open_clip, "create_model", pytest.fail)
    with pytest.raises(ValueError, match="precision must be one of fp32, fp64, fp16, bf16, got"):
        load_clip("small-16", "random", precision)


def test_a_model_is_loaded_on_the_device_asked_for():
    assert load_clip("small-16", "random", device="meta").device == torch.device("meta")


@pytest.mark.parametrize("error", [OSError, ConnectionError, RuntimeError])
def test_every_way_in_which_a_download_fails_gives_the_same_message(monkeypatch, error):
    def create(*_, **__):
        raise error("no network")

    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(
        RuntimeError, match=rf"ViT-L-14 / openai could not be downloaded \({error.__name__}\)"
    ):
        load_clip("ViT-L-14", "openai")
