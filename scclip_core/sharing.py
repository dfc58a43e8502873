"""Many methods on the same images: the blocks run once for all of them.

What methods do differs only after the blocks, and the blocks are most of the computation.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

if TYPE_CHECKING:
    from scclip_core.dense import DenseCLIP

# Whose blocks ran on which images, and how -> the images, the model, and the blocks' outputs. The
# first two are kept so that no other object takes their identity.
Known = dict[tuple[object, ...], tuple[Tensor, object, list[Tensor]]]
_KNOWN: ContextVar[Known | None] = ContextVar("known", default=None)
Method = TypeVar("Method", bound="DenseCLIP")


@contextmanager
def shared_blocks(known: Known | None = None) -> Iterator[None]:
    """Within this context, methods of one model share the blocks' outputs of the same images.

    The same images are the same tensor, not an equal one, and nobody may change it meanwhile. Where
    hooks look on, or patches are embedded in another way, the blocks run again. All outputs are
    kept until the context ends, so it is best entered anew for every batch.

    Args:
        known: what is shared, to go on with it in another context (default: nothing yet).
    """
    token = _KNOWN.set({} if known is None else known)
    try:
        yield
    finally:
        _KNOWN.reset(token)


def shareable(
    encode: Callable[[Method, Tensor, int | None], list[Tensor]],
) -> Callable[..., list[Tensor]]:
    """Let `encode`, a function of a method and its images, share what it returns (`shared_blocks`).

    Outputs of some of the blocks alone are not shared.
    """

    @wraps(encode)
    def run(method: Method, images: Tensor, blocks: int | None = None) -> list[Tensor]:
        known = _KNOWN.get()
        if known is None or blocks is not None or method.is_observed:
            return encode(method, images, blocks)
        kind: Any = type(method)
        how = method.config.position_offset, kind.embed, kind.run_block, kind.add_attention
        key = id(images), id(method.model), *how
        if key not in known:
            known[key] = images, method.model, encode(method, images, None)
        return known[key][2]

    return run
