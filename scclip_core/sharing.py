"""Many methods on the same images: what one of them has computed, the others need not.

Methods and configurations differ in a stage or two. The blocks, and every stage before the first
difference, are the same for all of them.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

# Bytes of results that are kept, unless another limit is given.
LIMIT = 2**30
Given = ParamSpec("Given")
Result = TypeVar("Result", bound=Tensor)


class Known:
    """Results of shareable functions, up to `limit` bytes; what comes later is not kept."""

    def __init__(self, limit: int = LIMIT):
        self.limit, self.size = limit, 0
        # What was called with what -> the arguments, so that no other object takes their identity,
        # and the result.
        self.results: dict[Hashable, tuple[tuple[Any, ...], Tensor]] = {}

    def keep(self, key: Hashable, arguments: tuple[Any, ...], result: Tensor) -> None:
        """Add a result, if there is room for it."""
        if self.size + result.nbytes <= self.limit:
            self.size += result.nbytes
            self.results[key] = arguments, result


_KNOWN: ContextVar[Known | None] = ContextVar("known", default=None)


@contextmanager
def shared_results(known: Known | None = None) -> Iterator[None]:
    """Within this context, no shareable function computes the same thing twice.

    The same thing is the same function of the same tensors and numbers. The same tensor is the same
    memory, not an equal tensor; nobody may change a result or a model meanwhile. It is best entered
    anew for every batch of images, since results are kept until it ends.

    Args:
        known: what is shared, to go on with it in another context (default: what the context around
            this one shares, or nothing yet).
    """
    token = _KNOWN.set(known or _KNOWN.get() or Known())
    try:
        yield
    finally:
        _KNOWN.reset(token)


def shareable(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Let a function share its results (`shared_results`); elsewhere it is as it was.

    It must be a function of its arguments alone: tensors, lists of tensors, modules that nothing
    changes, and what can be hashed. It returns one tensor.
    """

    @wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        known = _KNOWN.get()
        if known is None:
            return function(*args, **kwargs)
        arguments = (*args, *sorted(kwargs.items()))
        key = function, torch.is_grad_enabled(), identity(arguments)
        if key in known.results:
            return known.results[key][1]  # type: ignore[return-value]
        result = function(*args, **kwargs)
        known.keep(key, arguments, result)
        return result

    return run


def identity(value: Any) -> Hashable:
    """What tells an argument from others: of a tensor which memory it is, and how it is read."""
    if isinstance(value, Tensor) and not value.is_meta:
        version = 0 if value.is_inference() else value._version  # of changes in place
        layout = value.shape, value.stride(), value.dtype, value.device
        return value.data_ptr(), version, *layout
    if isinstance(value, list | tuple):
        return tuple(identity(one) for one in value)
    return id(value) if isinstance(value, Tensor | torch.nn.Module) else value
