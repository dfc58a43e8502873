"""Image towers other than CLIP's ViT: why they are refused, and one reading that some allow.

SC-CLIP needs blocks with a known attention, patches that pass through them on one grid, and a class
token that the image is read from: stage 5 adds it, and stage 8 projects patches as it is projected.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

# Beginnings of timm's names of towers that have no plain ViT blocks over one grid.
NO_PLAIN_GRID = ("convnext", "swin", "fastvit", "vitamin")
# Towers of timm whose blocks turn queries and keys by their positions.
ROTARY = ("eva02", "vit_pe")


def refusal(config: dict[str, Any]) -> str | None:
    """Why SC-CLIP cannot rearrange a model of open_clip, by its configuration; None if it can.

    The reason goes on a sentence that begins with the model's name.
    """
    vision, text = config["vision_cfg"], config["text_cfg"]
    if isinstance(vision.get("layers"), list):
        return "is a ResNet, without blocks of attention over patches"
    if "timm_model_name" in vision:
        return _refuse_timm(vision["timm_model_name"], vision.get("timm_pool", ""))
    if vision.get("attentional_pool"):
        return "reads the image through a pooler of learned queries, not from its class token"
    if "multimodal_cfg" in config:
        return "is no plain CLIP: it has a text decoder"
    if "hf_model_name" in text:
        return "is no plain CLIP: its text tower is one of Hugging Face, with its own tokenizer"
    if vision.get("pool_type", "tok") != "tok":
        return "has no class token that is read: the image is the mean of its patches"
    if config.get("custom_text"):
        return "is no plain CLIP: its text tower stands apart, with weights of other names"
    if "hf_tokenizer_name" in text:
        return "is no plain CLIP: it has a tokenizer of Hugging Face, with other tokens"
    return None


def _refuse_timm(name: str, pool: str) -> str:
    """The reason for a tower of timm, by its name there and its pooling."""
    if name.startswith(NO_PLAIN_GRID):
        return f"has an image tower of timm ({name}) without plain ViT blocks over one grid"
    if pool == "map":
        return (
            f"has an image tower of timm ({name}) that pools by attention: no class token is read, "
            f"and patches can be read one by one (scclip_core.towers.read_alone)"
        )
    if name.startswith(ROTARY):
        return (
            f"has an image tower of timm ({name}) whose blocks turn queries and keys by their "
            f"positions, which no stage here does"
        )
    if name.startswith("vit_relpos"):
        return f"has an image tower of timm ({name}) that adds relative positions to its attention"
    if pool == "token":
        return f"has an image tower of timm ({name}), whose blocks keep their weights elsewhere"
    return f"has an image tower of timm ({name}) without a class token that is read"


@torch.no_grad()
def read_alone(visual: nn.Module, images: Tensor) -> Tensor:
    """Patches through a head that pools by attention, each as if it were the only one.

    image = head(sum_i a_i v_i) with weights a_i that sum to 1; alone, a patch has the weight 1 for
    every query: head(v_i). It is to such a head what the baseline `values` is to CLIP's last block.
    No weights of this kind were at hand, so that nothing is known here of how well it segments.

    Args:
        visual: the image tower of an open_clip model: SigLIP's (timm, pooling "map"), or a ViT with
            an attentional pooler (CoCa).
        images: [B, 3, H, W], of the size that the tower takes.

    Returns unit features [B, rows, cols, D]. Raises TypeError for another kind of tower.
    """
    if isinstance(visual, TimmModel) and getattr(visual.trunk, "attn_pool", None) is not None:
        trunk = cast(Any, visual.trunk)
        tokens = trunk.forward_features(images)[:, trunk.num_prefix_tokens :]  # [B, N, C]
        single = tokens.flatten(0, 1)[:, None]  # [B * N, 1, C]
        pooled = visual.head(trunk.head(trunk.fc_norm(trunk.attn_pool(single))))  # [B * N, D]
        patch = trunk.patch_embed.patch_size
    elif isinstance(visual, VisionTransformer) and isinstance(visual.attn_pool, nn.Module):
        tokens = visual.transformer(visual._embeds(images))[:, 1:]  # the class token is left out
        single = tokens.flatten(0, 1)[:, None]  # [B * N, 1, C]
        # The queries differ in where they look; where there is one patch, they agree.
        pooled = visual.ln_post(visual.attn_pool(single))[:, 0] @ visual.proj
        patch = visual.patch_size
    else:
        kind = type(visual).__name__
        raise TypeError(f"visual must be a tower that pools by attention, got {kind}")
    rows, cols = images.shape[2] // patch[0], images.shape[3] // patch[1]
    return F.normalize(pooled, dim=-1).view(len(images), rows, cols, -1)
