"""Chapter 6: words to masks: methods side by side, prompts, words that are not there, sliding windows."""

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
from scclip_core.evaluation import dense, stack_images
from scclip_core.figures import TITLES
from scclip_core.methods import make_method
from scclip_core.metrics import count_classes, interval, mean_iou, pixel_accuracy
from scclip_core.pipeline import SCCLIP
from scclip_core.plots import draw_gallery
from scclip_core.scenes import TEST, WORDS, Scene, evaluation_scene
from scclip_core.segmentation import label_map, sliding_logits
from scclip_core.studies import figure
from scclip_core.studies.drawing import draw_band, draw_interval_bars, label_rows, read_labels

GALLERY = ((0, "training"), (1, "training"), (2, "held-out"))  # index and style of test scenes, seed 1
METHODS = ("vanilla", "seed", "reference")


def side_by_side(model: FrozenCLIP) -> pd.DataFrame:
    """Label maps of the gallery's scenes: a row a (scene, what, line), a line's labels in one string."""
    rows = []
    for number, (index, style) in enumerate(GALLERY):
        scene = evaluation_scene(TEST, 1, index, style)
        truth = torch.from_numpy(scene.labels)
        maps = {"truth": (truth, float("nan"))}
        for name in METHODS:
            guess = make_method(name, model).segment(stack_images(model, [scene]), WORDS)[0]
            maps[name] = (guess, float(pixel_accuracy(count_classes(guess, truth, len(WORDS)))))
        for name, (labels, right) in maps.items():
            rows += [(number, name, right, *line) for line in label_rows(labels)]
    return pd.DataFrame(rows, columns=["scene", "what", "pixel accuracy", "line", "labels"])


def prompts(model: FrozenCLIP, count: int, seed: int = 2) -> pd.DataFrame:
    """mIoU of the seed's configuration with the bare word, the seed's sentence, and 80 sentences averaged."""
    wordings = {
        "{}": ("{}",),
        "a photo of {}": SCCLIPConfig().templates,
        "80 sentences": SCCLIPConfig.reference().templates,
    }
    methods = {
        name: SCCLIP(model, replace(SCCLIPConfig(), templates=templates))
        for name, templates in wordings.items()
    }
    counted = dense(methods, "training", count, seed)
    rows = [(name, *interval(counts, mean_iou, seed)) for name, counts in counted.items()]
    return pd.DataFrame(rows, columns=["prompt", "value", "low", "high"]).assign(scenes=count, seed=seed)


def absent_words(
    model: FrozenCLIP, count: int, numbers: tuple[int, ...] = (0, 2, 8, 24, 48), seed: int = 2
) -> pd.DataFrame:
    """Pixel accuracy when only the true words are asked for, and with more and more that are not there."""
    segmenter, found = SCCLIP(model), {n: [] for n in numbers}
    for index in tqdm(range(count), desc="absent words"):
        scene = evaluation_scene(TEST, seed, index)
        images, truth = stack_images(model, [scene]), torch.from_numpy(scene.labels)
        others = [word for word in WORDS if word not in scene.words]
        order = np.random.default_rng((TEST, seed, index)).permutation(len(others))
        for number in numbers:
            asked = [*scene.words, *(others[i] for i in order[:number])]
            guess = torch.tensor([WORDS.index(word) for word in asked])[segmenter.segment(images, asked)[0]]
            found[number].append(count_classes(guess, truth, len(WORDS)))
    rows = [(n, *interval(np.stack(counted), pixel_accuracy, seed)) for n, counted in found.items()]
    columns = ["words that are not there", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def panorama(seed: int) -> Scene:
    """Six test scenes in two rows of three: 448 x 672 pixels, for sliding windows."""
    tiles = [evaluation_scene(TEST, 3, 6 * seed + i) for i in range(6)]
    image, labels = (
        np.concatenate([np.concatenate([getattr(t, name) for t in tiles[i : i + 3]], 1) for i in (0, 3)])
        for name in ("image", "labels")
    )
    return Scene(
        image, labels, tuple(dict.fromkeys(o for t in tiles for o in t.objects)), tiles[0].background
    )


def windows(model: FrozenCLIP, count: int, seed: int = 0) -> pd.DataFrame:
    """Pixel accuracy on `count` panoramas: whole, and by windows of 224 at steps of 224 and 112."""
    segmenter = SCCLIP(model)
    named, text = segmenter.embed_classes(WORDS)
    ways: dict[str, list[np.ndarray]] = {}
    for index in tqdm(range(count), desc="panoramas"):
        scene = panorama(index)
        images, truth = stack_images(model, [scene]), torch.from_numpy(scene.labels)
        guesses = {"whole picture at once": segmenter.segment(images, WORDS)[0]}
        for stride in (224, 112):
            (logits,) = sliding_logits(segmenter, images, text, window=224, stride=stride)
            guesses[f"windows of 224, step {stride}"] = label_map(logits, named, truth.shape)
        for name, guess in guesses.items():
            ways.setdefault(name, []).append(count_classes(guess, truth, len(WORDS)))
    rows = [(name, *interval(np.stack(counted), pixel_accuracy, seed)) for name, counted in ways.items()]
    return pd.DataFrame(rows, columns=["way", "value", "low", "high"]).assign(pictures=count, seed=seed)


@figure("06_gallery")
def draw_side_by_side(table: pd.DataFrame) -> Figure:
    """Picture, truth and label maps of each method."""
    titles = {"truth": "truth"} | {name: TITLES[name] for name in METHODS}
    rows = []
    for number, part in table.groupby("scene"):
        index, style = GALLERY[int(number)]
        maps, captions = {}, {"truth": f"{style} style"}
        for name, lines in part.groupby("what", sort=False):
            maps[titles[name]] = read_labels(lines["labels"])
            if name != "truth":
                captions[titles[name]] = f"{lines['pixel accuracy'].iloc[0]:.0%} of pixels right"
        rows.append(
            {"image": evaluation_scene(TEST, 1, index, style).image, "maps": maps, "captions": captions}
        )
    return draw_gallery(rows, list(titles.values()), WORDS)


@figure("06_prompts")
def draw_prompts(table: pd.DataFrame) -> Figure:
    """mIoU by wording."""
    return draw_interval_bars(table, "prompt", f"mIoU on {table['scenes'].iloc[0]} test scenes (%)")


@figure("06_absent")
def draw_absent(table: pd.DataFrame) -> Figure:
    """Pixel accuracy over the number of words that are not there."""
    drawn, axis = plt.subplots(figsize=(8, 4.2))
    draw_band(axis, table, "words that are not there")
    axis.set(xlabel="words that are not there", ylabel="pixels right (%)")
    sns.despine(drawn)
    return drawn


@figure("06_windows")
def draw_windows(table: pd.DataFrame) -> Figure:
    """Pixel accuracy by way of reading a large picture."""
    count = table["pictures"].iloc[0]
    return draw_interval_bars(table, "way", f"pixels right on {count} pictures of 448 x 672 (%)")
