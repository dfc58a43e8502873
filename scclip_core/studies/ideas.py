"""Chapter 7: what each way of saving time is worth, before against after, and the limits that were set.

Each idea is two callables that compute the same thing, timed in turn; what "after" is stands in the core
where it pays. The limits are what the project promises of its speed, beside what was measured.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core import text_cache
from scclip_core.anomaly import flag_anomalies, local_outlier_factor, pairwise_distances, repair_anomalies
from scclip_core.attention import content_attention, mixed_attention, self_attention_maps
from scclip_core.clip import FrozenCLIP, load_clip
from scclip_core.config import SCCLIPConfig
from scclip_core.evaluation import stack_images
from scclip_core.pipeline import SCCLIP
from scclip_core.scenes import VALIDATION, WORDS, evaluation_scene
from scclip_core.segmentation import sliding_logits
from scclip_core.similarity import adaptive_aggregate, patch_similarity, threshold_similarity
from scclip_core.text import embed_names
from scclip_core.timing import compare, machine

Calls = tuple[Callable[[], Tensor], Callable[[], Tensor]]
# what SC-CLIP computes beside the blocks' own work, besides all of stages 3, 4 and 6
ADDED = ("content_attention", "residual_main", "fused_layers", "residual_aux", "aggregated_post_aux", "fused")
KEPT = {  # whether "after" is what the core does
    "distances from one Gram matrix": True,
    "top-k in place of a full sort": True,
    "repair by sums over the grid": True,
    "no attention map per head": True,
    "main and auxiliary attention as one batch": False,
    "rows normalised after the product": False,
    "channels-last patch embedding": False,
    "windows in batches": True,
}


def ideas(model: FrozenCLIP, batch: int, side: int = 224) -> dict[str, Calls]:
    """Before and after of every idea, on random images and the tokens that the model makes of them."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, generator=generator)
    grid, last = (side // model.patch_size,) * 2, model.blocks[-1]
    with torch.no_grad():
        tokens = model.embed(images)[:, 1:]
        content = content_attention(patch_similarity(tokens), 3.0)
        anomalous = flag_anomalies(local_outlier_factor(tokens, 30), 0.05)
        distances = pairwise_distances(tokens)
        sparse = threshold_similarity(patch_similarity(tokens), 0.4)
    both = torch.cat([tokens, tokens])
    large = torch.randn(1, 3, 2 * side, 3 * side, generator=generator)
    text = F.normalize(torch.randn(20, model.embed_dim, generator=generator), dim=-1)
    segmenter = SCCLIP(model)

    def attend(patches: Tensor, weights: Tensor) -> Tensor:
        return last.attn.out_proj(mixed_attention(model.qkv(last, patches), weights, "qk", 0.5))

    def stored_maps() -> Tensor:
        qkv = model.qkv(last, tokens)
        maps = 0.5 * content[:, None] + 0.5 * self_attention_maps(qkv, "qk")  # [B, heads, N, N]
        return last.attn.out_proj((maps @ qkv[2]).transpose(1, 2).flatten(2))

    return {
        "distances from one Gram matrix": (
            lambda: torch.cdist(tokens, tokens, compute_mode="donot_use_mm_for_euclid_dist").square(),
            lambda: pairwise_distances(tokens),
        ),
        "top-k in place of a full sort": (
            lambda: distances.sort(-1).values[..., :31],
            lambda: distances.topk(31, largest=False).values,
        ),
        "repair by sums over the grid": (
            lambda: repair_one_by_one(tokens, anomalous, grid),
            lambda: repair_anomalies(tokens, anomalous, grid),
        ),
        "no attention map per head": (stored_maps, lambda: attend(tokens, content)),
        "main and auxiliary attention as one batch": (
            lambda: torch.cat([attend(tokens, content), attend(tokens, content)]),
            lambda: attend(both, content.repeat(2, 1, 1)),
        ),
        "rows normalised after the product": (
            lambda: adaptive_aggregate(tokens, sparse),
            lambda: (sparse @ tokens) / (sparse.sum(-1, keepdim=True) + 1e-6),
        ),
        "channels-last patch embedding": (
            lambda: model.visual.conv1(images),
            lambda: model.visual.conv1(images.contiguous(memory_format=torch.channels_last)),
        ),
        "windows in batches": (
            lambda: sliding_logits(segmenter, large, text, side, side // 2, batch=1)[0],
            lambda: sliding_logits(segmenter, large, text, side, side // 2)[0],
        ),
    }


def repair_one_by_one(tokens: Tensor, anomalous: Tensor, grid: tuple[int, int]) -> Tensor:
    """`repair_anomalies` as a loop over the anomalous positions, as the published code goes about it."""
    repaired, (rows, cols) = tokens.clone(), grid
    for b, n in anomalous.nonzero().tolist():
        row, col = divmod(n, cols)
        near = [
            r * cols + c
            for r in range(max(row - 1, 0), min(row + 2, rows))
            for c in range(max(col - 1, 0), min(col + 2, cols))
            if (r, c) != (row, col)
        ]
        repaired[b, n] = tokens[b, near].mean(0)
    return repaired


@torch.no_grad()
def time_ideas(model: FrozenCLIP, batch: int, repeats: int = 10) -> pd.DataFrame:
    """Milliseconds before and after, their ratio, and what the difference is of vanilla's time (percent)."""
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    vanilla = SCCLIP(model, SCCLIPConfig.vanilla())
    whole = compare({"vanilla": lambda: vanilla.features(images)}, repeats)["milliseconds"][0]
    rows = []
    for name, (before, after) in ideas(model, batch).items():
        table = compare({"before": before, "after": after}, repeats)
        old, new = table["milliseconds"]
        rows.append(
            (name, old, new, *table.loc[1, ["ratio", "ratio_low", "ratio_high"]], 100 * (old - new) / whole)
        )
    columns = [
        "idea",
        "before (ms)",
        "after (ms)",
        "ratio",
        "ratio_low",
        "ratio_high",
        "saved (% of vanilla)",
    ]
    table = pd.DataFrame(rows, columns=columns)
    kept = ["yes" if KEPT[name] else "no" for name in table["idea"]]
    return table.assign(kept=kept, model=model.name, batch=batch, **machine())


def agreement(count: int = 100, dtype: torch.dtype = torch.bfloat16, seed: int = 3) -> float:
    """Share of the pixels of `count` validation scenes that mini labels alike in `dtype` and float32."""
    exact, half = SCCLIP(load_clip("mini")), SCCLIP(load_clip("mini", dtype=dtype))
    same = []
    for i in range(count):
        scene = evaluation_scene(VALIDATION, seed, i)
        labels = [s.segment(stack_images(s.model, [scene]), WORDS) for s in (exact, half)]
        same.append((labels[0] == labels[1]).float().mean())
    return float(torch.stack(same).mean())


def scenes_a_second(batch: int = 32, side: int = 112, runs: int = 20) -> float:
    """How many pictures of `side` pixels the bundled model makes features of in a second, the median run."""
    segmenter = SCCLIP(load_clip("mini"))
    images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    spent = compare({"features": lambda: segmenter.features(images)}, runs)["milliseconds"][0]
    return 1000 * batch / spent


def second_embedding(names: int = 1000) -> float:
    """Seconds to have the embeddings of `names` names by 80 templates again, in a fresh model, from disk."""
    templates = SCCLIPConfig.reference().templates
    words = [f"thing number {i}" for i in range(names)]
    if not text_cache.cache_file(load_clip("mini"), _prompts(words, templates)).is_file():
        embed_names(load_clip("mini"), words, templates)
    model = load_clip("mini")
    began = time.perf_counter()
    embed_names(model, words, templates)
    return time.perf_counter() - began


def _prompts(words: list[str], templates: tuple[str, ...]) -> list[str]:
    return [template.format(word) for word in words for template in templates]


def process_seconds(*arguments: str, runs: int = 5) -> float:
    """Seconds that a fresh Python takes with these arguments, the fastest of a few."""
    spent = []
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        spent.append(time.perf_counter() - began)
    return min(spent)


def limits(folder: Path) -> pd.DataFrame:
    """Every limit set for the project's speed, and what was measured; reads what `bench` stored in `folder`.

    Ratios are to vanilla unless said otherwise; `holds` says whether the value is within the limit.
    """
    from scclip_core.studies.timing import fit_exponents

    bench, memory, profile, growth, worth = (
        pd.read_csv(folder / f"{name}.csv")
        for name in ("bench", "07_memory", "07_profile", "07_growth", "07_ideas")
    )
    base = "ViT-B-16"
    rows = [
        (f"time, {r.what[9:-1]}, B = {r.batch}", r.ratio, "<=", 1.05)
        for r in bench[(bench["model"] == base) & (bench["what"] != "vanilla")].itertuples()
    ]
    part = profile[(profile["model"] == base) & (profile["batch"] == 8)]
    added = part["stage"].isin((3, 4, 6)) | part["tensor"].isin(ADDED)
    rows.append(
        ("time outside transformer blocks, share, B = 8", float(part[added]["share"].sum()), "<=", 0.04)
    )
    windows = worth[(worth["idea"] == "windows in batches") & (worth["batch"] == 1)]["ratio"].iloc[0]
    rows.append(("windows of 448 x 672 in batches, to one by one", windows, "<=", 0.9))
    peaks = memory[(memory["model"] == base) & (memory["side"] == 1024)].set_index("what")["MiB"]
    rows.append(("peak memory at 1024 x 1024", peaks["SC-CLIP (seed)"] / peaks["vanilla CLIP"], "<=", 1.3))
    fitted = fit_exponents(growth).set_index(["model", "what"])["exponent"][base]
    steeper = fitted["SC-CLIP (seed)"] - fitted["vanilla CLIP"]
    rows.append(("exponent of growth to N = 4,096, less vanilla's", steeper, "<=", 0.1))
    rows.append(("pixels labelled alike in bfloat16", agreement(), ">=", 0.99))
    rows.append(("1,000 x 80 prompts, second call (s)", second_embedding(), "<=", 0.1))
    added = process_seconds("-c", "import torch, scclip_core") - process_seconds("-c", "import torch")
    rows.append(("import beyond torch (s)", max(0.0, added), "<=", 0.3))
    rows.append(("--help (s)", process_seconds("-m", "scclip_core", "--help"), "<=", 1.0))
    rows.append(("mini, scenes a second at 112", scenes_a_second(), ">=", 150))
    table = pd.DataFrame(rows, columns=["what", "measured", "must be", "limit"])
    within = (table["measured"] <= table["limit"]).where(
        table["must be"] == "<=", table["measured"] >= table["limit"]
    )
    return table.assign(holds=within.map({True: "yes", False: "no"}), **machine())
