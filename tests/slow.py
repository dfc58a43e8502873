"""Pieces of slow versions of the methods: plain loops over tokens and heads."""

import torch


def entering(model, images):
    """Every block's input, by open_clip's own blocks."""
    found, tokens = [], model.embed(images)
    for block in model.blocks:
        found.append(tokens)
        tokens = block(tokens)
    return found


def heads(model, block, tokens):
    """q, k, v of one image [L, C] by slicing the weights, [heads][L, d] each."""
    x = block.ln_1(tokens)
    d = model.width // model.heads
    parts = []
    for i in range(3):
        rows = slice(i * model.width, (i + 1) * model.width)
        projected = x @ block.attn.in_proj_weight[rows].T + block.attn.in_proj_bias[rows]
        parts.append([projected[:, h * d : (h + 1) * d] for h in range(model.heads)])
    return parts


def by_loops(weights, values):
    """Each row of the result is a sum over what it attends to."""
    return torch.stack([sum(w * v for w, v in zip(row, values, strict=True)) for row in weights])


def project(block, joined):
    return joined @ block.attn.out_proj.weight.T + block.attn.out_proj.bias


def softmax_rows(logits):
    return torch.stack([torch.exp(r - r.max()) / torch.exp(r - r.max()).sum() for r in logits])
