"""The command line: `scclip segment|trace|info`, a thin layer over `predict` and `trace`."""

import argparse
import csv
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scclip_core.files import atomic_write, require_writable

if TYPE_CHECKING:
    from scclip_core.clip import FrozenCLIP

# torch and open_clip take seconds to import, so each command imports what it needs when it runs.
METHODS = (
    "vanilla",
    "values",
    "maskclip",
    "sclip",
    "clearclip",
    "naclip",
    "gem",
    "resclip",
    "registers",
    "rfclip",
    "scclip",
    "scclip-published",
)
Item = TypeVar("Item")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of `scclip`; see `run_command` for the exit code."""
    return run_command(build_parser(), argv)


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Run the command that a parser finds.

    Returns the exit code: 0; 1 where some pictures failed; 2 for bad input, with one message;
    130 after Ctrl-C.
    """
    args = parser.parse_args(argv)
    usual = warnings.formatwarning
    warnings.formatwarning = _one_line
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("stopped; nothing half-written is left", file=sys.stderr)
        return 130
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        warnings.formatwarning = usual


def _one_line(message: Warning | str, *place: object, **line: object) -> str:
    """A warning as one line, without the place in the code that it comes from."""
    return f"warning: {message}\n"


def model_options() -> argparse.ArgumentParser:
    """The options that choose and place a model, for commands to inherit."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--model",
        default="mini",
        help="mini, the bundled model, or an open_clip ViT such as ViT-B-16 (default: %(default)s)",
    )
    options.add_argument(
        "--pretrained", help="open_clip tag such as openai, or a weights file; not for mini"
    )
    options.add_argument(
        "--precision", default="fp32", help="fp32, fp64, fp16 or bf16 (default: %(default)s)"
    )
    options.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    return options


def build_parser() -> argparse.ArgumentParser:
    """The command line of `scclip`."""
    parser = argparse.ArgumentParser(
        prog="scclip", description="Segment pictures by words, with a frozen CLIP."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    method = argparse.ArgumentParser(add_help=False)
    method.add_argument(
        "--method", choices=METHODS, default="scclip", help="SC-CLIP or a baseline (scclip)"
    )
    common = [model_options(), method]

    segment = commands.add_parser(
        "segment",
        parents=common,
        help="label maps of pictures or folders of pictures; torchrun shares them out",
    )
    add = segment.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="picture or folder of pictures")
    add(
        "--classes",
        required=True,
        help='words, as "dog, cat|kitten, grass": | stands between names of one class',
    )
    add("--out", required=True, type=Path, help="folder for NAME_labels.png and NAME.json")
    add("--overlay", action="store_true", help="also NAME_overlay.png, the labels on the picture")
    add("--short-side", type=int, help="pixels of the picture's short side (as in training)")
    add("--window", type=int, help="side of a sliding window, pixels (as in training)")
    add("--stride", type=int, help="pixels between windows (half a window)")
    segment.set_defaults(run=run_segment)

    trace = commands.add_parser(
        "trace", parents=common, help="every named tensor of a forward pass, as a table"
    )
    trace.add_argument("image", type=Path, metavar="IMAGE", help="picture file")
    trace.add_argument("--classes", default="dog, cat, grass", help="words (%(default)s)")
    trace.add_argument("--csv", type=Path, help="also write the table to this file")
    trace.set_defaults(run=run_trace)

    info = commands.add_parser("info", parents=common, help="model, configuration, versions")
    info.set_defaults(run=run_info)
    return parser


def load_model(args: argparse.Namespace) -> "FrozenCLIP":
    """The frozen model that the options of `model_options` ask for."""
    import torch

    from scclip_core.loading import load_clip

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"--device must be cpu on this machine, which has no usable GPU, got {args.device}"
        )
    device = args.device
    # Under torchrun, each process takes a GPU of its own.
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    return load_clip(args.model, args.pretrained, args.precision, device)


def find_pictures(given: Sequence[Path]) -> list[Path]:
    """The files given, and every picture file of the folders given, sorted by name.

    A picture that is given twice counts once. Raises ValueError for a path that does not exist, a
    folder without pictures, or two pictures whose results would have the same name.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            files = (p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
            inside = sorted(files)
            if not inside:
                suffixes = ", ".join(sorted(SUFFIXES))
                raise ValueError(f"IMAGE folder {path} holds no picture ({suffixes})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"IMAGE {path} does not exist")
    found = list({path.resolve(): path for path in reversed(found)}.values())[::-1]
    first: dict[str, Path] = {}
    for path in found:
        twin = first.setdefault(path.stem, path)
        if twin is not path:
            raise ValueError(
                f"IMAGE {twin} and {path} would be written under one name, {path.stem}: "
                f"rename one of them"
            )
    return found


def refuse_overwriting(pictures: Sequence[Path], folder: Path, overlay: bool) -> None:
    """Raise ValueError where a result in `folder` would take the place of a picture."""
    from scclip_core.prediction import result_paths

    written = {
        result.resolve() for path in pictures for result in result_paths(folder, path.stem, overlay)
    }
    lost = next((path for path in pictures if path.resolve() in written), None)
    if lost is not None:
        raise ValueError(f"--out must be a folder where no result replaces the picture {lost}")


def own_share(items: Sequence[Item]) -> list[Item]:
    """The items that this process takes: under torchrun every n-th of n processes, else all."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # a RANK alone may be left from something else
        return list(items)
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return list(items[rank::processes])


def run_segment(args: argparse.Namespace) -> int:
    """`scclip segment`: a picture that cannot be read is left out, the others go on."""
    from tqdm import tqdm

    from scclip_core.baselines import make_method
    from scclip_core.prediction import check_palette
    from scclip_core.text import parse_classes

    classes = args.classes.split(",")
    check_palette(parse_classes(classes))
    pictures = find_pictures(args.images)
    refuse_overwriting(pictures, args.out, args.overlay)
    paths = own_share(pictures)
    require_writable("--out", args.out)
    segmenter = make_method(args.method, load_model(args))
    segmenter.check_sizes(args.short_side, args.window, args.stride)
    sizes = {"short_side": args.short_side, "window": args.window, "stride": args.stride}
    failed: dict[Path, str] = {}
    for path in tqdm(paths, desc="segment", unit="picture"):
        try:
            prediction = segmenter.predict(path, classes, **sizes)
        except ValueError as error:
            failed[path] = str(error)
            continue
        prediction.save(args.out, path.stem, args.overlay)
    print(f"{len(paths) - len(failed)} of {len(paths)} pictures segmented into {args.out}")
    for path, why in failed.items():
        print(f"left out: {path}: {why}", file=sys.stderr)
    return 1 if failed else 0


def run_trace(args: argparse.Namespace) -> int:
    """`scclip trace`: the table on the screen and, if asked for, in a file."""
    from scclip_core.baselines import make_method
    from scclip_core.text import parse_classes

    classes = args.classes.split(",")
    parse_classes(classes)
    if args.csv:
        require_writable("the folder of --csv", args.csv.parent)
    segmenter = make_method(args.method, load_model(args))
    images = segmenter.model.preprocess(args.image)[None]
    rows = segmenter.trace(images, classes)
    if args.csv:
        with atomic_write(args.csv) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    header: dict[str, object] = {key: key for key in rows[0]}
    table = [header, *rows]
    widths = {key: max(len(str(row[key])) for row in table) for key in header}
    for row in table:
        print("  ".join(str(row[key]).ljust(width) for key, width in widths.items()).rstrip())
    return 0


def run_info(args: argparse.Namespace) -> int:
    """`scclip info`: what would run."""
    from dataclasses import asdict
    from importlib.metadata import version

    from scclip_core.baselines import make_method

    segmenter = make_method(args.method, load_model(args))
    model = segmenter.model
    blocks = f"{model.depth} blocks, width {model.width}, {model.heads} heads"
    count = sum(p.numel() for p in model.parameters())
    print(f"{'model':<22}{model.name}: {blocks}, patch {model.patch_size}")
    print(f"{'parameters':<22}{count:,}, all frozen; {model.dtype}, {model.device}")
    if model.words:
        print(f"{'words that it knows':<22}{', '.join(model.words)}")
    for package in ("torch", "open_clip_torch"):
        print(f"{package:<22}{version(package)}")
    for name, value in asdict(segmenter.config).items():
        many = name == "templates" and len(value) > 3
        print(f"{name:<22}{f'{len(value)} sentences' if many else value}")
    return 0
