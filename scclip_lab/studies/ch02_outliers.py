"""Chapter 2: the local outlier factor on points in a plane, on tokens, and on planted anomalies."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import tqdm

from scclip_core.anomaly import flag_anomalies, local_outlier_factor, squared_distances
from scclip_core.clip import FrozenCLIP
from scclip_core.pipeline import SCCLIP
from scclip_lab.datasets.scenes import TEST, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import mean_interval
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.evaluation.timing import compare, machine
from scclip_lab.plots import error_bars
from scclip_lab.studies import cases_anomaly as cases  # noqa: F401  registers its figures
from scclip_lab.studies import figure
from scclip_lab.studies.ch01_shapes import example_scene
from scclip_lab.studies.ch03_similarity import layer_tokens
from scclip_lab.studies.drawing import map_rows, read_maps, show_image
from scclip_lab.studies.flags_anomaly import describe_anomalies

# Pixels of a patch's side, patches of an image's side.
PATCH, GRID = 16, 14
# Anomalies planted in an image: 5 % of its 196 patches.
PLANTED = 10
# Neighbours that the detectors look at.
K = 30


def points_in_a_plane(seed: int = 0) -> np.ndarray:
    """A dense cluster, a loose one, and three points that belong to neither, [43, 2]."""
    rng = np.random.default_rng(seed)
    dense, loose = rng.normal((0, 0), 0.25, (20, 2)), rng.normal((4, 1), 1.0, (20, 2))
    return np.concatenate([dense, loose, [(0, 1.6), (1.6, -0.3), (4.5, 5.0)]])


def lof_by_formula(points: np.ndarray, k: int) -> pd.DataFrame:
    """The four formulas of Breunig et al. (2000), one after the other, in plain loops.

    Takes points [N, D]. Returns a row for each point: its first two coordinates, k-distance, local
    reachability density (lrd), and local outlier factor (lof).
    """
    n = len(points)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = [[j for j in np.argsort(distance[i], kind="stable") if j != i][:k] for i in range(n)]
    k_distance = [distance[i, near[i][-1]] for i in range(n)]
    reach = [[max(k_distance[j], distance[i, j]) for j in near[i]] for i in range(n)]
    density = [1 / (np.mean(reach[i]) + 1e-10) for i in range(n)]
    factor = [np.mean([density[j] for j in near[i]]) / density[i] for i in range(n)]
    places = {"x": points[:, 0], "y": points[:, 1]}
    return pd.DataFrame({**places, "k-distance": k_distance, "lrd": density, "lof": factor})


def plant_anomalies(
    scene: Scene, source: str, rng: np.random.Generator
) -> tuple[Scene, np.ndarray]:
    """A scene with anomalies at known patches, of a kind that the article names (section 3.1).

    Args:
        scene: it is not changed.
        source: "border" (a coloured strip of patches along one edge of the image), "occlusion" (a
            black block of 2 x 5 patches), "rare texture" (fine stripes in random colours on
            scattered patches), or "lighting" (scattered patches three times as bright).
        rng: chooses the patches and colours.

    Returns the changed scene, and the changed patches as bool [14, 14], 10 of them True. Raises
    ValueError for another source.
    """
    image, where = scene.image.copy(), np.zeros((GRID, GRID), bool)
    if source == "border":
        start = rng.integers(GRID - PLANTED + 1)
        where[0 if rng.random() < 0.5 else -1, start : start + PLANTED] = True
        where = where if rng.random() < 0.5 else where.T
    elif source == "occlusion":
        row, col = rng.integers(GRID - 1), rng.integers(GRID - 4)
        where[row : row + 2, col : col + 5] = True
    elif source in ("rare texture", "lighting"):
        where.flat[rng.choice(GRID * GRID, PLANTED, replace=False)] = True
    else:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    strip = rng.integers(0, 256, 3)
    for row, col in np.argwhere(where):
        patch = image[row * PATCH : (row + 1) * PATCH, col * PATCH : (col + 1) * PATCH]
        if source == "rare texture":
            patch[::2], patch[1::2] = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
        elif source == "lighting":
            patch[:] = np.clip(patch.astype(int) * 3 + 40, 0, 255)
        else:
            patch[:] = strip if source == "border" else 0
    return Scene(image, scene.labels, scene.objects, scene.background), where


SOURCES = ("border", "occlusion", "rare texture", "lighting")


def _lof(tokens: Tensor) -> np.ndarray:
    return local_outlier_factor(tokens[None], K)[0].numpy()


def _neighbour_distance(tokens: Tensor) -> np.ndarray:
    return squared_distances(tokens[None])[0].sqrt().kthvalue(K + 1, dim=1).values.numpy()


def _forest(tokens: Tensor) -> np.ndarray:
    return -IsolationForest(random_state=0).fit(tokens.numpy()).score_samples(tokens.numpy())


def _mahalanobis(tokens: Tensor) -> np.ndarray:
    return LedoitWolf().fit(tokens.numpy()).mahalanobis(tokens.numpy())


def _norm(tokens: Tensor) -> np.ndarray:
    return tokens.norm(dim=1).numpy()


# Tokens [N, C] -> scores [N], larger where a token is more anomalous.
DETECTORS: dict[str, Callable[[Tensor], np.ndarray]] = {
    "local outlier factor": _lof,
    "k-NN distance": _neighbour_distance,
    "isolation forest": _forest,
    "Mahalanobis": _mahalanobis,
    "token norm": _norm,
}


def penultimate_tokens(model: FrozenCLIP, scene: Scene) -> Tensor:
    """The patch tokens of the last layer but one, in which stage 3 looks for anomalies, [N, C]."""
    return layer_tokens(model, stack_images(model, [scene]))[-1][0]


def detect_planted(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """Precision and ROC AUC of each detector on planted anomalies, by their source.

    As many patches are flagged as were planted, so that precision equals recall. Each source is
    planted in `count` test scenes; intervals are 95 % bootstrap intervals over scenes.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for source in SOURCES:
        for index in tqdm(range(count), desc=source):
            rng = np.random.default_rng((TEST, seed, index))
            scene, where = plant_anomalies(evaluation_scene(TEST, seed, index), source, rng)
            truth, tokens = where.flatten(), penultimate_tokens(model, scene)
            for name, detector in DETECTORS.items():
                scores = detector(tokens)
                share = PLANTED / truth.size
                flagged = flag_anomalies(torch.tensor(scores)[None], share)[0].numpy()
                precision = (truth & flagged).sum() / flagged.sum()
                measured = (precision, roc_auc_score(truth, scores))
                found.setdefault((source, name), []).append(measured)
    rows = []
    for (source, name), values in found.items():
        for i, measure in enumerate(("precision", "ROC AUC")):
            estimate = mean_interval(np.array(values)[:, i], seed)
            rows.append((source, name, measure, *estimate, count, seed))
    columns = ["source", "detector", "measure", "value", "low", "high", "scenes", "seed"]
    return pd.DataFrame(rows, columns=columns)


def describe_planted(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """What the local outlier factor sees of planted anomalies: a row for each source.

    The columns are those of `describe_anomalies`, on the mean over `count` test scenes.
    """
    rows = {}
    for source in SOURCES:
        found = []
        for index in range(count):
            rng = np.random.default_rng((TEST, seed, index))
            scene, where = plant_anomalies(evaluation_scene(TEST, seed, index), source, rng)
            found.append(describe_anomalies(penultimate_tokens(model, scene), where, K))
        rows[source] = pd.DataFrame(found).mean()
    return pd.DataFrame(rows).T.rename_axis("source").reset_index()


def time_detectors(model: FrozenCLIP, repeats: int = 10) -> pd.DataFrame:
    """The time of each detector on one image's tokens, as a ratio to the local outlier factor's.

    Everything runs on one thread: torch and scikit-learn keep threads of their own, which would
    wait for each other.
    """
    tokens = penultimate_tokens(model, example_scene())
    runs: dict[str, Callable[[], object]] = {
        name: partial(detector, tokens) for name, detector in DETECTORS.items()
    }
    with threadpool_limits(1):
        return compare(runs, repeats).assign(**machine())


def stage_three(model: FrozenCLIP, scene: Scene) -> pd.DataFrame:
    """Maps of stage 3 on a scene: scores, flags, and tokens before and after the repair.

    Tokens are shown by their cosine with the image's mean token.
    """
    last = f"blocks.{model.depth - 2}.hook_resid_post"
    _, cache = SCCLIP(model).run_with_cache(stack_images(model, [scene]), [last, "stage3.*"])
    before, after = cache[last][:, 1:], cache["stage3.repaired"]
    maps = {
        "LOF score": cache["stage3.lof_scores"][0],
        "flagged": cache["stage3.anomalous"][0].float(),
    }
    for name, tokens in (("before repair", before), ("after repair", after)):
        maps[name] = torch.cosine_similarity(tokens, before.mean(1, keepdim=True), dim=-1)[0]
    return map_rows({name: values.view(GRID, GRID) for name, values in maps.items()})


@figure("02_plane")
def draw_plane(table: pd.DataFrame) -> Figure:
    """The points, each with a circle as large as its local outlier factor."""
    drawn, axis = plt.subplots(figsize=(8, 5))
    axis.scatter(table["x"], table["y"], color="0.2", s=18, zorder=3)
    size, colour = 120 * table["lof"] ** 2, "#D55E00"
    axis.scatter(table["x"], table["y"], size, facecolors="none", edgecolors=colour, lw=1.5)
    # The last three points are those that belong to no cluster.
    for _, row in table.tail(3).iterrows():
        radius = (120 * row["lof"] ** 2 / np.pi) ** 0.5
        place, text = (row["x"], row["y"]), f"LOF {row['lof']:.1f}"
        look: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 13}
        axis.annotate(text, place, xytext=(radius + 4, 0), **look)
    axis.set(title="Larger circle: larger local outlier factor", xlabel="x", ylabel="y")
    sns.despine(drawn)
    return drawn


@figure("02_stage_three")
def draw_stage_three(table: pd.DataFrame) -> Figure:
    """Scores, flags, and the tokens' cosine with their mean before and after the repair."""
    image, maps = example_scene().image, read_maps(table)
    drawn, axes = plt.subplots(1, 4, figsize=(16, 3.9), layout="constrained")
    shown = axes[0].imshow(maps["LOF score"])
    drawn.colorbar(shown, ax=axes[0], fraction=0.046, label="local outlier factor")
    show_image(axes[1], image, "flagged patches")
    for row, col in np.argwhere(maps["flagged"] > 0):
        corner = (col * PATCH - 0.5, row * PATCH - 0.5)
        for colour, width in (("white", 5), ("#D55E00", 2.5)):
            axes[1].add_patch(Rectangle(corner, PATCH, PATCH, fill=False, ec=colour, lw=width))
    cosines = ("before repair", "after repair")
    limits = {
        "vmin": min(maps[name].min() for name in cosines),
        "vmax": max(maps[name].max() for name in cosines),
    }
    for axis, name in zip(axes[2:], cosines, strict=True):
        shown = axis.imshow(maps[name], **limits)
        axis.set_title(name, fontsize=13)
    axes[0].set_title("score of every patch", fontsize=13)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    drawn.colorbar(shown, ax=axes[2:], fraction=0.023, label="cosine with the mean token")
    return drawn


@figure("02_histogram")
def draw_histogram(table: pd.DataFrame) -> Figure:
    """The scores of the scene's patches, and the quantile above which they are flagged."""
    scores = table[table["panel"] == "LOF score"]["value"]
    limit = np.quantile(scores, 0.95)
    drawn, axis = plt.subplots(figsize=(8, 4))
    axis.hist(scores, bins=40, color="#56B4E9")
    axis.axvline(limit, color="#D55E00", lw=2, label="95 % quantile: flagged above")
    axis.set(xlabel="local outlier factor", ylabel="patches")
    axis.legend(frameon=False, fontsize=11, loc="lower right", bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn


@figure("02_detectors")
def draw_detectors(table: pd.DataFrame) -> Figure:
    """ROC AUC of every detector on every source, as bars that begin at chance, 0.5."""
    part = table[table["measure"] == "ROC AUC"]
    drawn, axis = plt.subplots(figsize=(11, 4.6))
    for i, (name, rows) in enumerate(part.groupby("detector", sort=False)):
        place = np.arange(len(rows)) + 0.16 * (i - 2)
        look: dict[str, Any] = {"capsize": 3, "label": str(name), "bottom": 0.5}
        axis.bar(place, rows["value"] - 0.5, 0.15, yerr=error_bars(rows), **look)
    axis.axhline(0.5, color="0.2", linewidth=1.5)
    beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center"}
    axis.annotate("chance", (1.01, 0.5), fontsize=11, color="0.3", **beside)
    axis.set_xticks(range(len(SOURCES)), SOURCES)
    axis.set(ylabel="ROC AUC", ylim=(0, 1.03))
    axis.legend(frameon=False, fontsize=11, bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn
