"""What every method shares: from dense tokens to features, logits and label maps.

B images, N = rows * cols patches, L = 1 + N tokens, width C, shared dimension D, Q names. Tokens
stay [B, L, C] throughout, where the article and older code write [L, B, C].
"""

from abc import abstractmethod
from dataclasses import asdict
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from scclip_core.attention import self_attention_weights
from scclip_core.clip import FrozenCLIP, add_attention, add_mlp, join_heads, require_tensor
from scclip_core.hooks import HookedModule
from scclip_core.images import Picture, open_picture
from scclip_core.notes import SHARED_NOTES
from scclip_core.precision import at_least_float32
from scclip_core.prediction import Prediction
from scclip_core.segmentation import (
    best_class,
    check_windows,
    label_map,
    sliding_logits,
    upsample,
)
from scclip_core.text import Classes, embed_names, max_over_names, parse_classes


class DenseCLIP(HookedModule):
    """A frozen CLIP whose patches are read as an open-vocabulary segmenter.

    A method is a subclass with a configuration dataclass and one function, `dense_tokens`.

    Args:
        model: what `load_clip` returns, or an open_clip `CLIP` with a ViT (it is frozen in place).
        config: the parameters of the method, among them `templates` and
            `position_offset` (default: what `config_class` says without arguments).

    Raises TypeError for another kind of model or config.
    """

    config_class: ClassVar[type[Any]]
    notes: ClassVar[dict[str, str]] = {}

    def __init__(self, model: FrozenCLIP | CLIP, config: Any = None):
        super().__init__()
        wanted = self.config_class
        if config is not None and not isinstance(config, wanted):
            raise TypeError(
                f"config must be an instance of {wanted.__name__}, got {type(config).__name__}; "
                f"make one with {wanted.__name__}(name=value)"
            )
        self.model = model if isinstance(model, FrozenCLIP) else FrozenCLIP(model)
        self.config = wanted() if config is None else config
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: nothing here is ever trained."""
        return super().train(False)

    @abstractmethod
    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Patch tokens of the last layer before layer norm and projection.

        Takes images [B, 3, H, W], whose patches form `grid` (rows, cols); returns [B, N, C].
        """

    def embed(self, images: Tensor) -> Tensor:
        """Stage 1: tokens before the first block, [B, 3, H, W] -> [B, L, C]."""
        return self.hook("hook_embed", self.model.embed(images, self.config.position_offset))

    def encode(self, images: Tensor, blocks: int | None = None) -> list[Tensor]:
        """Stages 1 and 2: tokens after each of the first `blocks` blocks (default: all but one).

        Takes images [B, 3, H, W]; returns one [B, L, C] for each block, the class token first.
        """
        tokens, layers = self.embed(images), []
        for i in range(self.model.depth - 1)[:blocks]:
            tokens = self.run_block(i, tokens)
            layers.append(tokens)
        return layers

    def run_block(self, i: int, tokens: Tensor) -> Tensor:
        """Block `i` as trained, [B, L, C] -> [B, L, C]."""
        tokens = add_mlp(self.model.blocks[i], self.add_attention(i, tokens))
        return self.hook(f"blocks.{i}.hook_resid_post", tokens)

    def add_attention(self, i: int, tokens: Tensor) -> Tensor:
        """The first half of block `i` as trained: x + W_o softmax(Q K^T / sqrt(d)) V; [B, L, C]."""
        block = self.model.blocks[i]
        if not self.attention_asked(f"blocks.{i}"):
            return add_attention(block, tokens)
        qkv = self.model.qkv(block, tokens)  # [3, B, heads, L, d]
        read = self.read(f"blocks.{i}", self_attention_weights(qkv, "qk"), qkv[2])
        return tokens + join_heads(block, read)

    def attention_asked(self, place: str) -> bool:
        """Whether the weights or the values of an attention are asked for (`hooks`)."""
        return self.asked(f"{place}.attn.hook_pattern") | self.asked(f"{place}.attn.hook_v")

    def read(self, place: str, weights: Tensor, values: Tensor) -> Tensor:
        """What every head reads: weights times V.

        Both are named on request, `{place}.attn.hook_pattern` and `{place}.attn.hook_v`. Takes
        weights [B, heads, L, L] and values [B, heads, L, d]; returns [B, heads, L, d].
        """
        weights = self.hook_on_request(f"{place}.attn.hook_pattern", weights)
        return weights @ self.hook_on_request(f"{place}.attn.hook_v", values)

    def read_itself(self, place: str, values: Tensor) -> Tensor:
        """What every head reads where each token attends to itself alone: V, [B, heads, L, d]."""
        if not self.attention_asked(place):
            return values
        identity = torch.eye(values.shape[2], dtype=values.dtype, device=values.device)
        return self.read(place, identity.expand(*values.shape[:2], -1, -1), values)

    @torch.no_grad()
    def features(self, images: Tensor, normalize: bool = True) -> Tensor:
        """Dense features in the space shared with text, [B, 3, H, W] -> [B, rows, cols, D].

        H and W are multiples of the patch; dtype and device are the model's. The features have
        unit length, unless `normalize` is False. Raises TypeError for anything but a tensor,
        ValueError for other shapes, dtypes and devices, and for what is not finite.
        """
        grid = self.model.grid_of(images)
        return self.finish(self.dense_tokens(images, grid), grid, normalize)

    def finish(self, tokens: Tensor, grid: tuple[int, int], normalize: bool = True) -> Tensor:
        """Stage 8: from dense tokens to features, [B, N, C] -> [B, rows, cols, D]."""
        features = self.hook("stage8.projected", self.model.project(tokens))  # [B, N, D]
        if normalize:
            features = self.hook("stage8.features", F.normalize(features, dim=-1))
        return torch.unflatten(features, 1, grid)  # [B, rows, cols, D]

    def forward(self, images: Tensor) -> Tensor:
        """`features`, so that a segmenter can be called like any module."""
        return self.features(images)

    @torch.no_grad()
    def logits(self, images: Tensor, text: Tensor) -> Tensor:
        """Stage 8: cosine similarity of every patch with every name.

        Takes images [B, 3, H, W] and unit text embeddings [Q, D], as `embed_classes` returns them;
        returns [B, rows, cols, Q], in float32 at least. Raises TypeError and ValueError as
        `features` does, and for a `text` that is no such tensor.
        """
        require_tensor("text", text, "names, text = embed_classes(classes) first")
        if text.ndim != 2 or text.shape[1] != self.model.embed_dim:
            needed, given = f"[names, {self.model.embed_dim}]", tuple(text.shape)
            raise ValueError(f"text must be {needed}, got shape {given}")
        if not text.is_floating_point() or text.device != self.model.device:
            wanted, kind = f"floats on {self.model.device}", f"{text.dtype} on {text.device}"
            raise ValueError(f"text must be {wanted} like the model, got {kind}")
        text = at_least_float32(text)
        return self.features_for(images, text).to(text.dtype) @ text.T

    def features_for(self, images: Tensor, text: Tensor) -> Tensor:
        """The features that `logits` compares with text: `features`, unless words change them.

        Takes images [B, 3, H, W] and text [Q, D]; returns [B, rows, cols, D].
        """
        return self.features(images)

    @torch.no_grad()
    def segment(self, images: Tensor, classes: Classes) -> Tensor:
        """Label maps at image size, [B, 3, H, W] -> int64 [B, H, W], indices into `classes`.

        A class is a name, or several ("dog|puppy", or a list), of which it takes the best. Raises
        TypeError and ValueError as `features` and `parse_classes` do.
        """
        self.model.grid_of(images)  # what is no batch of images is refused before any computing
        names, text = self.embed_classes(classes)
        logits = max_over_names(self.logits(images, text), names)  # [B, rows, cols, C]
        return label_map(logits, images.shape[2:])

    def embed_classes(self, classes: Classes) -> tuple[list[tuple[str, ...]], Tensor]:
        """The names of every class, and the unit embeddings [Q, D] of all names, in order."""
        names = parse_classes(classes)
        flat = [name for one in names for name in one]
        return names, embed_names(self.model, flat, self.config.templates)

    @torch.no_grad()
    def predict(
        self,
        picture: Picture,
        classes: Classes,
        short_side: int | None = None,
        window: int | None = None,
        stride: int | None = None,
        scores: bool = False,
    ) -> Prediction:
        """Segment a picture of any kind and size.

        Args:
            picture: a path, a PIL image, an array [H, W], [H, W, 3] or [H, W, 4], or a tensor
                [H, W] or [3, H, W]; arrays and tensors hold uint8, or floats from 0 to 1.
            classes: as in `segment`.
            short_side: pixels to which the short side is resized (default: the training size).
            window, stride: side of the sliding window and distance between windows, in pixels
                (default: the training size, and half a window).
            scores: whether to keep the score of every class and pixel, which takes memory.

        Returns a `Prediction` at the picture's own size. Raises TypeError and ValueError that name
        the argument, before any computing.
        """
        window, stride = self.check_sizes(short_side, window, stride)
        rgb = open_picture(picture)
        names, text = self.embed_classes(classes)
        image = self.model.preprocess(rgb, short_side)  # [3, h, w]
        (logits,) = sliding_logits(lambda cut: self.logits(cut, text), [image], window, stride)
        size = (rgb.height, rgb.width)
        _, labels = best_class(logits, names, size)
        kept = None
        if scores:
            large = upsample(logits.movedim(0, -1)[None], size)[0].movedim(0, -1)  # [H, W, Q]
            kept = max_over_names(large, names).movedim(-1, 0).cpu().numpy()  # [C, H, W]
        return Prediction(
            picture=np.asarray(rgb),
            labels=labels.cpu().numpy(),
            classes=tuple(one[0] for one in names),
            scores=kept,
        )

    def check_sizes(
        self, short_side: int | None, window: int | None, stride: int | None
    ) -> tuple[int, int]:
        """The window and stride of `predict`, defaults filled in.

        Raises TypeError for what is no whole number, ValueError for what cannot be.
        """
        patch = self.model.patch_size
        given = {"short_side": short_side, "window": window, "stride": stride}
        for name, value in given.items():
            if value is not None and not isinstance(value, Integral):
                kind = type(value).__name__
                raise TypeError(f"{name} must be a whole number of pixels, got {kind} {value!r}")
        if short_side is not None and short_side < patch:
            raise ValueError(
                f"short_side must be at least one patch, {patch} pixels, got {short_side}"
            )
        window = self.model.image_size if window is None else window
        stride = max(1, window // 2) if stride is None else stride
        check_windows(patch, window, stride)
        return window, stride

    def trace(self, images: Tensor, classes: Classes | None = None) -> list[dict[str, object]]:
        """The forward pass as a table: stage, tensor, shape, and what happened, in order.

        With `classes`, the table goes on to the logits at image size.
        """
        if classes is not None:
            parse_classes(classes)
        _, cache = self.run_with_cache(images)
        cache = {"images": images, **cache}
        if classes is not None:
            names, text = self.embed_classes(classes)
            logits = max_over_names(self.logits(images, text), names)
            cache |= {"stage8.text": text, "stage8.logits": logits}
            cache["stage8.segmentation"] = upsample(logits, images.shape[2:])
        notes = SHARED_NOTES | self.notes
        rows: list[dict[str, object]] = []
        for name, tensor in cache.items():
            place = name.split(".")
            if place[0] == "blocks":
                stage, note = 2, f"output of block {int(place[1]) + 1} of {self.model.depth}"
            else:
                stage = int(name[5]) if name.startswith("stage") else 1
                note = notes[name].format(**asdict(self.config))
            shape = "[" + ", ".join(map(str, tensor.shape)) + "]"
            rows.append({"stage": stage, "tensor": name, "shape": shape, "what happened": note})
        return rows
