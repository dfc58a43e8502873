"""SC-CLIP: a frozen CLIP's forward pass, rearranged with no training into an open-vocabulary segmenter."""

from importlib import import_module

_HOMES = {"SCCLIPConfig": "config", "SCCLIP": "pipeline", "load_clip": "clip", "FrozenCLIP": "clip"}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    """Load a public name when it is first used: torch and open_clip take seconds to import."""
    if name not in _HOMES:
        raise AttributeError(f"module 'scclip_core' has no attribute {name!r}")
    return getattr(import_module(f"scclip_core.{_HOMES[name]}"), name)
