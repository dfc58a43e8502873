"""Named tensors: every tensor of a forward pass that has a name can be looked at and replaced.

The names and the two calls follow TransformerLens (`run_with_cache`, `run_with_hooks`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

# A function of a named tensor that may return another one in its place.
Hook = Callable[[Tensor], Tensor | None]


class HookedModule(nn.Module, ABC):
    """A module whose `features` pass each named tensor through `hook`."""

    def __init__(self) -> None:
        super().__init__()
        self._observe: Callable[[str, Tensor], Tensor] | None = None

    @abstractmethod
    def features(self, images: Tensor, normalize: bool = True) -> Tensor:
        """Dense features of images, [B, 3, H, W] -> [B, rows, cols, D]."""

    def hook(self, name: str, tensor: Tensor) -> Tensor:
        """A named point of the forward pass: the tensor itself, unless a hook replaces it."""
        return tensor if self._observe is None else self._observe(name, tensor)

    def run_with_cache(
        self, images: Tensor, names: str | Sequence[str] = "*"
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Features, and the named tensors on the way to them, in the order of the computation.

        Args:
            images: [B, 3, H, W].
            names: which tensors to keep: names or patterns such as "blocks.*.hook_resid_post",
                "stage4.*". All are kept by default.

        Returns (features, cache). Raises ValueError for a pattern that matches no tensor.
        """
        patterns = [names] if isinstance(names, str) else list(names)
        cache: dict[str, Tensor] = {}
        seen: list[str] = []

        def observe(name: str, tensor: Tensor) -> Tensor:
            seen.append(name)
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                cache[name] = tensor
            return tensor

        features = self._run(images, observe)
        for pattern in patterns:
            _require_match("names", pattern, any(fnmatchcase(n, pattern) for n in seen), seen)
        return features, cache

    def run_with_hooks(self, images: Tensor, hooks: Mapping[str, Hook]) -> Tensor:
        """Features of a forward pass in which functions observe or replace named tensors.

        Args:
            images: [B, 3, H, W].
            hooks: name -> a function of the tensor; what it returns takes the tensor's place,
                None leaves it. A function may not change the tensor in place.

        Returns the features [B, rows, cols, D]. Raises ValueError for a name that is not reached.
        """
        seen: list[str] = []

        def observe(name: str, tensor: Tensor) -> Tensor:
            seen.append(name)
            replaced = hooks[name](tensor) if name in hooks else None
            return tensor if replaced is None else replaced

        features = self._run(images, observe)
        for name in hooks:
            _require_match("hooks", name, name in seen, seen)
        return features

    def _run(self, images: Tensor, observe: Callable[[str, Tensor], Tensor]) -> Tensor:
        self._observe = observe
        try:
            return self.features(images)
        finally:
            self._observe = None


def _require_match(argument: str, given: str, matches: bool, seen: Sequence[str]) -> None:
    if not matches:
        known = ", ".join(seen)
        raise ValueError(f"{argument} must match a named tensor, got {given!r}; of: {known}")
