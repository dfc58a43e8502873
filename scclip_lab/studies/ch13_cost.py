"""Chapter 13: what larger ViTs cost: counted on the meta device, and measured with random weights.

`make bench` measures and stores, and the chapter reads. Peaks of memory are taken in a process of
their own: `python -m scclip_lab.studies.ch13_cost NAME SIDE METHOD BLOCKS ROWS`, 0 for all blocks.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import torch
from open_clip.model import CLIP
from threadpoolctl import threadpool_limits
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from scclip_core.baselines import make_method
from scclip_core.by_rows import SCCLIPByRows
from scclip_core.clip import FrozenCLIP
from scclip_core.config import INDICES, LAYERS, SCCLIPConfig
from scclip_core.loading import load_clip, untrained
from scclip_lab.datasets.scenes import VALIDATION, evaluation_scene
from scclip_lab.evaluation.memory import numbers_of, peak_of
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.evaluation.shards import pack, segment_shards
from scclip_lab.evaluation.timing import compare, machine

MODELS = (
    "ViT-B-32",
    "ViT-B-16",
    "ViT-L-14",
    "ViT-L-14-336",
    "ViT-H-14",
    "ViT-g-14",
    "ViT-bigG-14",
)
# Models above so many billions of multiply-adds run once, without a round before it.
HEAVY = 200
# Bytes of a number, by precision.
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
# What is measured for memory: model, blocks (0 for all), side in pixels.
LARGE = (("mini", 0, 1024), ("ViT-H-14", 4, 896))
# The rows at once that are compared; None is SC-CLIP with whole matrices.
ROWS = (None, 1024, 256)


def count_models(names: tuple[str, ...] = MODELS) -> pd.DataFrame:
    """Every ViT by its depth: shape, the layers chosen, parameters, multiply-adds and bytes.

    Nothing is computed: the models are on the meta device, at the picture size of their training.
    Operations are billions of multiply-adds for one picture, by torch's counter.
    """
    rows = []
    for name in names:
        with torch.device("meta"):
            model = FrozenCLIP(untrained(name, device="meta"), name)
            images = torch.empty(1, 3, model.image_size, model.image_size)
            counted = [
                _count(make_method(m, model).features, images) for m in ("vanilla", "scclip")
            ]
        config = SCCLIPConfig.for_depth(model.depth)
        tower = sum(p.numel() for p in model.visual.parameters())
        layers = [getattr(config, index) for index in INDICES]
        rows.append(
            {
                "model": name,
                "depth": model.depth,
                "width": model.width,
                "heads": model.heads,
                "patches": model.grid_size[0] * model.grid_size[1],
                "middle": layers[0],
                "shallow": layers[1],
                "fusion": f"{layers[2]} to {layers[3] - 1}",
                "residual": config.res_cls,
                "layers from": "known" if model.depth in LAYERS else "rule",
                "parameters (millions)": tower / 1e6,
                "vanilla (G)": counted[0],
                "SC-CLIP (G)": counted[1],
                "ratio": counted[1] / counted[0],
                **{f"{kind} (GiB)": tower * size / 2**30 for kind, size in BYTES.items()},
            }
        )
    return pd.DataFrame(rows)


def _count(run: Callable[[torch.Tensor], object], images: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        run(images)
    return float(counter.get_total_flops()) / 2e9


def predicted_memory(
    n: int, width: int, depth: int, heads: int, rows: int | None = None
) -> dict[str, float]:
    """Peak memory of one picture above that of the model, in MiB of float32, by hand.

    The outputs of all blocks but the last are kept. A block holds its input, a normalised copy, and
    more of either the attention (3 LC for queries, keys and values, and heads L^2 for the weights,
    which torch forms where the number of heads is even) or the MLP (two hidden layers of 4 LC).
    After the blocks, SC-CLIP has up to four matrices N x N (the distances of stage 3 and what is
    made on the way to them): by rows, of so many rows, and no weights of heads.

    Returns "vanilla" and "scclip".
    """
    length, tokens = n + 1, (n + 1) * width
    weights = heads * length**2 if heads % 2 == 0 else 0
    block = 2 * tokens + max(3 * tokens + weights, 8 * tokens)
    by_rows = rows is not None and n > rows
    kept = (depth - 1) * tokens
    inner = 10 * tokens if by_rows else block
    matrices = 4 * n * (min(rows, n) if rows is not None else n)
    vanilla, scclip = kept + block, kept + max(inner, matrices + 4 * tokens)
    return {
        what: 4 * numbers / 2**20 for what, numbers in (("vanilla", vanilla), ("scclip", scclip))
    }


def random_model(name: str, blocks: int = 0) -> FrozenCLIP:
    """A model with open_clip's image tower of that name, quickly filled with random numbers.

    What the weights are does not change time or memory. The text tower has one block. With
    `blocks`, the image tower has so many of its blocks.
    """
    config: dict[str, Any] = open_clip.get_model_config(name) or {}
    vision = dict(config["vision_cfg"])
    vision["layers"] = blocks or vision["layers"]
    text = {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    with torch.device("meta"):
        clip: nn.Module = CLIP(config["embed_dim"], vision, text)
    clip = clip.to_empty(device="cpu")
    numbers = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for values in (*clip.parameters(), *clip.buffers()):
            flat = values.view(-1)
            for first in range(0, len(flat), len(numbers)):
                part = flat[first : first + len(numbers)]
                part.copy_(numbers[: len(part)])
    assert isinstance(clip, CLIP)
    return FrozenCLIP(clip, name)


def load(name: str, blocks: int = 0) -> FrozenCLIP:
    """The bundled model, or a random one."""
    return load_clip("mini") if name == "mini" else random_model(name, blocks)


def measure_times(names: tuple[str, ...] = MODELS, repeats: int = 3) -> pd.DataFrame:
    """Time of SC-CLIP for one picture, as a ratio to vanilla CLIP in the same round, one thread.

    Returns the columns of `compare`, model, side, patches, GMAC (billions of multiply-adds), the
    number of rounds, and what times depend on. The time is that of the processor.
    """
    counts = count_models(names).set_index("model")
    tables = []
    for name in tqdm(names, desc="models"):
        operations = [float(counts.loc[[name], c].iloc[0]) for c in ("vanilla (G)", "SC-CLIP (G)")]
        model = random_model(name)
        side, (rows, cols) = model.image_size, model.grid_size
        images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        runs: dict[str, Callable[[], object]] = {
            method: partial(make_method(method, model).features, images)
            for method in ("vanilla", "scclip")
        }
        rounds, warmup = (repeats, 1) if operations[0] < HEAVY else (1, 0)
        with threadpool_limits(1):
            table = compare(runs, rounds, warmup, time.process_time).assign(**machine())
        about: dict[str, Any] = {
            "model": name,
            "side": side,
            "patches": rows * cols,
            "rounds": rounds,
        }
        tables.append(table.assign(**about, GMAC=operations))
    return pd.concat(tables, ignore_index=True)


def measure_memory() -> pd.DataFrame:
    """Peak memory and time of large pictures: vanilla, SC-CLIP, and SC-CLIP made by rows.

    Columns model, blocks, patches, what, rows, MiB, seconds, predicted (MiB, by hand).
    """
    found = []
    for name, blocks, side in tqdm(LARGE, desc="memory"):
        model = load(name, blocks)
        n = (side // model.patch_size) ** 2
        for method, rows in (("vanilla", None), *(("scclip", rows) for rows in ROWS)):
            given = (name, side, method, blocks, rows or 0)
            peak, seconds = numbers_of("scclip_lab.studies.ch13_cost", *given)
            guess = predicted_memory(n, model.width, model.depth, model.heads, rows)[method]
            found.append((name, model.depth, n, method, rows or n, peak, seconds, guess))
    columns = ["model", "blocks", "patches", "what", "rows", "MiB", "seconds", "predicted"]
    return pd.DataFrame(found, columns=columns)


def measure_throughput(count: int = 24) -> pd.DataFrame:
    """Pictures a second from shard to shard, with the bundled model, one thread, and where it goes.

    Columns part and ms: of one picture, all of it and the forward pass alone.
    """
    from PIL import Image

    model = load_clip("mini")
    segmenter, classes = make_method("scclip", model), ["dog", "cat", "grass", "sky"]
    scenes = [evaluation_scene(VALIDATION, 13, i) for i in range(count)]
    images = stack_images(model, scenes[:1])
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        place = Path(folder)
        (place / "out").mkdir()
        paths = [place / f"{i}.png" for i in range(count)]
        for path, scene in zip(paths, scenes, strict=True):
            Image.fromarray(scene.image).save(path)
        shards = pack(paths, place / "in", count)
        segmenter.predict(paths[0], classes)
        began = time.process_time()
        done = segment_shards(segmenter, shards, place / "out", classes)
        whole = (time.process_time() - began) / done.pictures
        alone = compare({"forward": partial(segmenter.features, images)}, 9, 2, time.process_time)
    rows = [("all", 1000 * whole), ("forward", float(alone["milliseconds"].iloc[0]))]
    return pd.DataFrame(rows, columns=["part", "ms"]).assign(pictures=count, **machine())


def _print_peak(name: str, side: int, method: str, blocks: int, rows: int) -> None:
    torch.set_num_threads(1)
    model = load(name, blocks)
    by_rows = SCCLIPByRows(model, rows_at_once=rows) if rows else None
    segmenter = by_rows or make_method(method, model)
    segmenter.features(torch.zeros(1, 3, 4 * model.patch_size, 4 * model.patch_size))
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    began = time.process_time()
    print(peak_of(partial(segmenter.features, images)), time.process_time() - began)


# The process that `measure_memory` starts.
if __name__ == "__main__":
    _print_peak(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
