"""Times as ratios: callables run in turn within one process, so that a machine's drift hits all of them
alike.
"""

import os
import platform
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from scclip_core.clip import FrozenCLIP, load_clip
from scclip_core.config import SCCLIPConfig
from scclip_core.pipeline import SCCLIP


def compare(
    callables: dict[str, Callable[[], object]],
    repeats: int = 20,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> pd.DataFrame:
    """Run the callables in turn, `repeats` rounds after `warmup` uncounted ones; the first is the baseline.

    Returns a row a callable: median milliseconds, and the median of its ratios to the baseline of the same
        round with
    their quartiles. Raises ValueError for no callables or fewer than one round.
    """
    if not callables or repeats < 1 or warmup < 0:
        raise ValueError(
            f"callables, repeats >= 1 and warmup >= 0 are needed, got {len(callables)}, {repeats}, {warmup}"
        )
    rounds = []
    for _ in range(warmup + repeats):
        spent = []
        for run in callables.values():
            began = clock()
            run()
            spent.append(clock() - began)
        rounds.append(spent)
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


def machine() -> dict[str, object]:
    """What the times were taken on: processor, cores, threads of torch, versions."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def bench(model: FrozenCLIP, batch: int, side: int = 224, repeats: int = 20) -> pd.DataFrame:
    """SC-CLIP, seed and reference, against open_clip's own visual forward pass on the same random images."""
    images = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = images.to(model.device, model.dtype)
    methods = {
        "SC-CLIP (seed)": SCCLIP(model, SCCLIPConfig.for_depth(model.depth)),
        "SC-CLIP (reference)": SCCLIP(model, SCCLIPConfig.reference(model.depth)),
    }

    def vanilla() -> torch.Tensor:
        with torch.no_grad():
            return model.clip.encode_image(images)

    runs = {"vanilla": vanilla, **{name: lambda s=s: s.features(images) for name, s in methods.items()}}
    return compare(runs, repeats).assign(model=model.name, batch=batch, side=side, **machine())


def bench_all(names: tuple[str, ...] = ("mini", "ViT-B-16"), repeats: int = 20) -> pd.DataFrame:
    """`bench` of each model at B = 1 and 8; any model but mini has random weights, which cost the same
    time.
    """
    tables = []
    for name in names:
        model = load_clip(name, None if name == "mini" else "random")
        tables += [bench(model, batch, repeats=repeats) for batch in (1, 8)]
    return pd.concat(tables, ignore_index=True)
