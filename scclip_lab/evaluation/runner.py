"""Evaluating methods on a data set: in chunks of images, over processes, with a run log.

A chunk is always computed as one, so that a result depends neither on where a run was stopped nor
on how many processes share it. Each process must have as many threads, since products of matrices
are summed in another order otherwise.
"""

import hashlib
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from scclip_core.clip import FrozenCLIP
from scclip_core.dense import DenseCLIP
from scclip_core.images import normalise
from scclip_lab.datasets.benchmarks import SegmentationDataset
from scclip_lab.datasets.folders import IGNORE
from scclip_lab.datasets.resizing import published_size, resize_bilinear
from scclip_lab.evaluation.inference import check_sizes, label_maps
from scclip_lab.evaluation.metrics import class_counts, confusion_matrix
from scclip_lab.evaluation.run_log import Record, RunLog

# Images whose windows are computed together.
CHUNK = 8


class Sample(NamedTuple):
    """An image as a model takes it, float32 [3, h, w], and its label map uint8 [H, W]."""

    image: Tensor
    labels: Tensor


class Chunks(Dataset):
    """The images of a data set, read and scaled `CHUNK` at a time, by worker processes or not.

    An item is a list with a `Sample` for each image, or the reason why it cannot be used.
    """

    def __init__(self, data: SegmentationDataset, model: FrozenCLIP):
        self.data = data
        self.short_side = data.protocol.short_side or model.image_size
        self.mean, self.std = model.mean, model.std

    def images(self, chunk: int) -> range:
        """The indices of the images in a chunk."""
        return range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(self.data.samples)))

    def __len__(self) -> int:
        return -(-len(self.data.samples) // CHUNK)

    def __getitem__(self, chunk: int) -> list[Sample | str]:
        loaded: list[Sample | str] = []
        for i in self.images(chunk):
            try:
                loaded.append(self.load(i))
            except (ValueError, OSError) as error:
                loaded.append(str(error))
        return loaded

    def load(self, i: int) -> Sample:
        """Image `i` with its label map.

        Raises ValueError or OSError where one cannot be read, their sizes differ, or a label is
        no class.
        """
        image, labels = self.data.samples.read(i)
        if labels.shape != (image.height, image.width):
            map_size = f"{labels.shape[1]} x {labels.shape[0]}"
            image_size = f"{image.width} x {image.height}"
            raise ValueError(
                f"label map and image must have one size, got {map_size}, the image {image_size}"
            )
        last = len(self.data.classes) - 1
        wrong = sorted(set(np.unique(labels).tolist()) - {*range(last + 1), IGNORE})
        if wrong:
            raise ValueError(f"labels must be in 0..{last} or {IGNORE}, got {wrong[0]}")
        width, height = published_size(image.width, image.height, self.short_side)
        resized = torch.from_numpy(resize_bilinear(np.asarray(image), width, height))
        values = resized.permute(2, 0, 1)  # [h, w, 3] -> [3, h, w]
        return Sample(normalise(values, self.mean, self.std), torch.from_numpy(labels))


@dataclass
class Results:
    """The results of a run.

    Attributes:
        counts: method -> class counts int64 [images, 3, C].
        images: the indices of the images that were counted.
        failed: name of an image that could not be used -> the reason.
    """

    counts: dict[str, np.ndarray] = field(default_factory=dict)
    images: list[int] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def evaluate(
    methods: Mapping[str, DenseCLIP],
    data: SegmentationDataset,
    folder: Path,
    seed: int = 2,
    workers: int = 2,
) -> Results | None:
    """Run every method on every image of a data set, going on where a run was stopped.

    Args:
        methods: name -> segmenter, all over one model.
        data: what `open_dataset` returns.
        folder: an existing folder, for the run logs.
        seed: of the data set.
        workers: number of processes that read images.

    Under torchrun, the processes share the chunks; the first one returns the results, the others
    return None. Images that cannot be used are left out for all methods and reported. Raises
    ValueError where no image can be used, or where `folder` holds the run log of another run.
    """
    model = next(iter(methods.values())).model
    check_sizes(model, data.protocol)
    rank, processes = _join_processes()
    metadata = run_metadata(model, data, seed)
    logs = {
        name: RunLog(folder, name, metadata | method_metadata(name, segmenter), rank)
        for name, segmenter in methods.items()
    }
    chunks = Chunks(data, model)
    missing = [
        chunk
        for chunk in range(rank, len(chunks), processes)
        if not all(log.has_results(chunks.images(chunk)) for log in logs.values())
    ]
    workers = workers if missing else 0
    loader: DataLoader = DataLoader(chunks, batch_size=None, sampler=missing, num_workers=workers)
    bar = tqdm(missing, desc=data.name, unit="chunk", disable=rank > 0)
    for chunk, loaded in zip(bar, loader, strict=True):
        images = chunks.images(chunk)
        for name, segmenter in methods.items():
            if not logs[name].has_results(images):
                logs[name].write(list(_records(segmenter, data, images, loaded)))
    if processes > 1:
        gathered: list[dict[str, list[Record]]] = [{} for _ in range(processes)]
        own = {name: list(log.records.values()) for name, log in logs.items()}
        distributed.all_gather_object(gathered, own)
        distributed.destroy_process_group()
        for one in gathered:
            for name, records in one.items():
                logs[name].add(records)
    return collect_results(logs, data) if rank == 0 else None


def _records(
    segmenter: DenseCLIP, data: SegmentationDataset, images: range, loaded: list[Sample | str]
) -> Iterator[Record]:
    """The records of one chunk: the confusion matrix of every image, or an error.

    Of a confusion matrix, only the entries that are not 0 are kept, as [place, pixels].
    """
    usable = []
    for i, sample in zip(images, loaded, strict=True):
        if isinstance(sample, str):
            yield {"image": i, "error": sample}
        else:
            usable.append((i, sample))
    tensors = [sample.image for _, sample in usable]
    maps = label_maps(segmenter, tensors, [sample.labels.shape for _, sample in usable], data)
    for (i, sample), labels in zip(usable, maps, strict=True):
        confusion = confusion_matrix(labels.cpu(), sample.labels, len(data.classes)).flatten()
        places = confusion.nonzero().flatten()
        yield {"image": i, "confusion": torch.stack([places, confusion[places]], 1).tolist()}


def collect_results(logs: Mapping[str, RunLog], data: SegmentationDataset) -> Results:
    """The records of all methods as class counts, images in the order of the data set.

    Raises ValueError where no image could be used.
    """
    results, classes = Results(), len(data.classes)
    for i, name in enumerate(data.samples.names):
        errors = [log.records[i]["error"] for log in logs.values() if "error" in log.records[i]]
        if errors:
            results.failed[name] = str(errors[0])
        else:
            results.images.append(i)
    if not results.images:
        reason = next(iter(results.failed.values()))
        raise ValueError(f"root must hold images that can be read; of {data.name}, {reason}")
    for method, log in logs.items():
        counts = np.zeros((len(results.images), 3, classes), np.int64)
        for row, i in enumerate(results.images):
            entries = np.asarray(log.records[i]["confusion"], np.int64).reshape(-1, 2)
            confusion = np.zeros(classes**2, np.int64)
            confusion[entries[:, 0]] = entries[:, 1]
            counts[row] = class_counts(confusion.reshape(classes, classes))
        results.counts[method] = counts
    return results


def run_metadata(model: FrozenCLIP, data: SegmentationDataset, seed: int) -> Record:
    """What the results of every method depend on: data set, weights, versions."""
    names = hashlib.sha256("\n".join(data.samples.names).encode()).hexdigest()
    return {
        "dataset": data.name,
        "images": len(data.samples),
        "image_names_sha256": names,
        "seed": seed,
        "classes": [list(names) for names in data.classes],
        "words": data.words,
        "protocol": _as_json(asdict(data.protocol)),
        "model": model.name,
        "weights_sha256": weights_hash(model),
        "dtype": str(model.dtype),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "open_clip_torch": version("open_clip_torch"),
    }


def method_metadata(name: str, segmenter: DenseCLIP) -> Record:
    """What the results of one method depend on besides: its name, classes and parameters."""
    return {
        "method": name,
        "method_class": type(segmenter).__name__,
        "config_class": type(segmenter.config).__name__,
        "config": _as_json(asdict(segmenter.config)),
    }


def weights_hash(model: FrozenCLIP) -> str:
    """SHA-256 of a model's weights, by name, as float32."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.clip.state_dict().items()):
        values = tensor.detach().float().cpu().contiguous().numpy()
        weights.update(name.encode() + values.tobytes())
    return weights.hexdigest()


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as JSON gives them back: tuples are lists."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()
    }


def _join_processes() -> tuple[int, int]:
    """(rank, number of processes) as torchrun gives them; (0, 1) without it."""
    if not distributed.is_torchelastic_launched():
        return 0, 1
    # Gloo is enough for the small tables that are exchanged. A fast process waits for a slow one.
    distributed.init_process_group("gloo", timeout=timedelta(days=7))
    return distributed.get_rank(), distributed.get_world_size()
