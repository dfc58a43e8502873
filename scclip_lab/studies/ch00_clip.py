"""Chapter 0: pictures beside captions, zero-shot classification, and why dense reading fails."""

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from scclip_core.clip import FrozenCLIP
from scclip_core.config import ARTICLE_TEMPLATE
from scclip_core.text import embed_names
from scclip_lab.datasets.scenes import (
    BACKGROUNDS,
    N_OBJECTS,
    TEST,
    WORDS,
    Scene,
    evaluation_scene,
)
from scclip_lab.evaluation.mini import PARTS, stack_images
from scclip_lab.studies import METHOD_NAMES, figure
from scclip_lab.studies.drawing import (
    GalleryRow,
    draw_scene_gallery,
    read_labels,
    show_image,
)
from scclip_lab.studies.reading import read_scene

# The pictures that are paired with captions: the first test scenes of this random seed, unchosen.
SEED, PAIRS = 3, 8
# The scene that is read patch by patch: index and random seed, as in the gallery of the README.
DENSE = (0, 1)
METHODS = ("vanilla", "values", "scclip")


def paired_scenes() -> list[Scene]:
    """Eight test scenes of one or two objects."""
    return [evaluation_scene(TEST, SEED, i, counts=(1, 2)) for i in range(PAIRS)]


def caption_of(scene: Scene) -> str:
    """A sentence that is true of a scene: "a photo of dog and cat on grass"."""
    assert scene.background in BACKGROUNDS
    preposition = "in" if scene.background in ("night", "sky", "water") else "on"
    words = f"{' and '.join(scene.objects)} {preposition} {scene.background}"
    return ARTICLE_TEMPLATE.format(words)


@torch.no_grad()
def compare_pairs(model: FrozenCLIP) -> pd.DataFrame:
    """The cosine of every picture with every caption: picture, caption, text, value."""
    scenes = paired_scenes()
    captions = [caption_of(scene) for scene in scenes]
    pictures = model.clip.encode_image(stack_images(model, scenes), normalize=True)
    cosines = pictures @ model.encode_text(captions).T  # [pictures, captions]
    rows = [
        (i, j, captions[j], float(value))
        for i, line in enumerate(cosines)
        for j, value in enumerate(line)
    ]
    return pd.DataFrame(rows, columns=["picture", "caption", "text", "value"])


@torch.no_grad()
def zero_shot_words(model: FrozenCLIP, count: int = 5) -> pd.DataFrame:
    """The likeliest object words of each of the paired scenes, by the class token alone.

    p = softmax over the object words of exp(scale) * cosine; the columns picture, rank, word,
    probability, and whether the word is true of the scene.
    """
    scenes = paired_scenes()
    text = embed_names(model, WORDS[:N_OBJECTS], (ARTICLE_TEMPLATE,))
    pictures = model.clip.encode_image(stack_images(model, scenes), normalize=True)
    chances = (model.logit_scale * pictures @ text.T).softmax(-1)  # [pictures, words]
    rows = []
    for i, (scene, line) in enumerate(zip(scenes, chances, strict=True)):
        for rank, place in enumerate(line.topk(count).indices.tolist(), 1):
            word = WORDS[place]
            rows.append((i, rank, word, float(line[place]), word in scene.objects))
    return pd.DataFrame(rows, columns=["picture", "rank", "word", "probability", "true"])


def read_every_patch(model: FrozenCLIP) -> pd.DataFrame:
    """Label maps of one scene: the truth, and three ways of reading the frozen model's patches.

    Returns a row for each line of a map, with its labels as one text, and the shares of object and
    background pixels that are right.
    """
    index, seed = DENSE
    scene = evaluation_scene(TEST, seed, index)
    rows = read_scene(model, scene, METHODS)
    return pd.DataFrame(rows, columns=["what", *PARTS, "line", "labels"])


@figure("00_pairs")
def draw_pairs(table: pd.DataFrame) -> Figure:
    """Pictures down the side, captions along the top, cosines between; true pairs are framed."""
    scenes, count = paired_scenes(), table["picture"].nunique()
    cosines = table.pivot(index="picture", columns="caption", values="value").to_numpy()
    drawn = plt.figure(figsize=(13, 11))
    grid = drawn.add_gridspec(
        count, 2, width_ratios=(1, count), left=0.02, right=0.9, top=0.72, bottom=0.02, wspace=0.02
    )
    for i, scene in enumerate(scenes):
        show_image(drawn.add_subplot(grid[i, 0]), scene.image)
    axis = drawn.add_subplot(grid[:, 1])
    shown = axis.imshow(cosines, aspect="auto", cmap="viridis")
    for (i, j), value in np.ndenumerate(cosines):
        dark = value < cosines.min() + 0.6 * np.ptp(cosines)
        axis.text(j, i, f"{value:.2f}", ha="center", va="center", color="w" if dark else "k")
        if i == j:
            box = Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, fill=False, ec="#D55E00", lw=4)
            axis.add_patch(box)
    texts = table.drop_duplicates("caption")["text"]
    axis.set_xticks(range(count), texts, rotation=40, ha="left", fontsize=12)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_yticks([])
    drawn.colorbar(shown, ax=axis, fraction=0.03, pad=0.02, label="cosine of picture and caption")
    return drawn


@figure("00_dense")
def draw_dense(table: pd.DataFrame) -> Figure:
    """The scene, its truth, and its patches read in three ways."""
    index, seed = DENSE
    groups = {str(name): lines for name, lines in table.groupby("what", sort=False)}
    maps = {name: read_labels(lines["labels"]) for name, lines in groups.items()}
    captions = {
        METHOD_NAMES[name]: "\n".join(f"{p} {groups[name][p].iloc[0]:.0%}" for p in PARTS)
        for name in METHODS
    }
    row = GalleryRow(
        "a test scene",
        evaluation_scene(TEST, seed, index).image,
        maps["truth"],
        {METHOD_NAMES[name]: maps[name] for name in METHODS},
        captions,
    )
    return draw_scene_gallery([row], WORDS, N_OBJECTS)
