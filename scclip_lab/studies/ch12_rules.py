"""Chapter 12: rules that read similarities alone: thresholds for beta, the spectral gap."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.pipeline import SCCLIP
from scclip_core.similarity import patch_similarity, threshold_similarity
from scclip_lab.studies.reading import Continued

# A threshold of similarities, [pairs] -> number.
Threshold = Callable[[np.ndarray], float]
# Bins of the histogram of similarities, from -1 to 1.
BINS = 256
# The graph may have this many clusters; the gap is sought behind as many eigenvalues.
CLUSTERS = (2, 10)
# Similarities that the mixture is fitted to, and pictures whose graphs are decomposed.
SAMPLE, GRAPHS = 4000, 8


def off_diagonal(similarity: Tensor) -> np.ndarray:
    """Every pair of different patches once, [B, N, N] -> float64 [B * N (N - 1) / 2]."""
    count = similarity.shape[1]
    rows, cols = torch.triu_indices(count, count, offset=1)
    return similarity[:, rows, cols].flatten().double().numpy()


def otsu_threshold(values: np.ndarray) -> float:
    """Otsu's threshold (1979) of similarities: the cut between two classes furthest apart.

    max over t of w_0(t) w_1(t) (m_0(t) - m_1(t))^2, the variance between the classes

    w are the shares and m the means of the values below and above t, on `BINS` bins of [-1, 1].
    Where several cuts are equally good, their mean.
    """
    counts, edges = np.histogram(np.clip(values, -1, 1), BINS, (-1, 1))
    middles = (edges[:-1] + edges[1:]) / 2
    share = np.cumsum(counts)[:-1] / counts.sum()  # below the inner edges
    total = np.cumsum(counts * middles) / counts.sum()
    product = share * (1 - share)
    apart = np.divide(
        (total[-1] * share - total[:-1]) ** 2, product, out=np.zeros_like(share), where=product > 0
    )
    best = np.isclose(apart, apart.max(), rtol=1e-9)
    return float(edges[1:-1][best].mean())


def mixture_threshold(values: np.ndarray, seed: int = 0) -> float:
    """Where two normal distributions, fitted to similarities, are equally likely.

    Between the two means; the middle of them where there is no such place. It is fitted to
    `SAMPLE` of the values.
    """
    rng = np.random.default_rng(seed)
    sample = rng.choice(values, min(SAMPLE, len(values)), replace=False)
    fitted = GaussianMixture(2, random_state=seed).fit(sample[:, None])
    low, high = sorted(fitted.means_[:, 0])
    places = np.linspace(low, high, 501)
    upper = int(fitted.means_[:, 0].argmax())
    likely = fitted.predict_proba(places[:, None])[:, upper] >= 0.5
    crossings = np.flatnonzero(~likely[:-1] & likely[1:])
    return float(places[crossings[-1] + 1] if len(crossings) else (low + high) / 2)


def spectral_gap(similarity: Tensor, beta: float) -> float:
    """How clearly the graph of patches falls into clusters: the largest gap of its eigenvalues.

    max over k of l_{k+1} - l_k, with l the eigenvalues of I - D^-1/2 W D^-1/2, in ascending order

    W are the similarities from `beta` on, negative ones left out, and k the number of clusters,
    in `CLUSTERS`. Takes [B, N, N]; the mean over images.
    """
    weights = threshold_similarity(similarity, beta).clamp(min=0)
    scale = weights.sum(-1).rsqrt()
    laplacian = torch.eye(weights.shape[1]) - scale[:, :, None] * weights * scale[:, None]
    values = torch.linalg.eigvalsh(laplacian)
    first, last = CLUSTERS
    return float(values[:, first - 1 : last + 1].diff(dim=1).amax(1).mean())


def spectral_scores(layers: list[Tensor], configs: Mapping[str, SCCLIPConfig]) -> dict[str, float]:
    """The spectral gap of the graph of the middle layer at beta, for every candidate.

    The rule does not see the other parameters: candidates that differ in those alone have the same
    score. Takes the blocks' outputs [B, L, C] of the unlabelled pictures.
    """
    spectra: dict[tuple[int, float], float] = {}
    for config in configs.values():
        middle = config.pre_adjust_idx
        if (middle, config.beta) not in spectra:
            similarity = patch_similarity(layers[middle][:GRAPHS, 1:])
            spectra[middle, config.beta] = spectral_gap(similarity, config.beta)
    return {name: spectra[c.pre_adjust_idx, c.beta] for name, c in configs.items()}


class OtsuEachPicture(SCCLIP):
    """SC-CLIP with beta set for every picture by Otsu's threshold on its own similarities."""

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Picture after picture, [B, 3, H, W] -> [B, N, C]."""
        layers, found = self.encode(images), []
        for i in range(len(images)):
            picture, own = images[i : i + 1], [tokens[i : i + 1] for tokens in layers]
            config = set_beta(self.config, otsu_threshold, own)
            found.append(Continued(self.model, config, own).dense_tokens(picture, grid))
        return torch.cat(found)


def set_beta(config: SCCLIPConfig, threshold: Threshold, layers: list[Tensor]) -> SCCLIPConfig:
    """The configuration with beta by a threshold on the similarities of the middle layer."""
    similarity = patch_similarity(layers[config.pre_adjust_idx][:, 1:])
    return replace(config, beta=float(np.clip(threshold(off_diagonal(similarity)), -1, 1)))


def thresholds(model: FrozenCLIP, config: SCCLIPConfig, layers: list[Tensor]) -> dict[str, SCCLIP]:
    """The segmenters that thresholds on similarities make of a configuration.

    Takes the blocks' outputs [B, L, C] of the unlabelled pictures.
    """
    otsu, mixture = (set_beta(config, t, layers) for t in (otsu_threshold, mixture_threshold))
    return {
        "Otsu": SCCLIP(model, otsu),
        "Otsu, each picture": OtsuEachPicture(model, config),
        "mixture": SCCLIP(model, mixture),
    }
