"""Chapter 1: the walk of an image through all stages, and one patch followed by hand."""

import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from scclip_core.clip import FrozenCLIP, untrained
from scclip_core.config import SCCLIPConfig
from scclip_core.evaluation import stack_images
from scclip_core.pipeline import SCCLIP
from scclip_core.scenes import TEST, WORDS, Scene, evaluation_scene
from scclip_core.studies import figure
from scclip_core.studies.drawing import draw_maps, map_rows, show_image

SCENE = (TEST, 1, 0)  # the scene that the chapters look at: split, seed, index
PATCH = (8, 3)  # row and column of the patch that is followed


def the_scene() -> Scene:
    """The scene that the chapters look at."""
    return evaluation_scene(*SCENE)


def walk(model: FrozenCLIP, scene: Scene) -> pd.DataFrame:
    """Every tensor of a live run of the seed's configuration: stage, tensor, shape, what happened."""
    return pd.DataFrame(SCCLIP(model).trace(stack_images(model, [scene]), WORDS).rows())


def walk_of_shapes(name: str, classes: int = len(WORDS), side: int = 224) -> pd.DataFrame:
    """The same walk for an open_clip ViT whose weights are not here: shapes alone, on torch's meta device.

    Nothing is computed or held in memory; the text side, which needs no image, is left out.
    """
    with torch.device("meta"):
        model = FrozenCLIP(untrained(name, device="meta"), name)
        images = torch.empty(1, 3, side, side)
        segmenter = SCCLIP(model, SCCLIPConfig.for_depth(model.depth))
        trace = segmenter.trace(images)
        text = torch.empty(classes, model.embed_dim)
        trace.record(8, "logits", segmenter.logits(images, text), "cosine similarity with every class")
    return pd.DataFrame(trace.rows())


def compare_walks(walks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Stage and tensor, then the shapes of each model side by side; tensors that all of them have."""
    columns = [
        table.set_index(["stage", "tensor"])["shape"].rename(name).loc[lambda c: ~c.index.duplicated()]
        for name, table in walks.items()
    ]
    return pd.concat(columns, axis=1, join="inner").reset_index()


def patch_by_hand(model: FrozenCLIP, images: Tensor, row: int, col: int) -> pd.DataFrame:
    """Stage 1 for one patch, in three steps, against what the model computes for it.

    Returns a row a step: what it is, its shape, its length, and the largest difference to the model's own
    tensor.
    """
    p, visual = model.patch_size, model.visual
    grid = model.check_images(images)
    pixels = images[0, :, row * p : (row + 1) * p, col * p : (col + 1) * p]  # [3, p, p]
    embedded = visual.conv1.weight.flatten(1) @ pixels.flatten()  # [C, 3 p p] @ [3 p p] -> [C]
    placed = embedded + model.positions(grid)[1 + row * grid[1] + col]
    token = visual.ln_pre(placed)
    convolved = visual.conv1(images)[0, :, row, col]
    inside = model.embed(images)[0, 1 + row * grid[1] + col]
    steps = [
        ("pixels of the patch", pixels, None),
        ("convolution = one matrix product", embedded, (embedded - convolved).abs().max()),
        ("plus its position", placed, None),
        ("layer norm: the token", token, (token - inside).abs().max()),
    ]
    return pd.DataFrame(
        [
            (what, str(list(tensor.shape)), float(tensor.norm()), None if gap is None else float(gap))
            for what, tensor, gap in steps
        ],
        columns=["step", "shape", "length", "largest difference to the model"],
    )


def token_journey(model: FrozenCLIP, scene: Scene, row: int, col: int, top: int = 6) -> pd.DataFrame:
    """The words nearest to one patch at the end, for vanilla CLIP and SC-CLIP: method, word, cosine, whether
    true.
    """
    truth = WORDS[scene.labels[row * model.patch_size + 8, col * model.patch_size + 8]]
    rows = []
    for method, config in (("vanilla CLIP", SCCLIPConfig.vanilla()), ("SC-CLIP (seed)", SCCLIPConfig())):
        segmenter = SCCLIP(model, config)
        text = segmenter.embed_classes(WORDS)[1]
        cosine = segmenter.logits(stack_images(model, [scene]), text)[0, row, col]  # [Q]
        for index in cosine.topk(top).indices.tolist():
            rows.append((method, WORDS[index], float(cosine[index]), WORDS[index] == truth))
    return pd.DataFrame(rows, columns=["method", "word", "cosine", "true"])


def logit_maps(model: FrozenCLIP, scene: Scene, words: tuple[str, ...]) -> pd.DataFrame:
    """SC-CLIP's cosine with each word on the patch grid, as rows panel, row, col, value."""
    segmenter = SCCLIP(model)
    logits = segmenter.logits(stack_images(model, [scene]), segmenter.embed_classes(WORDS)[1])[0]
    return map_rows({word: logits[..., WORDS.index(word)] for word in words})


@figure("01_grid")
def draw_grid(table: pd.DataFrame) -> Figure:
    """The picture, its patch grid with the followed patch, and that patch alone; one row in the table."""
    row, col, patch = (int(table[name].iloc[0]) for name in ("row", "col", "patch"))
    image = the_scene().image
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
    axes[1].add_patch(
        Rectangle((col * patch - 0.5, row * patch - 0.5), patch, patch, fill=False, ec="#D55E00", lw=3)
    )
    axes[2].set(xlim=(col * patch - 0.5, (col + 1) * patch - 0.5))
    axes[2].set(ylim=((row + 1) * patch - 0.5, row * patch - 0.5))
    drawn.tight_layout()
    return drawn


@figure("01_journey")
def draw_journey(table: pd.DataFrame) -> Figure:
    """The nearest words of the followed patch, the true one in another colour."""
    methods = table["method"].unique()
    drawn, axes = plt.subplots(1, len(methods), figsize=(12, 3.8), sharex=True)
    for axis, method in zip(axes, methods, strict=True):
        part = table[table["method"] == method]
        colours = ["#009E73" if true else "0.7" for true in part["true"]]
        axis.barh(part["word"], part["cosine"], color=colours)
        axis.invert_yaxis()
        axis.set(title=method, xlabel="cosine with the word")
    sns.despine(drawn)
    drawn.suptitle("Words nearest to the followed patch; green: what is really there", fontsize=14)
    drawn.tight_layout()
    return drawn


@figure("01_upsampling")
def draw_upsampling(table: pd.DataFrame) -> Figure:
    """Logit maps of words on the patch grid, under them the same maps at image size."""
    return draw_maps(table, the_scene().image, smooth_row=True, label="cosine")
