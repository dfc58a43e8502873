"""Training the bundled model: its start, steps that learn, runs that go on, and its export."""

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from tqdm import tqdm

from scclip_core import FrozenCLIP
from scclip_core.images import normalise
from scclip_lab.datasets.scenes import BACKGROUNDS, WORDS
from scclip_lab.training import train as training
from scclip_lab.training.model import MEAN, STD, MiniCLIP, sine_positions, whitened_patches
from scclip_lab.training.train import learning_rate, loss_of, make_optimizers, train
from tests.short_training import SHORT, lively_model, short_batches


@pytest.fixture(scope="module")
def batches():
    return short_batches()


@pytest.fixture(scope="module")
def model():
    return lively_model()


def test_positions_are_unlike_each_other():
    positions = sine_positions(14, 192)
    assert positions.shape == (196, 192)
    assert torch.unique(positions, dim=0).shape[0] == 196


def test_the_first_patch_embedding_gives_outputs_of_equal_spread(batches):
    sample = normalise(torch.cat([batches[s].images for s in range(3)]), MEAN, STD)
    out = F.conv2d(sample, whitened_patches(sample), stride=16).movedim(1, -1).flatten(0, 2)
    strongest = out[:, -20:].std(0)
    assert ((strongest > 0.3) & (strongest < 0.7)).all()


def test_queries_and_keys_of_the_last_block_start_as_nearly_the_same():
    torch.manual_seed(0)
    last = MiniCLIP().clip.visual.transformer.resblocks[-1]
    q, k = last.attn.in_proj_weight[:192], last.attn.in_proj_weight[192:384]
    for weight in (q, k):
        assert (weight.diagonal().mean() - 0.8).abs() < 0.02
        assert (weight - torch.diag(weight.diagonal())).std() < 0.03


def test_every_word_is_in_the_vocabulary():
    mini = MiniCLIP()
    for word in (*WORDS, *BACKGROUNDS):
        assert torch.isin(mini.tokenizer(f"a photo of {word}"), mini.vocabulary).all()


def test_matrices_of_the_blocks_are_muons_and_every_weight_is_trained_once(model):
    muon, adamw = make_optimizers(MiniCLIP())
    counts = [sum(p.numel() for g in o.param_groups for p in g["params"]) for o in (muon, adamw)]
    assert sum(counts) == sum(p.numel() for p in model.parameters())
    assert all(p.ndim == 2 for g in muon.param_groups for p in g["params"])


def test_the_learning_rate_warms_up_stays_and_falls_to_zero():
    rates = [learning_rate(step, 10_000, 0) for step in range(10_001)]
    assert rates[0] == pytest.approx(1 / training.WARM_UP)
    assert rates[training.WARM_UP : 7000] == [1.0] * (7000 - training.WARM_UP)
    assert rates[-1] == 0 and rates[-2] > 0
    assert rates[7000:] == sorted(rates[7000:], reverse=True)
    again = [learning_rate(step, 10_000, 500) for step in range(10_501)]
    assert again[:10_000] == rates[:10_000]
    assert again[10_000] == training.AGAIN and again[-1] == 0
    assert again[10_000:] == sorted(again[10_000:], reverse=True)


def test_a_few_steps_lower_the_loss(batches):
    torch.manual_seed(0)
    mini, rng = MiniCLIP(), np.random.default_rng(0)
    optimizers = make_optimizers(mini)
    losses = []
    for _ in range(12):
        loss = loss_of(mini, batches[0], np.random.default_rng(rng.integers(3)))
        mini.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.5


def test_a_run_that_was_cut_goes_on_to_the_same_model(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "EVERY", 2)
    whole, _ = train(SHORT, 5, tmp_path / "whole.pt")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tqdm, "write", stop)  # right after the first checkpoint
        train(SHORT, 5, tmp_path / "cut.pt")
    resumed, curve = train(SHORT, 5, tmp_path / "cut.pt")
    for (name, a), (_, b) in zip(
        whole.state_dict().items(), resumed.state_dict().items(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6), name
    assert [point["step"] for point in curve] == [2, 4, 6]
    assert not list(tmp_path.glob(".partial-*"))


def test_a_checkpoint_of_another_run_is_not_gone_on_with(tmp_path):
    train(SHORT, 5, tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"of seed 6 and 6 steps, .* is of seed 5 and 6 steps"):
        train(SHORT, 6, tmp_path / "run.pt")


def test_the_moving_average_is_kept_and_the_rate_follows_its_schedule(tmp_path):
    kept, _ = train(SHORT, 5, tmp_path / "run.pt")
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    assert saved["average"]["n_averaged"] == saved["step"] == 6
    for name, value in kept.state_dict().items():
        assert torch.equal(value, saved["average"][f"module.{name}"]), name
    name = "clip.logit_scale"
    assert not torch.equal(saved["average"][f"module.{name}"], saved["model"][name])
    for i in range(2):
        (group,) = saved[f"optimizer {i}"]["param_groups"]
        assert group["lr"] == training.RATE * learning_rate(6, 3, 3) == 0


def test_the_export_loads_with_open_clip_embeds_alike_and_is_small(tmp_path):
    torch.manual_seed(0)
    mini = MiniCLIP()
    mini.export(tmp_path)
    loaded = FrozenCLIP(open_clip.create_model(f"local-dir:{tmp_path}"))
    prompts = ["a photo of dog", "grass", "a photo of an ice cream"]
    ours = mini.encode_text(mini.tokenize(prompts))
    assert torch.allclose(loaded.encode_text(prompts), ours, atol=2e-2)
    table = loaded.clip.token_embedding.weight
    assert (table.any(1).nonzero().flatten() == mini.vocabulary).all()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 20e6
