"""Chapter 1: every tensor of the forward pass, and one patch followed by hand."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.loading import untrained
from scclip_core.pipeline import SCCLIP
from scclip_core.segmentation import label_map, upsample
from scclip_lab.datasets.scenes import N_OBJECTS, TEST, WORDS, Scene, evaluation_scene
from scclip_lab.evaluation.mini import PARTS, stack_images
from scclip_lab.studies import METHOD_NAMES, figure
from scclip_lab.studies.drawing import (
    GalleryRow,
    draw_scene_gallery,
    map_rows,
    read_labels,
    read_maps,
    show_image,
    word_colours,
)
from scclip_lab.studies.reading import patch_labels, read_scene

# The scene that the chapters look at: split, seed, index.
SCENE = (TEST, 1, 0)
# Of the first 40 scenes of the same set, that on which SC-CLIP gets fewest object pixels right.
FAILURE = (TEST, 1, 25)
# Row and column of the patch that is followed.
PATCH = (8, 3)


def example_scene() -> Scene:
    """The scene that the chapters look at."""
    return evaluation_scene(*SCENE)


def both_scenes() -> dict[str, Scene]:
    """The scene that the chapters look at, and one on which SC-CLIP fails, by their titles."""
    return {"a success": evaluation_scene(*SCENE), "a failure": evaluation_scene(*FAILURE)}


def compare_scenes(model: FrozenCLIP) -> pd.DataFrame:
    """Both scenes' label maps, the truth first.

    Returns a row for each line of a map, with its labels as one text, and the shares of object and
    background pixels that are right.
    """
    rows: list[tuple[object, ...]] = []
    for title, scene in both_scenes().items():
        methods = ("vanilla", "values", "scclip")
        rows += [(title, *row) for row in read_scene(model, scene, methods)]
    return pd.DataFrame(rows, columns=["scene", "method", *PARTS, "line", "labels"])


def weight_by_word(model: FrozenCLIP, scene: Scene, word: str) -> pd.DataFrame:
    """Whom the patches of `word` are averaged with: a row for each matrix, a column for each word.

    Each row of a matrix, the weights with which a patch reads all patches, is divided by its sum;
    the table has the mean over the patches whose centre is `word`, summed over the patches of each
    word of the scene. The first row is what equal weights would give, the last what the three give
    one after another (without stage 5's own attention, which is half of it).
    """
    names = ["stage4.thresholded", "stage5.content_attention", "stage6.thresholded"]
    _, cache = SCCLIP(model).run_with_cache(stack_images(model, [scene]), names)
    labels = torch.from_numpy(patch_labels(scene).flatten())
    own = labels == WORDS.index(word)
    means = {name: matrix[0] / matrix[0].sum(-1, keepdim=True) for name, matrix in cache.items()}
    first, second, third = (means[name] for name in names)  # [N, N] each
    means = {"equal weights": torch.full_like(first, 1 / len(labels)), **means}
    rows = {}
    for name, matrix in {**means, "one after another": third @ second @ first}.items():
        weights = matrix[own].mean(0)  # [N]
        rows[name] = {w: float(weights[labels == WORDS.index(w)].sum()) for w in scene.words}
    return pd.DataFrame(rows).T.rename_axis("weights").reset_index()


def right_near_outlines(model: FrozenCLIP, reach: int = 8) -> pd.DataFrame:
    """The share of pixels that SC-CLIP names right, near outlines and elsewhere, on both scenes.

    Near means that a pixel with another label lies within `reach` pixels in a square around it.
    The column "grid" is what the grid alone allows: every patch has the word of its centre, and its
    one-hot logits are upsampled as stage 8 does.
    """
    rows = []
    for title, scene in both_scenes().items():
        truth = torch.from_numpy(scene.labels).long()
        found = SCCLIP(model).segment(stack_images(model, [scene]), WORDS)[0]
        patches = torch.from_numpy(patch_labels(scene)).long()
        perfect = F.one_hot(patches, len(WORDS)).float()[None]  # [1, rows, cols, Q]
        grid = label_map(perfect, truth.shape)[0]
        values, window = truth.float()[None], (2 * reach + 1, 1, reach)
        near = (F.max_pool2d(values, *window) != -F.max_pool2d(-values, *window))[0]
        for where, part in (("near an outline", near), ("elsewhere", ~near)):
            shares = (part, (found == truth)[part], (grid == truth)[part])
            rows.append((title, where, *(float(share.float().mean()) for share in shares)))
    return pd.DataFrame(rows, columns=["scene", "where", "pixels", "SC-CLIP", "grid"])


def trace_scene(model: FrozenCLIP, scene: Scene) -> pd.DataFrame:
    """Every tensor of one forward pass of SC-CLIP: stage, tensor, shape, what happened."""
    return pd.DataFrame(SCCLIP(model).trace(stack_images(model, [scene]), WORDS))


def trace_shapes(name: str, classes: int = len(WORDS), side: int = 224) -> pd.DataFrame:
    """The same table for an open_clip ViT without its weights, on torch's meta device.

    Meta tensors have a shape and no values, so nothing is computed or held in memory. The text
    embeddings, which need no image, are left out.
    """
    with torch.device("meta"):
        model = FrozenCLIP(untrained(name, device="meta"), name)
        segmenter = SCCLIP(model)
        images = torch.empty(1, 3, side, side)
        rows = segmenter.trace(images)
        logits = segmenter.logits(images, torch.empty(classes, model.embed_dim))
    note = "cosine similarity of every patch with every class"
    last = {"tensor": "stage8.logits", "shape": str(list(logits.shape)), "what happened": note}
    return pd.DataFrame([*rows, {"stage": 8, **last}])


def compare_shapes(traces: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The shapes of several models side by side, of the tensors that all of them have.

    Returns the columns stage, tensor, and one for each model.
    """
    columns = [
        table.set_index(["stage", "tensor"])["shape"].rename(name) for name, table in traces.items()
    ]
    return pd.concat(columns, axis=1, join="inner").reset_index()


def patch_by_hand(model: FrozenCLIP, images: Tensor, row: int, col: int) -> pd.DataFrame:
    """Stage 1 for one patch in three steps, compared with what the model computes for it.

    Returns a row for each step: what it is, its shape, its length, and the largest difference to
    the model's own tensor.
    """
    p, visual = model.patch_size, model.visual
    grid = model.grid_of(images)
    pixels = images[0, :, row * p : (row + 1) * p, col * p : (col + 1) * p]  # [3, p, p]
    embedded = visual.conv1.weight.flatten(1) @ pixels.flatten()  # [C, 3 p p] @ [3 p p] -> [C]
    placed = embedded + model.positions(grid)[1 + row * grid[1] + col]
    token = visual.ln_pre(placed)
    convolved = visual.conv1(images)[0, :, row, col]
    inside = model.embed(images)[0, 1 + row * grid[1] + col]
    steps = [
        ("pixels of the patch", pixels, None),
        ("convolution = one matrix product", embedded, float((embedded - convolved).abs().max())),
        ("plus its position", placed, None),
        ("layer norm: the token", token, float((token - inside).abs().max())),
    ]
    rows = [(what, str(list(x.shape)), float(x.norm()), apart) for what, x, apart in steps]
    columns = ["step", "shape", "length", "largest difference to the model"]
    return pd.DataFrame(rows, columns=columns)


def nearest_words(
    model: FrozenCLIP, scene: Scene, row: int, col: int, top: int = 6
) -> pd.DataFrame:
    """The `top` words nearest to one patch at the end, for vanilla CLIP and for SC-CLIP.

    Returns the columns method, word, cosine, and true: whether the word is the patch's own.
    """
    half = model.patch_size // 2
    truth = WORDS[scene.labels[row * model.patch_size + half, col * model.patch_size + half]]
    rows = []
    for method in ("vanilla", "scclip"):
        segmenter = make_method(method, model)
        text = segmenter.embed_classes(WORDS)[1]
        cosine = segmenter.logits(stack_images(model, [scene]), text)[0, row, col]  # [Q]
        for index in cosine.topk(top).indices.tolist():
            rows.append((method, WORDS[index], float(cosine[index]), WORDS[index] == truth))
    return pd.DataFrame(rows, columns=["method", "word", "cosine", "true"])


def logit_maps(model: FrozenCLIP, scene: Scene) -> pd.DataFrame:
    """SC-CLIP's cosine with words on the patch grid, as rows panel, row, col, value.

    The words are those of the scene, and all others that are best at any pixel, so that the best
    of them is the best of all 56 words.
    """
    segmenter, image = SCCLIP(model), stack_images(model, [scene])
    text = segmenter.embed_classes(WORDS)[1]
    logits = segmenter.logits(image, text)  # [1, rows, cols, Q]
    best = upsample(logits, image.shape[2:]).argmax(1).unique().tolist()
    words = dict.fromkeys((*scene.words, *(WORDS[i] for i in best)))
    return map_rows({word: logits[0, ..., WORDS.index(word)] for word in words})


@figure("01_grid")
def draw_grid(table: pd.DataFrame) -> Figure:
    """The image, its grid with the followed patch, and that patch alone; the table has one row."""
    row, col, patch = (int(table[name].iloc[0]) for name in ("row", "col", "patch"))
    image = example_scene().image
    drawn, axes = plt.subplots(1, 3, figsize=(12, 4.3))
    titles = (
        f"the picture, {image.shape[0]} x {image.shape[1]}",
        f"{len(image) // patch} x {len(image) // patch} patches",
        f"patch ({row}, {col})",
    )
    for axis, title in zip(axes, titles, strict=True):
        show_image(axis, image, title)
    for place in range(patch, len(image), patch):
        axes[1].axhline(place - 0.5, color="white", linewidth=0.8)
        axes[1].axvline(place - 0.5, color="white", linewidth=0.8)
    corner = (col * patch - 0.5, row * patch - 0.5)
    # White around orange, so that the box is seen on any picture.
    for colour, width in (("white", 6), ("#D55E00", 3)):
        for axis in axes[:2]:
            axis.add_patch(Rectangle(corner, patch, patch, fill=False, ec=colour, lw=width))
    axes[2].set(xlim=(col * patch - 0.5, (col + 1) * patch - 0.5))
    axes[2].set(ylim=((row + 1) * patch - 0.5, row * patch - 0.5))
    drawn.tight_layout()
    return drawn


@figure("01_journey")
def draw_nearest_words(table: pd.DataFrame) -> Figure:
    """The words nearest to the followed patch, the true one in green."""
    methods = table["method"].unique()
    drawn, axes = plt.subplots(1, len(methods), figsize=(12, 3.8), sharex=True)
    for axis, method in zip(axes, methods, strict=True):
        part = table[table["method"] == method]
        colours = ["#009E73" if true else "0.7" for true in part["true"]]
        axis.barh(part["word"], part["cosine"], color=colours)
        axis.invert_yaxis()
        axis.set(title=METHOD_NAMES[method], xlabel="cosine with the word")
    sns.despine(drawn)
    drawn.suptitle("Words nearest to the followed patch; green: what is really there", fontsize=14)
    drawn.tight_layout()
    return drawn


@figure("01_upsampling")
def draw_upsampling(table: pd.DataFrame) -> Figure:
    """Logit maps of words on the grid and at image size, then the best word of every pixel."""
    maps, scene = read_maps(table), example_scene()
    side = scene.labels.shape
    limits = {"vmin": table["value"].min(), "vmax": table["value"].max()}
    drawn, axes = plt.subplots(
        2, len(maps) + 2, figsize=(2.4 * (len(maps) + 2), 5.2), layout="constrained"
    )
    large = []
    for (word, values), (above, below) in zip(maps.items(), axes.T[1:-1], strict=True):
        large.append(upsample(torch.tensor(values)[None, :, :, None], side)[0, 0])
        shown = above.imshow(values, **limits)
        below.imshow(large[-1], **limits)
        above.set_title(word if word in scene.words else f"{word} (wrong)", fontsize=13)
    places = [WORDS.index(word) for word in maps]
    colours = word_colours([scene.labels], len(WORDS), N_OBJECTS)
    best = np.array(places)[torch.stack(large).argmax(0).numpy()]
    coarse = np.array(places)[np.stack(list(maps.values())).argmax(0)]
    show_image(axes[0, 0], scene.image, "the picture")
    axes[1, 0].axis("off")
    for axis, labels in ((axes[0, -1], coarse), (axes[1, -1], best)):
        axis.imshow(colours[labels])
    axes[0, -1].set_title("largest of all", fontsize=13)
    axes[0, 1].set_ylabel("14 x 14", fontsize=13)
    axes[1, 1].set_ylabel("224 x 224", fontsize=13)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    drawn.colorbar(shown, ax=axes[:, 1:-1], location="bottom", fraction=0.04, label="cosine")
    handles = [Patch(color=colours[i] / 255, label=w) for i, w in zip(places, maps, strict=True)]
    look: dict[str, Any] = {"loc": "center", "frameon": False, "fontsize": 12}
    axes[1, 0].legend(handles=handles, **look)
    return drawn


@figure("01_scenes")
def draw_scenes(table: pd.DataFrame) -> Figure:
    """Both scenes with their truth and the label maps of three ways to read the patches."""
    rows = []
    for title, scene in both_scenes().items():
        part = table[table["scene"] == title]
        captions, named = {}, {}
        for method, lines in part[part["method"] != "truth"].groupby("method", sort=False):
            name, (objects, background) = METHOD_NAMES[str(method)], lines[list(PARTS)].iloc[0]
            named[name] = read_labels(lines["labels"])
            captions[name] = f"objects {objects:.0%}\nbackground {background:.0%}"
        truth = read_labels(part[part["method"] == "truth"]["labels"])
        rows.append(GalleryRow(title, scene.image, truth, named, captions))
    return draw_scene_gallery(rows, WORDS, N_OBJECTS)
