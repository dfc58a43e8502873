"""FLOSS: for every class the templates that are surest of it, chosen by unlabelled pictures.

Benigmim et al., "FLOSS: Free Lunch in Open-vocabulary Semantic Segmentation", arXiv 2504.10487. It
changes text alone, so it goes with every method: pictures choose the templates
(`template_entropies`, `choose_experts`), and each class is then claimed by a classifier of its own
(`segment_with_experts`). B images, K classes of one name each, T templates, shared dimension D.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from scclip_core.config import check_templates, is_number, is_whole
from scclip_core.dense import DenseCLIP
from scclip_core.segmentation import upsample
from scclip_core.text import Classes, embed_names, parse_classes


def probabilities(
    features: Tensor, text: Tensor, size: Sequence[int], logit_scale: float
) -> Tensor:
    """softmax over classes of logit_scale times cosine similarities at image size.

    Takes unit features [B, rows, cols, D], unit text [K, D] and size (H, W); returns [B, K, H, W].
    """
    return (logit_scale * upsample(features.to(text.dtype) @ text.T, size)).softmax(1)


def entropy_sums(probability: Tensor) -> tuple[Tensor, Tensor]:
    """For each class the summed entropy, and the number, of the pixels that are given to it.

    The entropy of a pixel is -sum_k p_k log(p_k), in nats. Takes [B, K, H, W]; returns two float64
    tensors [K].
    """
    classes = probability.shape[1]
    entropy = -torch.xlogy(probability, probability).sum(1).flatten().double()  # [B * H * W]
    labels = probability.max(1).indices.flatten()
    zeros = torch.zeros(classes, dtype=torch.float64, device=probability.device)
    return zeros.scatter_add(0, labels, entropy), labels.bincount(minlength=classes).double()


@torch.no_grad()
def template_entropies(
    method: DenseCLIP,
    batches: Iterable[Tensor],
    classes: Classes,
    templates: tuple[str, ...],
    logit_scale: float | None = None,
) -> Tensor:
    """How sure the classifier of each single template is of each class, without labels.

    H_mk is the mean entropy of the pixels that template m's classifier gives to class k, over all
    pictures.

    Args:
        method: any method.
        batches: unlabelled images, [B, 3, H, W] each.
        classes: K names.
        templates: T sentences with one {} each.
        logit_scale: factor on cosine similarities (default: the model's own).

    Returns float64 [T, K], in nats, infinite where no pixel was given to the class. Raises
    ValueError for classes of several names, templates that are none, and no images.
    """
    names, scale = _names_and_scale(method, classes, logit_scale)
    check_templates(templates)
    texts = [embed_names(method.model, names, (template,)) for template in templates]
    sums = torch.zeros(2, len(templates), len(names), dtype=torch.float64)
    seen = 0
    for images in batches:
        features = method.features(images)
        for m, text in enumerate(texts):
            found = entropy_sums(probabilities(features, text, images.shape[2:], scale))
            sums[:, m] += torch.stack(found).cpu()
        seen += len(images)
    if not seen:
        raise ValueError("batches must hold at least one image, got none")
    return torch.where(sums[1] > 0, sums[0] / sums[1].clamp(min=1), torch.inf)


def choose_experts(entropies: Tensor, count: int = 4) -> list[tuple[int, ...]]:
    """The `count` templates of the lowest entropy for every class.

    Templates that never saw a class are none of its experts; where none saw it, all are (the
    published code stops there).

    Takes [T, K], as `template_entropies` returns it; returns K tuples of template numbers, the
    surest first. Raises ValueError unless `count` is in 1..T.
    """
    if not is_whole(count) or not 1 <= count <= len(entropies):
        most = len(entropies)
        raise ValueError(f"count must be in 1..{most}, the number of templates, got {count!r}")
    experts = []
    for column in entropies.T:
        order = [m for m in column.argsort(stable=True).tolist() if column[m] < torch.inf]
        experts.append(tuple(order[:count] or range(len(column))))
    return experts


def expert_labels(
    features: Tensor, experts: Tensor, average: Tensor, size: Sequence[int], logit_scale: float
) -> Tensor:
    """Label maps in which every class is claimed by its own classifier.

    Expert k claims a pixel where it gives the pixel to class k; of several that claim one, that
    with the highest probability has it. The classifier `average` labels what nobody claims.

    Args:
        features: unit features [B, rows, cols, D].
        experts: unit text of every class by the templates of class k, [K, K, D].
        average: unit text of every class by all templates, [K, D].
        size: (H, W) of the images.
        logit_scale: factor on cosine similarities.

    Returns int64 [B, H, W].
    """
    labels = probabilities(features, average, size, logit_scale).max(1).indices  # [B, H, W]
    best = torch.zeros(labels.shape, dtype=average.dtype, device=labels.device)
    for k, text in enumerate(experts):
        probability = probabilities(features, text, size, logit_scale)
        own = probability[:, k]
        wins = (probability.max(1).indices == k) & (own > best)
        labels, best = labels.masked_fill(wins, k), torch.where(wins, own, best)
    return labels


@torch.no_grad()
def segment_with_experts(
    method: DenseCLIP,
    images: Tensor,
    classes: Classes,
    templates: tuple[str, ...],
    experts: Sequence[tuple[int, ...]],
    logit_scale: float | None = None,
) -> Tensor:
    """Label maps at image size by the experts of every class.

    Args:
        method: any method; its features are those without words.
        images: [B, 3, H, W].
        classes: K names.
        templates: T sentences with one {} each.
        experts: for each class numbers of templates, as `choose_experts` returns them.
        logit_scale: factor on cosine similarities (default: the model's own).

    Returns int64 [B, H, W], indices into `classes`. Raises ValueError for classes of several
    names, templates that are none, and experts that do not fit them.
    """
    names, scale = _names_and_scale(method, classes, logit_scale)
    check_templates(templates)
    known = range(len(templates))
    if len(experts) != len(names) or not all(one and set(one) <= set(known) for one in experts):
        needed = f"{len(names)} non-empty tuples of numbers in 0..{known[-1]}"
        raise ValueError(f"experts must be {needed}, got {experts!r}")
    method.model.grid_of(images)
    each = [
        embed_names(method.model, names, tuple(templates[m] for m in numbers))
        for numbers in experts
    ]
    average = embed_names(method.model, names, templates)
    features = method.features(images)
    return expert_labels(features, torch.stack(each), average, images.shape[2:], scale)


def _names_and_scale(
    method: DenseCLIP, classes: Classes, logit_scale: float | None
) -> tuple[list[str], float]:
    parsed = parse_classes(classes)
    several = [names for names in parsed if len(names) > 1]
    if several:
        raise ValueError(f"classes must have one name each, got {'|'.join(several[0])!r}")
    scale = method.model.logit_scale if logit_scale is None else logit_scale
    if not is_number(scale) or not 0 < scale < float("inf"):
        raise ValueError(f"logit_scale must be a finite number > 0, got {scale!r}")
    return [names[0] for names in parsed], scale
