"""Measurements behind single sentences of the article, for the ledger of chapter 8.

Every function yields rows (what, value, low, high); where nothing is sampled, the bounds are the
value. Together they are `figures/08_reasons.csv`.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.config import SWITCHES, SCCLIPConfig
from scclip_core.dense import DenseCLIP
from scclip_core.pipeline import SCCLIP
from scclip_core.sharing import shared_results
from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import (
    count_classes,
    interval,
    mean_interval,
    mean_iou,
    paired_interval,
)
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies.reading import PATCH, label_map, patch_labels, read_layer

# Patches of an image's side.
GRID = 14
# A label is rare in a scene where it fills less than this share of the patches.
RARE = 0.05
# Standard deviation of the noise on the last layer but one, as a share of the tokens' own.
NOISE = 0.5
Row = tuple[str, float, float, float]


def measure_reasons(model: FrozenCLIP, count: int, seed: int = 7) -> pd.DataFrame:
    """All of them, on `count` test scenes of the training styles: what, value, low, high."""
    scenes = [evaluation_scene(TEST, seed, i) for i in range(count)]
    rows: list[Row] = []
    for part in (frozen, flags, masked, two_views, normalisations, fused):
        rows += part(model, scenes)
    table = pd.DataFrame(rows, columns=["what", "value", "low", "high"])
    return table.assign(scenes=count, seed=seed)


def exactly(what: str, value: float) -> Row:
    """A row of something that is counted, not sampled."""
    return what, value, value, value


def sampled(what: str, values: list[float]) -> Row:
    """The mean of a value of every scene, with its 95 % bootstrap interval."""
    return what, *mean_interval(np.array(values))


def frozen(model: FrozenCLIP, scenes: list[Scene]) -> Iterator[Row]:
    """Parameters that are trained, and changed by a forward pass; whether a result repeats."""
    before = {name: value.clone() for name, value in model.named_parameters()}
    segmenter, images = SCCLIP(model), stack_images(model, scenes[:1])
    first, second = segmenter.features(images), segmenter.features(images)
    changed = sum(not torch.equal(value, before[n]) for n, value in model.named_parameters())
    yield exactly("parameters changed by a forward pass", changed)
    trained = sum(value.requires_grad for value in model.parameters())
    yield exactly("parameters that require a gradient", trained)
    yield exactly("largest difference of two runs", float((first - second).abs().max()))


def flags(model: FrozenCLIP, scenes: list[Scene]) -> Iterator[Row]:
    """Where stage 3 flags patches, against the share of such patches, and how many it flags."""
    border = np.ones((GRID, GRID), bool)
    border[1:-1, 1:-1] = False
    more: dict[str, list[float]] = {}
    numbers = set()
    for scene in scenes:
        _, cache = SCCLIP(model).run_with_cache(stack_images(model, [scene]), "stage3.anomalous")
        flagged = cache["stage3.anomalous"][0].view(GRID, GRID).numpy()
        numbers.add(int(flagged.sum()))
        tiles = (
            scene.labels.reshape(GRID, PATCH, GRID, PATCH).swapaxes(1, 2).reshape(GRID, GRID, -1)
        )
        labels = patch_labels(scene)
        shares = np.bincount(labels.ravel(), minlength=len(WORDS)) / labels.size
        lowest = tiles.min(-1)  # the words of objects have the first numbers
        highest = np.where(tiles < N_OBJECTS, tiles.astype(int), -1).max(-1)
        places = {
            "border": border,
            "outline": lowest != tiles.max(-1),
            "two objects": lowest < highest,
            "rare label": shares[labels] < RARE,
        }
        for name, place in places.items():
            more.setdefault(name, []).append(float(place[flagged].mean() - place.mean()))
    yield exactly("numbers of flagged patches that occur", len(numbers))
    for name, values in more.items():
        yield sampled(f"more flags than patches: {name}", values)


def masked(model: FrozenCLIP, scenes: list[Scene]) -> Iterator[Row]:
    """What a mask of negative entries removes, after the softmax and before it."""
    after, before = [], []
    for scene in scenes:
        images = stack_images(model, [scene])
        _, cache = SCCLIP(model).run_with_cache(images, "stage4.similarity")
        similarity = cache["stage4.similarity"]
        logits = SCCLIPConfig().content_gain * (similarity - similarity.mean())
        after.append(float((logits.softmax(-1) < 0).float().mean()))
        before.append(float((logits < 0).float().mean()))
    yield sampled("negative entries after the softmax", after)
    yield sampled("negative entries before the softmax", before)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of two arrays [N]: that of their ranks."""
    return float(np.corrcoef(pd.Series(a).rank(), pd.Series(b).rank())[0, 1])


def two_views(model: FrozenCLIP, scenes: list[Scene]) -> Iterator[Row]:
    """How similarities of layers 3 and 8 go with nearness, colour, contrast, and the labels.

    Colour is the mean of a patch, contrast the standard deviation of its grey values.
    """
    row, col = np.indices((GRID, GRID)).reshape(2, -1)
    near = -np.hypot(row[:, None] - row, col[:, None] - col)
    pairs = np.triu_indices(GRID * GRID, 1)
    found: dict[str, list[float]] = {}
    names = {3: "blocks.3.hook_resid_post", 8: "blocks.8.hook_resid_post"}
    for scene in scenes:
        labels = patch_labels(scene).ravel()
        same = (labels[:, None] == labels)[pairs]
        tiles = scene.image.reshape(GRID, PATCH, GRID, PATCH, 3)
        colours = tiles.mean((1, 3)).reshape(-1, 3)  # [N, 3]
        contrasts = tiles.mean(-1).std((1, 3)).reshape(-1)  # [N]
        alike = {
            "nearness": near[pairs],
            "colour": -np.linalg.norm(colours[:, None] - colours, axis=-1)[pairs],
            "contrast": -np.abs(contrasts[:, None] - contrasts)[pairs],
        }
        images = stack_images(model, [scene])
        _, cache = SCCLIP(model).run_with_cache(images, list(names.values()))
        scores = {}
        for layer, name in names.items():
            similarity = patch_similarity(cache[name][:, 1:])[0].numpy()[pairs]
            for kind, values in alike.items():
                scores[kind, layer] = rank_correlation(similarity, values)
            scores["label", layer] = roc_auc_score(same, similarity)
        for (kind, layer), value in scores.items():
            found.setdefault(f"similarity and {kind}, layer {layer}", []).append(float(value))
        for kind in (*alike, "label"):
            difference = float(scores[kind, 8] - scores[kind, 3])
            found.setdefault(f"similarity and {kind}, layer 8 minus 3", []).append(difference)
    for what, values in found.items():
        yield sampled(what, values)


def count_labels(segmenter: DenseCLIP, features: Tensor, scene: Scene) -> np.ndarray:
    """Class counts of the label map of features [1, rows, cols, D]."""
    labels = label_map(segmenter, features, len(scene.labels))
    return count_classes(labels, torch.from_numpy(scene.labels), len(WORDS))


def symmetric_aggregate(tokens: Tensor, similarity: Tensor) -> Tensor:
    """D^-1/2 S D^-1/2 F, as Kipf and Welling (2017, arXiv 1609.02907) normalise a graph."""
    scale = similarity.sum(-1).rsqrt()[..., None]  # [B, N, 1]
    return scale * (similarity @ (scale * tokens))


def normalisations(model: FrozenCLIP, scenes: list[Scene]) -> Iterator[Row]:
    """The first aggregation as a graph operation, and with the normalisation that GCN has.

    And how much more alike it makes patches of one label.
    """
    segmenter = make_method("scclip", model, **dict.fromkeys(SWITCHES, False))
    names = ["blocks.8.hook_resid_post", "blocks.10.hook_resid_post"]
    apart, closer = 0.0, list[float]()
    counted: dict[str, list[np.ndarray]] = {"rows": [], "symmetric": []}
    for scene in scenes:
        images = stack_images(model, [scene])
        with shared_results():
            _, cache = segmenter.run_with_cache(images, names)
            middle, last = (cache[name] for name in names)
            graph = threshold_similarity(patch_similarity(middle[:, 1:]), SCCLIPConfig().beta)
            by_core = adaptive_aggregate(last[:, 1:], graph)
            degree = torch.diag_embed(1 / graph.sum(-1))
            apart = max(apart, float((degree @ graph @ last[:, 1:] - by_core).abs().max()))
            labels = torch.from_numpy(patch_labels(scene)).flatten()
            same = (labels[:, None] == labels).triu(1)  # [N, N]
            before, after = (patch_similarity(tokens)[0][same] for tokens in (last[:, 1:], by_core))
            closer.append(float((after - before).mean()))
            ways = {"rows": by_core, "symmetric": symmetric_aggregate(last[:, 1:], graph)}
            for way, patches in ways.items():
                tokens = torch.cat([last[:, :1], patches], 1)
                features = read_layer(segmenter, images, tokens)
                counted[way].append(count_labels(segmenter, features, scene))
    yield exactly("aggregation and graph operation, largest difference", apart)
    yield sampled("cosine of two patches of one label, aggregated minus not", closer)
    symmetric, rows = np.stack(counted["symmetric"]), np.stack(counted["rows"])
    change = paired_interval(symmetric, rows, mean_iou)
    yield "mIoU, symmetric normalisation minus that of rows", *change


def fused(model: FrozenCLIP, scenes: list[Scene]) -> Iterator[Row]:
    """Fusion under noise on the last layer but one, and what each branch alone gets right."""
    place = "blocks.10.hook_resid_post"
    names = ["stage6.aggregated", "stage7.aggregated", "stage7.fused"]
    counted: dict[tuple[bool, bool], list[np.ndarray]] = {}
    only: dict[str, list[float]] = {"main": [], "auxiliary": []}
    shares: dict[str, list[float]] = {"main": [], "auxiliary": [], "both": []}
    for index, scene in enumerate(scenes):
        images, truth = stack_images(model, [scene]), torch.from_numpy(scene.labels)
        generator = torch.Generator().manual_seed(index)
        with shared_results():
            _, cache = SCCLIP(model).run_with_cache(images, names)
            for fusion in (True, False):
                segmenter = SCCLIP(model, replace(SCCLIPConfig(), fusion=fusion))
                for noise in (False, True):
                    noisy = partial(_add_noise, generator.manual_seed(index))
                    features = segmenter.run_with_hooks(images, {place: noisy} if noise else {})
                    counts = count_labels(segmenter, features, scene)
                    counted.setdefault((fusion, noise), []).append(counts)
        right = {}
        for branch, tokens in zip(shares, cache.values(), strict=True):
            features = model.project(tokens).unflatten(1, (GRID, GRID))
            features = features / features.norm(dim=-1, keepdim=True)
            labels = label_map(segmenter, features, len(truth))
            right[branch] = (labels == truth)[truth < N_OBJECTS].float()
            shares[branch].append(float(right[branch].mean()))
        for branch, other in (("main", "auxiliary"), ("auxiliary", "main")):
            only[branch].append(float((right[branch] * (1 - right[other])).mean()))
    order = [(True, True), (False, True), (True, False), (False, False)]
    stacked = np.stack([np.stack(counted[key]) for key in order], 1)  # [I, 4, 3, C]
    gain = paired_interval(stacked[:, 0], stacked[:, 1], mean_iou)
    yield "gain of fusion in mIoU, under noise", *gain
    more = interval(stacked, _more_gain_under_noise)
    yield "gain of fusion in mIoU, under noise minus without", *more
    for branch, values in only.items():
        yield sampled(f"object pixels that the {branch} branch alone gets right", values)
    better = max(only, key=lambda branch: np.mean(shares[branch]))
    more_right = np.subtract(shares["both"], shares[better]).tolist()
    yield sampled("object pixels right, both branches minus the better one", more_right)


def _more_gain_under_noise(counts: np.ndarray) -> np.ndarray:
    """Of class counts [..., 4, 3, C]: fused and not, under noise, then both without noise."""
    scores = mean_iou(counts)  # [..., 4]
    gained: np.ndarray = (scores[..., 0] - scores[..., 1]) - (scores[..., 2] - scores[..., 3])
    return gained


def _add_noise(generator: torch.Generator, tokens: Tensor) -> Tensor:
    noise = torch.randn(tokens.shape, generator=generator)
    return tokens + NOISE * tokens.std() * noise
