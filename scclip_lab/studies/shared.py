"""Configurations of SC-CLIP that the chapters compare on the same images."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SWITCHES, SCCLIPConfig
from scclip_core.pipeline import SCCLIP

Name = TypeVar("Name", bound=Hashable)


def segmenters(model: FrozenCLIP, configs: Mapping[Name, SCCLIPConfig]) -> dict[Name, SCCLIP]:
    """SC-CLIP with each of the configurations, name -> segmenter."""
    return {name: SCCLIP(model, config) for name, config in configs.items()}


def changed(config: SCCLIPConfig, **values: Any) -> SCCLIPConfig:
    """A configuration with other values of some of its fields, which it checks."""
    return replace(config, **values)


def no_module() -> SCCLIPConfig:
    """SC-CLIP with all switches off, which is the baseline `values`."""
    return changed(SCCLIPConfig(), **dict.fromkeys(SWITCHES, False))
