"""Stage 8.2: class names to text embeddings."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core import text_cache
from scclip_core.clip import FrozenCLIP
from scclip_core.config import check_templates

ON_DISK = 1000  # prompts from which embeddings are kept on disk
Classes = Sequence[str | Sequence[str]]


def parse_classes(classes: Classes) -> list[tuple[str, ...]]:
    """The names of every class: a class is "dog", several names in one string "dog|puppy", or a list of
    names.

    Raises ValueError for no classes at all, an empty name, or a name given twice.
    """
    if isinstance(classes, str) or not classes:
        raise ValueError(f"classes must be a non-empty list of names, got {classes!r}")
    wrong = [
        c
        for c in classes
        if not isinstance(c, str) and not (isinstance(c, list | tuple) and all(isinstance(n, str) for n in c))
    ]
    if wrong:
        raise ValueError(f"classes must be names or lists of names, got {wrong[0]!r}")
    parsed = [tuple(n.strip() for n in (c.split("|") if isinstance(c, str) else c)) for c in classes]
    seen: set[str] = set()
    for index, name in ((i, n) for i, names in enumerate(parsed) for n in names or ("",)):
        if not name:
            raise ValueError(f"classes must have no empty name, number {index + 1} of {len(parsed)} has one")
        if name in seen:
            raise ValueError(f"classes must differ, {name!r} is given twice")
        seen.add(name)
    return parsed


@torch.no_grad()
def embed_names(model: FrozenCLIP, names: Sequence[str], templates: tuple[str, ...]) -> Tensor:
    """Unit text embeddings of names, [Q, D]: the mean over the templates of each, normalised again.

    The template "{}" takes names as full prompts. What was embedded once is kept with the model, by name and
    templates; from 1,000 prompts on it is also kept on disk (`text_cache`).
    """
    check_templates(templates)
    cache = model.text_cache
    missing = [name for name in dict.fromkeys(names) if (name, templates) not in cache]
    if missing:
        prompts = [template.format(name) for name in missing for template in templates]
        file = text_cache.cache_file(model, prompts) if len(prompts) >= ON_DISK else None
        embedded = text_cache.read(file, len(missing), model) if file else None
        if embedded is None:
            embedded = model.encode_text(prompts).unflatten(0, (len(missing), len(templates)))  # [Q, T, D]
            embedded = F.normalize(embedded.mean(1), dim=-1)
            if file:
                text_cache.write(file, embedded)
        cache.update({(name, templates): vector for name, vector in zip(missing, embedded, strict=True)})
    return torch.stack([cache[name, templates] for name in names])


def best_name(logits: Tensor, classes: list[tuple[str, ...]]) -> Tensor:
    """A class's logit is that of its best name: [..., Q] over all names in order -> [..., C]."""
    sizes = [len(names) for names in classes]
    if max(sizes) == 1:
        return logits
    return torch.stack([part.amax(-1) for part in logits.split(sizes, -1)], -1)
