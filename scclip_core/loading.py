"""Loading a frozen CLIP by name: the bundled model, open_clip's weights, or a file."""

import difflib
import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.model import CLIP
from safetensors import SafetensorError

from scclip_core.clip import FrozenCLIP
from scclip_core.files import DATA
from scclip_core.towers import refusal

PRECISIONS = {
    "fp32": torch.float32,
    "fp64": torch.float64,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
# What reading a file that holds no weights may raise.
UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
    EOFError,
)


def load_clip(
    name: str,
    pretrained: str | Path | None = None,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
) -> FrozenCLIP:
    """A frozen CLIP by name.

    Args:
        name: "mini", the bundled model, or an open_clip ViT such as "ViT-B-16" or "ViT-B/16"
            (`open_clip.list_models()`).
        pretrained: for any model but mini, one of open_clip's tags ("openai",
            "laion2b_s34b_b88k", ...), which is downloaded once; or a local weights file
            (safetensors, or a torch checkpoint of plain tensors); or "random" for the architecture
            alone, which is enough to look at shapes and times.
        precision: of all weights: fp32, fp64, fp16 or bf16.
        device: where the model is put; images given to it must be there already.
        cache_dir: folder for downloaded weights (default: open_clip's own).

    QuickGELU is chosen where the weights were trained with it: as open_clip records it for a tag;
    for a file, where the model's name ends in "-quickgelu" or the file's name contains "openai".
    Pictures are normalised as open_clip records it for a tag; for a file, with OpenAI's mean and
    deviation, which all tags of plain ViTs have but one (laion2b_s32b_b82k of ViT-L-14: 0.5).

    Raises ValueError for names, tags, files, precisions and devices that do not fit, RuntimeError
    when a download is not possible.
    """
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ValueError(f"precision must be one of {known}, got {precision!r}")
    dtype = PRECISIONS[precision]
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f"device must be one that torch can use here, got {str(device)!r} ({_summary(error)})"
        ) from error
    if name == "mini":
        if pretrained is not None:
            raise ValueError(
                f"pretrained must be left out for mini, the bundled model, got {pretrained!r}"
            )
        return load_folder(DATA / "mini").to(device, dtype)
    name = name.replace("/", "-") if isinstance(name, str) else name
    _check_architecture(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    known = ", ".join(tags) or "none for this model"
    allowed = f"a tag of open_clip ({known}), a weights file that exists, or random"
    if pretrained is None:
        raise ValueError(f"pretrained must be given for {name}: {allowed}")
    file = Path(pretrained)
    if pretrained == "random":
        clip = untrained(name)
    elif str(pretrained) in tags:
        clip = _download(name, str(pretrained), cache_dir)
    elif file.is_file():
        clip = untrained(name, quick_gelu="openai" in file.name.lower())
        _load_file(clip, file, name)
    else:
        raise ValueError(f"pretrained must be {allowed}, got {str(pretrained)!r}")
    return FrozenCLIP(clip, name).to(device, dtype)


def load_folder(folder: Path) -> FrozenCLIP:
    """The model of a folder with `open_clip_config.json` and `open_clip_model.safetensors`.

    Its name is the folder's; the configuration may list the `words` that it was trained on. Raises
    RuntimeError where the files are missing, ValueError where the weights do not fit the
    configuration.
    """
    weights, config = folder / "open_clip_model.safetensors", folder / "open_clip_config.json"
    for file in (weights, config):
        if not file.is_file():
            raise RuntimeError(f"the bundled model is missing: {file} does not exist")
    clip = untrained(f"local-dir:{folder}")
    _load_file(clip, weights, folder.name)
    words = json.loads(config.read_text(encoding="utf-8")).get("words", ())
    return FrozenCLIP(clip, folder.name, words)


@contextmanager
def _quiet(level: int) -> Iterator[None]:
    """Suppress log messages up to `level`; the caller says what they would, in one message."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


def untrained(name: str, quick_gelu: bool = False, device: str = "cpu") -> CLIP:
    """The architecture alone, without open_clip's warning that it has no weights yet."""
    with _quiet(logging.WARNING):
        return open_clip.create_model(
            name, load_weights=False, force_quick_gelu=quick_gelu, device=device
        )


def _check_architecture(name: str) -> None:
    config = open_clip.get_model_config(name) if isinstance(name, str) else None
    if config is None:
        known = ["mini", *open_clip.list_models()]
        near = ", ".join(difflib.get_close_matches(str(name), known, n=5, cutoff=0.4))
        raise ValueError(
            f"name must be mini or an open_clip ViT, got {name!r}; near it: {near or 'nothing'}"
        )
    reason = refusal(config)
    if reason:
        raise ValueError(
            f"name must be a ViT with a class token, such as ViT-B-16; {name} {reason}"
        )


def _download(name: str, tag: str, cache_dir: str | Path | None) -> CLIP:
    quick = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    folder = None if cache_dir is None else str(cache_dir)
    try:
        with _quiet(logging.ERROR):
            return open_clip.create_model(
                name, pretrained=tag, force_quick_gelu=quick, cache_dir=folder
            )
    except (OSError, RuntimeError) as error:
        hint = " (keep openai in its name, for QuickGELU)" if quick else ""
        raise RuntimeError(
            f"{name} / {tag} could not be downloaded ({type(error).__name__}). Without a network, "
            f"fetch the file elsewhere and give its path as pretrained: a .safetensors file, or a "
            f"torch checkpoint of plain tensors, of open_clip's {name}{hint}."
        ) from error


def _load_file(clip: CLIP, file: Path, name: str) -> None:
    """Load a local weights file, nothing in it executed; ValueError unless it fits exactly."""
    try:
        state = load_state_dict(str(file), weights_only=True)
    except UNREADABLE as error:
        raise ValueError(
            f"pretrained must be a file of plain tensors, {file} cannot be read as one "
            f"({_summary(error)})"
        ) from error
    except (AttributeError, StopIteration) as error:
        raise ValueError(
            f"pretrained must hold a dictionary of named tensors, {file} does not"
        ) from error
    wanted = {key: tuple(tensor.shape) for key, tensor in clip.state_dict().items()}
    given = {key: tuple(getattr(value, "shape", ())) for key, value in state.items()}
    counts = ("input_resolution", "context_length", "vocab_size")
    extra = [key for key in state if key not in wanted and key not in counts]
    wrong = [
        f"{key} {given.get(key, 'missing')}, needed {shape}"
        for key, shape in wanted.items()
        if given.get(key) != shape
    ]
    if wrong or extra:
        examples = "; ".join([*wrong[:2], *(f"{key} not known" for key in extra[:2])])
        count = len(wrong) + len(extra)
        raise ValueError(
            f"pretrained must hold the weights of {name}, {file} does not: {examples} "
            f"({count} in all)"
        )
    broken = [key for key in wanted if not torch.isfinite(state[key]).all()]
    if broken:
        raise ValueError(
            f"pretrained must hold finite weights, {file} has NaN or infinity in {broken[0]}"
        )
    clip.load_state_dict({key: state[key] for key in wanted})


def _summary(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines() or ["no more is known"]
    return f"{type(error).__name__}: {lines[0][:120]}"
