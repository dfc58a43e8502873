"""Chapter 2: the local outlier factor on points one can see, on tokens, and on anomalies planted at known
places."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import tqdm

from scclip_core.anomaly import flag_anomalies, local_outlier_factor, pairwise_distances
from scclip_core.clip import FrozenCLIP
from scclip_core.evaluation import stack_images
from scclip_core.metrics import mean_interval
from scclip_core.pipeline import SCCLIP
from scclip_core.plots import spread
from scclip_core.scenes import TEST, Scene, evaluation_scene
from scclip_core.studies import figure
from scclip_core.studies.drawing import draw_maps, map_rows
from scclip_core.studies.shapes import the_scene
from scclip_core.studies.similarity import layer_tokens
from scclip_core.timing import compare, machine

PATCH, GRID, PLANTED = 16, 14, 10  # pixels of a patch, patches a side, anomalies planted: 5 % of 196
K = 30


def points_in_a_plane(seed: int = 0) -> np.ndarray:
    """A dense cluster, a loose one, and three points that belong to neither, [43, 2]."""
    rng = np.random.default_rng(seed)
    dense, loose = rng.normal((0, 0), 0.25, (20, 2)), rng.normal((4, 1), 1.0, (20, 2))
    return np.concatenate([dense, loose, [(0, 1.6), (1.6, -0.3), (4.5, 5.0)]])


def lof_by_formula(points: np.ndarray, k: int) -> pd.DataFrame:
    """The four formulas of Breunig et al. (2000), one after the other, in plain loops.

    `points` is [N, D]; returns a row a point: coordinates of the first two dimensions, k-distance, local
    reachability density, local outlier factor.
    """
    n = len(points)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = [[j for j in np.argsort(distance[i], kind="stable") if j != i][:k] for i in range(n)]
    k_distance = [distance[i, near[i][-1]] for i in range(n)]
    reach = [[max(k_distance[j], distance[i, j]) for j in near[i]] for i in range(n)]
    density = [1 / (np.mean(reach[i]) + 1e-10) for i in range(n)]
    factor = [np.mean([density[j] for j in near[i]]) / density[i] for i in range(n)]
    columns = {"x": points[:, 0], "y": points[:, 1], "k-distance": k_distance, "lrd": density, "lof": factor}
    return pd.DataFrame(columns)


def plant(scene: Scene, source: str, rng: np.random.Generator) -> tuple[Scene, np.ndarray]:
    """A scene with anomalies of one of the seed's sources (3.1) at known patches; the scene is not changed.

    `source` is "border" (a coloured strip on patches of the image's edge), "occlusion" (a black block of 2 x
    5 patches), "rare texture" (fine stripes in random colours on scattered patches), "lighting" (scattered
    patches three times as bright). Returns the scene and where: bool [14, 14], 10 of them true.
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
    return pairwise_distances(tokens[None])[0].sqrt().kthvalue(K + 1, dim=1).values.numpy()


def _forest(tokens: Tensor) -> np.ndarray:
    return -IsolationForest(random_state=0).fit(tokens.numpy()).score_samples(tokens.numpy())


def _mahalanobis(tokens: Tensor) -> np.ndarray:
    return LedoitWolf().fit(tokens.numpy()).mahalanobis(tokens.numpy())


def _norm(tokens: Tensor) -> np.ndarray:
    return tokens.norm(dim=1).numpy()


# tokens [N, C] -> scores [N], larger where more anomalous
DETECTORS: dict[str, Callable[[Tensor], np.ndarray]] = {
    "local outlier factor": _lof,
    "k-NN distance": _neighbour_distance,
    "isolation forest": _forest,
    "Mahalanobis": _mahalanobis,
    "token norm": _norm,
}


def penultimate_tokens(model: FrozenCLIP, scene: Scene) -> Tensor:
    """The patch tokens that stage 3 looks at, [N, C]."""
    return layer_tokens(model, stack_images(model, [scene]))[-1][0]


def detect_planted(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """Precision (= recall, as many are flagged as planted) and ROC AUC of each detector, by source.

    `count` test scenes a source; intervals are 95 % bootstrap over scenes.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for source in SOURCES:
        for index in tqdm(range(count), desc=source):
            rng = np.random.default_rng((TEST, seed, index))
            scene, where = plant(evaluation_scene(TEST, seed, index), source, rng)
            truth, tokens = where.flatten(), penultimate_tokens(model, scene)
            for name, detector in DETECTORS.items():
                scores = detector(tokens)
                flagged = flag_anomalies(torch.tensor(scores)[None], PLANTED / truth.size)[0].numpy()
                hits = (truth & flagged).sum() / flagged.sum()
                found.setdefault((source, name), []).append((hits, roc_auc_score(truth, scores)))
    rows = []
    for (source, name), values in found.items():
        for i, measure in enumerate(("precision", "ROC AUC")):
            estimate = mean_interval(np.array(values)[:, i], seed)
            rows.append((source, name, measure, *estimate, count, seed))
    columns = ["source", "detector", "measure", "value", "low", "high", "scenes", "seed"]
    return pd.DataFrame(rows, columns=columns)


def time_detectors(model: FrozenCLIP, repeats: int = 10) -> pd.DataFrame:
    """Time of each detector on the tokens of one image, as a ratio to the local outlier factor's.

    On one thread: torch and scikit-learn each keep threads of their own, which would wait for each other.
    """
    tokens = penultimate_tokens(model, the_scene())
    runs = {name: lambda d=detector: d(tokens) for name, detector in DETECTORS.items()}
    with threadpool_limits(1):
        return compare(runs, repeats).assign(**machine())


def stage_three(model: FrozenCLIP, scene: Scene) -> pd.DataFrame:
    """Maps of stage 3 on a scene: scores, flags, and how alike each token is to its image's mean, before and
    after.
    """
    trace = SCCLIP(model).trace(stack_images(model, [scene]))
    before, after = trace[f"block_{model.depth - 2}"].tensor[:, 1:], trace["repaired_penultimate"].tensor
    maps = {"LOF score": trace["lof_scores"].tensor[0], "flagged": trace["anomalous"].tensor[0].float()}
    for name, tokens in (("before repair", before), ("after repair", after)):
        maps[name] = torch.cosine_similarity(tokens, before.mean(1, keepdim=True), dim=-1)[0]
    return map_rows({name: values.view(GRID, GRID) for name, values in maps.items()})


@figure("02_plane")
def draw_plane(table: pd.DataFrame) -> Figure:
    """The points, each with a circle as large as its local outlier factor."""
    drawn, axis = plt.subplots(figsize=(8, 5))
    axis.scatter(table["x"], table["y"], color="0.2", s=18, zorder=3)
    axis.scatter(
        table["x"], table["y"], s=120 * table["lof"] ** 2, facecolors="none", edgecolors="#D55E00", lw=1.5
    )
    for _, row in table[table["lof"] > 1.6].iterrows():
        axis.annotate(f"{row['lof']:.1f}", (row["x"], row["y"]), xytext=(14, 8), textcoords="offset points")
    axis.set(title="Larger circle: larger local outlier factor", xlabel="x", ylabel="y")
    sns.despine(drawn)
    return drawn


@figure("02_stage_three")
def draw_stage_three(table: pd.DataFrame) -> Figure:
    """Scores, flags, and the tokens' likeness to their mean before and after repair, over the scene."""
    return draw_maps(table, the_scene().image, label="score, flag, and cosine with the image's mean token")


@figure("02_histogram")
def draw_histogram(table: pd.DataFrame) -> Figure:
    """The scores of the scene's patches and the quantile above which they are flagged."""
    scores = table[table["panel"] == "LOF score"]["value"]
    drawn, axis = plt.subplots(figsize=(8, 4))
    axis.hist(scores, bins=40, color="#56B4E9")
    axis.axvline(np.quantile(scores, 0.95), color="#D55E00", lw=2, label="95 % quantile: flagged above")
    axis.set(xlabel="local outlier factor", ylabel="patches")
    axis.legend(frameon=False, fontsize=11, loc="lower right", bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn


@figure("02_detectors")
def draw_detectors(table: pd.DataFrame) -> Figure:
    """ROC AUC of every detector on every source, with intervals."""
    part = table[table["measure"] == "ROC AUC"]
    drawn, axis = plt.subplots(figsize=(11, 4.6))
    for i, (name, rows) in enumerate(part.groupby("detector", sort=False)):
        place = np.arange(len(rows)) + 0.16 * (i - 2)
        axis.bar(place, rows["value"], 0.15, yerr=spread(rows), capsize=2, label=name)
    axis.axhline(0.5, color="0.4", linestyle=":", linewidth=1.5)
    axis.set_xticks(range(len(SOURCES)), SOURCES)
    axis.set(ylabel="ROC AUC (0.5: chance)", ylim=(0, 1.05))
    axis.legend(frameon=False, fontsize=11, bbox_to_anchor=(1, 1))
    sns.despine(drawn)
    return drawn
