"""What the bundled model is trained on: scenes of growing size, and captions of whole images, never pixel
labels.
"""

from dataclasses import dataclass

import numpy as np
import open_clip
import torch
from torch import Tensor
from torch.utils.data import Dataset

from scclip_core.scenes import BACKGROUNDS, SIZES, TRAIN, make_scene, paint

PATCH = 16
IMAGENET_TEMPLATES = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


@dataclass(frozen=True)
class Phase:
    """A part of the curriculum: scenes of `side` pixels, `batch` of them a step, with these numbers of
    objects.

    `rate` is the learning rate; with `decays` it falls linearly to zero over the phase. `residual` is the
    range of the factor on the class-token residual into the last block, in the steps that scale it. With
    `shortens`, the weight of a penalty on the class token's length before the last block, the phase begins
    anew: from the mean of the weights at the ends of the phases before it, with a fresh optimizer. `sights`
    are the radii, in patches, of which one is drawn in the steps in which patches see only those near them.
    """

    side: int
    batch: int
    steps: int
    counts: tuple[int, ...]
    sizes: dict[int, tuple[float, float]]
    rate: float = 1e-3
    decays: bool = False
    residual: tuple[float, float] = (0.3, 1.0)
    shortens: float = 0.0
    sights: tuple[int, ...] = ()


TRUNK = (
    Phase(64, 64, 3600, (1,), {1: (0.65, 1.05)}),
    Phase(112, 48, 4600, (1, 2, 3), {1: (0.50, 0.95), 2: (0.42, 0.62), 3: (0.38, 0.50)}),
    Phase(224, 24, 2200, (1, 2, 3, 4), SIZES, decays=True),
    Phase(224, 24, 2600, (1, 2, 3, 4), SIZES, rate=8e-4, decays=True, residual=(0.0, 0.6)),
)
LAST = {"decays": True, "residual": (0.0, 0.6), "shortens": 0.05}
BRANCHES = (  # each goes on from the trunk by itself, over the same scenes
    Phase(224, 24, 1400, (1, 2, 3, 4), SIZES, rate=5e-4, **LAST),
    Phase(224, 24, 1500, (1, 2, 3, 4), SIZES, rate=6e-4, **LAST, sights=(1, 2, 3)),
)


def caption(
    rng: np.random.Generator, objects: tuple[str, ...], background: str
) -> tuple[str, tuple[str, ...]]:
    """A true caption of a scene and the words it names: all of the objects, or a single word."""
    if rng.random() < 0.5:
        named = (str(rng.choice([*objects, background])),)
    else:
        named = tuple(objects[i] for i in rng.permutation(len(objects)))
        named = (*named, background) if rng.random() < 0.85 else named
    kind = rng.random()
    template = (
        "{}" if kind < 0.25 else "a photo of {}" if kind < 0.65 else str(rng.choice(IMAGENET_TEMPLATES))
    )
    articles = kind < 0.65 and rng.random() < 0.5
    things = [_article(word) if articles else word for word in named if word not in BACKGROUNDS]
    phrase = " and ".join(things)
    if named[-1] in BACKGROUNDS:
        preposition = "in" if background in ("night", "sky", "water") else "on"
        phrase = f"{phrase} {preposition} {background}" if things else background
    return template.format(phrase), named


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


class Batches(Dataset):
    """Step -> (images uint8 [B, 3, S, S], captions, truth bool [B, T]: whether caption t is true of image
    b).
    """

    def __init__(self, curriculum: tuple[Phase, ...], seed: int, painted: int = 48):
        self.curriculum, self.seed = curriculum, seed
        rng = np.random.default_rng((TRAIN, seed))
        # enough painted backgrounds to cut from: painting one afresh would cost more than all the rest of a
        # scene
        self.pool = {
            word: [paint(rng, word, 288).astype(np.uint8) for _ in range(painted)] for word in BACKGROUNDS
        }

    def __len__(self) -> int:
        return sum(phase.steps for phase in self.curriculum)

    def __getitem__(self, step: int) -> tuple[Tensor, list[str], Tensor]:
        rng = np.random.default_rng((TRAIN, self.seed, step))
        phase = phase_at(self.curriculum, step)
        options = {"counts": phase.counts, "sizes": phase.sizes, "backdrop": self._cut}
        scenes = [make_scene(rng, phase.side, **options) for _ in range(phase.batch)]
        told: dict[str, tuple[str, ...]] = {}
        for scene in scenes:
            for _ in range(2):
                text, named = caption(rng, scene.objects, scene.background)
                told[text] = named
        truth = [[set(named) <= set(scene.words) for named in told.values()] for scene in scenes]
        images = np.stack([scene.image for scene in scenes]).transpose(
            0, 3, 1, 2
        )  # [B, S, S, 3] -> [B, 3, S, S]
        return torch.from_numpy(images.copy()), list(told), torch.tensor(truth)

    def _cut(self, rng: np.random.Generator, word: str, side: int) -> np.ndarray:
        painted = self.pool[word][rng.integers(len(self.pool[word]))]
        row, col = rng.integers(len(painted) - side + 1, size=2)
        return painted[row : row + side, col : col + side].astype(np.float32) * rng.normal(1, 0.05, 3).astype(
            np.float32
        )


def phase_at(curriculum: tuple[Phase, ...], step: int) -> Phase:
    """The phase that a step belongs to."""
    return _locate(curriculum, step)[0]


def learning_rate(curriculum: tuple[Phase, ...], step: int, warm_up: int) -> float:
    """Linear over the first `warm_up` steps of all and of a phase that begins anew, then as the phase
    says.
    """
    phase, left = _locate(curriculum, step)
    trained = phase.steps - left if phase.shortens else step
    return phase.rate * min(1, (trained + 1) / warm_up) * (left / phase.steps if phase.decays else 1)


def begins_anew(curriculum: tuple[Phase, ...], step: int) -> bool:
    """Whether a step is the first of a phase that starts from the mean of the ends before it."""
    phase, left = _locate(curriculum, step)
    return phase.shortens > 0 and left == phase.steps


def ends_decay(curriculum: tuple[Phase, ...], step: int) -> bool:
    """Whether a step is the last of a phase whose learning rate falls to zero."""
    phase, left = _locate(curriculum, step)
    return phase.decays and left == 1


def _locate(curriculum: tuple[Phase, ...], step: int) -> tuple[Phase, int]:
    """The phase of a step, and the steps left in it, this one included."""
    end = 0
    for phase in curriculum:
        end += phase.steps
        if step < end:
            return phase, end - step
    raise IndexError(f"the curriculum ends before step {step}")
