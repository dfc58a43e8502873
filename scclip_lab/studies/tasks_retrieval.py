"""Region retrieval: words find regions in many pictures, and regions find their word."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from scclip_core.clip import FrozenCLIP, run_block
from scclip_core.config import ARTICLE_TEMPLATE
from scclip_core.sharing import shared_results
from scclip_core.text import embed_names
from scclip_lab.datasets.clips import Clip, choose_words, generator, make_still
from scclip_lab.datasets.scenes import N_OBJECTS, STYLES, TEST, WORDS
from scclip_lab.studies.tasks_common import COLUMNS, as_input, read_all, score_rows, word_readers
from scclip_lab.studies.tasks_detection import LEAST
from scclip_lab.studies.tasks_example import prototype

# One vector for the whole picture, and one for each region's box, by the class token.
WHOLE, CROP = "class token, picture", "class token, box"
# Pixels of the side to which boxes are resized: a size that the bundled model was trained on too.
CROP_SIDE = 112


def draw_picture(seed: int, index: int, style: str) -> Clip:
    """Test picture number `index` of the collection: one to four objects."""
    rng = generator("stills", TEST, seed, 100_000 + 2 * index + list(STYLES).index(style))
    return make_still(rng, choose_words(rng, (1, 2, 3, 4)), STYLES[style])


def regions_of(still: Clip) -> list[tuple[int, np.ndarray]]:
    """The regions of a picture of one patch's size at least: word number, mask bool [H, W].

    The background is a region like the objects.
    """
    masks = [still.instances[0] == i for i in range(len(still.words) + 1)]
    words = (still.background, *still.words)
    pairs = zip(words, masks, strict=True)
    return [(WORDS.index(word), mask) for word, mask in pairs if mask.sum() >= LEAST]


def crop(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The square around a mask, cut out of an image and resized, uint8 [112, 112, 3]."""
    rows, cols = np.nonzero(mask)
    half = max(np.ptp(rows), np.ptp(cols)) / 2 + 1
    row, col = (rows.min() + rows.max() + 1) / 2, (cols.min() + cols.max() + 1) / 2
    box = (col - half, row - half, col + half, row + half)
    size, bilinear = (CROP_SIDE, CROP_SIDE), Image.Resampling.BILINEAR
    cut = Image.fromarray(image).transform(size, Image.Transform.EXTENT, box, bilinear)
    return np.asarray(cut)


def class_tokens(model: FrozenCLIP, images: Tensor) -> Tensor:
    """The class token's embedding of images [B, 3, H, W], unit length [B, D].

    As everywhere, the positional embeddings are interpolated where the size is not 224.
    """
    tokens = model.embed(images)
    for block in model.blocks:
        tokens = run_block(block, tokens)
    return F.normalize(model.project(tokens[:, :1])[:, 0], dim=-1)


class Collection(NamedTuple):
    """The regions of many pictures.

    vectors: of every region by every method, [R, D]. words: their numbers, int [R]. pictures: in
    which each is, int [R].
    """

    vectors: dict[str, Tensor]
    words: np.ndarray
    pictures: np.ndarray


@torch.no_grad()
def collect(model: FrozenCLIP, count: int, style: str, seed: int = 7) -> Collection:
    """A vector for every region of `count` pictures by every method.

    Methods pool their patches under the region's mask; the class token embeds the whole picture, or
    the square around the region.
    """
    readers = word_readers(model)
    vectors: dict[str, list[Tensor]] = {}
    words: list[int] = []
    pictures: list[int] = []
    for index in range(count):
        still = draw_picture(seed, index, style)
        image, regions = still.images[0], regions_of(still)
        words += [word for word, _ in regions]
        pictures += [index] * len(regions)
        images = as_input(model, still.images)
        with shared_results():
            read, whole = read_all(readers, images), class_tokens(model, images)[0]
        for name, features in read.items():
            vectors.setdefault(name, []).extend(prototype(features[0], m) for _, m in regions)
        vectors.setdefault(WHOLE, []).extend(whole for _ in regions)
        crops = np.stack([crop(image, mask) for _, mask in regions])
        vectors.setdefault(CROP, []).extend(class_tokens(model, as_input(model, crops)))
    stacked = {name: torch.stack(found) for name, found in vectors.items()}
    return Collection(stacked, np.array(words), np.array(pictures))


def rank_regions(similarity: np.ndarray) -> np.ndarray:
    """The regions from the most similar on, [R] -> int [R].

    Regions of one picture tie where it has a single vector; they are ordered by chance, the same in
    every method.
    """
    noise = np.random.default_rng(0).uniform(0, 1e-6, len(similarity))
    return np.argsort(-(similarity + noise), kind="stable")


def ranking_scores(similarity: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Recall at 1 and at 5 of one query, and average precision; [R] and bool [R].

    Recall at k is 1 where one of the k most similar regions is relevant.
    """
    hits = relevant[rank_regions(similarity)]
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    return {
        "recall@1": float(hits[:1].any()),
        "recall@5": float(hits[:5].any()),
        "average precision": float(precision[hits].mean()),
    }


def score_retrieval(
    collection: Collection, text: Mapping[str, Tensor]
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, dict[str, np.ndarray]]]:
    """Scores of both directions: measure -> method -> numbers, one for each unit.

    From text to region a query is an object word with a region in the collection, and all regions
    of objects are candidates. From region to
    text it is a region, objects and backgrounds apart, and all words are candidates; the mean over
    the regions of a picture is one number.
    """
    vectors, words, pictures = collection
    objects = words < N_OBJECTS
    asked = np.unique(words[objects]).tolist()
    to_region: dict[str, dict[str, np.ndarray]] = {}
    to_text: dict[str, dict[str, np.ndarray]] = {}
    for name, found in vectors.items():
        similarity = (found.to(text[name].dtype) @ text[name].T).numpy()  # [R, words]
        shown, true = similarity[objects], words[objects]
        scores = [ranking_scores(shown[:, word], true == word) for word in asked]
        for measure in scores[0]:
            values = np.array([score[measure] for score in scores])
            to_region.setdefault(f"text to region, {measure}", {})[name] = values
        own = similarity[np.arange(len(words)), words]
        rank = (similarity > own[:, None]).sum(1)
        for kind, chosen in (("object", objects), ("background", ~objects)):
            for k in (1, 5):
                right = np.bincount(pictures[chosen], rank[chosen] < k)
                regions = np.bincount(pictures[chosen])
                values = right[regions > 0] / regions[regions > 0]
                to_text.setdefault(f"{kind} to text, recall@{k}", {})[name] = values
    return to_region, to_text


def text_for(model: FrozenCLIP) -> dict[str, Tensor]:
    """The embeddings of all words, [words, D], that each kind of vector is compared with."""
    text = {name: reader.embed_classes(WORDS)[1] for name, reader in word_readers(model).items()}
    plain = embed_names(model, WORDS, (ARTICLE_TEMPLATE,))
    return text | {WHOLE: plain, CROP: plain}


def measure_retrieval(
    model: FrozenCLIP, collections: Mapping[str, Collection], seed: int = 7
) -> pd.DataFrame:
    """Both directions for every method, on the collection of each style.

    Rows have the `COLUMNS` of all tasks. Intervals are over words from text to region, over
    pictures from region to text.
    """
    text = text_for(model)
    rows: list[tuple[object, ...]] = []
    for style, collection in collections.items():
        for direction in score_retrieval(collection, text):
            for measure, scores in direction.items():
                rows += score_rows(measure, style, scores, seed)
    return pd.DataFrame(rows, columns=COLUMNS).assign(
        pictures=sum(int(found.pictures.max()) + 1 for found in collections.values()), seed=seed
    )
