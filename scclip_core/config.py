"""Every hyper-parameter of SC-CLIP in one frozen dataclass, checked when it is made.

Layer indices count block outputs from 0: layer 8 is the output of the ninth block.
"""

from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from torch import Tensor

    from scclip_core.adapt import Adapted
    from scclip_core.clip import FrozenCLIP
    from scclip_core.text import Classes

ARTICLE_TEMPLATE = "a photo of {}"
SWITCHES = (
    "repair",
    "first_aggregation",
    "calibrated_attention",
    "second_aggregation",
    "fusion",
    "class_residual",
)
CHOICES = {
    "self_attention": ("qk", "kk", "qq", "vv"),
    "lof": ("standard", "published"),
    "detector": ("lof", "landmarks", "grid"),
    "repair_from": ("all", "clean"),
}
# The layers and the residual weight for each depth: the article's, and the author's for ViT-L/14
# (issue 5 of the published code's repository).
LAYERS: dict[int, dict[str, Any]] = {
    12: {
        "pre_adjust_idx": 8,
        "post_adjust_idx": 3,
        "multi_start_idx": 3,
        "multi_end_idx": 10,
        "res_cls": 0.3,
    },
    24: {
        "pre_adjust_idx": 16,
        "post_adjust_idx": 6,
        "multi_start_idx": 8,
        "multi_end_idx": 19,
        "res_cls": 0.1,
    },
}
INDICES = ("pre_adjust_idx", "post_adjust_idx", "multi_start_idx", "multi_end_idx")
# The fewest blocks that have a shallow, a middle and a last but one layer to choose.
LEAST_DEPTH = 4


@dataclass(frozen=True)
class SCCLIPConfig:
    """Hyper-parameters of SC-CLIP; the defaults are those of the article, for a ViT of 12 blocks.

    Switches, one for each module. With all of them off, what remains is the value path of the last
    block, patch by patch (the baseline `values`):
        repair: replace anomalous patch tokens by the mean of their neighbours (stage 3).
        first_aggregation: replace each token by the mean of the tokens that resemble it at layer
            `pre_adjust_idx` (stage 4).
        calibrated_attention: mix content attention and self-attention in the last block (stage 5);
            when it is off, every patch attends to itself alone.
        second_aggregation: the same mean, with similarities of layer `post_adjust_idx` (stage 6).
        fusion: add an auxiliary branch that starts from the sum of several layers (stage 7).
        class_residual: add `res_cls` times the class token after the attention (stage 5).

    Values:
        detector: what scores the patches: "lof", the local outlier factor among all of them (the
            article); for large grids "landmarks", among 64 of them, or "grid", within a window of
            7 x 7 patches (stage 3; see `detectors`).
        lof_neighbors: number k of neighbours of the local outlier factor, >= 1; the "grid" detector
            has its own (stage 3).
        contamination: share of the patches that is flagged as anomalous, in (0, 0.5] (stage 3).
        beta: similarities below this threshold are set to 0, in [-1, 1] (stage 4);
            below 0, weights may be negative, and a sum of them near 0 makes a token very long.
        pre_adjust_idx: layer whose similarities guide the first aggregation and the content
            attention (stage 4).
        post_adjust_idx: layer whose similarities guide the second aggregation (stage 6).
        multi_start_idx, multi_end_idx: layers that the fusion sums, the end excluded (stage 7).
        content_gain: factor on the centred similarities before the softmax, > 0 (stage 5).
        mix: weight of the content attention against the self-attention, in [0, 1]; the article's
            alpha (stage 5).
        res_cls: weight of the class token that is added after the attention, >= 0 (stage 5).
        self_attention: which projections score the self-attention of the last block: qk (the
            article), kk (the published code), qq or vv (stage 5).
        lof: "standard", the definition of Breunig et al. (2000), or "published", the variant of
            the published code, which no detector but "lof" has (stage 3).
        repair_from: which neighbours repair a token: "all" on the grid (the article), or "clean"
            ones only, those that are not anomalous themselves (the published code; stage 3).
        position_offset: added to the number of rows and columns where the positional embeddings
            are interpolated, in [0, 1); the published code has 0.1 (stage 1).
        templates: sentences with one {} each; the embedding of a class is the mean over them
            (stage 8).
        depth: number of blocks of the image tower that the layer indices are meant for.

    Raises ValueError that names the field, the value given and what is allowed.
    """

    repair: bool = True
    first_aggregation: bool = True
    calibrated_attention: bool = True
    second_aggregation: bool = True
    fusion: bool = True
    class_residual: bool = True
    lof_neighbors: int = 30
    contamination: float = 0.05
    beta: float = 0.4
    pre_adjust_idx: int = 8
    post_adjust_idx: int = 3
    multi_start_idx: int = 3
    multi_end_idx: int = 10
    content_gain: float = 3.0
    mix: float = 0.5
    res_cls: float = 0.3
    self_attention: str = "qk"
    lof: str = "standard"
    detector: str = "lof"
    repair_from: str = "all"
    position_offset: float = 0.0
    templates: tuple[str, ...] = (ARTICLE_TEMPLATE,)
    depth: int = 12

    def __post_init__(self) -> None:
        for name in SWITCHES:
            self._require(name, isinstance(getattr(self, name), bool), "True or False")
        least = {"lof_neighbors": 1, "depth": 2}
        for name in ("lof_neighbors", "depth", *INDICES):
            low, value = least.get(name, 0), getattr(self, name)
            self._require(name, is_whole(value) and value >= low, f"a whole number >= {low}")
            object.__setattr__(self, name, int(value))  # of NumPy's kinds too
        for name in ("contamination", "beta", "content_gain", "mix", "res_cls"):
            self._require(name, is_number(getattr(self, name)), "a number")
            object.__setattr__(self, name, float(getattr(self, name)))
        self._require("contamination", 0 < self.contamination <= 0.5, "in (0, 0.5]")
        self._require("beta", -1 <= self.beta <= 1, "in [-1, 1]")
        gain_is_finite = 0 < self.content_gain < float("inf")
        self._require("content_gain", gain_is_finite, "a finite number > 0")
        self._require("mix", 0 <= self.mix <= 1, "in [0, 1]")
        self._require("res_cls", 0 <= self.res_cls < float("inf"), "a finite number >= 0")
        # The last block is the one that is rearranged, so layers 0 to depth - 2 can be read.
        of = f"in a model of {self.depth} blocks"
        for name in ("pre_adjust_idx", "post_adjust_idx"):
            last = self.depth - 2
            self._require(name, getattr(self, name) <= last, f"at most {last} {of}")
        last = self.depth - 1
        self._require("multi_end_idx", self.multi_end_idx <= last, f"at most {last} {of}")
        start = self.multi_start_idx
        self._require("multi_end_idx", self.multi_end_idx > start, f"> multi_start_idx ({start})")
        for name, allowed in CHOICES.items():
            self._require(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")
        no_variant = self.lof == "standard" or self.detector == "lof"
        self._require("detector", no_variant, "lof where lof is published")
        check_position_offset(self.position_offset)
        check_templates(self.templates)

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    def check_depth(self, depth: int) -> None:
        """Raise ValueError where the layers were chosen for a model of another depth."""
        if depth == self.depth:
            return
        layers = ", ".join(f"{name}={value}" for name, value in layers_at(depth).items())
        origin = "the author's values" if depth in LAYERS else "layers of the same relative depth"
        hint = (
            f"SCCLIPConfig.for_depth({depth}) has {origin} ({layers})"
            if layers
            else f"choose layers for it, and say so with depth={depth}"
        )
        raise ValueError(
            f"config must be made for the model's {depth} blocks, "
            f"its layers are meant for {self.depth}: {hint}"
        )

    @classmethod
    def for_depth(cls, depth: int) -> Self:
        """The layers and the residual weight for a ViT of `depth` blocks.

        Known for 12 (B/16 and B/32, the article) and 24 (L/14, the author). At any other depth
        >= 4 they follow a rule of relative depth, whose quality nobody has measured on large
        models (see `layers_at`). Raises ValueError for fewer blocks.
        """
        if not is_whole(depth) or depth < LEAST_DEPTH:
            raise ValueError(
                f"depth must be a whole number >= {LEAST_DEPTH}, got {depth!r}; "
                f"give the layer indices and the depth yourself"
            )
        return cls(depth=depth, **layers_at(depth))

    @classmethod
    def adapt(
        cls,
        model: "FrozenCLIP",
        images: "Tensor",
        classes: "Classes | None" = None,
        base: "SCCLIPConfig | None" = None,
        **options: Any,
    ) -> "Adapted":
        """A configuration chosen from unlabelled pictures: for all of them, or for one alone.

        Args:
            model: what `load_clip` returns.
            images: as `SCCLIP.segment` takes them, [B, 3, H, W]; with B = 1 it is chosen for
                this picture.
            classes: as in `SCCLIP.segment`: words that the pictures may show. With them the rule
                is mutual information, without them "near and far", which reads similarities alone.
            base: where to start from (default: `for_depth` of the model).
            options: `rule`, another one of `adapt.RULES`, and `batch`, images at once (default: 8).

        Returns an `Adapted`: its `config`, the `reasons` for each field that differs from `base`,
        and the score of every candidate. No label is read. What each rule is worth beside the
        article's constants, chapter 12 measures: mutual information finds objects that the
        constants miss, at some cost in background; most other rules do harm.

        Raises TypeError and ValueError that name the argument.
        """
        from scclip_core.adapt import adapt

        return adapt(model, images, classes, base, **options)

    @classmethod
    def published(cls, depth: int = 12) -> Self:
        """What the published code (SuleBai/SC-CLIP) computes, with the layers of `for_depth`."""
        return replace(
            cls.for_depth(depth),
            self_attention="kk",
            lof="published",
            repair_from="clean",
            position_offset=0.1,
            templates=imagenet_templates(),
        )


def is_whole(value: object) -> bool:
    """Whether a value is a whole number of Python or NumPy, and neither True nor False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a real number of Python or NumPy, and neither True nor False."""
    return isinstance(value, Real) and not isinstance(value, bool)


def scaled_layer(index: int, depth: int) -> int:
    """The layer of a model of `depth` blocks that is where layer `index` of 12 blocks is.

    Halves are rounded up.
    """
    return (index * depth + 6) // 12


def layers_at(depth: int) -> dict[str, Any]:
    """The layer indices and the residual weight at a depth; empty below `LEAST_DEPTH`.

    The known ones at 12 and 24 blocks. Elsewhere a layer keeps its relative depth in the article,

        layer = round(index in a model of 12 blocks * depth / 12)

    with halves rounded up and the last block left out; the residual weight is that of the nearest
    known depth, and of the smaller one where both are as near.
    """
    if depth in LAYERS:
        return LAYERS[depth]
    if depth < LEAST_DEPTH:
        return {}
    article, last = LAYERS[12], depth - 1
    scaled = {name: scaled_layer(article[name], depth) for name in INDICES}
    # A range may end before the last block, but a layer that is read lies before it.
    layers = {name: min(i, last - (name != "multi_end_idx")) for name, i in scaled.items()}
    nearest = min(LAYERS, key=lambda known: abs(known - depth))
    return {**layers, "res_cls": LAYERS[nearest]["res_cls"]}


def imagenet_templates() -> tuple[str, ...]:
    """The 80 sentences of CLIP's zero-shot protocol on ImageNet (Radford et al. 2021)."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def check_position_offset(offset: float) -> None:
    """Raise ValueError unless `offset` is a number in [0, 1)."""
    if not is_number(offset) or not 0 <= offset < 1:
        raise ValueError(f"position_offset must be a number in [0, 1), got {offset!r}")


def check_templates(templates: tuple[str, ...]) -> None:
    """Raise ValueError unless `templates` is a non-empty tuple of sentences with one {} each."""
    given = repr(templates) if len(repr(templates)) <= 80 else repr(templates)[:80] + "..."
    well = isinstance(templates, tuple) and all(
        isinstance(t, str) and "{}" in t and not set("{}") & set(t.replace("{}", "", 1))
        for t in templates
    )
    if not well or not templates:
        raise ValueError(
            f"templates must be a non-empty tuple of sentences with one {{}} each, got {given}"
        )
