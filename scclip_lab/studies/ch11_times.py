"""Chapter 11: time and memory of every detector, as ratios to the exact local outlier factor.

`make bench` stores them, and the chapter reads them. A detector's peak memory is measured in a
process of its own: `python -m scclip_lab.studies.ch11_times NAME`.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import tqdm

from scclip_core.attention import self_attention_weights
from scclip_core.clip import FrozenCLIP
from scclip_core.detectors import DETECTORS, detect
from scclip_core.loading import load_clip
from scclip_lab.evaluation.memory import numbers_of, peak_of
from scclip_lab.evaluation.timing import compare, machine

# Patches on a side of the grid: N = 196, 784 and 4,096.
SIDES = (14, 28, 64)
# Patches on a side of a test scene.
GRID = 14
# What the others are compared with.
EXACT = "lof"
# A detector that needs the model and the class token, beside those of the core.
ATTENTION = "attention"


@torch.no_grad()
def attention_received(model: FrozenCLIP, tokens: Tensor) -> Tensor:
    """The attention that every patch gets in the last block, mean over heads and queries.

    Stage 3 comes before the last block, which has to score the tokens for this: the projections to
    queries and keys and one softmax of L x L for every head are computed in addition.

    Takes tokens [B, L, C] with the class token first; returns scores [B, N].
    """
    weights = self_attention_weights(model.qkv(model.blocks[-1], tokens), "qk")
    return weights.mean((1, 2))[:, 1:]  # [B, heads, L, L] -> [B, N]


def detectors(model: FrozenCLIP, side: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """All that are compared: functions of tokens [B, L, C], class token first, to scores [B, N]."""
    grid, k = (side, side), min(30, side * side - 1)
    named: dict[str, Callable[[Tensor], Tensor]] = {
        name: partial(_detect, name, grid, k) for name in DETECTORS
    }
    return named | {ATTENTION: partial(attention_received, model)}


def _detect(name: str, grid: tuple[int, int], k: int, tokens: Tensor) -> Tensor:
    return detect(name, tokens[:, 1:], grid, k)


def measure_times(model: FrozenCLIP, repeats: int = 9) -> pd.DataFrame:
    """Time and peak memory of every detector for one image of several sizes, on one thread.

    Tokens are random, of the model's width: what they are does not change the work. Returns a row
    for each detector and size, with ratios to the exact local outlier factor in the same round,
    and memory above that of the tokens, in MiB (Linux).
    """
    tables = []
    memory = peak_memory()
    for side in SIDES:
        tokens = _tokens(side, model.width)
        runs: dict[str, Callable[[], object]] = {
            name: partial(run, tokens) for name, run in detectors(model, side).items()
        }
        with threadpool_limits(1):
            rounds = repeats if side < 64 else max(3, repeats // 3)
            # The time of the processor, which other programs do not disturb much.
            table = compare(runs, rounds, 2, time.process_time)
            table = table.assign(patches=side * side, width=model.width, **machine())
        tables.append(table.merge(memory, on=["what", "patches"]))
    return pd.concat(tables, ignore_index=True)


def _tokens(side: int, width: int) -> Tensor:
    return torch.randn(1, 1 + side * side, width, generator=torch.Generator().manual_seed(0))


def peak_memory() -> pd.DataFrame:
    """Columns what, patches, MiB: peak memory of every detector above that of its tokens."""
    rows = []
    for name in tqdm((*DETECTORS, ATTENTION), desc="memory"):
        peaks = numbers_of("scclip_lab.studies.ch11_times", name)
        rows += [(name, side * side, peak) for side, peak in zip(SIDES, peaks, strict=True)]
    return pd.DataFrame(rows, columns=["what", "patches", "MiB"])


def _print_peaks(name: str) -> None:
    model = load_clip("mini")
    with torch.no_grad():
        for side in SIDES:
            run = detectors(model, side)[name]
            # What the libraries set up at their first call is not counted.
            detectors(model, 8)[name](_tokens(8, model.width))
            tokens = _tokens(side, model.width)
            print(peak_of(partial(run, tokens)))


# The process that `peak_memory` starts.
if __name__ == "__main__":
    _print_peaks(sys.argv[1])
