"""Times as ratios: callables that run in turn, so that a machine's drift hits all of them alike."""

import os
import platform
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch

from scclip_core.baselines import make_method
from scclip_core.clip import FrozenCLIP
from scclip_core.loading import load_clip


def compare(
    callables: dict[str, Callable[[], object]],
    repeats: int = 20,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """Run callables in turn and compare their times with the time of the first one.

    Args:
        callables: name -> what is timed; the first is the baseline.
        repeats: rounds that are counted, >= 1.
        warmup: rounds before these, >= 0.
        clock: gives seconds.

    Returns a row for each callable: `what` (its name), the median of its `milliseconds`, and
    `ratio`, `ratio_low`, `ratio_high`, the median and the quartiles of its ratios to the baseline
    of the same round. Raises ValueError for no callables or numbers that are not allowed.
    """
    if not callables or repeats < 1 or warmup < 0:
        given = f"{len(callables)}, {repeats}, {warmup}"
        raise ValueError(f"callables, repeats >= 1 and warmup >= 0 are needed, got {given}")
    rounds = []
    for _ in range(warmup + repeats):
        elapsed = []
        for run in callables.values():
            start = clock()
            run()
            elapsed.append(clock() - start)
        rounds.append(elapsed)
    seconds = np.asarray(rounds[warmup:])  # [repeats, callables]
    low, middle, high = np.quantile(seconds / seconds[:, :1], (0.25, 0.5, 0.75), axis=0)
    return pd.DataFrame(
        {
            "what": list(callables),
            "milliseconds": 1000 * np.median(seconds, axis=0),
            "ratio": middle,
            "ratio_low": low,
            "ratio_high": high,
        }
    )


def machine() -> dict[str, str | int]:
    """What times depend on: processor, its cores, threads of torch, versions."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def bench(model: FrozenCLIP, batch: int, side: int = 224, repeats: int = 20) -> pd.DataFrame:
    """SC-CLIP and its published variant against open_clip's own image forward pass.

    Args:
        model: any frozen CLIP.
        batch: number of images, random ones.
        side: of an image, in pixels.
        repeats: rounds that are counted.

    Returns the table of `compare`, with what the times depend on.
    """
    images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = images.to(model.device, model.dtype)

    def vanilla() -> torch.Tensor:
        with torch.no_grad():
            return model.clip.encode_image(images)

    runs: dict[str, Callable[[], object]] = {"vanilla": vanilla}
    for name in ("scclip", "scclip-published"):
        runs[name] = partial(make_method(name, model).features, images)
    return compare(runs, repeats).assign(model=model.name, batch=batch, side=side, **machine())


def bench_all(names: tuple[str, ...] = ("mini", "ViT-B-16"), repeats: int = 20) -> pd.DataFrame:
    """`bench` of each model on 1 and on 8 images.

    All models but mini have random weights, which take the same time.
    """
    tables = []
    for name in names:
        model = load_clip(name, None if name == "mini" else "random")
        tables += [bench(model, batch, repeats=repeats) for batch in (1, 8)]
    return pd.concat(tables, ignore_index=True)
