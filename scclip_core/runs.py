"""Evaluating methods on a data set: in chunks of pictures, over processes, with a journal.

A chunk is always computed as one, so a result depends neither on where a run was stopped nor on how many
processes share it (if each has as many threads: products of matrices are summed in another order else).
"""

import hashlib
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from scclip_core.benchmarks import Opened
from scclip_core.clip import FrozenCLIP
from scclip_core.journal import Journal, Record
from scclip_core.metrics import class_counts, confusion_matrix
from scclip_core.pictures import to_tensor
from scclip_core.pipeline import SCCLIP
from scclip_core.segmentation import check_windows, label_map, sliding_logits
from scclip_core.text import embed_names

CHUNK = 8  # pictures whose windows are run together


class Loaded(NamedTuple):
    """One picture as a model wants it, [3, h, w], and its labels uint8 [H, W]; or why it cannot be read."""

    image: Tensor | None
    labels: Tensor | None
    error: str | None


class Chunks(Dataset):
    """Pictures of a data set, read and scaled `CHUNK` at a time, by worker processes if asked for."""

    def __init__(self, data: Opened, model: FrozenCLIP):
        self.data = data
        self.how = (data.protocol.short_side or model.image_size, model.patch_size, model.mean, model.std)

    def pictures(self, number: int) -> range:
        """Which pictures chunk `number` holds."""
        return range(number * CHUNK, min((number + 1) * CHUNK, len(self.data.samples)))

    def __len__(self) -> int:
        return -(-len(self.data.samples) // CHUNK)

    def __getitem__(self, number: int) -> list[Loaded]:
        return [self.load(i) for i in self.pictures(number)]

    def load(self, i: int) -> Loaded:
        """Picture `i`, or the reason why it cannot be used."""
        try:
            picture, labels = self.data.samples.read(i)
            if labels.shape != (picture.height, picture.width):
                size = (
                    f"{labels.shape[1]} x {labels.shape[0]}, the picture {picture.width} x {picture.height}"
                )
                raise ValueError(f"label map and picture must have one size, got {size}")
            wrong = sorted(set(np.unique(labels).tolist()) - {*range(len(self.data.classes)), 255})
            if wrong:
                raise ValueError(f"labels must be in 0..{len(self.data.classes) - 1} or 255, got {wrong[0]}")
        except (ValueError, OSError) as error:
            return Loaded(None, None, str(error))
        return Loaded(to_tensor(picture, *self.how), torch.from_numpy(labels), None)


@dataclass
class Results:
    """What a run found: class counts int64 [pictures, 3, C] of each method, and which failed."""

    counts: dict[str, np.ndarray] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)  # of the pictures counted
    failed: dict[str, str] = field(default_factory=dict)  # name: why


def label_maps(segmenter: SCCLIP, images: Sequence[Tensor], sizes: Sequence, data: Opened) -> list[Tensor]:
    """Labels of pictures [3, h, w] at the sizes (H, W), by the data set's protocol, int64 [H, W] each."""
    protocol, model = data.protocol, segmenter.model
    names = [name for names in data.classes for name in names]
    text = embed_names(model, names, protocol.templates or segmenter.config.templates)
    images = [image.to(model.device, model.dtype) for image in images]
    found = sliding_logits(segmenter, images, text, protocol.window, protocol.stride)
    return [label_map(f, data.classes, size, protocol) for f, size in zip(found, sizes, strict=True)]


def evaluate(
    methods: dict[str, SCCLIP], data: Opened, folder: Path, seed: int = 2, workers: int = 2
) -> Results | None:
    """Run every method on every picture of a data set, going on where a run in `folder` was stopped.

    Under torchrun, chunks are divided among the processes and the first gives the results, the others None.
    Pictures that cannot be read are left out for all methods, and told. Raises ValueError where no picture
    could be read, or where another run's journal lies in `folder`.
    """
    model = next(iter(methods.values())).model
    check_windows(model.patch_size, data.protocol.window, data.protocol.stride)
    rank, processes = _join_processes()
    about = about_run(model, data, seed)
    journals = {
        name: Journal(folder, name, about | {"config": _plain(asdict(method.config))}, rank)
        for name, method in methods.items()
    }
    chunks = Chunks(data, model)
    mine = [
        number
        for number in range(rank, len(chunks), processes)
        if not all(journal.done(chunks.pictures(number)) for journal in journals.values())
    ]
    loader = DataLoader(chunks, batch_size=None, sampler=mine, num_workers=workers if mine else 0)
    bar = tqdm(mine, desc=data.name, unit="chunk", disable=rank > 0)
    for number, loaded in zip(bar, loader, strict=True):
        pictures = chunks.pictures(number)
        for name, segmenter in methods.items():
            if not journals[name].done(pictures):
                journals[name].write(list(_records(segmenter, data, pictures, loaded)))
    if processes > 1:
        found: list[dict[str, list[Record]]] = [{} for _ in range(processes)]
        distributed.all_gather_object(found, {n: list(j.records.values()) for n, j in journals.items()})
        distributed.destroy_process_group()
        for name, records in ((name, one[name]) for one in found for name in journals):
            journals[name].add(records)
    return collect(journals, data) if rank == 0 else None


def _records(segmenter: SCCLIP, data: Opened, pictures: range, loaded: list[Loaded]) -> Iterator[Record]:
    """What to note of one chunk: the cells of each picture's confusion matrix that are not 0, or an error."""
    good = [(i, one) for i, one in zip(pictures, loaded, strict=True) if one.error is None]
    for i, one in zip(pictures, loaded, strict=True):
        if one.error is not None:
            yield {"picture": i, "error": one.error}
    images, sizes = [one.image for _, one in good], [one.labels.shape for _, one in good]
    for (i, one), labels in zip(good, label_maps(segmenter, images, sizes, data), strict=True):
        confusion = confusion_matrix(labels.cpu(), one.labels, len(data.classes)).flatten()
        places = confusion.nonzero().flatten()
        yield {"picture": i, "cells": torch.stack([places, confusion[places]], 1).tolist()}


def collect(journals: dict[str, Journal], data: Opened) -> Results:
    """The journals' records as class counts, pictures in order."""
    results, classes = Results(), len(data.classes)
    for i, name in enumerate(data.samples.names):
        errors = [j.records[i]["error"] for j in journals.values() if "error" in j.records[i]]
        if errors:
            results.failed[name] = str(errors[0])
        else:
            results.numbers.append(i)
    if not results.numbers:
        raise ValueError(f"root must hold pictures that can be read; of {data.name}, {errors[0]}")
    for method, journal in journals.items():
        counts = np.zeros((len(results.numbers), 3, classes), np.int64)
        for row, i in enumerate(results.numbers):
            cells = np.asarray(journal.records[i]["cells"], np.int64).reshape(-1, 2)
            confusion = np.zeros(classes**2, np.int64)
            confusion[cells[:, 0]] = cells[:, 1]
            counts[row] = class_counts(confusion.reshape(classes, classes))
        results.counts[method] = counts
    return results


def about_run(model: FrozenCLIP, data: Opened, seed: int) -> Record:
    """What the results of every method depend on: data, model with the hash of its weights, versions."""
    names = hashlib.sha256("\n".join(data.samples.names).encode()).hexdigest()
    return {
        "dataset": data.name,
        "pictures": len(data.samples),
        "picture_names_sha256": names,
        "seed": seed,
        "classes": [list(names) for names in data.classes],
        "protocol": _plain(asdict(data.protocol)),
        "model": model.name,
        "weights_sha256": weights_hash(model),
        "dtype": str(model.dtype),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "open_clip_torch": version("open_clip_torch"),
    }


def weights_hash(model: FrozenCLIP) -> str:
    """SHA-256 of a model's weights, by name, as float32."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.clip.state_dict().items()):
        weights.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return weights.hexdigest()


def _plain(settings: dict) -> dict:
    """Settings as JSON gives them back: tuples are lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _join_processes() -> tuple[int, int]:
    """(rank, how many) of this process, as torchrun tells; only small tables are exchanged, so by gloo."""
    if not distributed.is_torchelastic_launched():
        return 0, 1
    distributed.init_process_group("gloo", timeout=timedelta(days=7))  # a fast process waits for a slow one
    return distributed.get_rank(), distributed.get_world_size()
