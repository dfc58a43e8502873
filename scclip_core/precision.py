"""How precisely numbers are computed in half-precision models."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """A tensor whose half precision is widened to float32; float64 stays as it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
