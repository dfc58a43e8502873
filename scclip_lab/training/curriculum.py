"""What the bundled model is trained on: scenes of growing size, their captions and their words.

Nothing here reads a pixel label: all truth is about whole images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from scclip_core.config import imagenet_templates
from scclip_lab.datasets.scenes import BACKGROUNDS, SIZES, TRAIN, WORDS, make_scene, paint
from scclip_lab.training.augment import draw_varied

IMAGENET_TEMPLATES = imagenet_templates()
# Side of the painted backgrounds that scenes cut theirs from, in pixels.
PAINTED_SIDE = 288


@dataclass(frozen=True)
class Phase:
    """A part of the curriculum.

    Attributes:
        side: of the scenes, in pixels.
        batch: scenes in a step.
        steps: number of steps.
        counts: numbers of objects, of which one is drawn for each scene.
        sizes: number of objects -> range of their longest side as a share of the scene's side.
        background: see `StepPlan`.
    """

    side: int
    batch: int
    steps: int
    counts: tuple[int, ...]
    sizes: dict[int, tuple[float, float]]
    background: float = 0.0


# Objects are about as many pixels large in small scenes as in those of 224 pixels with four
# objects, and a small scene costs a fraction of the time.
CURRICULUM = (
    Phase(64, 128, 2000, (1,), {1: (0.55, 1.05)}),
    Phase(112, 96, 8000, (1, 2, 2, 3), {1: (0.45, 0.95), 2: (0.40, 0.66), 3: (0.36, 0.52)}),
    Phase(224, 32, 3000, (1, 2, 3, 4), SIZES),
    Phase(224, 32, 600, (1, 2, 3, 4), SIZES, background=2.0),
)


class Batch(NamedTuple):
    """What a step sees.

    Attributes:
        images: uint8 [B, 3, S, S].
        texts: captions of these images, then one sentence for each of `WORDS`.
        matches: bool [B, T], whether text t is true of image b.
    """

    images: Tensor
    texts: list[str]
    matches: Tensor


def caption(
    rng: np.random.Generator, objects: tuple[str, ...], background: str
) -> tuple[str, tuple[str, ...]]:
    """A true caption of a scene, and the words it names: all of the objects, or a single word."""
    if rng.random() < 0.5:
        named: tuple[str, ...] = (str(rng.choice([*objects, background])),)
    else:
        named = tuple(objects[i] for i in rng.permutation(len(objects)))
        named = (*named, background) if rng.random() < 0.85 else named
    template = draw_template(rng)
    articles = template in ("{}", "a photo of {}") and rng.random() < 0.5
    things = [_article(word) if articles else word for word in named if word not in BACKGROUNDS]
    phrase = " and ".join(things)
    if named[-1] in BACKGROUNDS:
        preposition = "in" if background in ("night", "sky", "water") else "on"
        phrase = f"{phrase} {preposition} {background}" if things else background
    return template.format(phrase), named


def draw_template(rng: np.random.Generator) -> str:
    """A sentence form: the word alone, "a photo of", or one of the 80 ImageNet sentences."""
    kind = rng.random()
    if kind < 0.25:
        return "{}"
    return "a photo of {}" if kind < 0.65 else str(rng.choice(IMAGENET_TEMPLATES))


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


class Batches(Dataset[Batch]):
    """Step number -> `Batch`: a pure function of the seed and the step.

    Args:
        curriculum: the phases, one after the other.
        seed: of everything that is drawn.
        painted: backgrounds that are painted beforehand for each word, of which scenes take
            cuttings; painting one afresh would cost more than all the rest of a scene.
    """

    def __init__(self, curriculum: tuple[Phase, ...], seed: int, painted: int = 64):
        self.curriculum, self.seed = curriculum, seed
        rng = np.random.default_rng((TRAIN, seed))
        self.backgrounds = {
            word: [
                np.clip(paint(rng, word, PAINTED_SIDE), 0, 255).astype(np.uint8)
                for _ in range(painted)
            ]
            for word in BACKGROUNDS
        }

    def __len__(self) -> int:
        return sum(phase.steps for phase in self.curriculum)

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng((TRAIN, self.seed, step))
        phase = phase_at(self.curriculum, step)
        scenes = [
            make_scene(
                rng,
                phase.side,
                counts=phase.counts,
                sizes=phase.sizes,
                backdrop=self._cutting,
                sprite=draw_varied,
            )
            for _ in range(phase.batch)
        ]
        named: dict[str, tuple[str, ...]] = {}
        for scene in scenes:
            text, words = caption(rng, scene.objects, scene.background)
            named[text] = words
        template = draw_template(rng)
        texts = [*named, *(template.format(word) for word in WORDS)]
        needed = [*named.values(), *((word,) for word in WORDS)]
        matches = [[set(words) <= set(scene.words) for words in needed] for scene in scenes]
        images = np.stack([scene.image for scene in scenes])  # [B, S, S, 3]
        return Batch(torch.from_numpy(images).movedim(-1, 1), texts, torch.tensor(matches))

    def _cutting(self, rng: np.random.Generator, word: str, side: int) -> np.ndarray:
        painted = self.backgrounds[word][rng.integers(len(self.backgrounds[word]))]
        row, col = rng.integers(PAINTED_SIDE - side + 1, size=2)
        cutting = painted[row : row + side, col : col + side].astype(np.float32)
        return cutting * rng.normal(1, 0.06, 3).astype(np.float32)


def phase_at(curriculum: tuple[Phase, ...], step: int) -> Phase:
    """The phase that a step belongs to. Raises IndexError past the end."""
    end = 0
    for phase in curriculum:
        end += phase.steps
        if step < end:
            return phase
    raise IndexError(f"the curriculum ends before step {step}")
