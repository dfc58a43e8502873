"""Text embeddings on disk, so that thousands of prompts are embedded once a machine and not once a run."""

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from scclip_core.clip import FrozenCLIP
from scclip_core.files import atomic_write


def cache_folder() -> Path:
    """`$SCCLIP_CACHE`, or `.cache/scclip` in the home folder."""
    return Path(os.environ.get("SCCLIP_CACHE") or Path.home() / ".cache" / "scclip")


def cache_file(model: FrozenCLIP, prompts: list[str]) -> Path:
    """The file for these prompts and this text tower: other weights or prompts have another name.

    Of each weight, shape, sum and sum of squares enter the name: cheap, and different after any training.
    """
    told = hashlib.sha256(f"{model.clip.context_length} {model.dtype}".encode())
    for name, weight in sorted(model.clip.named_parameters()):
        if not name.startswith("visual."):
            values = weight.detach().float()
            told.update(f"{name} {tuple(weight.shape)} {values.sum():.9e} {values.norm():.9e}".encode())
    told.update(repr(prompts).encode())
    return cache_folder() / f"{told.hexdigest()}.safetensors"


def read(file: Path, count: int, model: FrozenCLIP) -> Tensor | None:
    """The embeddings [count, D] of a file, or None where it is missing or damaged."""
    try:
        stored = load_file(file, device=str(model.device))["embeddings"]
    except (OSError, SafetensorError, KeyError):
        return None
    return stored if stored.shape == (count, model.embed_dim) and torch.isfinite(stored).all() else None


def write(file: Path, embeddings: Tensor) -> None:
    """Store embeddings, if the folder can be written: a cache is a help and no more."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial:
            save_file({"embeddings": embeddings.contiguous()}, partial)
    except (OSError, SafetensorError):
        return
