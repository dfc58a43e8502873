"""Chapter 11: what each detector, no repair, or a register changes in what SC-CLIP gets right."""

from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scclip_core.anomaly import flag_anomalies
from scclip_core.clip import FrozenCLIP
from scclip_core.pipeline import SCCLIP
from scclip_core.registers import find_register_neurons
from scclip_core.sharing import shared_results
from scclip_lab.datasets.scenes import WORDS, Scene
from scclip_lab.evaluation.metrics import (
    GAINED,
    Statistic,
    count_classes,
    interval_and_gain,
    object_accuracy,
)
from scclip_lab.evaluation.mini import MEAN_AND_PARTS, stack_images
from scclip_lab.studies.ch11_planting import (
    WithRegister,
    fired,
    layers_after,
    low_information,
    plant_neuron,
    scenes_in_batches,
    validation_images,
)
from scclip_lab.studies.ch11_times import EXACT, GRID, detectors
from scclip_lab.studies.reading import PATCH, Continued, label_map

# What stage 3 can do besides flagging by a detector.
NOTHING, TRUTH = "no repair", "true positions"
REGISTER, KNOWN = "register", "register, neuron known"
# Where outliers come from: cases that are planted in tokens, or a planted neuron.
NEURON = "register neuron"
ORIGINS = ("nothing", "long and alike", "alike", NEURON)
AT_PLANTS = "planted patches right"
# Of all classes, and not a number where nothing is planted.
ALL_RIGHT: Statistic = partial(object_accuracy, objects=len(WORDS))
MEASURES: dict[str, Statistic] = {**MEAN_AND_PARTS, AT_PLANTS: ALL_RIGHT}


def repair_effects(model: FrozenCLIP, count: int, seed: int = 7) -> pd.DataFrame:
    """mIoU, objects right, background right, and planted patches right, by detector and origin.

    SC-CLIP's blocks run once for every origin of outliers; what follows them runs with the patches
    repaired that each detector flags, with none, and with those where the outliers truly are.
    A test-time register takes the place of the repair where outliers can come from a neuron.
    Gains are paired differences to the exact local outlier factor.
    """
    own, scorers, continued = SCCLIP(model), detectors(model, GRID), Continued(model)
    damaged = plant_neuron(model)
    neurons = long_neurons(damaged, validation_images(model))
    registers = {
        "nothing": {REGISTER: WithRegister(model)},
        NEURON: {REGISTER: WithRegister(damaged), KNOWN: WithRegister(damaged, neurons)},
    }
    found: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for _, scenes in scenes_in_batches(count, seed):
        images = stack_images(model, scenes)
        clean, where = own.encode(images), low_information(images)
        for origin in ORIGINS:
            layers, at = layers_after(own, images, where, origin), where
            if origin == NEURON:
                layers = SCCLIP(damaged).encode(images)
                at = fired(clean, layers)
            nowhere = torch.zeros_like(at)
            ways = {NOTHING: (layers, nowhere)} | {
                name: (layers, flag_anomalies(score(layers[-1]), 0.05))
                for name, score in scorers.items()
            }
            if origin != "nothing":
                ways[TRUTH] = (layers, at)
            for name, other in registers.get(origin, {}).items():
                ways[name] = (other.encode(images), nowhere)
            known: dict[tuple[int, bytes], list[tuple[np.ndarray, np.ndarray]]] = {}
            with shared_results():
                for name, (given, flags) in ways.items():
                    # Detectors that flag the same patches get the same label maps.
                    key = id(given), flags.numpy().tobytes()
                    if key not in known:
                        features = continued.repaired_at(images, given, flags)
                        known[key] = [
                            _count(continued, features[i : i + 1], scene, at[i])
                            for i, scene in enumerate(scenes)
                        ]
                    found.setdefault((origin, name), []).extend(known[key])
    rows = []
    for origin, name in found:
        for measure, statistic in MEASURES.items():
            which = int(measure == AT_PLANTS)
            ours, base = (np.stack([c[which] for c in found[origin, n]]) for n in (name, EXACT))
            gained = interval_and_gain(ours, base, statistic, seed)
            rows.append((origin, name, measure, *gained))
    columns = ["origin", "repaired", "measure", *GAINED]
    return pd.DataFrame(rows, columns=columns).assign(scenes=count, seed=seed)


def _count(
    segmenter: SCCLIP, features: Tensor, scene: Scene, at: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Class counts of one scene, of all its pixels and of those in the patches `at`, bool [N]."""
    truth = torch.from_numpy(scene.labels)
    labels = label_map(segmenter, features, len(truth))
    inside = at.view(GRID, GRID).repeat_interleave(PATCH, 0).repeat_interleave(PATCH, 1)
    counted = count_classes(labels, truth, len(WORDS))
    return counted, count_classes(labels[inside], truth[inside], len(WORDS))


@torch.no_grad()
def long_neurons(model: FrozenCLIP, images: Tensor, count: int = 1) -> tuple[tuple[int, int], ...]:
    """The neurons that are most active where tokens after the last block are unusually long.

    Long is above twice the median length. Takes images [B, 3, H, W]; returns pairs (block, neuron).
    """
    tokens = model.embed(images)
    for block in model.blocks:
        tokens = block(tokens)
    limit = 2 * float(tokens[:, 1:].norm(dim=-1).median())
    return find_register_neurons(model, images, count, threshold=limit)
