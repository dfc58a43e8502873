"""Every hyper-parameter of SC-CLIP in one frozen dataclass, checked when it is made.

Layer indices count block outputs from 0: layer 8 is the output of the ninth block.
"""

from dataclasses import dataclass, replace
from typing import Self

SEED_TEMPLATE = "a photo of {}"
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
    "repair_from": ("all", "clean"),
}
FOR_DEPTH = {
    12: {},
    24: {
        "pre_adjust_idx": 16,
        "post_adjust_idx": 6,
        "multi_start_idx": 8,
        "multi_end_idx": 19,
        "res_cls": 0.1,
    },
}


@dataclass(frozen=True)
class SCCLIPConfig:
    """Hyper-parameters of the rearranged forward pass; the defaults follow the seed.

    Switches, one a module; all of them off is MaskCLIP-like (values of the last block, read patch by patch):
        repair: replace anomalous patch tokens by the mean of their neighbours (seed 3).
        first_aggregation: average each token with those that look like it at `pre_adjust_idx` (seed 4).
        calibrated_attention: content attention mixed with self attention in the last block (seed 5.1);
            off, every patch attends to itself alone.
        second_aggregation: the same average with similarity at `post_adjust_idx` (seed 6).
        fusion: add an auxiliary branch that starts from the sum of several layers (seed 7).
        class_residual: add `res_cls` times the class token after the attention (seed 5.2).

    Values:
        lof_neighbors: k of the local outlier factor, patches, >= 1 (seed 3.1).
        contamination: share of patches taken as anomalous, in (0, 0.5] (seed 3.1).
        beta: similarities below it are set to 0, in [-1, 1] (seed 4.2).
        pre_adjust_idx: layer whose similarity guides the first aggregation and the content attention (seed
            4.1).
        post_adjust_idx: layer whose similarity guides the second aggregation (seed 6.1).
        multi_start_idx, multi_end_idx: layers summed by the fusion, the end excluded (seed 7.1).
        content_gain: factor on the centred similarities before the softmax, > 0 (seed 5.1).
        mix: weight of the content attention against the self attention, in [0, 1] (seed 5.1, alpha in 3.3).
        res_cls: weight of the class token added after the attention, >= 0 (seed 5.2).
        self_attention: which projections score the self attention: qk (seed 5.1), kk (published code), qq,
            vv.
        lof: "standard", the textbook's, or "published", the variant of the published code.
        repair_from: neighbours that repair a token: "all" in bounds (seed 3.2), or "clean" ones only
            (published code).
        templates: sentences with one {} each; a class's embedding is the mean over them (seed 8.2 has one).
        unchanged: the forward pass as trained, read densely, instead of the rearranged one; all switches must
            be off.

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
    repair_from: str = "all"
    templates: tuple[str, ...] = (SEED_TEMPLATE,)
    unchanged: bool = False

    def __post_init__(self) -> None:
        for name in (*SWITCHES, "unchanged"):
            self._require(name, isinstance(getattr(self, name), bool), "True or False")
        for name in (
            "lof_neighbors",
            "pre_adjust_idx",
            "post_adjust_idx",
            "multi_start_idx",
            "multi_end_idx",
        ):
            least = 1 if name == "lof_neighbors" else 0
            value = getattr(self, name)
            self._require(name, type(value) is int and value >= least, f"a whole number >= {least}")
        for name in ("contamination", "beta", "content_gain", "mix", "res_cls"):
            self._require(name, type(getattr(self, name)) in (int, float), "a number")
        self._require("contamination", 0 < self.contamination <= 0.5, "in (0, 0.5]")
        self._require("beta", -1 <= self.beta <= 1, "in [-1, 1]")
        self._require("content_gain", 0 < self.content_gain < float("inf"), "a finite number > 0")
        self._require("mix", 0 <= self.mix <= 1, "in [0, 1]")
        self._require("res_cls", 0 <= self.res_cls < float("inf"), "a finite number >= 0")
        self._require(
            "multi_end_idx",
            self.multi_end_idx > self.multi_start_idx,
            f"> multi_start_idx ({self.multi_start_idx})",
        )
        for name, allowed in CHOICES.items():
            self._require(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")
        check_templates(self.templates)
        if self.unchanged:
            on = [name for name in SWITCHES if getattr(self, name)]
            self._require("unchanged", not on, f"True only with every switch off; on: {', '.join(on)}")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    def check_depth(self, depth: int) -> None:
        """Raise ValueError where a layer index does not exist in a model of `depth` blocks.

        The last block is the rearranged one, so the layers that may be read are 0 to depth - 2.
        """
        for name in ("pre_adjust_idx", "post_adjust_idx"):
            self._require(
                name, getattr(self, name) <= depth - 2, f"at most {depth - 2} in a model of {depth} blocks"
            )
        self._require(
            "multi_end_idx",
            self.multi_end_idx <= depth - 1,
            f"at most {depth - 1} in a model of {depth} blocks",
        )

    @classmethod
    def for_depth(cls, depth: int) -> Self:
        """The author's layers and residual weight for a ViT of 12 (B/16, B/32) or 24 (L/14) blocks."""
        if depth not in FOR_DEPTH:
            known = " and ".join(map(str, FOR_DEPTH))
            raise ValueError(
                f"depth must be one with known layers ({known}), got {depth!r}; set the indices yourself"
            )
        return cls(**FOR_DEPTH[depth])

    @classmethod
    def reference(cls, depth: int = 12) -> Self:
        """What the published code (SuleBai/SC-CLIP) computes, at a depth that `for_depth` knows."""
        from open_clip import OPENAI_IMAGENET_TEMPLATES  # the 80 sentences of CLIP's zero-shot protocol

        templates = tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)
        return replace(
            cls.for_depth(depth),
            self_attention="kk",
            lof="published",
            repair_from="clean",
            templates=templates,
        )

    @classmethod
    def maskclip(cls) -> Self:
        """Every module off: the last block's values alone, patch by patch (Zhou et al. 2022, MaskCLIP)."""
        return cls(**dict.fromkeys(SWITCHES, False))

    @classmethod
    def vanilla(cls) -> Self:
        """The forward pass as trained, its patch tokens read densely: the baseline everywhere."""
        return replace(cls.maskclip(), unchanged=True)


def check_templates(templates: tuple[str, ...]) -> None:
    """Raise ValueError unless `templates` is a non-empty tuple of sentences with exactly one {} each."""
    given = repr(templates) if len(repr(templates)) < 80 else repr(templates)[:80] + "..."
    well = isinstance(templates, tuple) and all(
        isinstance(t, str) and "{}" in t and not set("{}") & set(t.replace("{}", "", 1)) for t in templates
    )
    if not well or not templates:
        raise ValueError(f"templates must be a non-empty tuple of sentences with one {{}} each, got {given}")
