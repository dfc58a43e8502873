"""SC-CLIP: a frozen CLIP's forward pass, rearranged with no training into a segmenter.

Read the modules in this order: config, clip, anomaly, similarity, attention, pipeline; then text,
segmentation, dense and baselines.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scclip_core.baselines import METHODS, make_method
    from scclip_core.clip import FrozenCLIP
    from scclip_core.config import SCCLIPConfig
    from scclip_core.dense import DenseCLIP
    from scclip_core.loading import load_clip
    from scclip_core.pipeline import SCCLIP
    from scclip_core.prediction import Prediction

__version__ = "0.2.0"
__all__ = [
    "METHODS",
    "SCCLIP",
    "DenseCLIP",
    "FrozenCLIP",
    "Prediction",
    "SCCLIPConfig",
    "load_clip",
    "make_method",
]
_MODULES = {
    "METHODS": "baselines",
    "SCCLIP": "pipeline",
    "DenseCLIP": "dense",
    "FrozenCLIP": "clip",
    "Prediction": "prediction",
    "SCCLIPConfig": "config",
    "load_clip": "loading",
    "make_method": "baselines",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: torch and open_clip take seconds to import."""
    if name not in _MODULES:
        raise AttributeError(f"module 'scclip_core' has no attribute {name!r}")
    return getattr(import_module(f"scclip_core.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
