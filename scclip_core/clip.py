"""The frozen CLIP: loading it by name, and the pieces of its forward pass that the pipeline rearranges."""

import difflib
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.factory import load_state_dict
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from safetensors import SafetensorError
from torch import Tensor, nn

from scclip_core.files import DATA
from scclip_core.pictures import Picture, to_tensor

# what reading a file that holds no weights may raise
UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, OSError, LookupError, TypeError)


class FrozenCLIP(nn.Module):
    """An open_clip `CLIP` with a ViT image tower, in evaluation mode, no parameter asking for a gradient.

    Attributes: `name`; `patch_size`, `image_size` (pixels, the size trained at); `grid_size` (rows, cols at
    that size); `width`, `heads`, `depth` of the image tower; `embed_dim` of the space shared with text.

    Raises ValueError for any other kind of model, named.
    """

    def __init__(self, clip: CLIP, name: str = "custom"):
        super().__init__()
        visual = getattr(clip, "visual", None)
        if not isinstance(clip, CLIP) or not isinstance(visual, VisionTransformer):
            kind = type(clip if visual is None or not isinstance(clip, CLIP) else visual).__name__
            raise ValueError(f"model must be an open_clip CLIP with a ViT image tower, got {name} ({kind})")
        block = visual.transformer.resblocks[0]
        plain = visual.attn_pool is None and isinstance(block.attn, nn.MultiheadAttention)
        if visual.pool_type != "tok" or not plain:
            raise ValueError(f"model must read its class token through plain attention, {name} does not")
        self.clip = clip.eval().requires_grad_(False)
        self.name = name
        self.tokenizer = open_clip.SimpleTokenizer(context_length=clip.context_length)
        self.patch_size, self.image_size = visual.patch_size[0], visual.image_size[0]
        self.grid_size = visual.grid_size
        self.width, self.heads, self.depth = visual.conv1.out_channels, block.attn.num_heads, len(self.blocks)
        self.embed_dim = visual.output_dim
        self.mean = tuple(getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN)
        self.std = tuple(getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD)
        self.text_cache: dict[tuple, Tensor] = {}  # filled by `text.embed_names`

    @property
    def visual(self) -> VisionTransformer:
        """The image tower."""
        return self.clip.visual

    @property
    def blocks(self) -> nn.ModuleList:
        """The image tower's transformer blocks, in order."""
        return self.clip.visual.transformer.resblocks

    @property
    def device(self) -> torch.device:
        return self.visual.conv1.weight.device

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosine similarities by before a softmax."""
        return float(self.clip.logit_scale.exp())

    @property
    def dtype(self) -> torch.dtype:
        return self.visual.conv1.weight.dtype

    def _apply(
        self, fn, recurse: bool = True
    ):  # .to(...), .half(), .cuda(): cached text would be left behind
        self.text_cache.clear()
        return super()._apply(fn, recurse)

    def preprocess(self, picture: Picture, short_side: int | None = None) -> Tensor:
        """A picture or its path as a normalised tensor [3, H, W] of the model's device and dtype.

        The short side becomes `short_side` pixels (default: the size trained at), the aspect is kept up to
        rounding, both sides are multiples of the patch, nothing is cropped; see `pictures.to_tensor`.
        """
        tensor = to_tensor(
            picture,
            self.image_size if short_side is None else short_side,
            self.patch_size,
            self.mean,
            self.std,
        )
        return tensor.to(self.device, self.dtype)

    def check_images(self, images: Tensor) -> tuple[int, int]:
        """The grid (rows, cols) of images [B, 3, H, W]; ValueError on a wrong shape, dtype or device."""
        shape, patch = tuple(images.shape), self.patch_size
        if len(shape) != 4 or shape[1] != 3 or shape[0] < 1:
            raise ValueError(f"images must be [batch, 3, height, width], got shape {shape}")
        if min(shape[2:]) < patch or shape[2] % patch or shape[3] % patch:
            given = f"{shape[2]} x {shape[3]}"
            raise ValueError(f"images must have sides that are multiples of the patch, {patch}, got {given}")
        if images.dtype != self.dtype or images.device != self.device:
            wanted, given = f"{self.dtype} on {self.device}", f"{images.dtype} on {images.device}"
            raise ValueError(f"images must be {wanted} like the model, got {given}: move one of them")
        return shape[2] // patch, shape[3] // patch

    def embed(self, images: Tensor) -> Tensor:
        """Stage 1: patch embedding, class token, positions (bicubic for another grid), layer norm.

        [B, 3, H, W] -> [B, 1 + N, C]
        """
        patches = self.visual.conv1(images)  # [B, C, rows, cols]
        grid = tuple(patches.shape[2:])
        patches = patches.flatten(2).mT  # [B, C, rows, cols] -> [B, N, C]
        first = self.visual.class_embedding.expand(len(patches), 1, -1)
        return self.visual.ln_pre(torch.cat([first, patches], 1) + self.positions(grid))

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Positional embeddings [1 + rows * cols, C], the class token's first."""
        table = self.visual.positional_embedding
        if grid == tuple(self.grid_size):
            return table
        maps = table[1:].T.unflatten(1, self.grid_size)[None].float()  # [1, C, rows, cols] as trained
        maps = F.interpolate(maps, size=grid, mode="bicubic", align_corners=False)[0]
        return torch.cat([table[:1], maps.flatten(1).T.to(table.dtype)])

    def qkv(self, block: nn.Module, tokens: Tensor) -> Tensor:
        """Layer norm 1 and the projections of a block, [B, L, C] -> [3, B, heads, L, d]."""
        projected = F.linear(
            block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias
        )  # [B, L, 3 C]
        return projected.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def project(self, tokens: Tensor) -> Tensor:
        """Stage 8.1: layer norm and projection into the space shared with text, [B, L, C] -> [B, L, D]."""
        return self.visual.ln_post(tokens) @ self.visual.proj

    @torch.no_grad()
    def encode_text(self, prompts: list[str], batch: int = 256) -> Tensor:
        """Unit embeddings of sentences, [P, D], in float32 at least."""
        parts = []
        for start in range(0, len(prompts), batch):
            tokens = self.tokenizer(prompts[start : start + batch]).to(self.device)
            embedded = self.clip.encode_text(tokens)
            embedded = embedded if embedded.dtype == torch.float64 else embedded.float()
            parts.append(F.normalize(embedded, dim=-1))
        return torch.cat(parts)


def load_clip(
    name: str, pretrained: str | Path | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> FrozenCLIP:
    """A frozen CLIP by name.

    Args:
        name: "mini", the bundled model, or an open_clip ViT such as "ViT-B-16" (`open_clip.list_models()`).
        pretrained: for any model but mini, one of open_clip's tags ("openai", "laion2b_s34b_b88k", ...),
            which is downloaded once; or a local weights file (safetensors, or a torch checkpoint of plain
            tensors); or "random" for the architecture alone, to look at shapes and times.
        device, dtype: where the model lives; images given to it must be there already.

    QuickGELU is chosen where the weights were trained with it: as open_clip records it for a tag; for a file,
    where the model's name ends in "-quickgelu" or the file's name contains "openai".

    Raises ValueError for names, tags and files that do not fit, RuntimeError when a download is not possible.
    """
    if name == "mini":
        if pretrained is not None:
            raise ValueError(f"pretrained must be left out for mini, the bundled model, got {pretrained!r}")
        return load_mini(DATA / "mini", device, dtype)
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
        clip = _download(name, str(pretrained))
    elif file.is_file():
        clip = untrained(name, quick_gelu="openai" in file.name.lower())
        _load_file(clip, file, name)
    else:
        raise ValueError(f"pretrained must be {allowed}, got {str(pretrained)!r}")
    return FrozenCLIP(clip, name).to(device, dtype)


def load_mini(folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> FrozenCLIP:
    """A model from a folder with `open_clip_config.json` and `open_clip_model.safetensors`, as float16 or
    wider.
    """
    weights = folder / "open_clip_model.safetensors"
    if not weights.is_file():
        raise RuntimeError(
            f"the bundled model is missing: {weights} (run from a full checkout of the repository)"
        )
    clip = untrained(f"local-dir:{folder}")
    _load_file(clip, weights, "mini")
    return FrozenCLIP(clip, "mini").to(device, dtype)


@contextmanager
def _quiet(level: int) -> Iterator[None]:
    """Keep log messages up to `level` back: what they say is said here, in one message."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


def untrained(name: str, quick_gelu: bool = False, device: str = "cpu") -> CLIP:
    """The architecture alone, without open_clip's warning that it has no weights yet."""
    with _quiet(logging.WARNING):
        return open_clip.create_model(name, load_weights=False, force_quick_gelu=quick_gelu, device=device)


def _check_architecture(name: str) -> None:
    config = open_clip.get_model_config(name) if isinstance(name, str) else None
    if config is None:
        near = difflib.get_close_matches(str(name), ["mini", *open_clip.list_models()], n=5, cutoff=0.4)
        raise ValueError(
            f"name must be mini or an open_clip ViT, got {name!r}; near it: {', '.join(near) or 'nothing'}"
        )
    vision = config["vision_cfg"]
    reasons = {
        "is a ResNet, and SC-CLIP needs a ViT": isinstance(vision.get("layers"), list),
        "has an image tower of timm, without CLIP's blocks": "timm_model_name" in vision,
        "is not a plain CLIP (another text tower, or a decoder)": config.get("custom_text")
        or "multimodal_cfg" in config
        or "hf_model_name" in config["text_cfg"],
        "has no class token that is read": vision.get("attentional_pool")
        or vision.get("pool_type", "tok") != "tok",
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"name must be a ViT with a class token, such as ViT-B-16; {name} {reason}")


def _download(name: str, tag: str) -> CLIP:
    quick = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
    try:
        with _quiet(logging.ERROR):
            return open_clip.create_model(name, pretrained=tag, force_quick_gelu=quick)
    except (OSError, RuntimeError) as error:
        hint = " (keep openai in its name, for QuickGELU)" if quick else ""
        raise RuntimeError(
            f"{name} / {tag} could not be downloaded ({type(error).__name__}). Without a network, "
            f"fetch the file elsewhere and give its path as pretrained: a .safetensors file, or a torch "
            f"checkpoint of plain tensors, of open_clip's {name}{hint}."
        ) from error


def _load_file(clip: CLIP, file: Path, name: str) -> None:
    """Load a local weights file, nothing in it executed; ValueError unless it fits the model exactly."""
    try:
        state = load_state_dict(str(file), weights_only=True)
    except (*UNREADABLE, ValueError, EOFError) as error:
        raise ValueError(
            f"pretrained must be a file of plain tensors, {file} cannot be read as one ({_first(error)})"
        ) from error
    except (AttributeError, StopIteration) as error:
        raise ValueError(f"pretrained must hold a dictionary of named tensors, {file} does not") from error
    wanted = {key: tuple(tensor.shape) for key, tensor in clip.state_dict().items()}
    given = {key: tuple(getattr(tensor, "shape", ())) for key, tensor in state.items() if key in wanted}
    extra = [
        key
        for key in state
        if key not in wanted and key not in ("input_resolution", "context_length", "vocab_size")
    ]
    wrong = [
        f"{key} {given.get(key, 'missing')}, needed {shape}"
        for key, shape in wanted.items()
        if given.get(key) != shape
    ]
    if wrong or extra:
        told = "; ".join([*wrong[:2], *(f"{key} not known" for key in extra[:2])])
        told = f"{told} ({len(wrong + extra)} in all)"
        raise ValueError(f"pretrained must hold the weights of {name}, {file} does not: {told}")
    broken = [key for key in wanted if not torch.isfinite(state[key]).all()]
    if broken:
        raise ValueError(f"pretrained must hold finite weights, {file} has NaN or infinity in {broken[0]}")
    clip.load_state_dict({key: state[key] for key in wanted})


def _first(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines() or ["no more is known"]
    return f"{type(error).__name__}: {lines[0][:120]}"
