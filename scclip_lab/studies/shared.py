"""Configurations of SC-CLIP that the chapters compare on the same images."""

from dataclasses import replace
from typing import Any

from scclip_core.config import SWITCHES, SCCLIPConfig
from scclip_core.sharing import SharedSCCLIP, share_blocks

__all__ = ["SharedSCCLIP", "changed", "no_module", "share_blocks"]


def changed(config: SCCLIPConfig, **values: Any) -> SCCLIPConfig:
    """A configuration with other values of some of its fields, which it checks."""
    return replace(config, **values)


def no_module() -> SCCLIPConfig:
    """SC-CLIP with all switches off, which is the baseline `values`."""
    return changed(SCCLIPConfig(), **dict.fromkeys(SWITCHES, False))
