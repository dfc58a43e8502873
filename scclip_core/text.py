"""Stage 8: class names to text embeddings."""

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scclip_core import text_cache
from scclip_core.clip import FrozenCLIP
from scclip_core.config import check_templates

# From this number of prompts on, embeddings are also kept on disk.
PROMPTS_ON_DISK = 1000
# A warning of unknown names lists this many.
NAMES_IN_WARNING = 10
Classes = Sequence[str | Sequence[str]]


def parse_classes(classes: Classes) -> list[tuple[str, ...]]:
    """The names of every class.

    A class is one name, "dog", or several of which the best counts, "dog|puppy" or
    ["dog", "puppy"]. Raises TypeError for anything but a list of these; ValueError for no classes
    at all, an empty name, or a name given twice.
    """
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        given = repr(classes) if isinstance(classes, str) else type(classes).__name__
        raise TypeError(f"classes must be a list of names, such as ['dog', 'cat'], got {given}")
    if not classes:
        raise ValueError(f"classes must hold at least one name, got {classes!r}")
    parsed = []
    for one in classes:
        synonyms = one.split("|") if isinstance(one, str) else one
        if not isinstance(synonyms, list | tuple) or not all(isinstance(n, str) for n in synonyms):
            raise TypeError(f"classes must be names or lists of names, got {one!r}")
        parsed.append(tuple(name.strip() for name in synonyms))
    seen: set[str] = set()
    for number, names in enumerate(parsed, 1):
        if not names or "" in names:
            count = len(parsed)
            raise ValueError(f"classes must have no empty name, number {number} of {count} has one")
        for name in names:
            if name in seen:
                raise ValueError(f"classes must differ, {name!r} is given twice")
            seen.add(name)
    return parsed


@torch.no_grad()
def embed_names(model: FrozenCLIP, names: Sequence[str], templates: tuple[str, ...]) -> Tensor:
    """Unit text embeddings of names: the normalised mean over the templates.

    t = mean over templates of e(template(name)), divided by its length, with e(.) the unit text
    embedding (Radford et al. 2021, section 3.1.4)

    The template "{}" takes names as full prompts. Embeddings are kept with the model, by name and
    templates; from 1,000 prompts on they are also kept on disk (`text_cache`). Warns of names with
    tokens that the model was never trained on. Returns [Q, D]. Raises ValueError for no names, and
    for a sentence that is longer than the text tower reads, since it would be cut off.
    """
    if not names:
        raise ValueError("names must hold at least one name, got none")
    check_templates(templates)
    cache = model.text_cache
    missing = [name for name in dict.fromkeys(names) if (name, templates) not in cache]
    if missing:
        _warn_of_unknown(model, missing)
        prompts = [template.format(name) for name in missing for template in templates]
        file = text_cache.file_for(model, prompts) if len(prompts) >= PROMPTS_ON_DISK else None
        embedded = text_cache.read(file, len(missing), model) if file else None
        if embedded is None:
            _refuse_long(model, prompts)
            shape = (len(missing), len(templates))
            each = torch.unflatten(model.encode_text(prompts), 0, shape)  # [Q * T, D] -> [Q, T, D]
            embedded = F.normalize(each.mean(1), dim=-1)
            if file:
                text_cache.write(file, embedded)
        pairs = zip(missing, embedded, strict=True)
        cache.update({(name, templates): vector for name, vector in pairs})
    return torch.stack([cache[name, templates] for name in names])


def _refuse_long(model: FrozenCLIP, prompts: list[str]) -> None:
    room = model.clip.context_length - 2  # besides the marks of start and end
    for prompt in prompts:
        if len(model.tokenizer.encode(prompt)) > room:
            raise ValueError(f"classes must fit into {room} tokens with a template, got {prompt!r}")


def _warn_of_unknown(model: FrozenCLIP, names: list[str]) -> None:
    """One warning for all names that the model cannot know, with the words that it does know."""
    unknown = model.unknown_names(names)
    if unknown:
        listed = ", ".join(map(repr, unknown[:NAMES_IN_WARNING]))
        more = len(unknown) - NAMES_IN_WARNING
        listed += f" and {more} more" if more > 0 else ""
        known = f" It knows: {', '.join(model.words)}." if model.words else ""
        warnings.warn(
            f"{model.name} was never trained on {listed}, so that what it finds there means"
            f" nothing.{known}",
            stacklevel=3,
        )


def max_over_names(logits: Tensor, classes: list[tuple[str, ...]]) -> Tensor:
    """The largest logit among the names of each class, [..., Q] -> [..., C].

    The last dimension of `logits` holds all names of the first class, then of the second, ...
    """
    sizes = [len(names) for names in classes]
    if max(sizes) == 1:
        return logits
    return torch.stack([part.amax(-1) for part in torch.split(logits, sizes, -1)], -1)
