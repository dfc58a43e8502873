"""Chapter 11: outliers planted in tokens and in a neuron, and SC-CLIP after its blocks."""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core.clip import FrozenCLIP, add_attention
from scclip_core.config import SCCLIPConfig
from scclip_core.pipeline import SCCLIP
from scclip_core.registers import Registers, RegistersConfig, activations, move_to_register
from scclip_lab.datasets.scenes import TEST, VALIDATION, Scene, evaluation_scene
from scclip_lab.evaluation.mini import stack_images
from scclip_lab.studies.ch02_outliers import PLANTED, SOURCES, plant_anomalies

# Tokens are changed after this block, in the middle of the network, and the next ones run on.
LAYER = 6
# The block of the planted neuron: the last in which registers look for neurons.
NEURON_BLOCK = 5
# How long a planted token is, as a multiple of the median length of the image's patches.
LENGTH = 6.0
# What is planted in tokens: (whether all get one direction, their length as such a multiple).
TOKEN_CASES: dict[str, tuple[bool, float]] = {
    "long": (False, LENGTH),
    "long and alike": (True, LENGTH),
    "alike": (True, 1.0),
}
CASES = (*TOKEN_CASES, *SOURCES)
# The seed of the validation scenes on which everything that had to be chosen was chosen.
VALIDATION_SEED = 11


def low_information(images: Tensor, count: int = PLANTED, patch: int = 16) -> Tensor:
    """Patches at which outliers arise in large ViTs: among those with the plainest pixels.

    Of the third of an image's patches with the smallest standard deviation of their pixels, those
    that come first in one random order, the same for all images.

    Takes images [B, 3, H, W]; returns bool [B, N] with `count` patches True in every image.
    """
    cut = images.unfold(2, patch, patch).unfold(3, patch, patch)  # [B, 3, rows, cols, p, p]
    spread = cut.flatten(4).std(-1).mean(1).flatten(1)  # [B, N]
    plain = spread.argsort(1).argsort(1) < spread.shape[1] // 3
    order = torch.rand(spread.shape[1], generator=torch.Generator().manual_seed(0))
    limit = order.expand_as(spread).masked_fill(~plain, 2).kthvalue(count, dim=1, keepdim=True)
    return plain & (order <= limit.values)


def shared_direction(width: int) -> Tensor:
    """One random unit vector [width], the same for all images and patches."""
    return F.normalize(torch.randn(width, generator=torch.Generator().manual_seed(0)), dim=0)


def plant_tokens(tokens: Tensor, where: Tensor, alike: bool, length: float) -> Tensor:
    """Outliers in place of the patch tokens at known positions.

    x_i -> length * median over j of |x_j| * u, where u is the token's own direction, or one
    direction for all

    Args:
        tokens: [B, 1 + N, C], the class token first. Not changed.
        where: bool [B, N].
        alike: whether all planted tokens get one direction, so that nothing local is left.
        length: as a multiple of the median length of the image's patch tokens.

    Returns [B, 1 + N, C].
    """
    patches = tokens[:, 1:]
    usual = patches.norm(dim=-1).median(1).values[:, None, None]  # [B, 1, 1]
    own = F.normalize(patches, dim=-1)
    direction = shared_direction(tokens.shape[-1]).to(tokens).expand_as(own) if alike else own
    changed = torch.where(where[..., None], length * usual * direction, patches)
    return torch.cat([tokens[:, :1], changed], 1)


@torch.no_grad()
def layers_after(segmenter: SCCLIP, images: Tensor, where: Tensor, case: str) -> list[Tensor]:
    """The outputs of all blocks but the last, [B, L, C] each, with a case of `TOKEN_CASES` planted.

    Any other case plants nothing.
    """
    if case not in TOKEN_CASES:
        return segmenter.encode(images)
    layers = segmenter.encode(images, LAYER + 1)
    layers[-1] = plant_tokens(layers[-1], where, *TOKEN_CASES[case])
    for i in range(LAYER + 1, segmenter.model.depth - 1):
        layers.append(segmenter.run_block(i, layers[-1]))
    return layers


def scenes_in_batches(count: int, seed: int, batch: int = 16) -> Iterator[tuple[int, list[Scene]]]:
    """Test scenes, some at once, and the number of the first of them."""
    for first in range(0, count, batch):
        last = min(first + batch, count)
        yield first, [evaluation_scene(TEST, seed, i) for i in range(first, last)]


def plant(
    scenes: Sequence[Scene], case: str, model: FrozenCLIP, seed: int, first: int
) -> tuple[Tensor, ...]:
    """Images [B, 3, H, W] of scenes, with a case of `SOURCES` planted, and where, bool [B, N].

    What is planted depends on the number of the scene; `first` is that of the first one.
    """
    if case not in SOURCES:
        images = stack_images(model, list(scenes))
        return images, low_information(images)
    pairs = [
        plant_anomalies(scene, case, np.random.default_rng((TEST, seed, i)))
        for i, scene in enumerate(scenes, first)
    ]
    where = torch.from_numpy(np.stack([mask.flatten() for _, mask in pairs]))
    return stack_images(model, [scene for scene, _ in pairs]), where


def validation_images(model: FrozenCLIP, count: int = 32) -> Tensor:
    """Images of validation scenes, [count, 3, H, W]."""
    indices = range(count)
    return stack_images(model, [evaluation_scene(VALIDATION, VALIDATION_SEED, i) for i in indices])


@torch.no_grad()
def plant_neuron(model: FrozenCLIP, share: float = 0.03, gain: float = 20.0) -> FrozenCLIP:
    """A copy of a model with a neuron that makes outliers, as register neurons of large ViTs do.

    The neuron of one MLP that is least active takes a new task: it fires at about `share` of all
    patches, those with the plainest pixels, and adds `LENGTH` times the usual length along one
    direction. Its weights are a linear discriminant of plain patches against the others in 32
    validation scenes.

    Args:
        model: it is not changed.
        share: of the patches of these scenes.
        gain: mean activation where the neuron fires, which is compensated for in what it writes.
    """
    planted = copy.deepcopy(model)
    images, block = validation_images(model), planted.blocks[NEURON_BLOCK]
    tokens = SCCLIP(model).encode(images, NEURON_BLOCK)[-1]
    attended = add_attention(block, tokens)
    patches = block.ln_2(attended)[:, 1:]  # [B, N, C]
    plain = low_information(images, patches.shape[1] // 3)
    flat = patches.flatten(0, 1)
    spread = torch.cov(flat.T) + 0.1 * flat.var() * torch.eye(flat.shape[1])
    apart = patches[plain].mean(0) - patches[~plain].mean(0)
    weights = torch.linalg.solve(spread, apart)
    projected = flat @ weights
    limit = projected.quantile(1 - share)
    scale = gain / (projected[projected > limit] - limit).mean()
    neuron = int(activations(block, attended).abs().mean((0, 1)).argmin())
    usual = block(tokens)[:, 1:].norm(dim=-1).median()
    block.mlp.c_fc.weight[neuron] = scale * weights
    block.mlp.c_fc.bias[neuron] = -scale * limit
    block.mlp.c_proj.weight[:, neuron] = LENGTH * usual / gain * shared_direction(flat.shape[1])
    return planted


def fired(clean: list[Tensor], planted: list[Tensor]) -> Tensor:
    """The patches at which a planted neuron has fired, bool [B, N], by the outputs of its block."""
    before, after = clean[NEURON_BLOCK][:, 1:], planted[NEURON_BLOCK][:, 1:]
    usual = before.norm(dim=-1).median(1, keepdim=True).values
    return (after - before).norm(dim=-1) > usual


class WithRegister(SCCLIP):
    """SC-CLIP whose blocks run with a test-time register in place of the repair of stage 3.

    What the blocks do is what `Registers` does (Jiang et al. 2025, arXiv 2506.08010); the register
    is dropped after each of them.
    """

    def __init__(self, model: FrozenCLIP, neurons: tuple[tuple[int, int], ...] | None = None):
        super().__init__(model, SCCLIPConfig(repair=False))
        self.registers = Registers(model, RegistersConfig(neurons=neurons))

    @torch.no_grad()
    def encode(self, images: Tensor, blocks: int | None = None) -> list[Tensor]:
        tokens, layers = self.embed(images), []
        chosen = self.registers.register_neurons(images)  # [B, depth, M]
        register: Tensor = self.model.visual.ln_pre(torch.zeros_like(tokens[:, :1]))
        tokens = torch.cat([tokens, register], 1)  # [B, L + 1, C]
        for i, block in enumerate(self.model.blocks[: self.model.depth - 1][:blocks]):
            tokens = self.add_attention(i, tokens)
            moved = move_to_register(activations(block, tokens), chosen[:, i])
            tokens = tokens + block.ls_2(block.mlp.c_proj(moved))
            layers.append(tokens[:, :-1])
        return layers
