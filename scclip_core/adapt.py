"""Hyper-parameters of SC-CLIP chosen from unlabelled pictures (`SCCLIPConfig.adapt`).

A rule scores candidates around a configuration. One looks at similarities alone: at which layers do
neighbouring patches resemble each other more than distant ones? The others look at predictions: how
sure they are, how many classes they use, whether they stay the same when the picture is flipped or
cropped. No label is read. B images, grids of rows x cols patches, C classes.
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig, is_whole, scaled_layer
from scclip_core.pipeline import SCCLIP
from scclip_core.sharing import MAX_BYTES, ResultCache, shared_results
from scclip_core.similarity import patch_similarity
from scclip_core.text import Classes, max_over_names

Name = TypeVar("Name", bound=Hashable)
# What candidates change, one field at a time; layers are those of a model of 12 blocks.
CHANGES: dict[str, tuple[float, ...]] = {
    "beta": (0.0, 0.2, 0.4, 0.6, 0.8),
    "pre_adjust_idx": (4, 6, 8, 10),
    "post_adjust_idx": (1, 3, 5, 7),
    "contamination": (0.01, 0.05, 0.15),
    "mix": (0.0, 0.5, 1.0),
    "res_cls": (0.0, 0.1, 0.3, 0.6),
}
# The fields that are also changed together, each at these values.
TOGETHER: dict[str, tuple[float, ...]] = {"beta": (0.2, 0.6, 0.8), "pre_adjust_idx": (4, 6, 10)}
# What each rule looks at; larger scores are better.
RULES = {
    "near and far": "how much more neighbouring patches resemble each other than distant ones, in"
    " deviations, at the middle plus at the shallow layer",
    "entropy": "the mean entropy of the patches' predictions, negated",
    "mutual information": "the entropy of the mean prediction minus the mean entropy",
    "flip": "the share of patches that keep their class when the picture is flipped",
    "crop": "the share of patches that keep their class when the picture is cropped",
    "consensus": "the mean rank by entropy, mutual information, flip and crop",
}
# What `adapt` follows where classes are given, and where none are.
WITH_WORDS, WITHOUT_WORDS = "mutual information", "near and far"
# The rules whose ranks the consensus averages.
PREDICTIONS = ("entropy", "mutual information", "flip", "crop")
# A crop leaves out this share of the rows above and of the columns on the left, one at least.
CROPPED = 7


@dataclass(frozen=True)
class Adapted:
    """What `adapt` chose, and why.

    Attributes:
        config: the chosen configuration.
        candidate: its name among the candidates; "as given" where nothing is changed.
        rule: the rule that chose it.
        scores: the rule's score of every candidate; the largest was chosen.
        reasons: field that was changed -> its values before and after, and the two scores.
    """

    config: SCCLIPConfig
    candidate: str
    rule: str
    scores: dict[str, float]
    reasons: dict[str, str]

    def __str__(self) -> str:
        """One line for each field that was changed, after one about the rule."""
        looked = f"{self.rule}: {RULES[self.rule]}, over {len(self.scores)} candidates"
        changes = [f"{name}: {reason}" for name, reason in self.reasons.items()]
        unchanged = "nothing was changed: no candidate scored higher"
        return "\n".join([looked, *(changes or [unchanged])])


def candidates(base: SCCLIPConfig) -> dict[str, SCCLIPConfig]:
    """The configurations around `base` among which a rule chooses, by name, `base` first.

    One field is changed at a time, to the values of `CHANGES`, and the fields of `TOGETHER` also
    both at once. Layers are those of 12 blocks, moved to the same relative depth of `base`.
    """
    changes: list[dict[str, Any]] = [{}]
    changes += [{name: value} for name, values in CHANGES.items() for value in values]
    (one, its), (other, others) = TOGETHER.items()
    changes += [{one: a, other: b} for a in its for b in others]
    found: dict[str, SCCLIPConfig] = {}
    for change in changes:
        placed: dict[str, Any] = {
            name: _placed(name, value, base.depth) for name, value in change.items()
        }
        config = replace(base, **placed)
        if config not in found.values():
            moved = {name: value for name, value in placed.items() if value != getattr(base, name)}
            name = ", ".join(f"{name}={value}" for name, value in moved.items())
            found[name or "as given"] = config
    return found


def _placed(name: str, value: float, depth: int) -> float:
    """A value of a candidate; a layer of 12 blocks at its place in a model of another depth."""
    return min(scaled_layer(int(value), depth), depth - 2) if name.endswith("_idx") else value


def views_of(images: Tensor, patch: int) -> dict[str, Tensor]:
    """The images [B, 3, H, W] as they are, flipped left to right, and cropped at whole patches.

    Raises ValueError for images of fewer than 2 x 2 patches, which leave nothing to crop.
    """
    rows, cols = (side // patch for side in images.shape[2:])
    if min(rows, cols) < 2:
        raise ValueError(f"images must have at least 2 x 2 patches, got {rows} x {cols}")
    above, left = (patch * _cut(size) for size in (rows, cols))
    cropped = images[:, :, above:, left:].contiguous()
    return {"as is": images, "flip": images.flip(3), "crop": cropped}


def _cut(size: int) -> int:
    """How many of `size` rows or columns a crop leaves out."""
    return max(1, size // CROPPED)


@torch.no_grad()
def read_evidence(
    model: FrozenCLIP, images: Tensor, classes: Classes, configs: Mapping[Name, SCCLIPConfig]
) -> Iterator[tuple[Name, dict[str, Tensor], Tensor]]:
    """What all rules need of images [B, 3, H, W], candidate after candidate.

    Candidates may differ in the fields of `CHANGES` alone.

    Yields (name, evidence, logits [B, rows, cols, C] of the images as they are). What candidates
    have in common is computed once.
    """
    views = views_of(images, model.patch_size)
    methods = {name: SCCLIP(model, config) for name, config in configs.items()}
    first, cache = next(iter(methods.values())), ResultCache(math.inf)
    names, text = first.embed_classes(classes)
    with shared_results(cache):
        layers = {view: first.encode(shown) for view, shown in views.items()}
    # The blocks' outputs are kept, however large they are; of the stages, what fits in besides.
    cache.max_bytes = cache.size + MAX_BYTES
    gaps = near_far_gaps(layers["as is"], model.grid_of(images))
    for name, config in configs.items():
        with shared_results(cache):
            read = {view: methods[name].logits(shown, text) for view, shown in views.items()}
        logits = {view: max_over_names(found, names) for view, found in read.items()}
        evidence = evidence_of(logits, model.logit_scale)
        yield name, evidence | _gaps_of(config, gaps), logits["as is"]


def _gaps_of(config: SCCLIPConfig, gaps: list[Tensor]) -> dict[str, Tensor]:
    return {"near and far": gaps[config.pre_adjust_idx] + gaps[config.post_adjust_idx]}


def near_far_gaps(layers: list[Tensor], grid: tuple[int, int]) -> list[Tensor]:
    """How much more neighbours resemble each other than distant patches, for each layer, [B] each.

    (mean of S_ij over neighbours - mean of S_ij over distant pairs) / standard deviation of S

    Takes the blocks' outputs, [B, 1 + N, C] each. Neighbours are at most one row and one column
    apart, distant pairs at least half the longer side. S are cosine similarities.
    """
    place = torch.arange(grid[0] * grid[1], device=layers[0].device)
    row, col = place // grid[1], place % grid[1]
    apart = torch.maximum((row[:, None] - row).abs(), (col[:, None] - col).abs())
    near, far = apart == 1, apart >= max(1, max(grid) // 2)
    gaps = []
    for tokens in layers:
        similarity = patch_similarity(tokens[:, 1:])
        difference = similarity[:, near].mean(1) - similarity[:, far].mean(1)
        gaps.append(difference / similarity.flatten(1).std(1).clamp(min=1e-6))
    return gaps


def evidence_of(logits: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """What the rules on predictions need of each image, from the logits of its views.

    Takes logits [B, rows, cols, C] by view, and their factor before the softmax. Returns
        entropy: mean entropy of the patches' predictions in nats, [B].
        prediction: mean of the patches' predictions, [B, C].
        flip, crop: share of the patches that keep their class, [B].
    """
    plain = logits["as is"]
    predicted = (scale * plain.flatten(1, 2)).softmax(-1)  # [B, N, C]
    labels = plain.argmax(-1)  # [B, rows, cols]
    flipped, cropped = logits["flip"].argmax(-1).flip(2), logits["crop"].argmax(-1)
    above, left = (_cut(size) for size in labels.shape[1:])
    return {
        "entropy": entropy(predicted).mean(1),
        "prediction": predicted.mean(1),
        "flip": (flipped == labels).float().mean((1, 2)),
        "crop": (cropped == labels[:, above:, left:]).float().mean((1, 2)),
    }


def entropy(predicted: Tensor) -> Tensor:
    """-sum_c p_c log p_c in nats, [..., C] -> [...]."""
    summed: Tensor = torch.special.entr(predicted).sum(-1)
    return summed


def scores_of(evidence: Mapping[Name, Mapping[str, Tensor]], rule: str) -> dict[Name, float]:
    """The score of every candidate by a rule, from its evidence on the same images.

    mutual information = H(mean_b p_b) - mean_b H_b

    Raises ValueError for an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if rule == "consensus":
        parts = [list(scores_of(evidence, one).values()) for one in PREDICTIONS]
        ranks = torch.stack([_ranks(torch.tensor(part)) for part in parts]).mean(0)
        return dict(zip(evidence, ranks.tolist(), strict=True))
    return {name: _score(found, rule) for name, found in evidence.items()}


def _score(found: Mapping[str, Tensor], rule: str) -> float:
    if rule == "entropy":
        return -float(found["entropy"].mean())
    if rule == "mutual information":
        return float(entropy(found["prediction"].mean(0)) - found["entropy"].mean())
    return float(found[rule].mean())


def _ranks(scores: Tensor) -> Tensor:
    """The share of candidates with a lower score, [K] -> [K]; equal scores share a rank."""
    lower = (scores[:, None] > scores).double().mean(1)
    return lower + 0.5 * ((scores[:, None] == scores).double().mean(1) - 1 / len(scores))


def adapt(
    model: FrozenCLIP,
    images: Tensor,
    classes: Classes | None = None,
    base: SCCLIPConfig | None = None,
    rule: str | None = None,
    batch: int = 8,
) -> Adapted:
    """See `SCCLIPConfig.adapt`."""
    if not isinstance(model, FrozenCLIP):
        given = type(model).__name__
        raise TypeError(f"model must be a FrozenCLIP, as load_clip returns it, got {given}")
    grid = model.grid_of(images)
    if rule is None:
        rule = WITHOUT_WORDS if classes is None else WITH_WORDS
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if classes is None and rule != WITHOUT_WORDS:
        raise ValueError(
            f"classes must be given for the rule {rule!r}; {WITHOUT_WORDS!r} needs none"
        )
    if grid == (1, 1):
        raise ValueError("images must have two patches or more, these have one")
    if rule != WITHOUT_WORDS:
        views_of(images[:1], model.patch_size)  # refuses images that leave nothing to crop
    if not is_whole(batch) or batch < 1:
        raise ValueError(f"batch must be a whole number >= 1, got {batch!r}")
    base = SCCLIPConfig.for_depth(model.depth) if base is None else base
    if not isinstance(base, SCCLIPConfig):
        raise TypeError(f"base must be an SCCLIPConfig, got {type(base).__name__}")
    base.check_depth(model.depth)
    configs = candidates(base)
    parts: dict[str, list[dict[str, Tensor]]] = {name: [] for name in configs}
    for some in torch.split(images, batch):
        for name, found in _evidence(model, some, classes, configs, rule):
            parts[name].append(found)
    scores = scores_of({name: join(found) for name, found in parts.items()}, rule)
    chosen = max(scores, key=scores.__getitem__)  # the first of several: nearest to `base`
    return Adapted(configs[chosen], chosen, rule, scores, _reasons(base, configs[chosen], scores))


@torch.no_grad()
def _evidence(
    model: FrozenCLIP,
    images: Tensor,
    classes: Classes | None,
    configs: Mapping[str, SCCLIPConfig],
    rule: str,
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The evidence that a rule needs; one that looks at layers alone runs the blocks once."""
    if rule == WITHOUT_WORDS or classes is None:
        layers = SCCLIP(model, next(iter(configs.values()))).encode(images)
        gaps = near_far_gaps(layers, model.grid_of(images))
        yield from ((name, _gaps_of(config, gaps)) for name, config in configs.items())
    else:
        for name, found, _ in read_evidence(model, images, classes, configs):
            yield name, found


def join(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The evidence of several batches of images as that of all, image after image."""
    return {what: torch.cat([part[what] for part in parts]) for what in parts[0]}


def _reasons(
    base: SCCLIPConfig, config: SCCLIPConfig, scores: Mapping[str, float]
) -> dict[str, str]:
    reached = f"score {max(scores.values()):.4f}, without the change {scores['as given']:.4f}"
    return {
        name: f"{getattr(base, name)} -> {getattr(config, name)} ({reached})"
        for name in CHANGES
        if getattr(base, name) != getattr(config, name)
    }
