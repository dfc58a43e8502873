"""The table of all methods by name: SC-CLIP and training-free baselines on the same frozen blocks.

Text, logits and upsampling are shared and nothing is post-processed, so that only the forward pass
differs. Prompts are the article's one sentence, except for `scclip-published`, which keeps its 80.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from open_clip.model import CLIP

from scclip_core.clip import FrozenCLIP
from scclip_core.config import SCCLIPConfig
from scclip_core.dense import DenseCLIP
from scclip_core.gem import GEM, GEMConfig
from scclip_core.last_block import (
    NACLIP,
    SCLIP,
    BaselineConfig,
    ClearCLIP,
    MaskCLIP,
    NACLIPConfig,
    Values,
    Vanilla,
)
from scclip_core.pipeline import SCCLIP
from scclip_core.registers import Registers, RegistersConfig
from scclip_core.resclip import ResCLIP, ResCLIPConfig
from scclip_core.rfclip import RFCLIP, RFCLIPConfig

# name -> the class, and the configuration for a model of that many blocks. ResCLIP has no rule for
# models of fewer than 9 blocks: its blocks have to be chosen.
METHODS: dict[str, tuple[type[DenseCLIP], Callable[[int], Any]]] = {
    "vanilla": (Vanilla, lambda depth: BaselineConfig()),
    "values": (Values, lambda depth: BaselineConfig()),
    "maskclip": (MaskCLIP, lambda depth: BaselineConfig()),
    "sclip": (SCLIP, lambda depth: BaselineConfig()),
    "clearclip": (ClearCLIP, lambda depth: BaselineConfig()),
    "naclip": (NACLIP, lambda depth: NACLIPConfig()),
    "gem": (GEM, lambda depth: GEMConfig(blocks=min(6, depth))),
    "resclip": (ResCLIP, lambda depth: ResCLIPConfig()),
    "registers": (Registers, lambda depth: RegistersConfig(highest=min(5, depth - 1))),
    "rfclip": (RFCLIP, lambda depth: RFCLIPConfig()),
    "scclip": (SCCLIP, SCCLIPConfig.for_depth),
    "scclip-published": (SCCLIP, SCCLIPConfig.published),
}


def make_method(name: str, model: FrozenCLIP | CLIP, **parameters: Any) -> DenseCLIP:
    """A method by name, over a frozen model.

    `parameters` replace fields of its configuration, such as `sigma` of naclip. Raises ValueError
    for an unknown name or parameter, listing what exists, and for values that are not allowed;
    TypeError for another kind of model.
    """
    if name not in METHODS:
        raise ValueError(f"name must be one of {', '.join(METHODS)}, got {name!r}")
    method, configure = METHODS[name]
    model = model if isinstance(model, FrozenCLIP) else FrozenCLIP(model)
    config = configure(model.depth)
    known = [field.name for field in fields(config)]
    unknown = ", ".join(parameter for parameter in parameters if parameter not in known)
    if unknown:
        raise ValueError(f"parameters of {name} must be of: {', '.join(known)}; got {unknown}")
    return method(model, replace(config, **parameters))
