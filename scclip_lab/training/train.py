"""Train the bundled model on scenes and their captions; started again, it goes on where it stopped.

`python -m scclip_lab train` writes a checkpoint as it goes. The same seed gives the same scenes,
captions and changes at every step, whether or not the run was interrupted. No pixel label is ever
read here. What is unusual in this training, and why, is told in `data/mini/README.md`.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from scclip_core.files import atomic_write
from scclip_core.images import normalise
from scclip_lab.datasets.scenes import TRAIN
from scclip_lab.training.curriculum import Batch, Batches, Phase, phase_at
from scclip_lab.training.model import MEAN, STD, MiniCLIP, whitened_patches
from scclip_lab.training.plan import PATCH, draw_plan

RATE, WEIGHT_DECAY, WARM_UP = 2e-3, 0.05, 200
# The share of the steps before the last phase over which the learning rate falls to zero; in the
# last phase it falls again, from this factor on.
DECAY, AGAIN = 0.2, 0.3
# Of the exponential moving average of the weights, which is the model that is kept.
AVERAGE = 0.99
# The precision of the forward and backward pass; the weights themselves are float32.
COMPUTE = torch.bfloat16
# Steps between checkpoints.
EVERY = 250


def train(
    curriculum: tuple[Phase, ...], seed: int, checkpoint: Path
) -> tuple[MiniCLIP, list[dict]]:
    """Train from the checkpoint if there is one, else from the start.

    Matrices of the blocks are trained with Muon (Jordan et al. 2024), all else with AdamW. In the
    last of several phases the learning rate starts again.

    Args:
        curriculum: the phases, one after the other.
        seed: of scenes, captions, changes and first weights.
        checkpoint: file of the run, written every `EVERY` steps.

    Returns the moving average of the weights, and the training curve: for every checkpoint the
    step, the side of the scenes, the mean loss since the last one, and the hours it took. Raises
    ValueError for a checkpoint of another seed or number of steps.
    """
    torch.manual_seed(seed)
    batches = Batches(curriculum, seed)
    total = len(batches)
    model = MiniCLIP()
    optimizers = make_optimizers(model)
    last = curriculum[-1].steps if len(curriculum) > 1 else 0
    schedulers = [
        LambdaLR(o, lambda step: learning_rate(step, total - last, last)) for o in optimizers
    ]
    step, curve, run = 0, [], {"seed": seed, "steps": total}
    if not checkpoint.exists():
        sample = torch.cat([batches[s].images for s in range(min(4, curriculum[0].steps))])
        model.clip.visual.conv1.weight.data = whitened_patches(normalise(sample, MEAN, STD))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE))
    parts: dict[str, Any] = {"model": model, "average": average}
    parts |= {f"optimizer {i}": o for i, o in enumerate(optimizers)}
    parts |= {f"scheduler {i}": s for i, s in enumerate(schedulers)}
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if (saved["seed"], saved["steps"]) != (seed, total):
            of = f"seed {saved['seed']} and {saved['steps']} steps"
            raise ValueError(
                f"checkpoint must be of seed {seed} and {total} steps, {checkpoint} is of {of}: "
                f"remove it or choose another folder"
            )
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        step, curve = saved["step"], saved["curve"]
    began, recent = time.monotonic(), []
    for batch in tqdm(upcoming(batches, step), initial=step, total=total, mininterval=5):
        rng = np.random.default_rng((TRAIN, seed, step, 1))
        loss = loss_of(model, batch, rng, phase_at(curriculum, step).background)
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
        average.update_parameters(model)
        recent.append(loss.item())
        step += 1
        if step % EVERY == 0 or step == total:
            hours = (time.monotonic() - began) / 3600
            side = batch.images.shape[-1]
            row = {"step": step, "side": side, "loss": float(np.mean(recent)), "hours": hours}
            curve.append(row)
            began, recent = time.monotonic(), []
            states = {name: part.state_dict() for name, part in parts.items()}
            with atomic_write(checkpoint) as path:
                torch.save({**states, **run, "step": step, "curve": curve}, path)
            tqdm.write(f"step {step}  side {side}  loss {row['loss']:.3f}")
    averaged = average.module
    assert isinstance(averaged, MiniCLIP)
    return averaged, curve


def loss_of(
    model: MiniCLIP, batch: Batch, rng: np.random.Generator, background: float = 0.0
) -> torch.Tensor:
    """The loss of a batch, with changes drawn from `rng`, computed in `COMPUTE`.

    `background` is that of the phase.
    """
    plan = draw_plan(rng, batch.images.shape[-1] // PATCH, background)
    weights = {name: weight.to(COMPUTE) for name, weight in model.named_parameters()}
    images = normalise(batch.images, MEAN, STD).to(COMPUTE)
    inputs = (images, model.tokenize(batch.texts), batch.matches, plan)
    return functional_call(model, weights, inputs)


def make_optimizers(model: MiniCLIP) -> list[Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else."""
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if p.ndim == 2 and "resblocks" in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in named.values() if id(p) not in chosen]
    muon = Muon(matrices, lr=RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
    return [muon, AdamW(others, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)]


def learning_rate(step: int, main: int, last: int) -> float:
    """The factor on the learning rate of a run of `main` steps and `last` more.

    Linear warm-up, constant, linear to zero at the end of the main steps; then from `AGAIN` to
    zero.
    """
    if step < main or not last:
        return min(1.0, (step + 1) / WARM_UP, (main - step) / (DECAY * main))
    return AGAIN * (main + last - step) / last


def upcoming(batches: Batches, step: int) -> Iterator[Batch]:
    """The batches from `step` on, composed by a process of their own while the model trains."""
    steps = range(step, len(batches))
    loader = DataLoader(batches, batch_size=None, sampler=steps, num_workers=1, prefetch_factor=6)
    return iter(loader)


def train_bundled(curriculum: tuple[Phase, ...], seed: int, checkpoint: Path, out: Path) -> None:
    """Train, then write the model and its training curve, `curve.json`, into the folder `out`."""
    model, curve = train(curriculum, seed, checkpoint)
    model.export(out)
    with atomic_write(out / "curve.json") as path:
        path.write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
