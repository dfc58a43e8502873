"""What labels buy: the bundled model fine-tuned on labelled scenes, a linear head or all of it.

`python -m scclip_lab finetune` trains every row, goes on where it was stopped, and writes
`figures/09_finetuned.csv`. Nothing else in the project is trained on pixel labels.
"""

import copy
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from tqdm import tqdm

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.files import atomic_write
from scclip_core.loading import load_clip
from scclip_core.segmentation import label_map
from scclip_lab.datasets.scenes import STYLES, TEST, TRAIN, WORDS, Scene, make_scene
from scclip_lab.evaluation.metrics import interval, mean_iou, paired_interval
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, score_methods, stack_images
from scclip_lab.evaluation.runner import weights_hash
from scclip_lab.plots import save_table

# The layers that SC-CLIP reads at depth 12; the head reads them too.
LAYERS = (3, 8, 10)
# Numbers of labelled scenes.
AMOUNTS = (10, 100, 1000)
# What is trained -> learning rate: the best of three on 60 validation scenes, 100 labelled ones.
RATES = {"linear head": 3e-3, "whole image tower": 1e-3}
TOWER_STEPS = {10: 150, 100: 400, 1000: 2000}
HEAD_STEPS = 1500
# Scenes in a step.
BATCH = 8
# Of the labelled scenes, and of the order in which they are seen.
SEED = 11
# Steps between checkpoints.
EVERY = 50


class FineTunedCLIP(nn.Module):
    """A copy of an image tower with a linear head on the patch tokens of three layers.

    The tokens of each layer are normalised (each to mean 0 and variance 1) and concatenated, so
    the head is a linear map from 3 C dimensions to the words of the scenes.
    """

    def __init__(self, model: FrozenCLIP):
        super().__init__()
        self.model = copy.deepcopy(model)
        self.head = nn.Linear(len(LAYERS) * model.width, len(WORDS))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def tokens(self, images: Tensor) -> Tensor:
        """What the head reads, [B, 3, H, W] -> [B, N, 3 C]."""
        tokens, layers = self.model.embed(images), []
        for i, block in enumerate(self.model.blocks[: LAYERS[-1] + 1]):
            tokens = block(tokens)
            if i in LAYERS:
                layers.append(F.layer_norm(tokens[:, 1:], tokens.shape[2:]))
        return torch.cat(layers, -1)

    @torch.no_grad()
    def segment(self, images: Tensor, classes: tuple[str, ...]) -> Tensor:
        """Label maps at image size, [B, 3, H, W] -> int64 [B, H, W].

        Raises ValueError for classes other than the words of the scenes, which it was trained on.
        """
        if tuple(classes) != WORDS:
            raise ValueError("classes must be the words of the scenes, all that this model knows")
        grid = self.model.grid_of(images)
        logits = self.head(self.tokens(images)).unflatten(1, grid)  # [B, rows, cols, words]
        return label_map(logits, images.shape[2:])


def labelled_scene(number: int) -> Scene:
    """Labelled scene `number`, in the training styles; no evaluation uses it."""
    return make_scene(np.random.default_rng((TRAIN, SEED, number)))


def patch_targets(scenes: list[Scene], patch: int) -> Tensor:
    """The share of each patch that each word fills, [B, N, words]."""
    labels = torch.from_numpy(np.stack([scene.labels for scene in scenes])).long()  # [B, H, W]
    one_hot = F.one_hot(labels, len(WORDS)).movedim(-1, 1).float()  # [B, words, H, W]
    return F.avg_pool2d(one_hot, patch).flatten(2).mT


def fine_tune(
    model: FrozenCLIP, part: str, amount: int, checkpoint: Path, steps: int | None = None
) -> FineTunedCLIP:
    """Train one row of the table, going on from `checkpoint`, which is written every `EVERY` steps.

    The loss is the cross entropy of every patch with the shares of the words in it; the optimizer
    is AdamW, with a learning rate that falls to zero along a cosine; with the whole tower, scenes
    are mirrored at random.

    Args:
        model: the model to start from. It is not changed.
        part: what is trained, "linear head" or "whole image tower".
        amount: number of labelled scenes, >= 1.
        checkpoint: file of the run.
        steps: number of steps (default: as in the table).

    Raises ValueError for another part, no scenes, or a checkpoint that began from another model.
    """
    if part not in RATES or amount < 1:
        allowed = ", ".join(RATES)
        raise ValueError(f"part must be of {allowed} and amount >= 1, got {part!r}, {amount}")
    whole = part == "whole image tower"
    if steps is None:
        steps = TOWER_STEPS.get(amount, TOWER_STEPS[1000]) if whole else HEAD_STEPS
    tuned = FineTunedCLIP(model)
    tuned.model.visual.requires_grad_(whole)
    trained = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATES[part], weight_decay=0.01)
    scheduler = CosineAnnealingLR(optimizer, steps)
    done, start = 0, weights_hash(model)
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["start"] != start:
            raise ValueError(
                f"checkpoint must hold a run that began from this model, "
                f"{checkpoint} began from another: remove it"
            )
        tuned.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        done = saved["step"]
    if done < steps:
        batches = _Batches(tuned, amount, whole)
        for step in tqdm(range(done, steps), f"{part}, {amount} scenes", initial=done, total=steps):
            tokens, targets = batches(step)
            loss = F.cross_entropy(tuned.head(tokens).flatten(0, 1), targets.flatten(0, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            if (step + 1) % EVERY == 0 or step + 1 == steps:
                state = {
                    "model": tuned.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "step": step + 1,
                    "start": start,
                }
                with atomic_write(checkpoint) as partial:
                    torch.save(state, partial)
    tuned.model.visual.requires_grad_(False)
    return tuned


class _Batches:
    """Tokens [B, N, 3 C] and targets [B, N, words] of a step, which depend on its number alone.

    With a frozen tower, the tokens of all scenes are computed once.
    """

    def __init__(self, tuned: FineTunedCLIP, amount: int, whole: bool):
        self.tuned, self.whole = tuned, whole
        inputs, targets = [], []
        for start in tqdm(range(0, amount, BATCH), desc="labelled scenes", leave=False):
            scenes = [labelled_scene(i) for i in range(start, min(start + BATCH, amount))]
            images = stack_images(tuned.model, scenes)
            targets.append(patch_targets(scenes, tuned.model.patch_size))
            if whole:
                inputs.append(images)
            else:
                with torch.no_grad():
                    inputs.append(tuned.tokens(images))
        self.inputs, self.targets = torch.cat(inputs), torch.cat(targets)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((SEED, step))
        count = len(self.targets)
        chosen = torch.from_numpy(rng.choice(count, min(BATCH, count), replace=False))
        inputs, targets = self.inputs[chosen], self.targets[chosen]
        if not self.whole:
            return inputs, targets
        if rng.random() < 0.5:
            grid = self.tuned.model.grid_of(inputs)
            inputs, targets = inputs.flip(3), targets.unflatten(1, grid).flip(2).flatten(1, 2)
        return self.tuned.tokens(inputs), targets


def score_rows(
    model: FrozenCLIP, tuned: dict[tuple[str, int], FineTunedCLIP], count: int, seed: int
) -> pd.DataFrame:
    """Scores of every row on test scenes, objects and background apart, and SC-CLIP's lead in mIoU.

    `tuned` maps (part, number of labelled scenes) to a model; `count` test scenes of each style
    are drawn with `seed`.
    """
    names = ("vanilla", "maskclip", "values", "scclip")
    methods = {(name, 0): make_method(name, model) for name in names} | tuned
    rows = []
    for style in STYLES:
        counted = score_methods(methods, style, count, seed, TEST)
        for (part, amount), counts in counted.items():
            row = (part, amount, style)
            for measure, statistic in MEAN_AND_PARTS.items():
                rows.append((*row, measure, *interval(counts, statistic, seed)))
            difference = paired_interval(counted["scclip", 0], counts, mean_iou, seed)
            rows.append((*row, "SC-CLIP minus this", *difference))
    columns = ["trained", "labelled scenes", "styles", "measure", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def fine_tune_all(count: int, seed: int, out: Path, work: Path) -> pd.DataFrame:
    """Train every row with checkpoints in `work`, and write `09_finetuned.csv` into `out`.

    `count` test scenes of each style are drawn with `seed`. Raises ValueError for fewer than 2.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2 scenes, got {count}")
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(os.cpu_count() or 1)
    model = load_clip("mini")
    tuned = {}
    for part in RATES:
        for amount in AMOUNTS:
            checkpoint = work / f"{part.replace(' ', '_')}_{amount}.pt"
            tuned[part, amount] = fine_tune(model, part, amount, checkpoint)
    table = score_rows(model, tuned, count, seed)
    save_table(table, "09_finetuned", out)
    return table
