"""Many methods on the same images: what one of them has computed, the others need not.

Methods and configurations differ in a stage or two. The blocks, and most of what comes before the
first difference, are the same for all of them.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

# What a cache may hold unless it is told otherwise.
MAX_BYTES = 2**30
P = ParamSpec("P")
T = TypeVar("T", bound=Tensor)


class ResultCache:
    """Results of shareable functions, with their arguments.

    Args:
        max_bytes: of memory that it may hold; what does not fit in is not kept.

    Attributes:
        size: bytes of its tensors' memory.
    """

    def __init__(self, max_bytes: float = MAX_BYTES):
        self.max_bytes, self.size = max_bytes, 0
        # What was called with what -> the arguments, so that no other object takes their place in
        # memory, and the result.
        self.results: dict[Hashable, tuple[object, Tensor]] = {}
        self.storages: set[int] = set()  # where the memory of their tensors begins

    def keep(self, key: Hashable, arguments: object, result: Tensor) -> None:
        """Add a result, if there is room for it and its arguments."""
        memory = [tensor.untyped_storage() for tensor in _tensors_of((arguments, result))]
        added = {part.data_ptr(): part.nbytes() for part in memory}
        added = {start: size for start, size in added.items() if start not in self.storages}
        if self.size + sum(added.values()) <= self.max_bytes:
            self.results[key] = arguments, result
            self.storages |= added.keys()
            self.size += sum(added.values())


_CURRENT: ContextVar[ResultCache | None] = ContextVar("current", default=None)


@contextmanager
def shared_results(cache: ResultCache | None = None) -> Iterator[None]:
    """Within this context, shareable functions reuse the results that they have in common.

    These are calls of the same function with the same tensors and numbers. The same tensor is the
    same memory, not an equal tensor; nobody may change an argument, a result or a model meanwhile.
    Results are kept until the context ends, as many as the cache can hold, so it is best entered
    for every batch of images. Nothing is shared where gradients are enabled, which `features` and
    `segment` see to themselves, or while a graph is compiled; modes such as autocast must be the
    same throughout.

    Args:
        cache: what holds the results, to go on with it in another context (default: that of the
            context around this one, or a new one).
    """
    token = _CURRENT.set(cache or _CURRENT.get() or ResultCache())
    try:
        yield
    finally:
        _CURRENT.reset(token)


def shareable(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function share its results (`shared_results`); outside such a context it runs as usual.

    It must be a function of its arguments alone: tensors, lists of tensors, modules that nothing
    changes, and what can be hashed. It returns one tensor.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        cache = _CURRENT.get()
        if cache is None or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return function(*args, **kwargs)
        key = function, key_of(args), key_of(sorted(kwargs.items()))
        if key in cache.results:
            return cache.results[key][1]  # type: ignore[return-value]
        result = function(*args, **kwargs)
        cache.keep(key, _without_lists((*args, *kwargs.values())), result)
        return result

    return run


def key_of(value: Any) -> Hashable:
    """What tells an argument from others: for a tensor, its memory and its layout."""
    if isinstance(value, Tensor) and not value.is_meta:
        version = 0 if value.is_inference() else value._version  # of changes in place
        layout = value.shape, value.stride(), value.dtype, value.device
        return value.data_ptr(), version, *layout
    if isinstance(value, list | tuple):
        return tuple(key_of(one) for one in value)
    if isinstance(value, Tensor | torch.nn.Module):
        return id(value)
    return type(value), value


def _without_lists(value: object) -> object:
    """A value with tuples in place of its lists, which whoever made them may change."""
    return tuple(map(_without_lists, value)) if isinstance(value, list | tuple) else value


def _tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors in a value: itself, or in tuples of any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from _tensors_of(one)
