"""Very many pictures: tar files in the layout of WebDataset, shared out over processes.

A shard holds pictures under keys, `KEY.jpg`; its result is a shard of the same name with
`KEY_labels.png` and `KEY.json` for each. No process waits for another. A result that is there is
not made again, so that a stopped run goes on when it is started again, with any number of
processes:

    python -m scclip_lab.evaluation.shards pack FOLDER SHARDS
    torchrun --nproc-per-node 2 -m scclip_lab.evaluation.shards segment SHARDS \\
        --classes "dog, cat, grass" --out RESULTS
"""

import argparse
import io
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from scclip_core.baselines import make_method
from scclip_core.cli import (
    METHODS,
    SUFFIXES,
    find_pictures,
    load_model,
    model_options,
    own_share,
    run_command,
)
from scclip_core.dense import DenseCLIP
from scclip_core.files import atomic_write, require_writable
from scclip_core.text import Classes, parse_classes


class Done(NamedTuple):
    """What a process has done: pictures segmented, pictures left out, seconds."""

    pictures: int
    failed: dict[str, str]
    seconds: float

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return self.pictures / self.seconds if self.seconds else 0.0


def pack(pictures: Sequence[Path], folder: Path, size: int = 1000) -> list[Path]:
    """Write pictures, as they are, into shards of `size` each; returns the shards in order.

    A key is the file's name without its suffix. Raises ValueError for a size below 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 picture, got {size}")
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, first in enumerate(range(0, len(pictures), size)):
        shards.append(folder / f"{number:06d}.tar")
        with atomic_write(shards[-1]) as partial, tarfile.open(partial, "w") as tar:
            for path in pictures[first : first + size]:
                tar.add(path, path.name)
    return shards


def read_shard(shard: Path) -> Iterator[tuple[str, bytes]]:
    """Keys and bytes of the pictures in a shard, in order; other files are passed over.

    Raises ValueError where two pictures would have the same key.
    """
    keys: set[str] = set()
    with tarfile.open(shard) as tar:
        for member in tar:
            path = Path(member.name)
            opened = tar.extractfile(member) if path.suffix.lower() in SUFFIXES else None
            if opened is None:
                continue
            key = str(path.with_suffix("")).replace("/", "_")
            if key in keys:
                raise ValueError(f"shard {shard.name} must name its pictures apart, {key} is twice")
            keys.add(key)
            yield key, opened.read()


def segment_shard(
    segmenter: DenseCLIP, shard: Path, out: Path, classes: Classes
) -> tuple[int, dict[str, str]]:
    """Segment the pictures of a shard into a shard of the same name in the folder `out`.

    Returns how many were segmented, and why others were left out, by key. The result appears once
    it is complete.
    """
    count, failed = 0, dict[str, str]()
    with (
        tempfile.TemporaryDirectory() as folder,
        atomic_write(out / shard.name) as partial,
        tarfile.open(partial, "w") as tar,
    ):
        for key, data in read_shard(shard):
            try:
                prediction = segmenter.predict(Image.open(io.BytesIO(data)), classes)
            except (ValueError, OSError, Image.DecompressionBombError) as error:
                failed[f"{shard.name}/{key}"] = str(error)
                continue
            for path in prediction.save(folder, key):
                tar.add(path, path.name)
                path.unlink()
            count += 1
    return count, failed


def segment_shards(
    segmenter: DenseCLIP, shards: Sequence[Path], out: Path, classes: Classes
) -> Done:
    """This process's share of the shards, those left out whose result is in `out` already."""
    began, total, failed = time.perf_counter(), 0, dict[str, str]()
    missing = [shard for shard in own_share(sorted(shards)) if not (out / shard.name).is_file()]
    for shard in tqdm(missing, desc="shards"):
        count, reasons = segment_shard(segmenter, shard, out, classes)
        total += count
        failed |= reasons
    return Done(total, failed, time.perf_counter() - began)


def build_parser() -> argparse.ArgumentParser:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m scclip_lab.evaluation.shards", description="Segment shards of pictures."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    packed = commands.add_parser("pack", help="write a folder of pictures into shards")
    packed.add_argument("pictures", type=Path, help="folder of pictures")
    packed.add_argument("shards", type=Path, help="folder of the shards")
    packed.add_argument("--size", type=int, default=1000, help="pictures in one (%(default)s)")
    packed.set_defaults(run=run_pack)
    segment = commands.add_parser(
        "segment", parents=[model_options()], help="label maps of all shards of a folder"
    )
    segment.add_argument("shards", type=Path, help="folder of *.tar")
    segment.add_argument("--classes", required=True, help='words, as "dog, cat|kitten, grass"')
    segment.add_argument("--method", choices=METHODS, default="scclip", help="(%(default)s)")
    segment.add_argument("--out", required=True, type=Path, help="folder of the results")
    segment.set_defaults(run=run_segment)
    return parser


def run_pack(args: argparse.Namespace) -> int:
    """`pack`."""
    print(f"{len(pack(find_pictures([args.pictures]), args.shards, args.size))} shards")
    return 0


def run_segment(args: argparse.Namespace) -> int:
    """`segment`: what cannot be read is named, the others go on."""
    classes = args.classes.split(",")
    parse_classes(classes)
    shards = sorted(args.shards.glob("*.tar"))
    if not shards:
        raise ValueError(f"shards must be a folder with *.tar, {args.shards} has none")
    if args.out.resolve() == args.shards.resolve():
        raise ValueError(f"--out must be another folder than that of the shards, got {args.out}")
    require_writable("--out", args.out)
    done = segment_shards(make_method(args.method, load_model(args)), shards, args.out, classes)
    print(f"{done.pictures} pictures, {done.rate:.2f} a second")
    for key, why in done.failed.items():
        print(f"left out: {key}: {why}", file=sys.stderr)
    return 1 if done.failed else 0


if __name__ == "__main__":
    sys.exit(run_command(build_parser(), None))
