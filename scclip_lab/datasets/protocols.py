"""The protocols that published numbers come from: one for each method and benchmark.

All values are those of the configuration files of public repositories, at the commit that `source`
names. All of them use the 80 sentences of CLIP's ImageNet protocol, and resize as `resizing` does.

ClearCLIP's repository has word lists of its own for VOC21, VOC20 and COCO-Object, with one plain
name for most classes; the others are those of `data/queries/published`. GEM's repository has no
evaluation, so that its protocol cannot be verified and is not here.
"""

from dataclasses import replace
from typing import Any

from scclip_core.config import imagenet_templates
from scclip_lab.datasets.protocol import Protocol

# Benchmark -> its configuration file in all of the repositories.
FILES = {
    "voc21": "configs/cfg_voc21.py",
    "voc20": "configs/cfg_voc20.py",
    "context60": "configs/cfg_context60.py",
    "context59": "configs/cfg_context59.py",
    "coco-object": "configs/cfg_coco_object.py",
    "coco-stuff": "configs/cfg_coco_stuff164k.py",
    "cityscapes": "configs/cfg_city_scapes.py",
    "ade20k": "configs/cfg_ade20k.py",
}
REPOSITORIES = {
    "scclip": "github.com/SuleBai/SC-CLIP at 0417ba9",
    "sclip": "github.com/wangf3014/SCLIP at b56bd30",
    "clearclip": "github.com/mc-lan/ClearCLIP at ad68a40",
    "naclip": "github.com/sinahmr/NACLIP at 0cac3a6",
}
# Protocol -> what holds for all of its benchmarks.
COMMON: dict[str, dict[str, Any]] = {
    "scclip": {},
    "sclip": {},
    "clearclip": {"short_side": 448, "window": 448, "stride": 224, "logit_scale": 50.0},
    "naclip": {"pamr_steps": 10},
}
# Protocol -> benchmark -> what differs there.
SPECIAL: dict[str, dict[str, dict[str, Any]]] = {
    "scclip": {
        "voc21": {"logit_scale": 50.0, "probability_threshold": 0.15, "area_threshold": 0.1},
        "context60": {"probability_threshold": 0.15},
        "coco-object": {"logit_scale": 55.0, "probability_threshold": 0.35},
        "cityscapes": {"short_side": 560},
    },
    "sclip": {
        "voc21": {"logit_scale": 65.0, "probability_threshold": 0.1, "area_threshold": 0.1},
        "context60": {"logit_scale": 50.0, "probability_threshold": 0.1},
        "coco-object": {"logit_scale": 50.0, "probability_threshold": 0.1},
        "coco-stuff": {"short_side": 448},
        "cityscapes": {"short_side": 560},
    },
    "clearclip": {
        "voc21": {"probability_threshold": 0.5},
        "context60": {"probability_threshold": 0.15},
        "coco-object": {"probability_threshold": 0.4},
        "cityscapes": {"window": 224},
    },
    "naclip": {
        "voc21": {"window": 0, "probability_threshold": 0.1},
        "voc20": {"window": 0},
        "context60": {"probability_threshold": 0.1},
        "coco-object": {"probability_threshold": 0.1},
        "cityscapes": {"short_side": 560},
    },
}


def find_protocol(name: str, dataset: str) -> Protocol:
    """The protocol of a published method on a benchmark, with its source.

    Raises ValueError for a name that is not known.
    """
    if name not in REPOSITORIES:
        raise ValueError(f"protocol must be one of {', '.join(REPOSITORIES)}, got {name!r}")
    return Protocol(
        name=name,
        templates=imagenet_templates(),
        source=f"{REPOSITORIES[name]}, {FILES[dataset]}",
        **COMMON[name] | SPECIAL[name].get(dataset, {}),
    )


def change_protocol(protocol: Protocol, changes: dict[str, Any]) -> Protocol:
    """A protocol with single values changed, which its name then tells.

    `changes` are attributes of `Protocol` by name; those that are None stay as they are.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes:
        return protocol
    told = ", ".join(f"{name} {value:g}" for name, value in changes.items())
    return replace(protocol, name=f"{protocol.name} with {told}", **changes)
