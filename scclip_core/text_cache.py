"""Text embeddings on disk: thousands of prompts are embedded once, not once a run."""

import hashlib
import os
from pathlib import Path

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.files import atomic_write


def folder() -> Path:
    """`$SCCLIP_CACHE`, or the user's cache folder of this operating system."""
    return Path(os.environ.get("SCCLIP_CACHE") or user_cache_path("scclip"))


def file_for(model: FrozenCLIP, prompts: list[str]) -> Path:
    """The file for these prompts and this text tower; other weights or prompts get another name.

    The name is a hash of the architecture, and of the shape, sum and norm of each weight: cheap to
    compute, and different after any training.
    """
    tower = model.clip.transformer  # printed, it names the activation, which no weight shows
    heads = tower.resblocks[0].attn.num_heads
    shape = f"{model.clip.context_length} {model.dtype} {heads} {tower!r}"
    digest = hashlib.sha256(shape.encode())
    for name, weight in sorted(model.clip.named_parameters()):
        if not name.startswith("visual."):
            values = weight.detach().float()
            line = f"{name} {tuple(weight.shape)} {values.sum():.9e} {values.norm():.9e}"
            digest.update(line.encode())
    digest.update(repr(prompts).encode())
    return folder() / f"{digest.hexdigest()}.safetensors"


def read(file: Path, count: int, model: FrozenCLIP) -> Tensor | None:
    """The embeddings [count, D] of a file, or None where it is missing or damaged."""
    try:
        stored = load_file(file, device=str(model.device))["embeddings"]
    except (OSError, SafetensorError, KeyError):
        return None
    intact = stored.shape == (count, model.embed_dim) and bool(torch.isfinite(stored).all())
    return stored if intact else None


def write(file: Path, embeddings: Tensor) -> None:
    """Store embeddings where the folder can be written; elsewhere go on without."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial:
            save_file({"embeddings": embeddings.contiguous()}, partial)
    except (OSError, SafetensorError):
        return
