"""Which numbers are computed with: finite ones, in half-precision models often as float32."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """A tensor whose half precision is widened to float32; float64 stays as it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise ValueError for an argument with NaN or infinity in it.

    Nothing is raised where values do not exist yet: while a graph is compiled, and on the meta
    device.
    """
    if torch.compiler.is_compiling() or tensor.is_meta:
        return
    # NaN and infinity survive a sum, which is fast; a sum may also overflow on its own.
    if not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
