"""Test-time registers: an extra token takes the activations that make outliers of patches."""

from dataclasses import dataclass

import torch
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from scclip_core.clip import FrozenCLIP, add_attention, add_mlp
from scclip_core.config import is_whole
from scclip_core.dense import DenseCLIP
from scclip_core.last_block import BaselineConfig


@dataclass(frozen=True)
class RegistersConfig(BaselineConfig):
    """Which neurons of the MLPs are register neurons.

    Values:
        neurons: pairs (block, neuron), both counted from 0, as `find_register_neurons` finds them
            in a set of pictures. None: they are found in each image by itself, by a forward pass
            as trained that goes before.
        count, highest: where they are found in each image, how many, >= 1, and the last block in
            which they are looked for, >= 0.

    The defaults of `count` and `highest` are those of the published code for ViT-B/16. Raises
    ValueError that names the field, the value given and what is allowed.
    """

    neurons: tuple[tuple[int, int], ...] | None = None
    count: int = 10
    highest: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.neurons
        if given is not None and not (isinstance(given, tuple) and all(map(_is_pair, given))):
            told = "None or a tuple of pairs (block, neuron) of whole numbers >= 0"
            raise ValueError(f"neurons must be {told}, got {given!r}")
        for name, least in (("count", 1), ("highest", 0)):
            value = getattr(self, name)
            if not is_whole(value) or value < least:
                raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")


def _is_pair(given: object) -> bool:
    pair = isinstance(given, tuple) and len(given) == 2
    return pair and all(type(n) is int and n >= 0 for n in given)  # type: ignore[attr-defined]


def activations(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """The neurons of a block's MLP, GELU(W_1 LN(x)), [B, L, C] -> [B, L, M]."""
    active: Tensor = block.mlp.gelu(block.mlp.c_fc(block.ln_2(tokens)))
    return active


def move_to_register(active: Tensor, chosen: Tensor) -> Tensor:
    """Activations of register neurons taken from the patches and given to the register.

    Where a neuron is chosen, it becomes 0 at every patch, stays as it is at the class token, and
    at the register becomes the activation of the largest magnitude among all chosen neurons and
    all tokens of the image.

    Args:
        active: activations [B, L, M]; the class token is the first token, the register the last.
        chosen: bool [B, M].

    Returns [B, L, M].
    """
    chosen = chosen[:, None]  # [B, 1, M]
    among = active.masked_fill(~chosen, 0)
    high, low = among.amax((1, 2), keepdim=True), among.amin((1, 2), keepdim=True)  # [B, 1, 1]
    extreme = torch.where(high > -low, high, low)
    patches = active[:, 1:-1].masked_fill(chosen, 0)
    register = torch.where(chosen, extreme, active[:, -1:])
    return torch.cat([active[:, :1], patches, register], 1)


def neuron_scores(
    model: FrozenCLIP,
    images: Tensor,
    highest: int,
    threshold: float | None = None,
    position_offset: float = 0.0,
) -> Tensor:
    """The mean magnitude of every neuron's activation at the outlier patches of every image.

    Args:
        model: the frozen model, as trained.
        images: [B, 3, H, W].
        highest: the last block that is looked at.
        threshold: outliers are the patches whose token after the last block is longer than this.
            None: the longest of every image.
        position_offset: as in `FrozenCLIP.positions`.

    Returns [B, highest + 1, M]; 0 for an image without outliers.
    """
    tokens, magnitudes = model.embed(images, position_offset), []
    for i, block in enumerate(model.blocks):
        tokens = add_attention(block, tokens)
        if i <= highest:
            magnitudes.append(activations(block, tokens)[:, 1:].abs())  # [B, N, M]
        tokens = add_mlp(block, tokens)
    lengths = tokens[:, 1:].float().norm(dim=-1)  # [B, N]
    limit = lengths.amax(1, keepdim=True) if threshold is None else threshold
    outliers = lengths >= limit if threshold is None else lengths > limit
    weights = outliers / outliers.sum(1, keepdim=True).clamp(min=1)  # [B, N]
    means = [(m * weights[..., None].to(m.dtype)).sum(1) for m in magnitudes]  # [B, M] each
    return torch.stack(means, 1)


@torch.no_grad()
def find_register_neurons(
    model: FrozenCLIP, images: Tensor, count: int = 10, highest: int = 5, threshold: float = 30.0
) -> tuple[tuple[int, int], ...]:
    """Register neurons: those with the largest mean activation at the outliers of many pictures.

    Args:
        model: the frozen model, as trained.
        images: [B, 3, H, W]; those without outliers do not count.
        count: how many neurons.
        highest: the last block in which they are looked for.
        threshold: length of a token after the last block above which a patch is an outlier. The
            default is the published code's for ViT-B/16.

    Returns pairs (block, neuron), the largest first. Raises ValueError where no image has an
    outlier, and for a `highest` or `count` that the model does not have.
    """
    _check_size(model, count, highest)
    model.grid_of(images)
    scores = neuron_scores(model, images, highest, threshold)
    scores = scores[scores.flatten(1).any(1)]
    if not len(scores):
        raise ValueError(f"threshold must be below the length of some token, got {threshold}")
    best = scores.mean(0).flatten().topk(count).indices.tolist()
    return tuple(divmod(n, scores.shape[2]) for n in best)


def _check_size(model: FrozenCLIP, count: int, highest: int) -> None:
    last, neurons = model.depth - 1, model.blocks[0].mlp.c_fc.out_features
    if not 0 <= highest <= last:
        raise ValueError(f"highest must be in 0..{last}, the model's blocks, got {highest}")
    if not 1 <= count <= neurons * (highest + 1):
        most = neurons * (highest + 1)
        raise ValueError(f"count must be in 1..{most}, the neurons of these blocks, got {count}")


class Registers(DenseCLIP):
    """Test-time registers (Jiang et al. 2025, arXiv 2506.08010): CLIP as trained, with a register.

    A token that starts as zeros, before the first layer norm and without a position, goes through
    all blocks beside the patches. In the MLPs, the activations of register neurons are taken from
    the patches and given to it (`move_to_register`), so that the outliers which they make arise
    there. Patch tokens are read densely, as `vanilla` reads them, and the register is dropped.

    Formulas follow the published code (nickjiang2378/test-time-registers), which finds the neurons
    of a model once, in many pictures: `find_register_neurons`. Without `neurons` they are found in
    each image instead, at its longest token, which takes a second forward pass.

    Raises ValueError for neurons, or a `highest` or `count`, that the model does not have.
    """

    config_class = RegistersConfig
    config: RegistersConfig

    def __init__(self, model: FrozenCLIP | CLIP, config: RegistersConfig | None = None):
        super().__init__(model, config)
        cfg, depth = self.config, self.model.depth
        self.size: int = self.model.blocks[0].mlp.c_fc.out_features
        if cfg.neurons is None:
            _check_size(self.model, cfg.count, cfg.highest)
        elif not all(block < depth and neuron < self.size for block, neuron in cfg.neurons):
            limits = f"below ({depth}, {self.size})"
            raise ValueError(f"neurons must be pairs {limits}, got {cfg.neurons}")

    def dense_tokens(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        tokens = self.embed(images)
        chosen = self.register_neurons(images)  # [B, depth, M]
        register: Tensor = self.model.visual.ln_pre(torch.zeros_like(tokens[:, :1]))
        tokens = torch.cat([tokens, register], 1)  # [B, L, C] -> [B, L + 1, C]
        for i, block in enumerate(self.model.blocks):
            tokens = self.add_attention(i, tokens)
            moved = move_to_register(activations(block, tokens), chosen[:, i])
            tokens = tokens + block.ls_2(block.mlp.c_proj(moved))
            tokens = self.hook(f"blocks.{i}.hook_resid_post", tokens)
        return tokens[:, 1:-1]

    def register_neurons(self, images: Tensor) -> Tensor:
        """Which neurons of which block are register neurons for every image, bool [B, depth, M]."""
        cfg, model = self.config, self.model
        shape = (len(images), model.depth * self.size)
        chosen = torch.zeros(shape, dtype=torch.bool, device=images.device)
        if cfg.neurons is None:
            scores = neuron_scores(
                model, images, cfg.highest, position_offset=cfg.position_offset
            ).flatten(1)  # [B, blocks * M]
            chosen = chosen.scatter(1, scores.topk(cfg.count).indices, True)
        elif cfg.neurons:
            chosen[:, [block * self.size + neuron for block, neuron in cfg.neurons]] = True
        return torch.unflatten(chosen, 1, (model.depth, self.size))
