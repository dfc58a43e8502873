"""Chapter 6: from words to label maps: methods, prompts, absent words."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from tqdm import tqdm

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.pipeline import SCCLIP
from scclip_core.segmentation import label_map
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.metrics import GAINED, count_classes, interval_and_gain
from scclip_lab.evaluation.mini import (
    MEAN_AND_PARTS,
    PARTS,
    parts_right,
    score_methods,
    stack_images,
)
from scclip_lab.studies import METHOD_NAMES, figure
from scclip_lab.studies.ch06_windows import SEAMS, score_counts
from scclip_lab.studies.drawing import (
    GalleryRow,
    draw_band,
    draw_method_scores,
    draw_scene_gallery,
    label_rows,
    read_labels,
)
from scclip_lab.studies.reading import segment_by_methods
from scclip_lab.studies.shared import segmenters
from scclip_lab.studies.tables import STYLE_NAMES, in_percent, in_points, row_where

# Index and style of the test scenes that are shown; their random seed is 1.
GALLERY = ((0, "training"), (1, "training"), (2, "held-out"))
METHODS = ("vanilla", "scclip", "scclip-published")
# Sentences that a word is put into. No caption of the training had the last one.
ARTICLES_PROMPT = "a photo of the word"
PROMPTS = {
    "the word alone": ("{}",),
    ARTICLES_PROMPT: SCCLIPConfig().templates,
    "80 sentences, averaged": SCCLIPConfig.published().templates,
    "a sentence never trained on": ("somewhere in here there must be one {}",),
}


def gallery_scene(index: int) -> Scene:
    """The scene at this place of the gallery."""
    number, style = GALLERY[index]
    return evaluation_scene(TEST, 1, number, style)


def compare_label_maps(model: FrozenCLIP) -> pd.DataFrame:
    """Label maps of the gallery's scenes: the truth, and those of each method.

    Returns a row for each line of a map, with the labels of the line as one text.
    """
    rows = []
    for number in range(len(GALLERY)):
        scene = gallery_scene(number)
        truth = torch.from_numpy(scene.labels)
        maps = {"truth": (truth, [float("nan")] * len(PARTS))}
        for name, labels in segment_by_methods(model, scene, METHODS).items():
            maps[name] = (labels, parts_right(labels, truth))
        for name, (labels, shares) in maps.items():
            rows += [(number, name, *shares, *line) for line in label_rows(labels)]
    return pd.DataFrame(rows, columns=["scene", "what", *PARTS, "line", "labels"])


def words_on_objects(
    model: FrozenCLIP, index: int = 2, offered: Sequence[str] = WORDS
) -> pd.Series:
    """What SC-CLIP calls the object pixels of a gallery scene: word -> share, largest first.

    `index` is the scene's place in the gallery; `offered` are the words that it may choose from.
    """
    scene = gallery_scene(index)
    labels = SCCLIP(model).segment(stack_images(model, [scene]), list(offered))[0]
    on_objects = labels[torch.from_numpy(scene.labels) < N_OBJECTS]
    words = pd.Series([offered[i] for i in on_objects.tolist()])
    return words.value_counts(normalize=True)


def compare_prompts(model: FrozenCLIP, count: int, seed: int = 2) -> pd.DataFrame:
    """SC-CLIP's scores with each kind of prompt, and paired changes against the article's sentence.

    `count` test scenes of each style. Returns the columns measure, prompt, styles, value, low,
    high, and the paired gain with its interval.
    """
    configs = {
        name: replace(SCCLIPConfig(), templates=templates) for name, templates in PROMPTS.items()
    }
    methods, rows = segmenters(model, configs), []
    for style in STYLES:
        counted = score_methods(methods, style, count, seed)
        base = counted[ARTICLES_PROMPT]
        for measure, statistic in MEAN_AND_PARTS.items():
            for name, counts in counted.items():
                scores = interval_and_gain(counts, base, statistic, seed)
                rows.append((measure, name, style, *scores))
    columns = ["measure", "prompt", "styles", *GAINED]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


@torch.no_grad()
def add_absent_words(
    model: FrozenCLIP, count: int, numbers: tuple[int, ...] = (0, 2, 8, 24, 48), seed: int = 2
) -> pd.DataFrame:
    """Scores with the true words of a scene alone, and with words that are not there besides.

    The columns are measure, styles, words that are not there, and the value with its 95 %
    bootstrap interval. `numbers` says how many absent words are offered; `count` test scenes of
    each style.
    """
    segmenter = SCCLIP(model)
    _, text = segmenter.embed_classes(WORDS)
    tables = []
    for style in STYLES:
        found: dict[int, list[np.ndarray]] = {n: [] for n in numbers}
        for index in tqdm(range(count), desc=f"absent words, {style}"):
            scene = evaluation_scene(TEST, seed, index, style)
            truth = torch.from_numpy(scene.labels)
            logits = segmenter.logits(stack_images(model, [scene]), text)  # [1, rows, cols, 56]
            others = [word for word in WORDS if word not in scene.words]
            order = np.random.default_rng((TEST, seed, index)).permutation(len(others))
            for number in numbers:
                offered = [*scene.words, *(others[i] for i in order[:number])]
                places = torch.tensor([WORDS.index(word) for word in offered])
                labels = places[label_map(logits[..., places], truth.shape)[0]]
                found[number].append(count_classes(labels, truth, len(WORDS)))
        table = score_counts(found, "words that are not there", seed)
        tables.append(table.assign(styles=style, scenes=count, seed=seed))
    return pd.concat(tables, ignore_index=True)


def summarise(prompts: pd.DataFrame, windows: pd.DataFrame) -> pd.DataFrame:
    """The article's claims of stage 8 beside what the chapter's tables say."""
    part = prompts[(prompts["measure"] == "mIoU") & (prompts["styles"] == "training")]
    own = in_percent(row_where(part, prompt=ARTICLES_PROMPT))
    others = part[part["prompt"] != ARTICLES_PROMPT]
    changes = [f"{row['prompt']}: {in_points(row['gain'])}" for _, row in others.iterrows()]
    part = windows[(windows["measure"] == "mIoU") & (windows["seams"] == SEAMS[True])]
    scores = [f"{row['inference']}: {in_percent(row)}" for _, row in part.iterrows()]
    rows = [
        (
            "claim: logits are cosines, upsampled bilinearly",
            "both are built by hand above and equal the core's",
        ),
        (
            "claim: the prompt is a photo of {class}",
            f"{own} mIoU with it; other wordings change it by points: {'; '.join(changes)}",
        ),
        (
            "nothing is said of pictures larger than 224 x 224",
            f"mIoU of pictures of 448 x 672, {'; '.join(scores)}",
        ),
    ]
    return pd.DataFrame(rows, columns=["the article says", "here"])


@figure("06_gallery")
def draw_label_maps(table: pd.DataFrame) -> Figure:
    """The scenes, the truth, and the label maps of each method."""
    rows = []
    for (index, (_, style)), (_, part) in zip(
        enumerate(GALLERY), table.groupby("scene"), strict=True
    ):
        lines = {str(name): found for name, found in part.groupby("what", sort=False)}
        maps = {name: read_labels(found["labels"]) for name, found in lines.items()}
        shown = {METHOD_NAMES[name]: maps[name] for name in METHODS}
        captions = {}
        for name in METHODS:
            shares = lines[name][list(PARTS)].iloc[0]
            captions[METHOD_NAMES[name]] = "\n".join(
                f"{p} {share:.0%}" for p, share in shares.items()
            )
        image = gallery_scene(index).image
        rows.append(GalleryRow(f"{STYLE_NAMES[style]}", image, maps["truth"], shown, captions))
    return draw_scene_gallery(rows, WORDS, N_OBJECTS)


@figure("06_prompts")
def draw_prompts(table: pd.DataFrame) -> Figure:
    """Scores with each kind of prompt, in both styles."""
    names = {name: name for name in table["prompt"].unique()}
    part = table.rename(columns={"prompt": "method"})
    return draw_method_scores(part, tuple(MEAN_AND_PARTS), names)


@figure("06_absent")
def draw_absent_words(table: pd.DataFrame) -> Figure:
    """Scores over the number of words that are not there: a panel for each style."""
    drawn, axes = plt.subplots(1, len(STYLES), figsize=(13, 4.6), sharey=True)
    for axis, (style, rows) in zip(axes, table.groupby("styles", sort=False), strict=True):
        for measure, part in rows.groupby("measure", sort=False):
            draw_band(axis, part, "words that are not there", str(measure))
        axis.set(xlabel="words offered that are not there", title=f"{STYLE_NAMES[style]}")
        axis.set_xticks(sorted(rows["words that are not there"].unique()))
    axes[0].set(ylabel="share (%)", ylim=(0, 102))
    axes[0].legend(frameon=False, fontsize=12, loc="lower left")
    sns.despine(drawn)
    drawn.tight_layout()
    return drawn
