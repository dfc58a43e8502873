"""Chapter 12: what every candidate gets right, and its scores by every rule: model, data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from scclip_core.adapt import RULES, candidates, join, read_evidence, scores_of
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.segmentation import label_map
from scclip_core.sharing import shared_results
from scclip_lab.datasets.scenes import TEST, VALIDATION, WORDS, Scene, evaluation_scene
from scclip_lab.datasets.weathering import weather
from scclip_lab.evaluation.metrics import count_classes
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies.ch12_rules import spectral_scores, thresholds
from scclip_lab.studies.drawing import LABEL_STEP
from scclip_lab.studies.shared import segmenters

GIVEN = "as given"
# Rules that score candidates, and rules that set beta alone.
SCORING = (*RULES, "spectral gap")
SETTING = ("Otsu", "Otsu, each picture", "mixture")


@dataclass(frozen=True)
class Cell:
    """A model on a data set.

    Attributes:
        model, data: their names.
        scores: rule -> candidate -> score, from the unlabelled pictures.
        evidence: candidate -> what the rules of the core need of each unlabelled picture.
        counts: split -> candidate or rule that sets beta -> class counts, int64 [I, 3, C].
    """

    model: str
    data: str
    scores: Mapping[str, Mapping[str, float]]
    evidence: Mapping[str, Mapping[str, Tensor]]
    counts: Mapping[int, Mapping[str, np.ndarray]]

    def choice(self, rule: str) -> str:
        """What the rule chose: a candidate, or the rule's own name where it sets beta."""
        if rule in SETTING:
            return rule
        scores = self.scores[rule]
        return max(scores, key=scores.__getitem__)


@dataclass(frozen=True)
class Data:
    """A data set: how many scenes of each split, and where they come from.

    Attributes:
        make: (split, number) -> scene.
        share: of the usual number of scenes; large scenes take longer.
    """

    make: Callable[[int, int], Scene]
    share: float = 1.0


def _weathered(split: int, index: int, seed: int) -> Scene:
    return weather(evaluation_scene(split, seed, index), index)


def data_sets(seed: int = 7) -> dict[str, Data]:
    """The four data sets: the training styles, and three that differ from the training."""

    def scenes(split: int, index: int, style: str = "training", side: int = 224) -> Scene:
        return evaluation_scene(split, seed, index, style, side=side)

    return {
        "training styles": Data(scenes),
        "style never seen": Data(partial(scenes, style="held-out")),
        "336 pixels": Data(partial(scenes, side=336), share=0.5),
        "weathered": Data(partial(_weathered, seed=seed)),
    }


@cache
def _scenes(name: str, split: int, count: int, seed: int) -> list[Scene]:
    return [data_sets(seed)[name].make(split, i) for i in range(count)]


def count_right(logits: Tensor, scenes: list[Scene]) -> np.ndarray:
    """Class counts at every fourth pixel, logits [B, rows, cols, C] -> int64 [B, 3, C]."""
    found = []
    for one, scene in zip(torch.split(logits, 1), scenes, strict=True):
        truth = torch.from_numpy(scene.labels[LABEL_STEP // 2 :: LABEL_STEP, 2::LABEL_STEP])
        (labels,) = label_map(one, truth.shape)
        found.append(count_classes(labels, truth, len(WORDS)))
    return np.stack(found)


@torch.no_grad()
def measure_cell(
    model: FrozenCLIP, data: str, tests: int, pictures: int, seed: int = 7, batch: int = 8
) -> Cell:
    """Scores and class counts of all candidates for a model on a data set.

    Args:
        model: the frozen CLIP.
        data: a name of `data_sets`.
        tests: number of test scenes.
        pictures: number of unlabelled pictures. They are validation scenes; their labels are
            counted as well, apart, and tell nothing to the rules.
        seed: of the scenes.
        batch: scenes at once.
    """
    share = data_sets(seed)[data].share
    numbers = {VALIDATION: pictures, TEST: tests}
    scenes = {
        split: _scenes(data, split, max(2, round(share * number)), seed)
        for split, number in numbers.items()
    }
    configs = candidates(SCCLIPConfig.for_depth(model.depth))
    evidence: dict[str, list[dict[str, Tensor]]] = {name: [] for name in configs}
    counts: dict[int, dict[str, list[np.ndarray]]] = {split: {} for split in scenes}
    for some in _split(scenes[VALIDATION], batch):
        images = stack_images(model, some)
        for name, found, logits in read_evidence(model, images, WORDS, configs):
            evidence[name].append(found)
            counts[VALIDATION].setdefault(name, []).append(count_right(logits, some))
    joined = {name: join(parts) for name, parts in evidence.items()}
    methods = segmenters(model, configs)
    layers = methods[GIVEN].encode(stack_images(model, scenes[VALIDATION]))
    setting = thresholds(model, configs[GIVEN], layers)
    scores = {rule: scores_of(joined, rule) for rule in RULES}
    scores["spectral gap"] = spectral_scores(layers, configs)
    text = methods[GIVEN].embed_classes(WORDS)[1]
    for split, scored in ((VALIDATION, setting), (TEST, {**methods, **setting})):
        for some in _split(scenes[split], batch):
            images = stack_images(model, some)
            with shared_results():
                for name, method in scored.items():
                    right = count_right(method.logits(images, text), some)
                    counts[split].setdefault(name, []).append(right)
    stacked = {
        split: {name: np.concatenate(parts) for name, parts in found.items()}
        for split, found in counts.items()
    }
    return Cell(model.name, data, scores, joined, stacked)


def _split(scenes: list[Scene], batch: int) -> list[list[Scene]]:
    return [scenes[start : start + batch] for start in range(0, len(scenes), batch)]
