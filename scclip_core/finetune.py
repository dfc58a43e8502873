"""What labels buy: the bundled model fine-tuned on N labelled scenes, a head alone or all of it.

`python -m scclip_core.finetune` trains every row, goes on where it was stopped, and writes
`figures/09_finetuned.csv`. Nothing else in the project is trained on pixel labels.
"""

import argparse
import copy
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from scclip_core.clip import FrozenCLIP, load_clip
from scclip_core.evaluation import dense, stack_images
from scclip_core.files import DATA, atomic_write
from scclip_core.methods import make_method
from scclip_core.metrics import interval, mean_iou, paired_interval, pixel_accuracy
from scclip_core.pipeline import upsample
from scclip_core.plots import save_table
from scclip_core.runs import weights_hash
from scclip_core.scenes import STYLES, TEST, TRAIN, WORDS, Scene, make_scene

LAYERS = (3, 8, 10)  # the layers that SC-CLIP reads at depth 12
AMOUNTS = (10, 100, 1000)  # labelled scenes
STEPS = {"linear head": 1500, "whole image tower": {10: 150, 100: 400, 1000: 2000}}
RATES = {"linear head": 3e-3, "whole image tower": 1e-3}  # best of three on 60 validation scenes, N = 100
WAYS = tuple(RATES)
BATCH = 8  # scenes a step
SEED = 11  # of the labelled scenes and of the order in which they are seen
EVERY = 50  # steps between checkpoints


class Tuned(nn.Module):
    """An image tower with a linear head on the patch tokens of three layers; `segment` as SC-CLIP's.

    Each layer's tokens are normalised (mean 0, variance 1 a token) and joined, so the head is [3 C -> words].
    """

    def __init__(self, model: FrozenCLIP):
        super().__init__()
        self.model = copy.deepcopy(model)  # the model given stays as it is
        self.head = nn.Linear(len(LAYERS) * model.width, len(WORDS))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def tokens(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, N, 3 C]"""
        tokens, found = self.model.embed(images), []
        for i, block in enumerate(self.model.blocks[: LAYERS[-1] + 1]):
            tokens = block(tokens)
            if i in LAYERS:
                found.append(F.layer_norm(tokens[:, 1:], tokens.shape[2:]))
        return torch.cat(found, -1)

    @torch.no_grad()
    def segment(self, images: Tensor, classes: tuple[str, ...]) -> Tensor:
        """Label maps at image size, int64 [B, H, W]; the words are those it was trained on."""
        if tuple(classes) != WORDS:
            raise ValueError("classes must be the words of the scenes, which are all that this model knows")
        logits = self.head(self.tokens(images)).unflatten(1, self.model.check_images(images))
        return upsample(logits, images.shape[2:]).argmax(1)


def labelled_scene(number: int) -> Scene:
    """Labelled scene `number`, in the training styles; no evaluation draws it."""
    return make_scene(np.random.default_rng((TRAIN, SEED, number)))


def shares(scenes: list[Scene], patch: int) -> Tensor:
    """Which share of every patch each word fills, [B, N, words]."""
    labels = torch.from_numpy(np.stack([scene.labels for scene in scenes])).long()
    return F.avg_pool2d(F.one_hot(labels, len(WORDS)).movedim(-1, 1).float(), patch).flatten(2).mT


def fine_tune(model: FrozenCLIP, way: str, amount: int, file: Path, steps: int | None = None) -> Tuned:
    """Train one row, going on from `file`, which is written every `EVERY` steps.

    Cross entropy of every patch with the words' shares in it; AdamW, the rate falling to zero along a cosine;
    scenes mirrored at random. `way` is "linear head" or "whole image tower"; `amount` is the number of
    labelled scenes. Raises ValueError for another way, no scenes, or a file that began from another model.
    """
    if way not in WAYS or amount < 1:
        raise ValueError(f"way must be of {', '.join(WAYS)} and amount >= 1, got {way!r}, {amount}")
    planned = STEPS[way] if way == "linear head" else STEPS[way].get(amount, STEPS[way][1000])
    steps = planned if steps is None else steps
    tuned = Tuned(model)
    whole = way == "whole image tower"
    tuned.model.visual.requires_grad_(whole)
    trained = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATES[way], weight_decay=0.01)
    done, base = 0, weights_hash(model)
    if file.is_file():
        stored = torch.load(file, weights_only=True)
        if stored["base"] != base:
            raise ValueError(
                f"file must hold a run that began from this model, {file} began from another: remove it"
            )
        tuned.load_state_dict(stored["model"])
        optimizer.load_state_dict(stored["optimizer"])
        done = stored["step"]
    if done < steps:
        batches = _Batches(tuned, amount, whole)
        for step in tqdm(range(done, steps), desc=f"{way}, {amount} scenes", initial=done, total=steps):
            for group in optimizer.param_groups:
                group["lr"] = RATES[way] * (1 + math.cos(math.pi * step / steps)) / 2
            tokens, truth = batches(step)
            loss = F.cross_entropy(tuned.head(tokens).flatten(0, 1), truth.flatten(0, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (step + 1) % EVERY == 0 or step + 1 == steps:
                state = {
                    "model": tuned.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                    "base": base,
                }
                with atomic_write(file) as partial:
                    torch.save(state, partial)
    tuned.model.visual.requires_grad_(False)
    return tuned


class _Batches:
    """Tokens [B, N, 3 C] and shares [B, N, words] of the scenes of a step, which depend on the step alone."""

    def __init__(self, tuned: Tuned, amount: int, whole: bool):
        self.tuned, self.whole = tuned, whole
        self.images, self.shares, self.tokens = [], [], []
        for start in tqdm(range(0, amount, BATCH), desc="labelled scenes", leave=False):
            scenes = [labelled_scene(i) for i in range(start, min(start + BATCH, amount))]
            images = stack_images(tuned.model, scenes)
            self.shares.append(shares(scenes, tuned.model.patch_size))
            if whole:
                self.images.append(images)
            else:  # the tower stays as it is, so its tokens are taken once
                with torch.no_grad():
                    self.tokens.append(tuned.tokens(images))
        self.shares = torch.cat(self.shares)
        self.images, self.tokens = (torch.cat(part) if part else None for part in (self.images, self.tokens))

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((SEED, step))
        chosen = torch.from_numpy(rng.choice(len(self.shares), min(BATCH, len(self.shares)), replace=False))
        if not self.whole:
            return self.tokens[chosen], self.shares[chosen]
        images, truth = self.images[chosen], self.shares[chosen]
        if rng.random() < 0.5:
            grid = self.tuned.model.check_images(images)
            images, truth = images.flip(3), truth.unflatten(1, grid).flip(2).flatten(1, 2)
        return self.tuned.tokens(images), truth


def table_of(model: FrozenCLIP, tuned: dict[tuple[str, int], Tuned], count: int, seed: int) -> pd.DataFrame:
    """mIoU and pixel accuracy of every row on `count` test scenes a style, and how far SC-CLIP is above."""
    methods = {(name, 0): make_method(name, model) for name in ("vanilla", "maskclip", "seed")} | tuned
    rows = []
    for style in STYLES:
        counted = dense(methods, style, count, seed, TEST)
        for (way, amount), counts in counted.items():
            row = (way, amount, style)
            rows.append((*row, "mIoU", *interval(counts, mean_iou, seed)))
            rows.append((*row, "pixel accuracy", *interval(counts, pixel_accuracy, seed)))
            difference = paired_interval(counted["seed", 0], counts, mean_iou, seed)
            rows.append((*row, "SC-CLIP (seed) minus this", *difference))
    columns = ["way", "labelled scenes", "styles", "measure", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fine-tune the bundled model on labelled scenes.")
    parser.add_argument("--count", type=int, default=200, help="test scenes a style (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2, help="of the test scenes (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=DATA.parent / "figures", help="folder of the CSV")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/finetune"), help="checkpoints (default: %(default)s)"
    )
    args = parser.parse_args()
    if args.count < 2:
        parser.error(f"--count must be at least 2 scenes, got {args.count}")
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(os.cpu_count() or 1)
    model = load_clip("mini")
    tuned = {
        (way, amount): fine_tune(model, way, amount, args.work / f"{way.replace(' ', '_')}_{amount}.pt")
        for way in WAYS
        for amount in AMOUNTS
    }
    table = table_of(model, tuned, args.count, args.seed)
    save_table(table, "09_finetuned", args.out)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
