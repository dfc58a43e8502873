"""Chapter 13: which models SC-CLIP takes, the layers it reads in them, and what that costs."""

from typing import Any

import numpy as np
import open_clip
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.towers import refusal
from scclip_lab.datasets.scenes import TEST, VALIDATION
from scclip_lab.evaluation.metrics import GAINED, interval_and_gain, paired_interval
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, score_methods
from scclip_lab.studies import figure
from scclip_lab.studies.drawing import CLAIM_STYLE, draw_gains
from scclip_lab.studies.shared import changed, segmenters
from scclip_lab.studies.tables import best_row, change_in_points

# The two layers that a configuration reads similarities from, and where the article has them.
LAYERS_READ = {"pre_adjust_idx": "middle layer", "post_adjust_idx": "shallow layer"}
RULE = ("rule", 0)
SPLITS = {"validation": VALIDATION, "test": TEST}
# What stages 5 and 8 would mean in towers of other kinds: an example in open_clip, class token,
# last block, projection.
TOWERS = {
    "CLIP's ViT": ("ViT-B-16", "read", "open_clip's block", "layer norm, matrix"),
    "ViT, mean of patches": ("ViT-L-14-CLIPA", "there, not read", "the same", "after the mean"),
    "CoCa": ("coca_ViT-B-32", "there, not read", "a pooler follows", "of the pooled queries"),
    "SigLIP": ("ViT-B-16-SigLIP", "none", "a pooling head follows", "none"),
    "SigLIP 2": ("ViT-B-16-SigLIP2", "none", "a pooling head follows", "none"),
    "Perception Encoder": ("PE-Core-B-16", "there, pooled too", "rotary, a head follows", "matrix"),
    "EVA-02-CLIP": ("EVA02-B-16", "read", "rotary, gated MLP", "matrix"),
    "MobileCLIP's ViT": ("MobileCLIP-B", "read", "timm's block", "matrix"),
    "ViTamin": ("ViTamin-B", "none", "convolutions, then blocks", "matrix"),
    "ConvNeXt": ("convnext_base", "none", "no attention", "matrix"),
    "ResNet": ("RN50", "none", "an attention pool", "in the pool"),
    "CLIP, other text tower": ("roberta-ViT-B-32", "read", "open_clip's block", "the same"),
}


def list_towers() -> pd.DataFrame:
    """Kinds of image towers in open_clip, what the stages would read there, and the answer.

    The last columns are made of open_clip's own configurations: the answer that `load_clip` gives,
    and how many of the models that open_clip lists have that kind of answer.
    """
    rows = []
    for kind, (name, token, block, projection) in TOWERS.items():
        reason = refusal(open_clip.get_model_config(name) or {})
        answer = "supported" if reason is None else f"refused: {name} {reason}"
        rows.append((kind, name, token, block, projection, answer))
    columns = ["tower", "example", "class token", "last block", "projection", "answer"]
    return pd.DataFrame(rows, columns=columns)


def count_answers() -> pd.Series:
    """How many models of open_clip are supported, read one patch at a time, or refused."""
    reasons = [refusal(open_clip.get_model_config(name)) for name in open_clip.list_models()]
    kinds = [
        "supported"
        if reason is None
        else "patches one by one"
        if "pools by attention" in reason or "pooler" in reason
        else "refused"
        for reason in reasons
    ]
    return pd.Series(kinds).value_counts()


def vary_layers(model: FrozenCLIP, count: int, seed: int = 7) -> pd.DataFrame:
    """Every choice of the middle and of the shallow layer, one at a time, against the rule's.

    The other values are those of `SCCLIPConfig.for_depth`. Measured on `count` validation scenes
    and as many test scenes of the training styles; gains are paired differences to the rule's
    layer. The column `relative` is the layer's index over the depth.
    """
    rule = SCCLIPConfig.for_depth(model.depth)
    configs: dict[tuple[str, int], SCCLIPConfig] = {RULE: rule}
    for name in LAYERS_READ:
        for layer in range(model.depth - 1):
            if layer != getattr(rule, name):
                configs[name, layer] = changed(rule, **{name: layer})
    rows: list[tuple[object, ...]] = []
    for split, number in SPLITS.items():
        counted = score_methods(segmenters(model, configs), "training", count, seed, number)
        for name in LAYERS_READ:
            for layer in range(model.depth - 1):
                counts = counted.get((name, layer), counted[RULE])
                for measure, statistic in MEAN_AND_PARTS.items():
                    scored = interval_and_gain(counts, counted[RULE], statistic, seed)
                    rows.append((split, name, layer, layer / model.depth, measure, *scored))
    columns = ["split", "parameter", "layer", "relative", "measure", *GAINED]
    table = pd.DataFrame(rows, columns=columns).assign(model=model.name, depth=model.depth)
    chosen = {name: getattr(rule, name) for name in LAYERS_READ}
    return table.assign(rule=table["parameter"].map(chosen), scenes=count, seed=seed)


def judge_rule(table: pd.DataFrame) -> pd.DataFrame:
    """The rule's layers beside the best of validation scenes, judged by test scenes.

    A row for each model and layer: the rule's layer, its rank among all layers by mIoU on
    validation scenes, the layer that is best there, and what that one gains on test scenes, in
    points with its interval. The rule loses where the whole interval is above zero.
    """
    rows = []
    for (model, name), part in table.groupby(["model", "parameter"], sort=False):
        by = part.set_index(["split", "measure", "layer"])
        validation = part[(part["split"] == "validation") & (part["measure"] == "mIoU")]
        rule, best = int(part["rule"].iloc[0]), int(best_row(validation)["layer"])
        own = validation.set_index("layer")["value"]
        gains = {m: by.loc[[("test", m, best)]].iloc[0] for m in MEAN_AND_PARTS}
        low, high = gains["mIoU"]["gain_low"], gains["mIoU"]["gain_high"]
        verdict = "the same layer" if best == rule else "no difference shown"
        if best != rule and low > 0:
            verdict = "the rule loses"
        if best != rule and high < 0:
            verdict = "the rule wins"
        rows.append(
            {
                "model": model,
                "depth": int(part["depth"].iloc[0]),
                "layer": LAYERS_READ[str(name)],
                "rule": rule,
                "rank of the rule": f"{int((own > own[rule]).sum()) + 1} of {len(own)}",
                "best on validation": best,
                "it gains on test": change_in_points(gains["mIoU"], "gain"),
                **{f"{m}, gain": 100 * row["gain"] for m, row in gains.items() if m != "mIoU"},
                "verdict": verdict,
            }
        )
    return pd.DataFrame(rows)


def score_students(models: dict[str, FrozenCLIP], count: int, seed: int = 7) -> pd.DataFrame:
    """mIoU, objects and background right of the values and of SC-CLIP by the rule, on test scenes.

    Gains are paired differences of SC-CLIP to the values of the same model.
    """
    from scclip_core.baselines import make_method

    rows: list[tuple[object, ...]] = []
    for name, model in models.items():
        methods = {method: make_method(method, model) for method in ("values", "scclip")}
        counted = score_methods(methods, "training", count, seed, TEST)
        for measure, statistic in MEAN_AND_PARTS.items():
            base = 100 * float(statistic(counted["values"].sum(0)))
            own = 100 * float(statistic(counted["scclip"].sum(0)))
            gain = paired_interval(counted["scclip"], counted["values"], statistic, seed)
            rows.append((name, model.depth, measure, base, own, *(100 * g for g in gain)))
    columns = ["model", "depth", "measure", "values", "SC-CLIP", "gain", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def predict_times(times: pd.DataFrame, base: str = "ViT-B-16") -> pd.DataFrame:
    """The cost model against the measurement: as many milliseconds for an operation as in `base`.

    Returns a row for each model and method, with the predicted time and measured over predicted.
    """
    one = times[(times["model"] == base) & (times["what"] == "vanilla")].iloc[0]
    predicted = times["GMAC"] * one["milliseconds"] / one["GMAC"]
    table = times[["model", "patches", "what", "GMAC", "milliseconds", "ratio"]]
    table = table.assign(predicted=predicted)
    return table.assign(quotient=table["milliseconds"] / predicted)


def million_pictures(
    throughput: pd.DataFrame, times: pd.DataFrame, processes: int = 1, price: float = 1.0
) -> pd.DataFrame:
    """Hours and cost of a million pictures of one window each, by model.

    hours = 10^6 t / (3600 p), t = t_rest + t_forward; cost = hours * price of an hour

    `t_rest`, reading, label maps and writing, is measured with the bundled model; `t_forward` of
    the others with random weights. `processes` run at once on one machine, each on a core of its
    own and as fast as one alone; `price` is that of the machine for an hour, in any currency.
    """
    ms = throughput.set_index("part")["ms"]
    forward = {"mini": float(ms["forward"])}
    own = times[times["what"] == "scclip"].set_index("model")["milliseconds"]
    forward |= {str(name): float(value) for name, value in own.items()}
    rest = float(ms["all"]) - forward["mini"]
    rows = []
    for name, value in forward.items():
        hours = 1e6 * (rest + value) / 1000 / 3600 / processes
        rows.append((name, rest + value, rest / (rest + value), hours, hours * price))
    columns = ["model", "ms a picture", "share of the rest", "hours", "cost"]
    return pd.DataFrame(rows, columns=columns)


@figure("13_cost")
def draw_cost(table: pd.DataFrame) -> Figure:
    """Measured time over operations, and SC-CLIP as a ratio to vanilla: measured and counted."""
    drawn, axes = plt.subplots(1, 2, figsize=(15, 5))
    shown = predict_times(table)
    for what, label, colour in (
        ("vanilla", "vanilla CLIP", "0.5"),
        ("scclip", "SC-CLIP", "#0072B2"),
    ):
        part = shown[shown["what"] == what]
        axes[0].loglog(part["GMAC"], part["milliseconds"], "o", color=colour, label=label)
    line = shown.sort_values("GMAC")
    look: dict[str, Any] = {"color": "0.3", "linewidth": 1, "linestyle": ":"}
    axes[0].loglog(line["GMAC"], line["predicted"], **look, label="as long per operation as B-16")
    own = table[table["what"] == "scclip"]
    base = table[table["what"] == "vanilla"].set_index("model")
    counted = own["GMAC"].to_numpy() / base.loc[own["model"], "GMAC"].to_numpy()
    place = np.arange(len(own))
    error = np.stack([own["ratio"] - own["ratio_low"], own["ratio_high"] - own["ratio"]]).clip(0)
    axes[1].errorbar(own["ratio"], place, xerr=error, fmt="o", capsize=4, label="time, measured")
    axes[1].plot(counted, place, "x", color="0.3", markersize=9, label="operations, counted")
    axes[1].axvline(1.2, **CLAIM_STYLE, label="article's claim: 1.2x")
    axes[1].set_yticks(place, list(own["model"]))
    axes[1].invert_yaxis()
    axes[0].set(xlabel="billions of multiply-adds", ylabel="milliseconds")
    axes[1].set(xlabel="SC-CLIP as a ratio to vanilla CLIP")
    for axis in axes:
        axis.legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("13_memory")
def draw_memory(table: pd.DataFrame) -> Figure:
    """Peak memory of one large picture above the model: measured (bars) and by hand (crosses)."""
    models = list(table["model"].unique())
    drawn, axes = plt.subplots(1, len(models), figsize=(7.5 * len(models), 3.6), squeeze=False)
    for axis, model in zip(axes[0], models, strict=True):
        part = table[table["model"] == model]
        names = [
            "vanilla CLIP"
            if row["what"] == "vanilla"
            else f"SC-CLIP, {row['rows']:,} rows"
            if row["rows"] < row["patches"]
            else "SC-CLIP, whole"
            for _, row in part.iterrows()
        ]
        axis.barh(names, part["MiB"], color=["0.7", *["#56B4E9"] * (len(part) - 1)])
        axis.plot(part["predicted"], names, "x", color="0.2", markersize=9)
        blocks, patches = part["blocks"].iloc[0], part["patches"].iloc[0]
        axis.set_title(f"{model}, {blocks} blocks, {patches:,} patches", fontsize=13)
        axis.set(xlabel="MiB")
        axis.invert_yaxis()
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn


@figure("13_depth")
def draw_depth(table: pd.DataFrame) -> Figure:
    """mIoU on test scenes against the rule's layer; dashed: the article's relative depth."""
    part = table[(table["measure"] == "mIoU") & (table["split"] == "test")]
    drawn, axes = plt.subplots(1, len(LAYERS_READ), figsize=(15, 5), sharey=True)
    for axis, (name, title) in zip(axes, LAYERS_READ.items(), strict=True):
        for (model, depth), rows in part[part["parameter"] == name].groupby(
            ["model", "depth"], sort=False
        ):
            draw_gains(axis, rows, "relative", f"{model}, {depth} blocks")
        axis.axvline(
            getattr(SCCLIPConfig(), name) / 12, **CLAIM_STYLE, label="article's layer / 12"
        )
        axis.set(xlabel="layer / number of blocks", title=title)
    axes[0].set_ylabel("mIoU minus that of the rule (points)")
    axes[0].legend(frameon=False, fontsize=11)
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
