"""Named tensors: every tensor of a forward pass that has a name can be looked at and replaced.

The names and the two calls follow TransformerLens (`run_with_cache`, `run_with_hooks`).

Attention patterns are large, and most forward passes never form them. Tensors with `.attn.` in
their name are therefore computed on request: where a hook has their name, or a cache has a pattern
that says so (with `attn` or `hook_` in it, such as "blocks.*.attn.hook_pattern"; "*" alone does
not). Outputs are then equal up to rounding, and otherwise bit for bit the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

# A function of a named tensor that may return another one in its place.
Hook = Callable[[Tensor], Tensor | None]


class HookedModule(nn.Module, ABC):
    """A module whose `features` pass each named tensor through `hook`.

    A run with a cache or with hooks belongs to the module: while it lasts, no other thread may use
    the same one (another one of the same model may be used).
    """

    def __init__(self) -> None:
        super().__init__()
        self._observe: Callable[[str, Tensor], Tensor] | None = None
        self._ask: Callable[[str], bool] | None = None

    @abstractmethod
    def features(self, images: Tensor, normalize: bool = True) -> Tensor:
        """Dense features of images, [B, 3, H, W] -> [B, rows, cols, D]."""

    def hook(self, name: str, tensor: Tensor) -> Tensor:
        """A named point of the forward pass: the tensor itself, unless a hook replaces it."""
        return tensor if self._observe is None else self._observe(name, tensor)

    def asked(self, name: str) -> bool:
        """Whether a tensor that is computed on request alone is asked for in this run."""
        return self._ask is not None and self._ask(name)

    def hook_on_request(self, name: str, tensor: Tensor) -> Tensor:
        """`hook`, for a tensor that is named in this run only if it is asked for."""
        return self.hook(name, tensor) if self.asked(name) else tensor

    def run_with_cache(
        self, images: Tensor, names: str | Sequence[str] = "*"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Features, and the named tensors on the way to them, in the order of the computation.

        Args:
            images: [B, 3, H, W].
            names: which tensors to keep: names or patterns such as "blocks.*.hook_resid_post",
                "stage4.*". By default all are kept but those that are computed on request.

        Returns (features, cache). Raises ValueError for a pattern that matches no tensor.
        """
        patterns = [names] if isinstance(names, str) else list(names)
        cache: dict[str, Tensor] = {}
        seen: dict[str, None] = {}  # an ordered set

        def wanted(name: str) -> bool:
            seen[name] = None
            return any(_matches(pattern, name) for pattern in patterns)

        def observe(name: str, tensor: Tensor) -> Tensor:
            if wanted(name):
                cache[name] = tensor
            return tensor

        features = self._run(images, observe, wanted)
        for pattern in patterns:
            _require_match("names", pattern, any(_matches(pattern, n) for n in seen), seen)
        return features, cache

    def run_with_hooks(self, images: Tensor, hooks: Mapping[str, Hook]) -> Tensor:
        """Features of a forward pass in which functions observe or replace named tensors.

        Args:
            images: [B, 3, H, W].
            hooks: name -> a function of the tensor; what it returns takes the tensor's place,
                None leaves it. A function may not change the tensor in place.

        Returns the features [B, rows, cols, D]. Raises ValueError for a name that is not reached.
        """
        seen: dict[str, None] = {}  # an ordered set

        def wanted(name: str) -> bool:
            seen[name] = None
            return name in hooks

        def observe(name: str, tensor: Tensor) -> Tensor:
            replaced = hooks[name](tensor) if wanted(name) else None
            return tensor if replaced is None else replaced

        features = self._run(images, observe, wanted)
        for name in hooks:
            _require_match("hooks", name, name in seen, seen)
        return features

    def _run(
        self,
        images: Tensor,
        observe: Callable[[str, Tensor], Tensor],
        ask: Callable[[str], bool],
    ) -> Tensor:
        before = self._observe, self._ask  # a hook may itself look into this module
        self._observe, self._ask = observe, ask
        try:
            return self.features(images)
        finally:
            self._observe, self._ask = before


def _matches(pattern: str, name: str) -> bool:
    """Whether a pattern means a name; what is computed on request has to be said."""
    said = ".attn." not in name or "attn" in pattern or "hook_" in pattern
    return said and fnmatchcase(name, pattern)


def _require_match(argument: str, given: str, matches: bool, seen: Iterable[str]) -> None:
    if not matches:
        known = ", ".join(seen)
        raise ValueError(f"{argument} must match a named tensor, got {given!r}; of: {known}")
